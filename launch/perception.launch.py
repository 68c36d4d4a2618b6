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

"""Start the perception node: `ros2 launch activeo3_ros perception.launch.py preset:=embedded autostart:=true`."""

import signal

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnShutdown
from launch.events import Shutdown as ShutdownEvent
from launch.events import matches_action
from launch.events.process import ProcessExited, SignalProcess
from launch.substitutions import LaunchConfiguration
from launch.utilities import AsyncSafeSignalManager
from launch_ros.actions import LifecycleNode

from activeo3_ros.node.launching import (
    RESPAWN_DELAY_S,
    arguments,
    ends_with_node,
    environment,
    node_environment,
    node_parameters,
    switched_on,
)
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity


def _end(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End the launch after the node. An exception is what gives a launch another exit code than 0."""
    if event.returncode:
        raise RuntimeError(f"{event.process_name} ended with exit code {event.returncode}")
    return [] if context.is_shutdown else [Shutdown(reason=f"{event.process_name} ended")]


def _end_on_sigterm(context: LaunchContext) -> None:
    """Shut the launch down on SIGTERM as on SIGINT. By itself launch dies of it, and leaves its processes behind.

    launch has no public way to replace what it does; where this one is gone, the node still ends with the launch.
    """

    def shut_down(_: int) -> None:
        if not context.is_shutdown:
            context.emit_event_sync(ShutdownEvent(reason="SIGTERM"))

    manager = getattr(AsyncSafeSignalManager, "_AsyncSafeSignalManager__current", None)
    if manager is not None:
        manager.handle(signal.SIGTERM, shut_down)
        signal.signal(signal.SIGTERM, lambda *_: None)  # launch hears only of signals that Python handles


def _interrupt(node: LifecycleNode) -> RegisterEventHandler:
    """Pass an interrupt on: launch takes it that a terminal did, and waits 5 s where only launch was interrupted."""

    def interrupt(event: ShutdownEvent, context: LaunchContext) -> EmitEvent | None:
        if not event.due_to_sigint or context.noninteractive:
            return None  # launch does it
        return EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(node)))

    return RegisterEventHandler(OnShutdown(on_shutdown=interrupt))


def _node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments()}
    node = LifecycleNode(
        package="activeo3_ros",
        executable="perception_node",
        name=values["node_name"],
        namespace=values["namespace"],
        parameters=node_parameters(values),
        ros_arguments=["--log-level", values["log_level"]],
        additional_env=node_environment(),
        respawn=switched_on(values["respawn"]),
        respawn_delay=RESPAWN_DELAY_S,
        on_exit=_end if ends_with_node(values) else None,
        output="screen",
    )
    _end_on_sigterm(context)
    variables = environment(values, context.environment).items()
    return [*(SetEnvironmentVariable(*variable) for variable in variables), _interrupt(node), node]


def generate_launch_description() -> LaunchDescription:
    """Declare every argument at the top level, so that `--show-args` lists them, and start the node."""
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=argument.choices or None,
        )
        for argument in arguments()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_node)])
