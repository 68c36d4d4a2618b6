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

"""Vision-language models: prompts, parsing of answers, coordinates, model families, batching.

Here, whichever library runs a model: `engine` (the interface), `engine_registry` (from settings to a running engine),
`dynamic_batching` and `continuous_batching`, `out_of_memory`, `families` (image sizes, coordinates, chat template),
`prompts`, `answer_grammar`, `parsing`, `reply_notes`, and `task`, the task model. The libraries are in `backends`. Not
here: the policy that chooses regions with a model (`policies.mllm`).
"""
