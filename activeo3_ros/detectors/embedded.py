"""The task model of the embedded preset, on a CPU: a COCO detector and a text reader on the objects that it finds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated
from weakref import WeakValueDictionary

from ..core.budget import Budget
from ..core.evidence import same_text
from ..core.frame import KnownObject, View, fit_within
from ..core.geometry import Box, as_array, iou, non_maximum_suppression, share_inside
from ..core.query import Query
from ..core.results import DetectedBoxes, Finding, Findings, Grounding
from ..settings import validated, within
from .calibration import load_calibration
from .centernet import COCO_CLASSES, CenterNet
from .reading import read_object, read_view
from .text_reader import TextReader
from .vocabulary import TEXT, Target, load_vocabulary

INPUT_SIDE_PX = 512
"""The side of the detector's input."""
WEAK_SCORE = 0.1
"""Score from which a box is evidence beside other views and frames, though one view alone does not report it."""
SAME_OBJECT_IOU = 0.5
"""A known object, or one that a text is on, is one that was found if they overlap more."""
_detectors: WeakValueDictionary[str, CenterNet] = WeakValueDictionary()


def shared_detector() -> CenterNet:
    """The detector that this process shares, loaded at first use and freed with the last model that holds it."""
    detector = _detectors.get("centernet")
    if detector is None:
        detector = _detectors["centernet"] = CenterNet()
    return detector


def as_known(finding: Finding) -> KnownObject:
    """A finding as an object that other views of the frame are told of."""
    return KnownObject(finding.label, finding.box, finding.score)


def findings_from(candidates: Sequence[Finding], threshold: float, notes: tuple[str, ...] = ()) -> Findings:
    """Split a view's candidates into what it reports and what is evidence beside other views.

    Args:
        candidates: In view pixels, each object once.
        threshold: Score from which one is reported.
        notes: Of the findings.
    """
    strong = tuple(each for each in candidates if each.score >= threshold)
    weak = tuple(each for each in candidates if WEAK_SCORE <= each.score < threshold)
    return Findings(strong, notes=notes, weak=weak)


def _overlap(a: Box, b: Box) -> bool:
    """Whether half of either box lies in the other."""
    pair = [a.as_tuple(), b.as_tuple()]
    return bool(share_inside(pair, pair)[[0, 1], [1, 0]].max() >= SAME_OBJECT_IOU)


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
        calibration: str = "",
    ) -> None:
        """Load the detector; the text reader is loaded when the first query asks to read.

        Args:
            threshold: Score from which a detection is reported.
            max_readings: Objects read in one view, the best-scored first.
            detector: Used instead of the one that this process shares.
            reader: Used instead of one of its own.
            calibration: File that `activeo3 calibrate` wrote; "" for the one that the package brings.
        """
        self.threshold = threshold
        self.calibration = load_calibration("embedded", threshold, calibration)
        self.max_readings = max_readings
        self.vocabulary = load_vocabulary(COCO_CLASSES)
        self.detector = detector or shared_detector()
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
        """Answer with the text that was read, from top to bottom; that of one place once.

        Returns:
            None if the query does not ask to read, nothing was read, or it is not known which of several objects is
            meant.
        """
        target = self.vocabulary.resolve(query)
        read = sorted((g for g in groundings if g.text), key=lambda g: (g.box.center[1], g.box.center[0]))
        # Which of several objects is the narrower one, nobody knows: the texts are told, and none is the answer.
        if not target.reading or (target.narrower and len(groundings) > 1):
            return None
        texts: list[Grounding] = []
        for each in read:
            if not any(same_text(each.text, other.text) and _overlap(each.box, other.box) for other in texts):
                texts.append(each)
        return ", ".join(each.text for each in texts) or None

    def detect(self, view: View, threshold: float) -> DetectedBoxes:
        """Run the detector on a view.

        Args:
            view: At the size that `view_size` gives.
            threshold: Only boxes with a score above it, 0 to 1.

        Returns:
            Boxes of any class in view pixels; one object can have several.
        """
        return self.detector.detect([view.image], threshold)[0]

    def select(self, detected: DetectedBoxes, target: Target) -> list[Finding]:
        """Keep the detections of the classes that a query asks for, each object once.

        Args:
            detected: Boxes of any class in view pixels.
            target: What the query asks for.

        Returns:
            In view pixels, best score first.
        """
        boxes, scores, class_ids = detected.boxes, detected.scores, detected.class_ids
        kept = non_maximum_suppression(boxes, scores, self.calibration.same_object_any_class_iou)
        findings = []
        for name in target.classes:
            phrase = target.phrase_of(name)
            members = kept[class_ids[kept] == COCO_CLASSES.index(name)]
            once = non_maximum_suppression(boxes[members], scores[members], self.calibration.same_object_iou)
            for index in members[once]:
                box = Box(*boxes[index].astype(float).tolist())
                findings.append(Finding(name, box, float(scores[index]), phrase))
        return sorted(findings, key=lambda finding: -finding.score)

    def locate_text(self, view: View) -> list[Finding]:
        """Find where text seems to be in a view, also where it is too small to read.

        Returns:
            Findings without a text, in view pixels.
        """
        lines = self._text_reader().locate(view.image)
        return [Finding(TEXT, Box(*line.box), line.score, TEXT) for line in lines]

    def read(self, view: View, findings: Findings, target: Target) -> Findings:
        """Add what can be read in a view: the text on its objects, and text alone if the query asks for it.

        Args:
            view: With the objects that are known from the view of the whole frame.
            findings: What the detector found in this view.
            target: What the query asks for.

        Returns:
            The findings; those that are known but not found here only if text was read on them.
        """
        objects, rest = findings.objects[: self.max_readings], findings.objects[self.max_readings :]
        missed = [each for each in self._missed(view, findings.objects, target) if each.label in target.classes]
        read = [self._with_text(view, each, target) for each in (*objects, *missed[: self.max_readings])]
        found = [each for index, each in enumerate(read) if index < len(objects) or each.text]
        texts = self._texts(view, target) if target.free_text else []
        return replace(findings, objects=(*found, *rest, *texts))

    def _examine(self, view: View, target: Target) -> Findings:
        detected = self.detect(view, min(WEAK_SCORE, self.threshold))
        findings = findings_from(self.select(detected, target), self.threshold, target.notes)
        if not target.reading:
            return findings
        candidates = self.select(detected, replace(target, classes=target.hosts))
        hosts = findings_from(candidates, self.threshold).objects
        known = [as_known(each) for each in (*hosts, *self._missed(view, hosts, target))]
        return self.read(replace(view, known=tuple(known)), findings, target)

    @staticmethod
    def _missed(view: View, found: Sequence[Finding], target: Target) -> list[Finding]:
        """Objects that are known to be in a view and are not among those of their class that were found there."""
        known = [each for each in view.known if each.label in (*target.classes, *target.hosts)]
        overlaps = iou(as_array(each.box for each in known), as_array(each.box for each in found))
        return [
            Finding(each.label, each.box, each.score, target.phrase_of(each.label))
            for each, row in zip(known, overlaps, strict=True)
            if row.max(initial=0.0) < SAME_OBJECT_IOU
        ]

    def _with_text(self, view: View, finding: Finding, target: Target) -> Finding:
        """The finding with the text on it."""
        lines = read_object(self._text_reader(), view, finding.box, target.reading)
        if not lines:
            return finding
        text = " ".join(line.text for line in lines)
        return replace(finding, text=text, text_score=min(line.score for line in lines))

    def _texts(self, view: View, target: Target) -> list[Finding]:
        """The pieces of text in a view: on the objects that the query names as hosts, or wherever they are."""
        if target.hosts:
            hosts = [each for each in view.known if each.label in target.hosts][: self.max_readings]
            read = [read_object(self._text_reader(), view, host.box, target.reading) for host in hosts]
            lines = [line for lines in read for line in lines]
        else:
            lines = read_view(self._text_reader(), view, target.reading)
        return [Finding(TEXT, Box(*line.box), line.score, TEXT, line.text, line.score) for line in lines]

    def _text_reader(self) -> TextReader:
        """The text reader, loaded when the first query asks to read."""
        with self._loading:
            if self._reader is None:
                self._reader = TextReader()
            return self._reader
