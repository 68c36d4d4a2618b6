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

"""Chooses regions with a learned head: for each magnification, how many objects would a crop here newly find?

The head is a small network that `activeo3 train proposals` makes for one detector. It sees the view and what that
detector gives for it (`box_maps`), and gives maps of expected objects, from which `map_windows` takes the windows.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from ..assets.onnx_session import OnnxSession, Threads
from ..assets.resources import config_directory
from ..core.budget import Budget
from ..core.calibration import Calibration
from ..core.errors import InvalidInput
from ..core.expectation import Expectation
from ..core.frame import Image, View
from ..core.results import DetectedBoxes, Region
from ..detectors.detector_task import DetectorTask
from ..detectors.vocabulary import Target
from ..settings import validated, within
from .box_maps import MAP_CELL_PX, box_maps
from .detector_proposals import DetectorProposals
from .map_windows import GainMaps, map_windows, shown_share
from .possible_objects import PossibleObjects
from .remembered import FADING_S, doubt
from .windows import detectability

METADATA_KEY = "activeo3_gain_maps"
FORMAT = 1
"""Of the metadata; another one is refused."""
VIEW_INPUT, MAPS_INPUT, RATES_OUTPUT = "view", "maps", "rates"
MEAN_BRIGHTNESS = 0.45
SIMILAR_VIEW = 1.25
"""Views that differ from those of the training by less than this factor need no note."""


@dataclass(frozen=True)
class HeadDescription:
    """What a head was trained for; it stands in its file.

    Attributes:
        detector: Name of the detector.
        classes: The detector's classes, in the order of their ids; none for an open vocabulary.
        input_px: Width and height of the detector's input, pixels.
        view_px: Longer side of the views of the training, pixels.
        hint_threshold: Score from which the detector's boxes were drawn.
        threshold: Score from which the view reported an object.
        zooms: Magnification of each map against the view, rising.
        cell_px: View pixels along a side of a cell of the maps.
        pad_px: Width and height of the view are padded to multiples of this.
        rules_share: Share of the maps that the rules of detector proposals make, from 0 to 1: they know less of the
            training's material, and more of anything else.
        score_factor: What sums of the maps are multiplied with to be the objects that were found in held-out pictures.
        about: Material, date, versions: for people.
        format: Of this description.
    """

    detector: str
    classes: tuple[str, ...]
    input_px: tuple[int, int]
    view_px: int
    hint_threshold: float
    threshold: float
    zooms: tuple[float, ...]
    cell_px: int
    pad_px: int
    rules_share: float = 0.0
    score_factor: float = 1.0
    about: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_text(self) -> str:
        """As it stands in a file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str, path: Path) -> HeadDescription:
        """Read the description in a file.

        Raises:
            InvalidInput: It is not one of this format.
        """
        if not text:
            raise InvalidInput(f"{path}: is no head of gain maps; activeo3 train proposals makes one")
        try:
            values = json.loads(text)
            if values.get("format") != FORMAT:
                raise InvalidInput(
                    f"{path}: has format {values.get('format')!r}, this version reads {FORMAT}; train it again with "
                    "activeo3 train proposals"
                )
            sequences = {name: tuple(values[name]) for name in ("classes", "input_px", "zooms")}
            return cls(**{**values, **sequences})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInput(f"{path}: its description cannot be read: {error}") from error

    def check_made_for(self, task: DetectorTask, path: Path) -> None:
        """Refuse the detector of a task that is not the one of the training: its boxes mean something else.

        Raises:
            InvalidInput: The name, the classes or the input of the detector differ; the message says which.
        """
        retrain = "train one for this preset with activeo3 train proposals"
        if task.label != self.detector:
            raise InvalidInput(f"{path}: was trained for the detector {self.detector!r}, not {task.label!r}; {retrain}")
        classes = detector_classes(task)
        if classes != self.classes:
            raise InvalidInput(
                f"{path}: was trained for {_classes(self.classes)}, {task.label!r} finds {_classes(classes)}; {retrain}"
            )
        size = task.detector.input_size
        if (size.width, size.height) != self.input_px:
            raise InvalidInput(
                f"{path}: was trained for an input of {self.input_px[0]} x {self.input_px[1]} pixels, {task.label!r} "
                f"has {size.width} x {size.height}; {retrain}"
            )


def detector_classes(task: DetectorTask) -> tuple[str, ...]:
    """The classes of a task's detector, in the order of their ids; none for an open vocabulary."""
    return () if task.open_vocabulary else tuple(task.detector.names)


def _classes(names: tuple[str, ...]) -> str:
    """Classes in a message: how many, and the first ones."""
    if not names:
        return "an open vocabulary"
    return f"{len(names)} classes ({', '.join(names[:3])}{', …' if names[3:] else ''})"


def head_view(image: Image, pad_px: int) -> npt.NDArray[np.float32]:
    """A view as the head sees it.

    Args:
        image: `(h, w, 3)` uint8 BGR.
        pad_px: The sides of the result are multiples of this.

    Returns:
        `(3, h', w')` float32 RGB around 0; zeros beside the image.
    """
    height, width = (math.ceil(side / pad_px) * pad_px for side in image.shape[:2])
    planes = np.zeros((3, height, width), np.float32)
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)
    np.multiply(rgb, np.float32(1 / 255), out=planes[:, : image.shape[0], : image.shape[1]])
    planes[:, : image.shape[0], : image.shape[1]] -= MEAN_BRIGHTNESS
    return planes


def padded_maps(maps: npt.NDArray[np.float32], view_size: tuple[int, int], pad_px: int) -> npt.NDArray[np.float32]:
    """`(c, h, w)` maps of cells of `MAP_CELL_PX`, with zeros beside the view as far as `head_view` has them."""
    width, height = (math.ceil(side / pad_px) * pad_px // MAP_CELL_PX for side in view_size)
    result = np.zeros((maps.shape[0], height, width), np.float32)
    result[:, : maps.shape[1], : maps.shape[2]] = maps
    return result


class GainHead:
    """A head that was trained, loaded from its file.

    Attributes:
        description: What it was trained for.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load it.

        Raises:
            InvalidInput: The file is no such head.
            ModelError: The file is no model.
            MissingPackageError: onnxruntime is not installed.
        """
        self._session = OnnxSession(path, threads)
        self.description = HeadDescription.from_text(self._session.metadata.get(METADATA_KEY, ""), path)
        if set(self._session.inputs) != {VIEW_INPUT, MAPS_INPUT} or self._session.outputs != (RATES_OUTPUT,):
            raise InvalidInput(
                f"{path}: a head has the inputs {VIEW_INPUT} and {MAPS_INPUT} and the output {RATES_OUTPUT}, this file "
                f"has {', '.join(map(str, self._session.inputs))} and {', '.join(map(str, self._session.outputs))}"
            )

    def maps(self, image: Image, detected: DetectedBoxes, asked: list[int], classes: int) -> GainMaps:
        """Where zooming pays as far as the network knows, before rules and factor.

        Args:
            image: `(h, w, 3)` uint8 BGR, the view.
            detected: What the detector gave for it, from `description.hint_threshold` on.
            asked: Ids of the classes that are asked for.
            classes: How many classes the detector has.
        """
        about = self.description
        size = image.shape[1], image.shape[0]
        drawn = box_maps(detected, asked, classes, size, about.threshold)
        feeds = {
            VIEW_INPUT: head_view(image, about.pad_px)[None],
            MAPS_INPUT: padded_maps(drawn, size, about.pad_px)[None],
        }
        rates = self._session.run(feeds, [RATES_OUTPUT])[0][0]
        width, height = (math.ceil(side / about.cell_px) for side in size)
        shape = (len(about.zooms), height, width)
        if rates.shape[0] != shape[0] or rates.shape[1] < height or rates.shape[2] < width:
            raise InvalidInput(f"the head gave {rates.shape} for a view of {size[0]} x {size[1]}, expected {shape}")
        within_view = rates[:, :height, :width].astype(np.float64)
        if not np.isfinite(within_view).all():
            raise InvalidInput("the head gave values that are not finite; train it again")
        return GainMaps(about.zooms, np.maximum(0.0, within_view), about.cell_px)


class LearnedProposals(DetectorProposals):
    """Proposes the windows in which a learned head expects most new objects.

    Attributes:
        packaged_files: Below the package's `config/`, the file of each setting that names none.
    """

    packaged_files: ClassVar[dict[str, str]] = {"model": "gain_maps/embedded.onnx"}

    @validated
    def __init__(
        self,
        model: str | Path = "",
        min_gain: Annotated[float, within(0, 10, "objects")] = 0.25,
        max_magnification: Annotated[float, within(1, 16)] = 4.0,
        threads: Threads = None,
        task: DetectorTask | None = None,
        reports: bool = True,
    ) -> None:
        """Load the head, and the detector unless a task brings it.

        Args:
            model: The head, an .onnx file of `activeo3 train proposals` for the same detector; "" for the one that the
                package brings for the embedded detector.
            min_gain: A window is worth a look from so many expected objects on; where none is, none is proposed.
            max_magnification: Crop pixels for a source pixel beyond which there is nothing more to see.
            threads: CPU threads for one run of the head; none for as many as the process may use, at most 4.
            task: Its detector, classes and vocabulary are used; None for those of the embedded preset.
            reports: Whether what the detector finds in the view is a part of the result, as it is where the task model
                of the loop has the same detector; else it only chooses regions.

        Raises:
            InvalidInput: The head was trained for another detector, or the file is no head.
        """
        path = Path(model).expanduser() if model else config_directory() / self.packaged_files["model"]
        self.head = GainHead(path, threads)
        about = self.head.description
        super().__init__(about.hint_threshold, max_magnification, task=task, reports=reports)
        about.check_made_for(self.task, path)
        self.min_gain = min_gain

    def _regions_to_find(
        self, view: View, detected: DetectedBoxes, target: Target, budget: Budget, expected: Expectation
    ) -> tuple[Region, ...]:
        if not budget.max_regions:
            return ()
        asked = self.task.class_ids(target.classes, target)
        count = len(target.classes) if self.task.open_vocabulary else len(self.task.detector.names)
        learned = self.head.maps(view.image, detected, asked, count)
        size = view.width, view.height
        possible = self.objects_to_find(view, detected, target, Expectation())
        about = self.head.description
        mixed = with_rules(learned, possible, self.task.calibration, about.rules_share)
        maps = with_memory(GainMaps(mixed.zooms, mixed.rates * about.score_factor, mixed.cell_px), expected, size)
        own = self.task.detector.input_size
        crop = self.task.view_size(own.width, own.height, budget.crop_pixels)
        return map_windows(maps, size, crop, self.max_magnification / view.zoom, budget.max_regions, self.min_gain)


def with_rules(maps: GainMaps, possible: PossibleObjects, calibration: Calibration, share: float) -> GainMaps:
    """Mix maps with those that follow from possible objects and how well the detector finds objects of their size.

    Args:
        maps: What a head expects.
        possible: What the rules of detector proposals expect, in view pixels.
        calibration: Of the detector.
        share: Of the rules in the mean, 0 to 1.
    """
    if not share:
        return maps
    known_size = calibration.half_found_side_px, calibration.logits_per_doubling
    cells = np.floor(possible.center / maps.cell_px).astype(np.intp)
    cells = cells.clip(0, np.array(maps.rates.shape[:0:-1]) - 1)
    before = detectability(possible.side, *known_size)
    rates = (1 - share) * maps.rates
    for level, zoom in enumerate(maps.zooms):
        gain = possible.probability * np.maximum(0.0, detectability(possible.side * zoom, *known_size) - before)
        np.add.at(rates[level], (cells[:, 1], cells[:, 0]), share * gain)
    return GainMaps(maps.zooms, rates, maps.cell_px)


def with_memory(maps: GainMaps, expected: Expectation, view_size: tuple[int, int]) -> GainMaps:
    """The maps after what earlier frames have shown: no second look at what is certain, one where existence is open.

    Args:
        maps: Where zooming pays in this frame alone.
        expected: What should be in the frame, and where earlier frames were zoomed into.
        view_size: Width and height of the view, pixels.
    """
    for zoom in expected.zooms:
        fresh = math.exp(-zoom.age_s / FADING_S)
        maps = maps.without(fresh * maps.at(zoom.zoom) * shown_share(maps, view_size, zoom.window, zoom.zoom))
    rates = maps.rates.copy()
    rows, columns = rates.shape[1:]
    for each in expected.objects:
        x, y = (int(place // maps.cell_px) for place in each.box.center)
        if not (0 <= x < columns and 0 <= y < rows):
            continue
        around = rates[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        open_share = float(doubt(np.array([each.existence]))[0])
        # One object less is expected as far as it is certain, and what is open is worth a look.
        before = np.maximum(around.sum(axis=(1, 2), keepdims=True), 1e-9)
        around *= np.maximum(0.0, before - (1 - open_share)) / before
        rates[:, y, x] += np.maximum(0.0, open_share - around.sum(axis=(1, 2)))
    return GainMaps(maps.zooms, rates, maps.cell_px)
