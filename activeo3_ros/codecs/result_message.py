"""The core's results as messages, whichever library makes the messages: the node's rclpy, or rosbags without ROS.

Boxes stay in source pixels, a score that does not exist stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core import Box, Detection, Grounding, InstanceMask, Region, Result
from . import rle as masks

MAX_TEXT = 16_384
"""Characters of an answer or of reasoning that a message carries."""


class ResultMessages:
    """Makes the messages of `activeo3_ros/msg`."""

    def __init__(self, types: Any, as_bytes: Callable[[bytes], Any]) -> None:
        """types: has the message classes as attributes. as_bytes: what that library wants in a field `uint8[]`."""
        self._types = types
        self._as_bytes = as_bytes

    def result(self, camera: str, header: Any, result: Result, completed: Any) -> Any:
        """Everything about one frame in a `PerceptionResult`. completed: a `builtin_interfaces/Time`."""
        return self._types.PerceptionResult(
            header=header,
            camera=camera,
            status=int(result.status),
            status_message=clean(result.status_message),
            query=clean(result.query.text or ", ".join(result.query.classes)),
            query_revision=result.query.revision,
            image_width=result.width,
            image_height=result.height,
            regions=self.regions(result.regions),
            detections=[self._detection(found) for found in result.detections],
            groundings=[self._grounding(found) for found in result.groundings],
            masks=[self._mask(found) for found in result.masks],
            answer=clean(result.answer or ""),
            reasoning=clean(result.reasoning),
            timings=[
                self._types.StageTiming(stage=stage, milliseconds=float(ms)) for stage, ms in result.timings_ms.items()
            ],
            views=result.cost.views,
            pixels=result.cost.pixels,
            tokens=result.cost.tokens,
            completed=completed,
        )

    def regions(self, regions: Sequence[Region]) -> list[Any]:
        """`ZoomRegion` messages, numbered in their order."""
        return [
            self._types.ZoomRegion(
                index=index, box=self._box(r.box), label=clean(r.label), score=float(r.score), zoom=float(r.zoom)
            )
            for index, r in enumerate(regions)
        ]

    def _box(self, box: Box) -> Any:
        return self._types.BoundingBox(x=float(box.x), y=float(box.y), width=float(box.width), height=float(box.height))

    def _detection(self, found: Detection) -> Any:
        return self._types.Detection(
            label=clean(found.label),
            score=float(found.score),
            box=self._box(found.box),
            region=found.region,
            track_id=clean(found.track_id),
        )

    def _grounding(self, found: Grounding) -> Any:
        return self._types.GroundingBox(
            phrase=clean(found.phrase),
            score=float(found.score),
            box=self._box(found.box),
            region=found.region,
            text=clean(found.text),
        )

    def _mask(self, found: InstanceMask) -> Any:
        height, width = found.mask.shape
        return self._types.InstanceMask(
            label=clean(found.label),
            score=float(found.score),
            box=self._box(found.box),
            region=found.region,
            height=height,
            width=width,
            encoding=masks.ENCODING_RLE,
            data=self._as_bytes(masks.encode_rle(found.mask)),
        )


def clean(text: str) -> str:
    """Text that every middleware can carry: valid UTF-8 without NUL, at most `MAX_TEXT` characters."""
    return text[:MAX_TEXT].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
