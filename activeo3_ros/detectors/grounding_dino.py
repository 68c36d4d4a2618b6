"""Finds what words name with GroundingDINO (Liu et al. 2023), through transformers' zero-shot detection."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from ..assets.devices import torch_device
from ..assets.pretrained import load_pretrained
from ..core.budget import Budget
from ..core.errors import UnsupportedQuery
from ..core.frame import View, fit_within
from ..core.geometry import Box, from_corners, non_maximum_suppression
from ..core.optional import require_package
from ..core.query import Query
from ..core.results import Finding, Findings, Grounding
from ..settings import validated, within
from ..vlm.prompts import is_question

SAME_OBJECT_IOU = 0.7
"""Two boxes of one label in one view that overlap more are one object."""
DEFAULT_CLASSES = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "traffic sign")


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
        """
        self._torch = require_package("torch", "to run GroundingDINO", "activeo3_ros[gpu]")
        self.threshold, self.text_threshold, self.max_side = threshold, text_threshold, max_side
        self.device = torch_device(device)
        self._one_at_a_time = threading.Lock()  # its tokenizer serves one thread
        self._processor, self._model = load_pretrained(
            model, "AutoModelForZeroShotObjectDetection", self.device, "to run GroundingDINO"
        )

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels, self.max_side)

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        """Find the classes of the query, or what its phrase names, in each view.

        Raises:
            UnsupportedQuery: The query is a question: this model finds objects and answers nothing.
        """
        if is_question(query):
            raise UnsupportedQuery(
                f"cannot serve {query.text!r}: GroundingDINO finds what a phrase names but answers no questions; "
                "ask for the thing itself"
            )
        names = self._names(query)
        findings: list[Findings] = []
        for start in range(0, len(views), self.batch_size):
            with self._one_at_a_time:
                findings += self._examine(views[start : start + self.batch_size], names, query)
        return findings

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding], /) -> str | None:
        return None

    def _names(self, query: Query) -> tuple[str, ...]:
        return query.classes or ((query.text.lower().rstrip("."),) if query.text else DEFAULT_CLASSES)

    def _examine(self, views: Sequence[View], names: Sequence[str], query: Query) -> list[Findings]:
        images = [np.ascontiguousarray(view.image[:, :, ::-1]) for view in views]
        text = " ".join(f"{name.lower()}." for name in names)
        inputs = self._processor(images=images, text=[text] * len(images), return_tensors="pt").to(self.device)
        with self._torch.inference_mode():
            outputs = self._model(**inputs)
        found = self._processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=self.threshold,
            text_threshold=self.text_threshold,
            target_sizes=[(view.height, view.width) for view in views],
        )
        return [
            Findings(tuple(self._findings(view, one, names, query))) for view, one in zip(views, found, strict=True)
        ]

    def _findings(self, view: View, found: dict[str, object], names: Sequence[str], query: Query) -> list[Finding]:
        corners = self._torch.as_tensor(found["boxes"]).float().cpu().numpy().reshape(-1, 4)
        boxes = from_corners(np.clip(corners, 0, [view.width, view.height] * 2))
        scores = self._torch.as_tensor(found["scores"]).float().cpu().numpy()
        labels = [_label(str(label), names) for label in found["text_labels"]]  # type: ignore[attr-defined]
        findings = []
        for index in non_maximum_suppression(boxes, scores, SAME_OBJECT_IOU):
            box = Box(*boxes[index].tolist())
            if box.area > 0 and labels[index]:
                findings.append(Finding(labels[index], box, float(scores[index]), query.text))
        return findings


def _label(words: str, names: Sequence[str]) -> str:
    """The name that the model's words stand for, "" if they stand for none.

    It gives the words of the prompt that match a box: a part of one name, or parts of several.
    """
    spoken = _words(words)
    shares = [len(spoken & _words(name)) / max(1, len(_words(name))) for name in names]
    best = max(range(len(names)), key=lambda index: shares[index])
    return names[best] if shares[best] > 0 else ""


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.lower()))
