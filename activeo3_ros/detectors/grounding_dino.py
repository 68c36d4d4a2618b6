"""Finds what words name with GroundingDINO (Liu et al. 2023), through transformers.

The model scores each box against each token of its prompt. A box gets the class with the best token, so that a part of
a class's name counts for that class alone. More classes than the text encoder holds go into several prompts.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import numpy.typing as npt

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
            UnsupportedQuery: The query is a question: this model finds objects and answers nothing. Or a name has no
                words, or more than the text encoder reads.
        """
        if is_question(query):
            raise UnsupportedQuery(
                f"cannot serve {query.text!r}: GroundingDINO finds what a phrase names but answers no questions; "
                "ask for the thing itself"
            )
        findings: list[Findings] = []
        with self._one_at_a_time:
            prompts = self._prompts(self._names(query))
        for start in range(0, len(views), self.batch_size):
            with self._one_at_a_time:
                findings += self._examine(views[start : start + self.batch_size], prompts, query)
        return findings

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding], /) -> str | None:
        return None

    def _names(self, query: Query) -> tuple[str, ...]:
        if query.classes or not query.text:
            return query.classes or DEFAULT_CLASSES
        phrases = [phrase.strip() for phrase in query.text.lower().split(".")]  # as in "a cat. a remote control."
        return tuple(phrase for phrase in phrases if phrase) or (query.text,)

    def _prompts(self, names: Sequence[str]) -> list[_TextPrompt]:
        """As few prompts as hold all names within the limit of the text encoder."""
        tokenizer = self._processor.tokenizer
        limit = min(int(getattr(self._model.config, "max_text_len", 256)), int(tokenizer.model_max_length))
        prompts: list[_TextPrompt] = []
        end = limit
        for name in names:
            words = " ".join(re.sub(r"[.?]", " ", name.lower()).split())  # these end a phrase for the model
            tokens = len(tokenizer(words, add_special_tokens=False)["input_ids"])
            if not 0 < tokens <= limit - 3:  # [CLS], the stop after the name, [SEP]
                raise UnsupportedQuery(
                    f"cannot look for {name[:60]!r}: GroundingDINO reads names of 1 to {limit - 3} tokens, "
                    f"this one has {tokens}; use another name"
                )
            if end + tokens + 2 > limit:
                prompts.append(_TextPrompt())
                end = 1
            prompts[-1].text += f"{words}. "
            prompts[-1].spans.append((name, end, end + tokens))
            end += tokens + 1
        return prompts

    def _examine(self, views: Sequence[View], prompts: Sequence[_TextPrompt], query: Query) -> list[Findings]:
        images = [np.ascontiguousarray(view.image[:, :, ::-1]) for view in views]
        found: list[list[Finding]] = [[] for _ in views]
        for prompt in prompts:
            inputs = self._processor(images=images, text=[prompt.text.strip()] * len(images), return_tensors="pt")
            with self._torch.inference_mode():
                outputs = self._model(**inputs.to(self.device))
            scores = outputs.logits.float().sigmoid().cpu().numpy()
            corners = outputs.pred_boxes.float().cpu().numpy()
            for index, view in enumerate(views):
                found[index] += self._findings(view, corners[index], scores[index], prompt, query)
        return [Findings(tuple(_once(each))) for each in found]

    def _findings(
        self,
        view: View,
        centred: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        prompt: _TextPrompt,
        query: Query,
    ) -> list[Finding]:
        """The boxes that count.

        Args:
            view: Where they were found.
            centred: `(n, 4)` centre x, y, width, height as shares of the view.
            scores: `(n, tokens)` of each box against each token of the prompt.
            prompt: The names and their tokens.
            query: The query.
        """
        of_class = np.stack([scores[:, start:end].max(axis=1) for _, start, end in prompt.spans], axis=1)
        best = of_class.argmax(axis=1)
        size = np.array([view.width, view.height], np.float64)
        middle, half = centred[:, :2] * size, centred[:, 2:] * size / 2
        boxes = from_corners(np.clip(np.hstack([middle - half, middle + half]), 0, np.tile(size, 2)))
        findings = []
        for index in np.flatnonzero(of_class.max(axis=1) > max(self.threshold, self.text_threshold)):
            box = Box(*boxes[index].tolist())
            if box.area > 0:
                name = prompt.spans[int(best[index])][0]
                findings.append(Finding(name, box, float(of_class[index, best[index]]), query.text))
        return findings


@dataclass
class _TextPrompt:
    """Names in one text, each with the positions of its tokens: start and end in the input of the text encoder."""

    text: str = ""
    spans: list[tuple[str, int, int]] = field(default_factory=list)


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Each object once, by its best score."""
    boxes = np.array([finding.box.as_tuple() for finding in findings], np.float64).reshape(-1, 4)
    scores = np.array([finding.score for finding in findings])
    return [findings[int(index)] for index in non_maximum_suppression(boxes, scores, SAME_OBJECT_IOU)]
