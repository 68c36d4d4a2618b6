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

"""The one task model of all detectors: what one finds becomes the findings for a query, with the text on them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from ..core.budget import Budget
from ..core.errors import UnsupportedQuery
from ..core.evidence import same_text
from ..core.frame import KnownObject, View
from ..core.geometry import Box, as_array, best_apart, iou, share_inside
from ..core.interfaces import Detector, OpenVocabularyDetector
from ..core.query import Query
from ..core.results import DetectedBoxes, Finding, Findings, Grounding
from ..settings import validated, within
from ..vlm.prompts import is_question
from .calibration import load_calibration
from .checks import checked
from .reading import read_object, read_view
from .text_reader import TextReader
from .vocabulary import TEXT, Target, load_vocabulary

WEAK_SCORE = 0.1
"""Score from which a box is evidence beside other views and frames, though one view alone does not report it."""
SAME_OBJECT_IOU = 0.5
"""A known object, or one that a text is on, is one that was found if they overlap more."""


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


def _cut_out(mask: npt.NDArray[np.bool_], box: Box) -> npt.NDArray[np.bool_]:
    """The part of a mask inside a box; a copy, which does not keep the masks of all other objects."""
    return mask[box.snapped(mask.shape[1], mask.shape[0]).slices()].copy()


class DetectorTask:
    """Finds the classes of a query with any detector, and reads text on what it finds.

    A detector with a fixed list of classes serves queries that its vocabulary knows: classes by name and synonym, and
    wishes to read. To one with an open vocabulary the words of the query are the names, and nothing is read.

    Attributes:
        detector: The detector that finds everything in the results, also for a policy that shares this task.
        threshold: Score from which a detection is reported.
        calibration: How far the detector can be believed.
        makes_masks: Whether the detector gave masks; known from its first answer on.
    """

    @validated
    def __init__(
        self,
        detector: Detector,
        threshold: Annotated[float, within(0.01, 1)] = 0.3,
        max_readings: Annotated[int, within(1, 100)] = 4,
        calibration: str | Path = "",
        vocabulary: str | Path = "coco",
        reader: TextReader | None = None,
        label: str = "",
    ) -> None:
        """Put a task around a detector; the text reader is loaded when the first query asks to read.

        Args:
            detector: Any `core.interfaces.Detector`.
            threshold: Score from which a detection is reported.
            max_readings: Objects read in one view, the best-scored first.
            calibration: File that `activeo3 calibrate` wrote; "" for the one that the package brings.
            vocabulary: Synonyms of the classes: a file of `config/vocabulary/` without its ending, or the path of a
                .yaml file. Entries for classes that the detector does not have are left out.
            reader: Used instead of one of its own.
            label: The detector's name in messages and of the calibration that the package brings; "" for its own.
        """
        self.detector = detector
        self.label = label or getattr(detector, "label", "") or type(detector).__name__
        self.threshold = threshold
        self.max_readings = max_readings
        self.makes_masks = False
        self.calibration = load_calibration(self.label, threshold, str(calibration))
        self.batch_size: int = getattr(detector, "batch_size", 1)
        self._open = detector if isinstance(detector, OpenVocabularyDetector) else None
        self._vocabulary = None if self._open else load_vocabulary(tuple(detector.names), str(vocabulary))
        self._reader = reader
        self._loading = threading.Lock()  # several threads may load for queries

    @property
    def concurrent(self) -> bool:
        """Whether frames of several cameras gain from being examined at once: the detector then answers in batches."""
        return self.detector.concurrent and self.batch_size > 1

    @property
    def open_vocabulary(self) -> bool:
        """Whether the detector finds what the words of a query name, rather than classes of its own."""
        return self._open is not None

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        return self.detector.input_size.view_size(width, height, max_pixels)

    def resolve(self, query: Query) -> Target:
        """Translate a query into the classes of the detector.

        Raises:
            UnsupportedQuery: The detector does not know a word of it, or finds objects alone and the query asks for an
                answer; the message says what can be asked.
        """
        if self._vocabulary is not None:
            return self._vocabulary.resolve(query)
        if is_question(query):
            raise UnsupportedQuery(
                f"cannot serve {query.text!r}: {self.label} finds what a phrase names but answers no questions; "
                "ask for the thing itself"
            )
        phrases = [phrase.strip() for phrase in query.text.lower().split(".")]  # as in "a cat. a remote control."
        names = query.classes or tuple(phrase for phrase in phrases if phrase)
        return Target(names or ((query.text,) if query.text else tuple(self.detector.names)), phrase=query.text)

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        target = self.resolve(query)
        if target.reading:
            self._text_reader()
        if not views:
            self._detector_of(target)  # refuses names that an open vocabulary cannot hold
            return []
        return [
            self._findings(view, detected, target)
            for view, detected in zip(views, self.detect(views, min(WEAK_SCORE, self.threshold), target), strict=True)
        ]

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding], /) -> str | None:
        """Answer with the text that was read, from top to bottom; that of one place once.

        Returns:
            None if the query does not ask to read, nothing was read, or it is not known which of several objects is
            meant.
        """
        target = self.resolve(query)
        read = sorted((g for g in groundings if g.text), key=lambda g: (g.box.center[1], g.box.center[0]))
        # Which of several objects is the narrower one, nobody knows: the texts are told, and none is the answer.
        if not target.reading or (target.narrower and len(groundings) > 1):
            return None
        texts: list[Grounding] = []
        for each in read:
            if not any(same_text(each.text, other.text) and _overlap(each.box, other.box) for other in texts):
                texts.append(each)
        return ", ".join(each.text for each in texts) or None

    def detect(self, views: Sequence[View], threshold: float, target: Target) -> list[DetectedBoxes]:
        """Run the detector on views.

        Args:
            views: At the size that `view_size` gives.
            threshold: Only boxes with a score above it, 0 to 1.
            target: What the query asks for.

        Returns:
            For each view boxes of any class in its pixels; one object can have several. Their class ids are those of
            `class_ids`.

        Raises:
            PerceptionError: The detector failed, or what it gave is no answer; the message names it.
        """
        found = checked(self._detector_of(target), self.label, views, threshold)
        if any(each.masks is not None for each in found):
            self.makes_masks = True
        return found

    def class_ids(self, names: Sequence[str], target: Target) -> list[int]:
        """The class ids that have one of some names, in detections for a target."""
        return [index for index, name in enumerate(self._names(target)) if name in names]

    def select(self, detected: DetectedBoxes, target: Target) -> list[Finding]:
        """Keep the detections of the classes that a query asks for, each object once.

        Args:
            detected: Boxes of any class in view pixels.
            target: What the query asks for.

        Returns:
            In view pixels, best score first.
        """
        boxes, scores, class_ids = detected.boxes, detected.scores, detected.class_ids
        if len(boxes) == 0:
            return []
        overlaps = iou(boxes, boxes)
        kept = best_apart(overlaps > self.calibration.same_object_any_class_iou, scores)
        rank_of = {name: rank for rank, name in enumerate(target.classes)}
        ranks = np.array([rank_of.get(name, -1) for name in self._names(target)])[class_ids]
        kept = kept[ranks[kept] >= 0]
        same_class = ranks[kept][:, None] == ranks[kept]
        close = same_class & (overlaps[np.ix_(kept, kept)] > self.calibration.same_object_iou)
        once = kept[best_apart(close, scores[kept])]
        phrases = [target.phrase_of(name) for name in target.classes]
        findings = []
        for index in once[np.lexsort((ranks[once], -scores[once]))].tolist():
            box, rank = Box(*boxes[index].tolist()), ranks[index]
            mask = None if detected.masks is None else _cut_out(detected.masks[index], box)
            findings.append(Finding(target.classes[rank], box, float(scores[index]), phrases[rank], mask=mask))
        return findings

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

    def _names(self, target: Target) -> Sequence[str]:
        """Name of each class id in detections for a target."""
        return target.classes if self._open else self.detector.names

    def _detector_of(self, target: Target) -> Detector:
        return self.detector if self._open is None else self._open.for_names(target.classes)

    def _findings(self, view: View, detected: DetectedBoxes, target: Target) -> Findings:
        findings = findings_from(self.select(detected, target), self.threshold, target.notes)
        if not target.reading:
            return findings
        hosts = findings_from(self.select(detected, replace(target, classes=target.hosts)), self.threshold).objects
        known = [as_known(each) for each in (*hosts, *self._missed(view, hosts, target))]
        return self.read(view.knowing(tuple(known)), findings, target)

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
