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

"""Play a bag to the node: `ros2 launch activeo3_ros replay.launch.py bag:=/path/to/bag`.

The arguments of perception.launch.py hold too. The bag starts when the node has become active, so that no frame is
played to a model that still loads, and its clock is the node's.
"""

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessStart
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import Action, LaunchDescription


def _is_node(action: Action) -> bool:
    return isinstance(action, LifecycleNode)


def _ask_for(transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=_is_node, transition_id=transition))


def generate_launch_description() -> LaunchDescription:
    """The node, brought up from here, and the player as soon as the node is active."""
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).parent / "perception.launch.py")),
        # A node that starts by itself may be active before launch hears its transitions.
        launch_arguments={"use_sim_time": "true", "autostart": "false"}.items(),
    )
    player = ExecuteProcess(
        cmd=["ros2", "bag", "play", LaunchConfiguration("bag"), "--clock", "--rate", LaunchConfiguration("rate")],
        output="screen",
    )
    handlers = [
        OnProcessStart(target_action=_is_node, on_start=[_ask_for(Transition.TRANSITION_CONFIGURE)]),
        OnStateTransition(
            start_state="configuring", goal_state="inactive", entities=[_ask_for(Transition.TRANSITION_ACTIVATE)]
        ),
        OnStateTransition(goal_state="active", entities=[player], handle_once=True),
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="Bag to play: a directory or a file."),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed of the player; 1.0 as recorded."),
            *(RegisterEventHandler(handler) for handler in handlers),
            node,
        ]
    )
