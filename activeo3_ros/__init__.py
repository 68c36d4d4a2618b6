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

"""Active perception for ROS 2: look at a small view, choose where to look closer, look again at full resolution."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # made by the build beside this file; the source tree has their definitions, in msg/, srv/, action/
    import activeo3_ros.action as action  # noqa: F401
    import activeo3_ros.msg as msg  # noqa: F401
    import activeo3_ros.srv as srv  # noqa: F401

__version__ = "0.2.0"
