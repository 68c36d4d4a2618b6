"""Start the perception node: `ros2 launch activeo3_ros perception.launch.py preset:=embedded autostart:=true`."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from activeo3_ros.node.launching import arguments, environment, node_parameters
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity


def _node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments()}
    return [
        *(SetEnvironmentVariable(*variable) for variable in environment(values, context.environment).items()),
        LifecycleNode(
            package="activeo3_ros",
            executable="perception_node",
            name="activeo3",
            namespace=values["namespace"],
            parameters=node_parameters(values),
            ros_arguments=["--log-level", values["log_level"]],
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
