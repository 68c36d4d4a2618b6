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

"""The ROS 2 side: lifecycle node, cameras, scheduling, parameters, messages, diagnostics; bag player and recorder.

The way of a frame in eight hops, each in a module of its name and none back into the node:

    camera_input      CameraInput        receives the serialized image and passes it on
    scheduler         Scheduler          counts it, or drops it while the gate is closed
    frame_queue       LatestFrameQueue   holds it until its camera's turn; a later frame replaces it
    model_pool        WorkerThread       takes it, in a thread that has the models
    frame_processor   FrameProcessor     calls the three that follow, then counts how the frame ended
    frame_decoder     FrameDecoder       message to frame (`codecs.image_message`)
    core.loop         ActivePerception   frame to result
    result_publisher  ResultPublisher    result to messages on the camera's topics (`codecs.result_message`)

Between the first two, where the topic is a video, `video_feed` decodes every packet in a thread of its camera (`codecs.
video_packets`), and passes pictures on; `VideoFrameDecoder` then makes frames of them.

`perception_node` declares the `parameters`, connects these parts and publishes `diagnostics`. The steps from
`scheduler` to `frame_processor`, with `jobs`, `query_loader`, `frame_counters` and `video_feed`, import no ROS and are
tested without it. What needs no ROS and is no scheduling belongs into a lower folder.
"""
