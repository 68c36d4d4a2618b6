"""The settings of one benchmark run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .metrics import MAX_DETECTIONS


@dataclass(frozen=True)
class RunSettings:
    """How a run is computed and scored.

    Attributes:
        out: Directory of the results.
        question: Title of the report.
        command: Arguments of `activeo3` that repeat the run.
        seed: Of the bootstrap, and of the subset where one is drawn.
        workers: Number of processes.
        replicates: Number of bootstrap replicates.
        max_detections: Detections that count, of one category in one image.
        sam_weights: Directory of SAM's weights for interactive segmentation, "" for GrabCut.
    """

    out: Path
    question: str
    command: Sequence[str]
    seed: int = 0
    workers: int = 1
    replicates: int = 500
    max_detections: int = MAX_DETECTIONS[-1]
    sam_weights: str = ""
