"""Small sequences with their truth, and bags with recorded results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bag_fixtures import START_NS, STEP_NS

from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.codecs.result_cdr import RESULT_TYPE, result_message, to_cdr
from activeo3_ros.core import Box, Detection, Query, Result, Status
from activeo3_ros.evaluation.sequence_truth import SequenceTruth, TrackedObject, TrueFrame, TrueSequence

SIZE = (640, 480)
RESULT_TOPIC = "/activeo3/camera/result"


def true_sequence(frames: Sequence[dict[str, Box]], ignored: Sequence[str] = ()) -> SequenceTruth:
    """A sequence of cars, 0.1 s a frame: the box of each by its id, "" in the front of ids that do not exist."""
    return SequenceTruth(
        (
            TrueSequence(
                "drive",
                "camera",
                tuple(
                    TrueFrame(
                        str(number),
                        START_NS + number * STEP_NS,
                        tuple(TrackedObject(name, 1, box, name in ignored) for name, box in objects.items()),
                    )
                    for number, objects in enumerate(frames)
                ),
            ),
        ),
        {1: "car"},
        {"car": 1},
    )


def found(box: Box, track_id: str = "", score: float = 0.9, label: str = "car") -> Detection:
    return Detection(label, score, box, track_id=track_id, existence=math.nan)


def result_of(*detections: Detection) -> Result:
    return Result(*SIZE, Query(classes=("car",)), detections=detections)


def failed_result(message: str = "the detector broke") -> Result:
    return Result(*SIZE, Query(classes=("car",)), Status.FAILED, message)


def write_results(path: Path, results: dict[int, Result], camera: str = "camera") -> Path:
    """A bag with the results of frames by their number, as a replay writes it."""
    topic = f"/activeo3/{camera}/result"
    with BagWriter(path) as writer:
        writer.add_topic(topic, RESULT_TYPE)
        for number, result in results.items():
            stamp = START_NS + number * STEP_NS
            writer.write(topic, stamp, to_cdr(result_message(result, camera, stamp, "optical")))
    return path
