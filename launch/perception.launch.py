"""Start the perception node: `ros2 launch activeo3_ros perception.launch.py preset:=embedded autostart:=true`."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from activeo3_ros.node.launching import (
    RESPAWN_DELAY_S,
    arguments,
    ends_with_node,
    environment,
    node_parameters,
    switched_on,
)
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity


def _end(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End the launch after the node. An exception is what gives a launch another exit code than 0."""
    if event.returncode:
        raise RuntimeError(f"{event.process_name} ended with exit code {event.returncode}")
    return [] if context.is_shutdown else [Shutdown(reason=f"{event.process_name} ended")]


def _node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments()}
    return [
        *(SetEnvironmentVariable(*variable) for variable in environment(values, context.environment).items()),
        LifecycleNode(
            package="activeo3_ros",
            executable="perception_node",
            name=values["node_name"],
            namespace=values["namespace"],
            parameters=node_parameters(values),
            ros_arguments=["--log-level", values["log_level"]],
            respawn=switched_on(values["respawn"]),
            respawn_delay=RESPAWN_DELAY_S,
            on_exit=_end if ends_with_node(values) else None,
            output="screen",
        ),
    ]


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
