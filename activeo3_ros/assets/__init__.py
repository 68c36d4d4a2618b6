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

"""Files and where they come from: models, pictures, configuration.

`packages` names files of npm and pip packages, `fetching` fetches them, `conversion` (with `tfjs`, `tfjs_graph`,
`tfjs_ops`) makes ONNX models of them, all in the directory of `cache`. `downloads` fetches the weights of large models,
`weights` finds them, `pretrained` and `onnx_session` load them, `devices` names the device. `resources` finds the files
that come with the module. Not here: the code of models (`detectors`, `segmenters`, `vlm`).
"""
