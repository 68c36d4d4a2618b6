"""Active perception for ROS 2: look at a small view, choose where to look closer, look again at full resolution."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # made by the build beside this file; the source tree has their definitions, in msg/, srv/, action/
    import activeo3_ros.action as action  # noqa: F401
    import activeo3_ros.msg as msg  # noqa: F401
    import activeo3_ros.srv as srv  # noqa: F401

__version__ = "0.2.0"
