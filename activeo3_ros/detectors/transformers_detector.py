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

"""Runs the object detectors of the transformers library: RT-DETR, D-FINE, RF-DETR, DETR, GroundingDINO, OWLv2 and more.

A model is a directory as hubs have them: config.json, preprocessor_config.json and safetensors, for an open-vocabulary
model those of its tokenizer too. No code of a model's own is run.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ..assets.devices import torch_device
from ..assets.pretrained import load_model, load_processor
from ..assets.weights import local_model, model_type
from ..core.errors import EngineError, InvalidInput, OutOfMemory, PerceptionError
from ..core.frame import Image, InputSize, View, check_image
from ..core.geometry import from_corners, non_maximum_suppression
from ..core.optional import MissingPackageError, require_package
from ..core.results import DetectedBoxes
from ..settings import validated, within
from ..vlm.dynamic_batching import CallBatcher
from .device_views import BatchGraphs, DeviceViews, InputBatches
from .onnx_metadata import complete_names, read_names, real_classes
from .transformers_images import input_size_of, load_image_processor, normalisation_of
from .transformers_outputs import READERS, RawBoxes
from .transformers_prompts import WRITERS, Prompt

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

PURPOSE = "to run a transformers model"
ROAD_NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "traffic sign")
"""What an open-vocabulary model looks for until it is told others."""
MASK_CLASSES = {
    "DetrForSegmentation": "AutoModelForImageSegmentation",
    "RfDetrForInstanceSegmentation": "AutoModelForInstanceSegmentation",
}
"""By the architecture in config.json that gives masks besides boxes: the class of transformers that loads it."""
SEES_MASKS = ("conditional_detr", "dab-detr", "deformable_detr", "detr", "grounding-dino", "mm-grounding-dino",
              "table-transformer")  # fmt: skip
"""Models that are told which pixels are padding, take inputs of any size, and give boxes as shares of the image alone.
They are given none: fine-tuned with padding to a fixed size they give shares of the padded input, and nothing in their
files tells the two apart. To all other models padding is a part of the image."""
FP32_ONLY = ("dab-detr", "omdet-turbo")
"""Models whose code in transformers mixes 32-bit numbers into lower precision and fails."""
STRETCHED_BATCH = 24
"""Images that go through a model together on a CUDA device, where every one is stretched to one size: the view and
three crops of six cameras."""
OMDET_SAME_OBJECT_IOU = 0.5
"""OmDet-Turbo's own post-processing: two boxes of one class that overlap more are one object."""


class TransformersDetector:
    """Detects objects with a model of the transformers library, on a CPU or a CUDA device.

    An open-vocabulary model is a `core.interfaces.OpenVocabularyDetector`: it has the method `for_names` as well.
    Several threads may call it at once. Only the tokenizer, and all of OmDet-Turbo, serve one after the other.

    Attributes:
        model: The `torch.nn.Module`.
        device: The `torch.device` that it runs on.
        dtype: The `torch.dtype` that it runs in.
        names: Name of each class id.
        input_size: The size at which it looks at an image.
        batch_size: Images that go through it together.
        scale: Input values for a grey level, before normalising.
        mean: Of the red, green and blue input values; subtracted.
        std: Of the red, green and blue input values; divided by.
    """

    concurrent = True

    @validated
    def __init__(
        self,
        model: str | Path,
        names: str | Path | Sequence[str] | Mapping[int, str] | None = None,
        precision: Literal["fp32", "fp16", "bf16"] = "fp32",
        batch_size: Annotated[int, within(1, 256)] | None = None,
        device: str = "auto",
        fuse: bool = False,
    ) -> None:
        """Load the model.

        Args:
            model: A directory, or the hub id of a model that `activeo3 prefetch` brought here.
            names: The class names instead of those in config.json: a list, a mapping of class ids, or a YAML, JSON or
                text file; for an open-vocabulary model what to look for until a query names something.
            precision: Of the arithmetic; "fp16" and "bf16" need a CUDA device, and round a box's edges to about 1/2000
                (fp16) or 1/250 (bf16) of the image.
            batch_size: Images that go through the model together; none for 1 on a CPU, which takes as long for each,
                and on a CUDA device 8, or 24 where every image is stretched to one size.
            device: "auto" for the first CUDA device, else the CPU; or a name that torch knows, such as "cuda:1".
            fuse: On a CUDA device, compile the model where every image is stretched to one size. Loading then takes
                minutes, and a frame less.

        Raises:
            MissingPackageError: torch or transformers is not installed.
            AssetError: The model is not on this machine.
            InvalidInput: It is no detector that this class can run, or the names are not as many as its classes.
            EngineError: It cannot be loaded.
            OutOfMemory: It does not fit into the memory of the device.
        """
        self._torch = require_package("torch", PURPOSE, "activeo3_ros[detectors]")
        directory = local_model(model)
        self.model_type = model_type(directory)
        auto_class = _auto_class(directory, self.model_type)
        self.device = torch_device(device)
        self.dtype = self._dtype_of(precision)
        self.batch_size = batch_size or (8 if self.device.type == "cuda" else 1)
        self._processor = load_image_processor(directory, PURPOSE)
        self._padding = {"do_pad": False} if self.model_type in SEES_MASKS else {}
        self.input_size = input_size_of(self._processor)
        self.scale, self.mean, self.std = normalisation_of(self._processor)
        self.model = load_model(model, auto_class, self.device, PURPOSE, self.dtype)
        self._inputs = set(inspect.signature(self.model.forward).parameters)
        # The cache of OmDet-Turbo for texts serves one thread.
        self._forward_lock = threading.Lock() if self.model_type == "omdet-turbo" else nullcontext()
        self._prompts: Sequence[Prompt]
        if self.model_type in WRITERS:
            self._writer = _PromptWriter(load_processor(model, "AutoTokenizer", PURPOSE), self)
            self._set_names(ROAD_NAMES if names is None else tuple(read_names(names).values()))
            self.for_names = self._for_names  # by which it is an OpenVocabularyDetector
        else:
            self.names, self._class_of_column = _classes(directory, self.model.config, names)
            self._prompts = [_FixedClasses(READERS[self.model_type])]
        self._preprocess(np.zeros((64, 64, 3), np.uint8))  # what refuses every image is told now
        self._gives_masks = auto_class in MASK_CLASSES.values()
        self._prepare_views(batch_size, fuse)

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        """Detect objects in a batch of images.

        What is found in an image does not depend on the others: only those of one size after fitting go through the
        model together, so that none is padded for another.

        Args:
            images: Each `(h, w, 3)` uint8 BGR, of any size.
            threshold: Only detections with a score above it, 0 to 1.

        Returns:
            One `DetectedBoxes` for each image, boxes in pixels of that image; with masks from a model that gives them.

        Raises:
            InvalidInput: An array is not such an image, or its sides differ too much for the model.
            EngineError: The model failed, or gave scores that are no numbers.
            OutOfMemory: The batch does not fit into the memory of the device.
        """
        groups: dict[tuple[int, ...], list[tuple[int, dict[str, torch.Tensor]]]] = {}
        for index, image in enumerate(images):
            inputs = self._preprocess(image)
            groups.setdefault(tuple(inputs["pixel_values"].shape), []).append((index, inputs))
        found: dict[int, DetectedBoxes] = {}
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                batch = group[start : start + self.batch_size]
                sizes = [(images[index].shape[1], images[index].shape[0]) for index, _ in batch]
                inputs = {name: self._torch.cat([each[name] for _, each in batch]) for name in batch[0][1]}
                detected = self.detect_tensors(inputs["pixel_values"], sizes, threshold, inputs.get("pixel_mask"))
                found.update(zip((index for index, _ in batch), detected, strict=True))
        return [found[index] for index in range(len(images))]

    def detect_tensors(
        self,
        pixel_values: torch.Tensor,
        sizes: Sequence[tuple[float, float]],
        threshold: float,
        pixel_mask: torch.Tensor | None = None,
    ) -> list[DetectedBoxes]:
        """Detect objects in images that are fitted into the model's input already, wherever they are.

        Args:
            pixel_values: `(n, 3, h, w)` RGB, times `scale`, minus `mean`, divided by `std`.
            sizes: Width and height of each image in pixels, which its boxes shall be in.
            threshold: Only detections with a score above it, 0 to 1.
            pixel_mask: `(n, h, w)` 1 where there is image and 0 below and right of it, where there is padding; None for
                images without any, and for OWLv2, which is made for padding to a square.

        Returns:
            As `detect`; boxes alone come back from the device.

        Raises:
            InvalidInput: There are more or fewer sizes than images.
            EngineError: The model failed, or gave scores that are no numbers.
            OutOfMemory: The batch does not fit into the memory of the device.
        """
        if len(sizes) != len(pixel_values):
            raise InvalidInput(f"sizes needs one entry for each of the {len(pixel_values)} images, got {len(sizes)}")
        shape = " x ".join(map(str, pixel_values.shape))
        return self._guarded(
            lambda: self._detect_tensors(pixel_values, sizes, threshold, pixel_mask), f"{shape} inputs"
        )

    def _guarded(self, run: Callable[[], Result], given: str) -> Result:
        """Run the model, and tell its errors as those of this package.

        Args:
            run: What to run.
            given: Names what it was given, for the message.
        """
        try:
            with self._torch.inference_mode():
                return run()
        except self._torch.cuda.OutOfMemoryError as error:
            error.__traceback__ = None  # its frames hold the tensors that were just too many
        except PerceptionError:
            raise
        except Exception as error:  # torch and transformers have no common class of error
            if "can't allocate memory" in str(error):  # what torch says where a CPU has too little
                raise OutOfMemory(f"memory is short for {self._label}: {_first_line(error)}") from error
            raise EngineError(f"{self._label} failed: {_first_line(error)}") from error
        # Outside of the handler, which holds on to the error.
        self._torch.cuda.empty_cache()
        raise OutOfMemory(
            f"{self.device} is out of memory for {self._label} on {given}; set a smaller batch_size, or free memory on "
            "the device"
        )

    def _prepare_views(self, batch_size: int | None, fuse: bool) -> None:
        """Look at views on the device, where every image is stretched to one size and boxes alone are given."""
        stretches = type(self.input_size) is InputSize and not self.input_size.keeps_aspect
        if self.device.type != "cuda" or self.model_type not in READERS or not stretches or self._gives_masks:
            return
        self.batch_size = batch_size or STRETCHED_BATCH
        size = self.input_size.width, self.input_size.height
        self._device_views = DeviceViews(self.device, self.dtype, size, self.scale, self.mean, self.std)
        like = self._torch.zeros((3, size[1], size[0]), device=self.device, dtype=self.dtype)
        run: Callable[[torch.Tensor], torch.Tensor] = self._forward
        try:
            graphs = functools.partial(BatchGraphs, self._forward, like, self.batch_size, fuse)
            run = self._guarded(graphs, f"batches of {self.batch_size}")
        except OutOfMemory:
            raise
        except EngineError as error:  # a model whose work depends on values, or that asks the device for some
            logger.warning("%s runs without CUDA graphs, which takes longer: %s", self._label, error)
        self._view_batcher = CallBatcher(_Guarded(InputBatches(run), self._guarded))
        self.detect_views = self._detect_views  # by which tasks hand it views instead of their images

    def _forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.rows(self.model(pixel_values=values))

    def _detect_views(self, views: Sequence[View], threshold: float) -> list[DetectedBoxes]:
        """As `detect` of their images, cut and resized on the device; views of several threads become one batch."""
        # Each thread cuts its own views while the batch of another runs.
        inputs = self._guarded(lambda: self._device_views.batch(views), f"{len(views)} views")
        rows = self._view_batcher.generate(list(inputs))
        return [self.boxes(each, view.size, threshold) for each, view in zip(rows, views, strict=True)]

    def rows(self, outputs: Any, prompt: int = 0) -> torch.Tensor:
        """Read the outputs of `model` on their device; the shape depends on theirs alone.

        Args:
            outputs: Of a batch of `n` images.
            prompt: Of which text of an open-vocabulary model.

        Returns:
            `(n, k, 7)` float32: centre x, centre y, width, height as shares of the image, score, class id of the model,
            and index of the object query.
        """
        return _packed(self._prompts[prompt].read(outputs))

    def boxes(self, rows: npt.NDArray[np.float32], size: tuple[float, float], threshold: float) -> DetectedBoxes:
        """Read what `rows` gave for one image.

        Args:
            rows: `(k, 7)` on the CPU.
            size: Width and height of the image in pixels.
            threshold: Only detections with a score above it, 0 to 1.

        Raises:
            EngineError: A score, or a box that counts, is no number.
        """
        return self._read(rows, size, threshold, size)[0]

    def _detect_tensors(
        self,
        pixel_values: torch.Tensor,
        sizes: Sequence[tuple[float, float]],
        threshold: float,
        pixel_mask: torch.Tensor | None,
    ) -> list[DetectedBoxes]:
        inputs = {"pixel_values": pixel_values.to(self.device, self.dtype)}
        if pixel_mask is not None and "pixel_mask" in self._inputs:
            inputs["pixel_mask"] = pixel_mask.to(self.device)
        parts = []
        outputs = None
        for index, prompt in enumerate(self._prompts):
            with self._forward_lock:
                outputs = self.model(**inputs, **prompt.inputs(len(pixel_values)))
            parts.append(self.rows(outputs, index))
        rows = self._torch.cat(parts, dim=1).cpu().numpy()
        mask_logits = getattr(outputs, "pred_masks", None)
        found = []
        for index, size in enumerate(sizes):
            shares = _shares(None if pixel_mask is None else pixel_mask[index])
            extent = size if self.model_type in SEES_MASKS else (size[0] / shares[0], size[1] / shares[1])
            detected, queries = self._read(rows[index], size, threshold, extent)
            if mask_logits is not None:
                detected = detected._replace(masks=self._masks(mask_logits[index], queries, size, shares))
            found.append(detected)
        return found

    def _read(
        self, rows: npt.NDArray[np.float32], size: tuple[float, float], threshold: float, extent: tuple[float, float]
    ) -> tuple[DetectedBoxes, npt.NDArray[np.intp]]:
        """The boxes that count, and the object queries that gave them.

        Args:
            rows: As `rows` gives them.
            size: Width and height of the image in pixels.
            threshold: Only detections with a score above it.
            extent: Width and height in pixels of what boxes are shares of.
        """
        # A comparison with no number is false: without this, a model that overflows would see an empty road.
        if np.isnan(rows[:, 4]).any():
            raise EngineError(f"{self._label} gave scores that are no numbers; set precision to bf16 or fp32")
        kept = rows[rows[:, 4] > threshold]
        if not np.isfinite(kept[:, :4]).all():
            raise EngineError(f"{self._label} gave boxes that are no numbers; set precision to bf16 or fp32")
        if self.model_type == "owlv2":  # it sees a square, with padding below or beside the image
            extent = max(size), max(size)
        middle, half = kept[:, :2] * np.array(extent), kept[:, 2:4] * np.array(extent) / 2
        corners = np.hstack([middle - half, middle + half])
        boxes = from_corners(np.clip(corners, 0, (*size, *size)))
        class_ids = self._class_of_column[kept[:, 5].astype(np.intp)]
        scores = kept[:, 4]
        valid = (boxes[:, 2:] > 0).all(axis=1) & (class_ids >= 0)
        order = np.flatnonzero(valid)[np.argsort(-scores[valid], kind="stable")]
        if self.model_type == "omdet-turbo":
            order = order[_each_once(from_corners(corners[order]), scores[order], class_ids[order])]
        return DetectedBoxes(boxes[order], scores[order], class_ids[order]), kept[order, 6].astype(np.intp)

    def _masks(
        self,
        logits: torch.Tensor,
        queries: npt.NDArray[np.intp],
        size: tuple[float, float],
        shares: tuple[float, float],
    ) -> npt.NDArray[np.bool_]:
        """`(n, h, w)` the pixels of the objects of some queries, from `(k, rows, columns)` logits over the input.

        The image takes up `shares` of the input's width and height.
        """
        width, height = round(size[0]), round(size[1])
        if len(queries) == 0:
            return np.zeros((0, height, width), bool)
        logits = logits[:, : round(logits.shape[1] * shares[1]), : round(logits.shape[2] * shares[0])]
        wanted = logits[self._torch.as_tensor(queries, device=logits.device)].float()
        resized = self._torch.nn.functional.interpolate(wanted[None], (height, width), mode="bilinear")[0]
        return np.asarray((resized > 0).cpu().numpy())

    def _preprocess(self, image: Image) -> dict[str, torch.Tensor]:
        """An image as the inputs of the model, each with a batch of one, by the image processor of the library."""
        check_image(image, "the detector needs a")
        height, width = image.shape[:2]
        if height < 1 or width < 1:
            raise InvalidInput(f"the detector needs images of at least one pixel, got {width} x {height}")
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        try:
            # An image of 1 or 3 rows would be taken for one with the channels first.
            inputs = self._processor(
                images=[rgb], return_tensors="pt", input_data_format="channels_last", **self._padding
            )
        except ImportError as error:  # some need more than transformers does
            raise MissingPackageError(f"{self._label}: {_first_line(error)}") from error
        except ValueError as error:
            raise InvalidInput(
                f"the image processor of {self._label} refuses an image of {width} x {height} px: {_first_line(error)}"
            ) from error
        return {name: inputs[name] for name in ("pixel_values", "pixel_mask") if name in inputs}

    def _for_names(self, names: Sequence[str], /) -> TransformersDetector:
        other = copy.copy(self)
        other._set_names(names)
        return other

    def _set_names(self, names: Sequence[str]) -> None:
        if not names:
            raise InvalidInput("an open-vocabulary detector needs at least one name to look for")
        self.names = tuple(names)
        self._class_of_column = np.arange(len(self.names))
        self._prompts = self._writer.write(self.names)

    def _dtype_of(self, precision: str) -> Any:
        if precision != "fp32" and self.model_type in FP32_ONLY:
            raise InvalidInput(
                f"precision {precision}: transformers runs models of type {self.model_type} in fp32 alone"
            )
        if precision != "fp32" and self.device.type != "cuda":
            raise InvalidInput(f"precision {precision} needs a CUDA device, and this model runs on {self.device}")
        return {"fp32": self._torch.float32, "fp16": self._torch.float16, "bf16": self._torch.bfloat16}[precision]

    @property
    def _label(self) -> str:
        return type(self.model).__name__


@dataclass(frozen=True)
class _Guarded:
    """Answers batches of views, with errors told as those of this package."""

    batches: InputBatches
    guard: Callable[[Callable[[], list[Any]], str], list[Any]]

    def generate(self, requests: Sequence[Any]) -> list[Any]:
        return self.guard(lambda: self.batches.generate(requests), f"{len(requests)} views")


class _PromptWriter:
    """Writes names as prompts; those of the last queries are kept."""

    def __init__(self, tokenizer: Any, detector: TransformersDetector) -> None:
        self._tokenizer = tokenizer
        self._write_prompts = WRITERS[detector.model_type]
        self._config, self._device = detector.model.config, detector.device
        self._lock = threading.Lock()  # a tokenizer serves one thread
        self._kept = lru_cache(maxsize=64)(self._write)

    def write(self, names: tuple[str, ...]) -> Sequence[Prompt]:
        """The prompts that hold all names. Raises UnsupportedQuery for a name that the model cannot read."""
        with self._lock:
            return self._kept(names)

    def _write(self, names: tuple[str, ...]) -> Sequence[Prompt]:
        return self._write_prompts(self._tokenizer, self._config, names, self._device)


@dataclass(frozen=True)
class _FixedClasses:
    """The prompt of a model that reads none."""

    reader: Callable[[Any], RawBoxes]

    def inputs(self, count: int) -> dict[str, torch.Tensor]:
        return {}

    def read(self, outputs: Any) -> RawBoxes:
        return self.reader(outputs)


def _auto_class(directory: Path, kind: str) -> str:
    """The class of transformers that loads a model. Raises InvalidInput for what is no detector."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    architecture = next(iter(config.get("architectures") or [""]))
    if kind in WRITERS:
        return "AutoModelForZeroShotObjectDetection"
    if kind in READERS:
        return MASK_CLASSES.get(architecture, "AutoModelForObjectDetection")
    raise InvalidInput(
        f"{directory} holds a {architecture or kind or 'model without a model_type'}, which is no detector known here; "
        f"known are {', '.join(sorted([*READERS, *WRITERS]))}"
    )


def _classes(
    directory: Path, config: Any, names: str | Path | Sequence[str] | Mapping[int, str] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.intp]]:
    """The names of a model's classes, and the index among them of each of its class ids; -1 for no class."""
    count = int(config.num_labels)
    if names is not None:
        every = complete_names(read_names(names), count)
    elif sorted(config.id2label) == list(range(count)):
        every = tuple(str(config.id2label[index]) for index in range(count))
    else:
        raise InvalidInput(f"{directory}/config.json leaves out class ids (id2label); give a name for each as names")
    real, class_of_column = real_classes(every)
    if not real:
        raise InvalidInput(f"{directory}/config.json names no classes (id2label); give them as names")
    return real, class_of_column


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _shares(pixel_mask: torch.Tensor | None) -> tuple[float, float]:
    """The shares of an input's width and height that the image takes up, from `(h, w)` with 1 where it is."""
    if pixel_mask is None:
        return 1.0, 1.0
    return pixel_mask[0].float().mean().item(), pixel_mask[:, 0].float().mean().item()


def _packed(raw: RawBoxes) -> torch.Tensor:
    import torch

    columns = [raw.scores, raw.classes.float(), raw.queries.float()]
    return torch.cat([raw.boxes, torch.stack(columns, dim=-1)], dim=-1)


def _each_once(
    boxes: npt.NDArray[np.float64], scores: npt.NDArray[np.float32], class_ids: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Indices of the boxes that are left of each class, best score first."""
    kept = [
        members[non_maximum_suppression(boxes[members], scores[members], OMDET_SAME_OBJECT_IOU)]
        for members in (np.flatnonzero(class_ids == each) for each in np.unique(class_ids))
    ]
    indices = np.concatenate(kept) if kept else np.zeros(0, np.intp)
    return np.asarray(indices[np.argsort(-scores[indices], kind="stable")])
