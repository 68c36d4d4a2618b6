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

"""Find traffic lights for Autoware: `ros2 launch activeo3_ros autoware_traffic_lights.launch.py autostart:=true`.

The node of perception.launch.py under Autoware's names; its arguments hold too, but for `cameras`.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import SetParameter, SetRemap

from launch import LaunchDescription

TRAFFIC_LIGHTS = "traffic light"
"""The class to ask for: the selector takes every region for a traffic light. launch_ros sets no lists for groups."""


def generate_launch_description() -> LaunchDescription:
    """The node in a group of its own, so that the remappings reach no other."""
    camera = LaunchConfiguration("camera")
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).parent / "perception.launch.py")),
        launch_arguments={"cameras": camera}.items(),
    )
    remaps = [
        SetRemap([camera, "/image_raw"], LaunchConfiguration("image")),
        SetRemap([camera, "/camera_info"], LaunchConfiguration("camera_info")),
        SetRemap(["~/", camera, "/rois"], LaunchConfiguration("rois")),
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument("camera", default_value="camera6", description="Autoware's name of the camera."),
            DeclareLaunchArgument(
                "image",
                default_value=["/sensing/camera/", camera, "/image_raw"],
                description="Its images; with transport:=compressed they are on IMAGE/compressed.",
            ),
            DeclareLaunchArgument(
                "camera_info",
                default_value=["/sensing/camera/", camera, "/camera_info"],
                description="Its calibration.",
            ),
            DeclareLaunchArgument(
                "rois",
                default_value=["/perception/traffic_light_recognition/", camera, "/detection/rois"],
                description="Regions of traffic lights, the selector's input/detected_rois.",
            ),
            GroupAction([*remaps, SetParameter("classes", TRAFFIC_LIGHTS), node]),
        ]
    )
