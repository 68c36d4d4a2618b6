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

"""Detects objects with a model file of somebody's own: an ONNX export of a YOLO, DETR, SSD or their like."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from ..assets.onnx_session import ModelError, OnnxSession, Threads
from ..core.errors import InvalidInput
from ..core.frame import Image, InputSize
from ..core.geometry import Boxes, from_corners, iou, non_maximum_suppression
from ..core.results import DetectedBoxes
from ..settings import named, validated, within
from .onnx_inputs import Letterbox, Placement, Preprocessing, fit, read_inputs
from .onnx_layouts import LayoutName, choose_layout
from .onnx_metadata import complete_names, read_export, read_names, real_classes
from .onnx_outputs import BoxFormat, Candidates, Seen

logger = logging.getLogger(__name__)

PROBE_GREY = 114
"""Grey level of the image that a model is tried with when it is loaded."""
ON_GPU = ("cuda", "tensorrt")
GPU_BATCH = 8
"""Images of one run on these, where the model takes any number."""
SCORE_TOLERANCE = 0.01
"""A score of reduced precision may lie so far outside of 0 to 1."""
MOSTLY = 0.8
"""Share of a batch's numbers that must be those of each image alone."""
SUPPRESSION_BLOCK = 1000
"""Boxes that are compared with each other at once: bounds the memory of suppression."""


class OnnxDetector:
    """Detects objects with an ONNX file, a `core.interfaces.Detector`.

    Attributes:
        provider: The execution provider that really runs the model, by its short name.
        layout: The name of the layout that its outputs are read in.
    """

    concurrent = True

    @validated
    def __init__(
        self,
        model: str | Path,
        names: str | Path | list[str] | dict[int, str] | None = None,
        layout: LayoutName = "auto",
        outputs: list[str] | None = None,
        input: list[int] | None = None,
        scale: Annotated[float, within(0, 255)] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        channels: Literal["rgb", "bgr"] | None = None,
        letterbox: Letterbox | None = None,
        padding: Annotated[int, within(0, 255)] | None = None,
        box_format: BoxFormat | None = None,
        nms_iou: Annotated[float, within(0.01, 1)] = 0.7,
        max_detections: Annotated[int, within(1, 10000)] = 300,
        batch: Annotated[int, within(1, 64)] | None = None,
        providers: Sequence[str] = ("cpu",),
        threads: Threads = None,
        custom_ops: str | Path | None = None,
    ) -> None:
        """Load the model, and run it once on a grey image to see what it answers.

        Args:
            model: The .onnx file.
            names: The class names: a list, a mapping of class ids, or a YAML, JSON or text file; none for those that
                the exporter wrote into the file or into config.json beside it.
            layout: How its outputs are to be read; "auto" recognises it from them and from the file's metadata.
            outputs: The outputs to read, by name; none for all.
            input: Width and height of the input in pixels, where the graph leaves them free.
            scale: Factor for pixels of 0 to 255; none for what models of the layout expect, as for the next five.
            mean: Subtracted after scaling, one number for each channel.
            std: Divides after that, one number for each channel.
            channels: Order of the colours.
            letterbox: How an image is fitted in: stretched, or with its aspect kept and padding beside it.
            padding: Grey level of the padding.
            box_format: How boxes are written; none for what the layout has.
            nms_iou: Two boxes of one class that overlap more are one object; used where the model suppresses none.
            max_detections: Most boxes of an image, the best-scored.
            batch: Images of one run, where the model takes any number; none for 1 on a CPU and 8 on a GPU.
            providers: Execution providers, the preferred one first: cpu, cuda, tensorrt, openvino; cuda:1 is the
                second device, openvino:gpu and openvino:npu are Intel's.
            threads: CPU threads for one run; none for as many as the process may use, at most 4.
            custom_ops: A library of operators that the model needs. It runs as part of this process.

        Raises:
            MissingPackageError: onnxruntime is not installed.
            InvalidInput: The model is no detector, or a setting is missing or does not fit it; the message says what
                was seen and which setting decides.
            ModelError: The file is not a model, or it cannot be run.
            OutOfMemory: It does not fit into memory.
        """
        self._path = Path(model).expanduser()
        library = None if custom_ops is None else Path(custom_ops).expanduser()
        self._session = OnnxSession(self._path, threads, list(providers), library)
        self.provider = self._session.provider
        with named(str(self._path)):
            self._read_model(names, layout, outputs, input, box_format)
            self._preprocessing = self._prepared(scale, mean, std, channels, letterbox, padding)
        self._nms_iou, self._max_detections = nms_iou, max_detections
        usual = GPU_BATCH if self.provider in ON_GPU else 1
        self.batch_size = self._inputs.batch or self._trusted_batch(batch or usual)
        self.input_size = InputSize(self._inputs.width, self._inputs.height, self._preprocessing.letterbox != "stretch")

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        """Detect objects in images, `batch_size` of them in a run.

        Args:
            images: Each `(h, w, 3)` uint8 BGR, of any size.
            threshold: Only boxes with a score above it, 0 to 1.

        Returns:
            Boxes in pixels of each image, inside it; those that lie in the padding alone are left out.

        Raises:
            InvalidInput: An array is not such an image.
            ModelError: The model refuses the input, or answers with numbers that are no detections.
            OutOfMemory: The run needs more memory than there is.
        """
        found: list[DetectedBoxes] = []
        for start in range(0, len(images), self.batch_size):
            found += self._run(images[start : start + self.batch_size], threshold)
        return found

    def _read_model(
        self,
        names: str | Path | Sequence[str] | Mapping[int, str] | None,
        layout: str,
        outputs: Sequence[str] | None,
        size: Sequence[int] | None,
        box_format: str | None,
    ) -> None:
        """Find the inputs, try the model, and find the layout of its outputs and the names of its classes."""
        self._export = read_export(self._path, self._session.metadata)
        self._inputs = read_inputs(self._session.input_tensors, size, self._export.input_size)
        wanted = self._wanted(outputs)
        grey = np.full((self._inputs.height, self._inputs.width, 3), PROBE_GREY, np.uint8)
        images = self._inputs.batch or 1
        feeds = self._inputs.feeds([grey] * images, Preprocessing())
        arrays = self._session.run(feeds, wanted)
        for name, array in zip(wanted, arrays, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
                raise InvalidInput(f"the output {name!r} holds no numbers; set outputs to the others")
        by_name = dict(zip(wanted, arrays, strict=True))
        seen = Seen(by_name, self._inputs, images, self._export.metadata, self._export.family)
        self._layout, self._roles = choose_layout(layout, seen)
        self.layout = self._layout.name
        self._box_format = box_format or self._layout.box_format
        known = self._export.names() if names is None else read_names(names)
        if not known:
            raise InvalidInput(
                f"the file does not name its classes: set names to a list, or to a YAML or text file; {seen}"
            )
        by_role = {role: seen.outputs[name] for role, name in self._roles.items()}
        if not self._layout.one_list and any(len(array) != images for array in by_role.values()):
            raise InvalidInput(f"outputs do not begin with one entry for each image; {seen}")
        count = self._layout.class_count(by_role, len(known))
        self._class_count = count or 0
        self.names, self._class_of_id = real_classes(complete_names(known, count, self._layout.first_class))
        if not self.names:
            raise InvalidInput("all names are empty or N/A: set names to those of the model's classes")

    def _trusted_batch(self, batch: int) -> int:
        """The number of images of one run: `batch`, or 1 where the graph takes more but answers them wrongly.

        An exporter that traces one image can leave the batch free and still write that one image's indices down.
        """
        if batch == 1:
            return 1
        random = np.random.default_rng(0)
        size = (batch, self._inputs.height, self._inputs.width, 3)
        noise = list(random.integers(0, 256, size, dtype=np.uint8))
        try:
            together = self._outputs_of(noise, batch)[-1]
        except ModelError as error:
            problem = f"fails with {batch} ({error})"
        else:
            [alone] = self._outputs_of(noise[-1:], 1)
            if all(_mostly_equal(together[role], alone[role]) for role in alone):
                return batch
            problem = f"answers {batch} together otherwise than each alone"
        logger.warning("%s: is given one image at a time: its graph leaves the batch free, but %s", self._path, problem)
        return 1

    def _wanted(self, outputs: Sequence[str] | None) -> list[str]:
        """The outputs to compute. Raises InvalidInput for one that the model does not have."""
        unknown = [name for name in outputs or () if name not in self._session.outputs]
        if unknown or outputs == []:
            raise InvalidInput(f"outputs must be of {', '.join(self._session.outputs)}, got {outputs}")
        return list(outputs or self._session.outputs)

    def _prepared(
        self,
        scale: float | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        channels: str | None,
        letterbox: str | None,
        padding: int | None,
    ) -> Preprocessing:
        """What is done to pixels: by the settings, else by the exporter, else what the layout's models expect."""
        if self._inputs.dtype == "uint8" and (scale is not None or mean is not None or std is not None):
            raise InvalidInput("the model takes pixels as they are (uint8): leave out scale, mean and std")
        usual = self._export.preprocessing(self._layout.preprocessing)
        values: dict[str, Any] = {
            "scale": scale,
            "mean": None if mean is None else _per_channel("mean", mean),
            "std": None if std is None else _per_channel("std", std),
            "channels": channels,
            "letterbox": letterbox,
            "padding": padding,
        }
        if std is not None and not all(value > 0 for value in std):
            raise InvalidInput(f"std must be three numbers above 0, got {list(std)}")
        return replace(usual, **{key: value for key, value in values.items() if value is not None})

    def _run(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        settings = self._preprocessing
        size = self._inputs.width, self._inputs.height
        fitted = [fit(image, *size, settings.letterbox, settings.padding) for image in images]
        canvases = [canvas for canvas, _ in fitted]
        missing = (self._inputs.batch or len(canvases)) - len(canvases)
        found = self._outputs_of([*canvases, *canvases[-1:] * missing], len(canvases) + missing)[: len(images)]
        return [self._select(each, place, threshold) for each, (_, place) in zip(found, fitted, strict=True)]

    def _outputs_of(self, canvases: Sequence[Image], count: int) -> list[dict[str, npt.NDArray[Any]]]:
        """The outputs of a run by role, for each of so many images. Raises ModelError where they do not tell."""
        arrays = self._session.run(self._inputs.feeds(canvases, self._preprocessing), list(self._roles.values()))
        try:
            return self._layout.images(dict(zip(self._roles, arrays, strict=True)), count)
        except ValueError as error:
            raise ModelError(f"{self._path}: an output {error}") from error

    def _select(
        self, arrays: Mapping[str, npt.NDArray[np.generic]], place: Placement, threshold: float
    ) -> DetectedBoxes:
        """The detections of one image from the model's outputs for it."""
        try:
            found = self._layout.read(arrays, self._box_format, self._inputs, self._class_count)
        except ValueError as error:
            raise ModelError(f"{self._path}: an output {error}") from error
        self._check(found, threshold)
        above = np.flatnonzero(found.scores > threshold)
        above = above[self._class_of_id[found.class_ids[above]] >= 0]
        above = above[np.argsort(-found.scores[above], kind="stable")]
        if not self._layout.suppresses:
            kept = suppress(
                from_corners(found.corners[above]), found.scores[above], found.class_ids[above], self._nms_iou
            )
            above = above[kept]
        boxes = from_corners(place.to_image(found.corners[above]))
        inside = (boxes[:, 2:] > 0).all(axis=1)
        rows, boxes = above[inside][: self._max_detections], boxes[inside][: self._max_detections]
        scores = np.clip(found.scores[rows], 0, 1).astype(np.float32)
        class_ids = self._class_of_id[found.class_ids[rows]]
        return DetectedBoxes(boxes, scores, class_ids, self._masks(found, rows, boxes, place))

    def _check(self, found: Candidates, threshold: float) -> None:
        """Raise ModelError for scores or classes that there cannot be: the layout is another, or the names are."""
        outside = found.scores[(found.scores < -SCORE_TOLERANCE) | (found.scores > 1 + SCORE_TOLERANCE)]
        if len(outside):
            raise ModelError(
                f"{self._path}: a score of {outside[0]:.4g} where 0 to 1 is expected: it is not of the layout "
                f"{self.layout}; set layout to another"
            )
        ids = found.class_ids[found.scores > threshold]
        unknown = ids[(ids < 0) | (ids >= len(self._class_of_id))]
        if len(unknown):
            raise ModelError(
                f"{self._path}: found something of class {unknown[0]}, but names has {len(self._class_of_id)} classes; "
                "set names to all of the model's"
            )

    def _masks(
        self, found: Candidates, rows: npt.NDArray[np.intp], boxes: Boxes, place: Placement
    ) -> npt.NDArray[np.bool_] | None:
        """`(n, h, w)` masks over the image of the chosen rows, each inside its box; None from a model without."""
        if found.masks is None:
            return None
        masks = np.zeros((len(rows), place.height, place.width), bool)
        for index, row in enumerate(rows):
            left, top, width, height = boxes[index]
            down = slice(int(top), int(np.ceil(top + height)))
            across = slice(int(left), int(np.ceil(left + width)))
            part = partial(found.masks.part, int(row))
            values = place.resample(part, found.masks.shape, self._inputs.width, self._inputs.height, down, across)
            masks[index, down, across] = values > 0
        return masks


def suppress(
    boxes: Boxes, scores: npt.NDArray[np.float32], class_ids: npt.NDArray[np.intp], max_iou: float
) -> npt.NDArray[np.intp]:
    """Keep the best of each group of overlapping boxes of one class; the memory does not grow with their square.

    Args:
        boxes: `(n, 4)` x, y, width, height, best score first.
        scores: `(n,)`.
        class_ids: `(n,)`.
        max_iou: A box is kept if its IoU with every better box of its class that is kept is at most this.

    Returns:
        Indices of the boxes to keep, rising.
    """
    kept: list[npt.NDArray[np.intp]] = []
    for class_id in np.unique(class_ids):
        members = np.flatnonzero(class_ids == class_id)
        of_class = np.zeros(0, np.intp)
        for start in range(0, len(members), SUPPRESSION_BLOCK):
            block = members[start : start + SUPPRESSION_BLOCK]
            block = block[(iou(boxes[block], boxes[of_class]) <= max_iou).all(axis=1)]
            block = block[non_maximum_suppression(boxes[block], scores[block], max_iou)]
            of_class = np.concatenate([of_class, block])
        kept.append(of_class)
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.intp)


def _mostly_equal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two outputs are of one image, up to rounding and the order of what scores alike."""
    if a.shape != b.shape or not a.size:
        return a.shape == b.shape
    a, b = a.astype(np.float64), b.astype(np.float64)
    return bool(np.isclose(a, b, rtol=0.01, atol=1e-3 * (np.abs(b).max(initial=0) + 1e-6)).mean() > MOSTLY)


def _per_channel(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise InvalidInput(f"{name} must be three numbers, one for each channel, got {list(values)}")
    return float(values[0]), float(values[1]), float(values[2])
