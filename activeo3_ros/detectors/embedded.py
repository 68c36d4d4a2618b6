"""The task model of the embedded preset, on a CPU: a COCO detector and a text reader on the objects that it finds."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated
from weakref import WeakValueDictionary

import numpy as np

from ..core.budget import Budget
from ..core.frame import GLOBAL_VIEW, Image, View, fit_within
from ..core.geometry import Box, non_maximum_suppression
from ..core.query import Query
from ..core.results import DetectedBoxes, Finding, Findings, Grounding
from ..settings import validated, within
from .centernet import COCO_CLASSES, CenterNet
from .text_reader import TextLine, TextReader
from .vocabulary import TEXT, Target, load_vocabulary

INPUT_SIDE_PX = 512
"""The side of the detector's input."""
SAME_OBJECT_IOU = 0.5
"""The detector has no suppression of its own: two boxes of one class that overlap more are one object."""
SAME_OBJECT_ANY_CLASS_IOU = 0.7
"""The same for boxes of different classes: one object cannot be a car and a truck."""
READING_MARGIN = 0.1
"""Margin that is read around a box, as a share of its side: its border often cuts letters."""

_detectors: WeakValueDictionary[str, CenterNet] = WeakValueDictionary()


def shared_detector() -> CenterNet:
    """The detector that this process shares, loaded at first use and freed with the last model that holds it."""
    detector = _detectors.get("centernet")
    if detector is None:
        detector = _detectors["centernet"] = CenterNet()
    return detector


class EmbeddedTask:
    """Detects classes in views and reads text on the detected objects."""

    batch_size = 1

    @validated
    def __init__(
        self,
        threshold: Annotated[float, within(0.01, 1)] = 0.3,
        max_readings: Annotated[int, within(1, 100)] = 4,
        detector: CenterNet | None = None,
        reader: TextReader | None = None,
    ) -> None:
        """Load the detector; the text reader is loaded when the first query asks to read.

        Args:
            threshold: Score from which a detection is reported.
            max_readings: Objects read in one view, the best-scored first.
            detector: Used instead of the one that this process shares.
            reader: Used instead of one of its own.
        """
        self.threshold = threshold
        self.max_readings = max_readings
        self.vocabulary = load_vocabulary(COCO_CLASSES)
        self._detector = detector or shared_detector()
        self._reader = reader
        self._loading = threading.Lock()  # several threads may load for queries

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels, INPUT_SIDE_PX)

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        target = self.vocabulary.resolve(query)
        if target.reading:
            self._text_reader()
        return [self._examine(view, target) for view in views]

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding], /) -> str | None:
        """Answer with the text that was read, each text once, from top to bottom.

        Returns:
            None if the query does not ask to read or nothing was read.
        """
        if not self.vocabulary.resolve(query).reading:
            return None
        read = sorted((g for g in groundings if g.text), key=lambda g: (g.box.center[1], g.box.center[0]))
        return ", ".join(dict.fromkeys(grounding.text for grounding in read)) or None

    def detect(self, view: View, threshold: float) -> DetectedBoxes:
        """Run the detector on a view.

        Args:
            view: At the size that `view_size` gives.
            threshold: Only boxes with a score above it, 0 to 1.

        Returns:
            Boxes of any class in view pixels; one object can have several.
        """
        return self._detector.detect([view.image], threshold)[0]

    def select(self, detected: DetectedBoxes, target: Target) -> list[Finding]:
        """Keep the detections of the classes that a query asks for, each object once.

        Args:
            detected: Boxes of any class in view pixels.
            target: What the query asks for.

        Returns:
            In view pixels, best score first.
        """
        boxes, scores, class_ids = detected.boxes, detected.scores, detected.class_ids
        kept = non_maximum_suppression(boxes, scores, SAME_OBJECT_ANY_CLASS_IOU)
        findings = []
        for name in target.classes:
            members = kept[class_ids[kept] == COCO_CLASSES.index(name)]
            for index in members[non_maximum_suppression(boxes[members], scores[members], SAME_OBJECT_IOU)]:
                box = Box(*boxes[index].astype(float).tolist())
                findings.append(Finding(name, box, float(scores[index]), target.phrase))
        return sorted(findings, key=lambda finding: -finding.score)

    def locate_text(self, view: View, target: Target) -> list[Finding]:
        """Find where text seems to be in a view, also where it is too small to read.

        Returns:
            Findings without a text, in view pixels.
        """
        lines = self._text_reader().locate(view.image)
        return [Finding(TEXT, Box(*line.box), line.score, target.phrase) for line in lines]

    def _examine(self, view: View, target: Target) -> Findings:
        findings = self.select(self.detect(view, self.threshold), target)
        if target.reading and view.region != GLOBAL_VIEW:
            best, rest = findings[: self.max_readings], findings[self.max_readings :]
            findings = [*(self._with_text(view, finding, target) for finding in best), *rest]
            if target.free_text:
                findings += self._free_text(view, target)
        return Findings(tuple(findings), notes=target.notes)

    def _with_text(self, view: View, finding: Finding, target: Target) -> Finding:
        """The finding with the text inside its box."""
        box = finding.box
        margin = READING_MARGIN * math.sqrt(box.area)
        around = Box(box.x - margin, box.y - margin, box.width + 2 * margin, box.height + 2 * margin)
        around = around.snapped(view.width, view.height)
        lines = self._read(view.image[around.slices()], target)
        if not lines:
            return finding
        text = " ".join(line.text for line in lines)
        return replace(finding, text=text, text_score=min(line.score for line in lines))

    def _free_text(self, view: View, target: Target) -> list[Finding]:
        """Every piece of text in a view, wherever it is."""
        return [
            Finding(TEXT, Box(*line.box), line.score, target.phrase, line.text, line.score)
            for line in self._read(view.image, target)
        ]

    def _read(self, image: Image, target: Target) -> list[TextLine]:
        """The lines of text in an image; of those, the words with a digit if the query asks for a number."""
        lines = self._text_reader().read(np.ascontiguousarray(image))
        if target.reading == "text":
            return lines
        numbers = [replace(line, text=" ".join(re.findall(r"\S*\d\S*", line.text))) for line in lines]
        return [line for line in numbers if line.text]

    def _text_reader(self) -> TextReader:
        """The text reader, loaded when the first query asks to read."""
        with self._loading:
            if self._reader is None:
                self._reader = TextReader()
            return self._reader
