"""The core's results as the node's messages. Pure functions; boxes stay in source pixels, a missing score stays NaN."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from activeo3_ros import msg

from ..codecs.result_message import MAX_TEXT, ResultMessages, clean
from ..core import Region, Result

__all__ = ["MAX_TEXT", "array_messages", "clean", "region_messages", "result_message"]

_MESSAGES = ResultMessages(msg, lambda data: array("B", data))


def result_message(camera: str, header: Header, result: Result, completed: Time) -> msg.PerceptionResult:
    """Everything about one frame in one message."""
    return _MESSAGES.result(camera, header, result, completed)


def array_messages(result: msg.PerceptionResult) -> dict[str, Any]:
    """The lists of a result as messages of their own, by the name of their topic."""
    return {
        "detections": msg.DetectionArray(header=result.header, detections=result.detections),
        "groundings": msg.GroundingBoxArray(header=result.header, groundings=result.groundings),
        "masks": msg.InstanceMaskArray(header=result.header, masks=result.masks),
        "regions": msg.ZoomRegionArray(header=result.header, regions=result.regions),
    }


def region_messages(regions: Sequence[Region]) -> list[msg.ZoomRegion]:
    """Regions in source pixels, numbered in their order."""
    return _MESSAGES.regions(regions)
