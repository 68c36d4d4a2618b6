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

"""Bags: reading, salvaging, writing, pacing, and the offline run over one. Needs no ROS.

Here: `.mcap` and `.db3` files and the messages in them. Not here: publishing a bag on topics (`node`), the encodings of
a Result (`codecs`).

`reading` is the door; behind it lie the files (`mcap_file`, `salvage_mcap`, `sqlite_file`, `compression`, `metadata`),
each read through a library. `messages` decodes images, `writing` writes a bag, `pacing` is the rhythm of playing one,
`offline` runs one through the core. A new format is one more class in `reading.STORAGES`.
"""

from ..core.optional import require_package

for _module in ("lz4", "mcap", "rosbags", "zstandard"):
    require_package(_module, "to read and write bags", "activeo3_ros[bags]")
