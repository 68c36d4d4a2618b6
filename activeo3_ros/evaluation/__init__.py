# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Evaluation of presets: data sets, protocols, metrics with confidence intervals, the report.

Data sets:  `datasets`, `official_datasets`, `subset_rules`, `composite_dataset`,
            `moving_composite`
Truth:      `ground_truth`, `ground_truth_masks`
Methods:    `methods`, `detector_oracle`, `oracle`
Protocols:  `protocols`, `interactive_segmentation`, `multiple_choice`
Metrics:    `metrics`, `region_quality`, `scoring`, `differences`, `published`
Runs:       `benchmark`, `settings`, `sharding`, `item_files`
Sequences:  `sequence_truth`, `recorded_results`, `sequence_runs`, `sequence_metrics`, `tracking_scores`,
            `sequence_report`
Report:     `report`, `templates/`, `plots`, `summary`, `metrics_files`, `environment`

Here: everything that compares results with a ground truth. Not here: rewards (`training`).
"""
