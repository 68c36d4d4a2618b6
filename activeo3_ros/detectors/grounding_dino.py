"""Finds what words name with GroundingDINO (Liu et al. 2023), through transformers.

The model scores each box against each token of its prompt. A box gets the class with the best token, so that a part of
a class's name counts for that class alone. More classes than the text encoder holds go into several prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from ..core.budget import Budget
from ..core.errors import InvalidInput, UnsupportedQuery
from ..core.frame import View, fit_within
from ..core.geometry import Box, non_maximum_suppression
from ..core.interfaces import OpenVocabularyDetector
from ..core.query import Query
from ..core.results import DetectedBoxes, Finding, Findings, Grounding
from ..settings import validated, within
from ..vlm.prompts import is_question
from .transformers_detector import ROAD_NAMES, TransformersDetector

SAME_OBJECT_IOU = 0.7
"""Two boxes in one view that overlap more are one object."""


class GroundingDinoTask:
    """Detects named classes or the phrase of a query in views; all views of a call go through the model together."""

    batch_size = 4
    concurrent = True

    @validated
    def __init__(
        self,
        model: str = "IDEA-Research/grounding-dino-tiny",
        threshold: Annotated[float, within(0.01, 1)] = 0.3,
        text_threshold: Annotated[float, within(0.01, 1)] = 0.25,
        max_side: Annotated[int, within(64, 4096, "pixels")] = 1024,
        device: str = "auto",
    ) -> None:
        """Load the model.

        Args:
            model: A directory, or the hub id of a model that `activeo3 prefetch` brought here.
            threshold: Score from which a box counts.
            text_threshold: Score from which a word counts for a box.
            max_side: A view's longer side as the model sees it.
            device: "auto" for the first CUDA device, else the CPU; or a name that torch knows, such as "cuda:1".

        Raises:
            MissingPackageError: torch or transformers is not installed.
            AssetError: The weights are not on this machine.
            EngineError: They cannot be loaded.
            InvalidInput: The model has fixed classes.
        """
        self.threshold, self.max_side = max(threshold, text_threshold), max_side
        self.detector = TransformersDetector(model, batch_size=self.batch_size, device=device)
        if not isinstance(self.detector, OpenVocabularyDetector):
            raise InvalidInput(f"{model} finds {', '.join(self.detector.names[:3])} … and no other words")

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels, self.max_side)

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        """Find the classes of the query, or what its phrase names, in each view.

        Raises:
            UnsupportedQuery: The query is a question: this model finds objects and answers nothing. Or a name has no
                words, or more than the text encoder reads.
        """
        if is_question(query):
            raise UnsupportedQuery(
                f"cannot serve {query.text!r}: GroundingDINO finds what a phrase names but answers no questions; "
                "ask for the thing itself"
            )
        names = self._names(query)
        detected = self.detector.for_names(names).detect([view.image for view in views], self.threshold)
        return [_findings(each, names, query) for each in detected]

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding], /) -> str | None:
        return None

    def _names(self, query: Query) -> tuple[str, ...]:
        if query.classes or not query.text:
            return query.classes or ROAD_NAMES
        phrases = [phrase.strip() for phrase in query.text.lower().split(".")]  # as in "a cat. a remote control."
        return tuple(phrase for phrase in phrases if phrase) or (query.text,)


def _findings(detected: DetectedBoxes, names: Sequence[str], query: Query) -> Findings:
    """Each object once, by its best score."""
    kept = non_maximum_suppression(detected.boxes, detected.scores, SAME_OBJECT_IOU)
    return Findings(
        tuple(
            Finding(
                names[detected.class_ids[index]],
                Box(*detected.boxes[index].tolist()),
                float(detected.scores[index]),
                query.text,
            )
            for index in kept
        )
    )
