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

"""The report of a run: one HTML page that opens offline. `templates/report.html.j2` has its text and layout."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..codecs.picture import draw
from ..core import InvalidInput
from ..core.geometry import Boxes
from ..core.optional import require_package
from .counterfactual import AS_IT_IS
from .datasets import Dataset, Sample
from .differences import Difference
from .environment import describe_environment
from .gate import Gate
from .interactive_segmentation import ZOOMS
from .item_files import read_items, result_from_item
from .looking import RIGHT
from .plots import Point, curve, distribution
from .published import PublishedRow
from .scoring import ACCURACY, CORRECTED_IOU, MASK_IOU, MethodScores
from .settings import RunSettings
from .summary import format_difference, format_regions, notes_on, table_metrics, verdict

TEMPLATES = Path(__file__).parent / "templates"
CURVE_METRICS = ("AR small", "AR", ACCURACY, MASK_IOU, f"{CORRECTED_IOU} {ZOOMS}", f"{RIGHT}, {AS_IT_IS}")
"""The first of these that was measured is plotted against the budget."""
MAX_PICTURE_PX = 1280
PICTURES = 3
"""How many of the worst frames are shown, and of the best."""
TRUTH_COLOUR = (80, 220, 80)


@dataclass(frozen=True)
class Picture:
    """A frame in the report; recall: share of its objects that were found; jpeg: in base64, None if unreadable."""

    name: str
    recall: float
    jpeg: str | None


def report_html(
    settings: RunSettings,
    dataset: Dataset,
    scores: Sequence[MethodScores],
    differences: Sequence[Difference],
    published: Sequence[PublishedRow] = (),
    verdicts: Mapping[str, str] = MappingProxyType({}),
    saving: Sequence[Gate] = (),
) -> str:
    """Make the report of a complete run.

    Args:
        settings: Settings of the run.
        dataset: The data set; its frames are read for the pictures.
        scores: Scores of all methods, those of the first preset first.
        differences: Paired differences.
        published: Rows of the paper and ours, as `beside_published` gives them.
        verdicts: Of counterfactual pictures, whether each method looks.
        saving: What gates would save.

    Returns:
        The page, with all figures and pictures inside.

    Raises:
        MissingPackageError: jinja2 or matplotlib is not installed.
    """
    metrics = table_metrics(scores)
    largest = _at_largest_budget(scores)
    page = page_template("report.html.j2").render(
        question=settings.question,
        scores=scores,
        metrics=metrics,
        best={name: _best(scores, name) for name in metrics},
        published=published,
        verdicts=verdicts,
        saving=saving,
        differences=[(d, format_difference(d), verdict(d)) for d in differences],
        notes=[*dataset.notes, *notes_on(scores)],
        regions={s.method.id: format_regions(s) for s in scores},
        largest=largest,
        curves=_curves(scores),
        latency=distribution({s.method.id: _times_ms(settings.out, dataset, s) for s in largest}),
        galleries=_galleries(settings.out, dataset, largest[0]),
        facts={**_facts(settings, dataset), **_words(scores)},
    )
    return str(page)


def page_template(name: str) -> Any:
    """A template of `templates/` by its name.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    jinja2 = require_package("jinja2", "to write a report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["finite"] = math.isfinite
    return environment.get_template(name)


def _best(scores: Sequence[MethodScores], metric: str) -> list[str]:
    """The ids of the methods with the highest value of a metric, without the oracle."""
    judged = [s for s in scores if not s.method.oracle and metric in s.quality]
    highest = max((v for s in judged if math.isfinite(v := s.quality[metric].value)), default=math.nan)
    return [s.method.id for s in judged if s.quality[metric].value == highest]


def _at_largest_budget(scores: Sequence[MethodScores]) -> list[MethodScores]:
    """Of each name the method with the most regions."""
    largest: dict[str, MethodScores] = {}
    for s in scores:
        before = largest.get(s.method.name)
        if before is None or (s.method.regions or 0) > (before.method.regions or 0):
            largest[s.method.name] = s
    return list(largest.values())


def _curves(scores: Sequence[MethodScores]) -> list[str]:
    """Quality against the number of regions and against pixels; none if there is no number to plot."""
    for metric in CURVE_METRICS:
        judged = [s for s in scores if metric in s.quality and math.isfinite(s.quality[metric].value)]
        if judged:
            break
    else:
        return []
    by_regions: dict[str, list[Point]] = {}
    by_pixels: dict[str, list[Point]] = {}
    for s in judged:
        e = s.quality[metric]
        regions = s.cost["regions"] if s.method.regions is None else s.method.regions
        by_regions.setdefault(s.method.name, []).append(Point(regions, e.value, e.low, e.high))
        by_pixels.setdefault(s.method.name, []).append(Point(s.cost["pixels"] / 1e6, e.value, e.low, e.high))
    return [
        curve(by_regions, "regions looked at closer", metric),
        curve(by_pixels, "million pixels given to the models, a frame", metric),
    ]


def _times_ms(out: Path, dataset: Dataset, scores: MethodScores) -> list[float]:
    timings = (item["timings_ms"] for item in read_items(out, dataset, scores.method))
    return [timing["total"] for timing in timings if "total" in timing]


def _galleries(out: Path, dataset: Dataset, scores: MethodScores) -> dict[str, list[Picture]]:
    """The frames in which a method missed the most objects and the least, by their title."""
    judged = [index for index, recall in enumerate(scores.frame_recall) if math.isfinite(recall)]
    ranked = sorted(judged, key=lambda index: scores.frame_recall[index])
    items = read_items(out, dataset, scores.method)
    galleries = {}
    for title, chosen in (("Worst", ranked[:PICTURES]), ("Best", ranked[PICTURES:][-PICTURES:][::-1])):
        if chosen:
            galleries[f"{title} frames of {scores.method.id}"] = [
                Picture(
                    dataset.samples[index].name,
                    scores.frame_recall[index],
                    _jpeg(dataset, dataset.samples[index], items[index]),
                )
                for index in chosen
            ]
    return galleries


def _jpeg(dataset: Dataset, sample: Sample, item: Mapping[str, Any]) -> str | None:
    """A frame with the ground truth, the regions and the detections, in base64; None if it cannot be read."""
    try:
        image = sample.load().image
    except InvalidInput:
        return None
    drawn = outline(draw(image, result_from_item(item)), dataset.boxes(sample.id))
    scale = min(1.0, MAX_PICTURE_PX / max(drawn.shape[:2]))
    if scale < 1:
        drawn = np.asarray(cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return jpeg_text(drawn)


def outline(image: npt.NDArray[np.uint8], boxes: Boxes) -> npt.NDArray[np.uint8]:
    """Draw true boxes into a picture, a little larger than they are.

    Args:
        image: `(h, w, 3)` BGR; it is changed.
        boxes: `(n, 4)` in its pixels.

    Returns:
        The picture.
    """
    for x, y, width, height in boxes.tolist():
        cv2.rectangle(
            image, (round(x) - 3, round(y) - 3), (round(x + width) + 3, round(y + height) + 3), TRUTH_COLOUR, 1
        )
    return image


def jpeg_text(image: npt.NDArray[np.uint8]) -> str:
    """A picture as JPEG in base64, for a page."""
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return base64.b64encode(jpeg.tobytes()).decode("ascii")


def _facts(settings: RunSettings, dataset: Dataset) -> dict[str, str]:
    """Everything that is needed to repeat the run, by name."""
    beside = "; times are of frames that were processed beside one another" if settings.workers > 1 else ""
    return {
        "data": f"{dataset.name}, {len(dataset.samples)} frames, {len(dataset.truth['annotations'])} objects",
        **{f"data: {name}": str(value) for name, value in dataset.facts.items()},
        "command": shlex.join(["activeo3", *settings.command]),
        "seed": str(settings.seed),
        "processes": f"{settings.workers}{beside}",
        "intervals": f"95 %, bootstrap over frames, {settings.replicates} replicates",
        **describe_environment(),
    }


def _words(scores: Sequence[MethodScores]) -> dict[str, str]:
    """Whose words the vision-language models of a method read, where they can be chosen."""
    found: dict[str, str] = {}
    for s in scores:
        parts = {"sensing": s.method.preset.sensing, "task": s.method.preset.task}
        used = {kind: part.facts[1].get("words", "own") for kind, part in parts.items() if "words" in part.settings}
        found |= (
            {f"words: {s.method.name}": ", ".join(f"{kind} {words}" for kind, words in used.items())} if used else {}
        )
    return found
