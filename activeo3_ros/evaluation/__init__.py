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
