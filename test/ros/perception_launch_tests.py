"""The launch file under launch_testing, which watches the node's output and exit code. test_launch.py runs it too.

launch_test test/ros/perception_launch_tests.py
"""

import unittest
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_testing import post_shutdown_test
from launch_testing.actions import ReadyToTest
from launch_testing.asserts import assertExitCodes
from launch_testing.io_handler import ActiveIoHandler
from launch_testing.proc_info_handler import ProcInfoHandler

from launch import LaunchDescription

MODEL_FREE_START_S = 60.0


def generate_test_description() -> LaunchDescription:
    path = Path(get_package_share_directory("activeo3_ros")) / "launch" / "perception.launch.py"
    arguments = {"namespace": "robot", "node_name": "eyes", "on_exit": "shutdown"}
    source = PythonLaunchDescriptionSource(str(path))
    return LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments.items()), ReadyToTest()])


class WhileTheNodeRuns(unittest.TestCase):
    def test_it_waits_for_a_manager_under_its_name(self, proc_output: ActiveIoHandler) -> None:
        proc_output.assertWaitFor("[robot.eyes]: waiting for the lifecycle transitions", timeout=MODEL_FREE_START_S)


@post_shutdown_test()
class AfterTheNode(unittest.TestCase):
    def test_it_ended_with_code_0(self, proc_info: ProcInfoHandler) -> None:
        assertExitCodes(proc_info)
