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

"""What is known of an exported model beside its graph: the names of its classes, its input, how pixels are prepared.

It stands in the file itself, where YOLO exporters put it, or beside it: in `config.json` and `preprocessor_config.json`
where transformers exported it, in `infer_cfg.yml` where PaddleDetection did. Only plain data is read; nothing is
evaluated.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ..core.errors import InvalidInput
from .centernet import COCO_CLASSES
from .onnx_inputs import Preprocessing

NAME_KEYS = ("names", "class_names", "id2label", "label_list")
"""Keys of a file's metadata, or of a YAML file, that hold names of classes."""
PADDLE_STEPS = {"Resize", "LetterBoxResize", "NormalizeImage", "Permute", "PadStride"}
"""Steps of PaddleDetection that are understood."""
NO_CLASS = "N/A"
PLACEHOLDERS = ("", "n/a")
"""Names of class ids that stand for no class, as the 91 of COCO have them."""
COCO_UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Ids of COCO's 91 that name no class of the data set."""


@dataclass(frozen=True)
class Export:
    """What the exporter wrote beside the graph.

    Attributes:
        metadata: In the file, by key.
        config: `config.json` beside it; empty where there is none.
        processor: `preprocessor_config.json` beside it; empty where there is none.
        paddle: `infer_cfg.yml` or `inference.yml` beside it; empty where there is none.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    paddle: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The `model_type` of a transformers model; "paddle" where PaddleDetection tells its steps; "" if unknown."""
        if self.config:
            return str(self.config.get("model_type", ""))
        return "paddle" if self._steps and set(self._steps) <= PADDLE_STEPS else ""

    @property
    def _steps(self) -> dict[str, Mapping[str, Any]]:
        """The steps by which PaddleDetection prepares an image, by their type."""
        steps = self.paddle.get("Preprocess")
        listed = steps if isinstance(steps, Sequence) else ()
        return {str(step.get("type")): step for step in listed if isinstance(step, Mapping)}

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height of the input; None where they are not known."""
        size = self.processor.get("size")
        if isinstance(size, Mapping) and {"width", "height"} <= set(size):
            return int(size["width"]), int(size["height"])
        target = self._resize.get("target_size")
        if isinstance(target, Sequence) and len(target) == 2:
            return int(target[1]), int(target[0])  # height comes first there
        sides = _literal(self.metadata.get("imgsz", ""))
        if isinstance(sides, int):
            return sides, sides
        if isinstance(sides, Sequence) and len(sides) == 2 and all(isinstance(side, int) for side in sides):
            return sides[1], sides[0]  # height comes first there
        return None

    def names(self) -> dict[int, str] | None:
        """The names of the classes by id; None where there are none."""
        for source in (self.config, self.metadata, self.paddle):
            for key in NAME_KEYS:
                value = source.get(key)
                found = _names_of(_literal(value) if isinstance(value, str) else value)
                if found:
                    return found
        return None

    def preprocessing(self, usual: Preprocessing) -> Preprocessing:
        """What is done to pixels.

        Args:
            usual: What models of this layout expect, for whatever is not written down.
        """
        if self.family == "paddle":
            return self._as_paddle(usual)
        known = self.processor
        if "do_rescale" in known:
            scale = float(known.get("rescale_factor", 1 / 255)) if known["do_rescale"] else 1.0
            usual = replace(usual, scale=scale)
        if "do_normalize" in known:
            mean, std = known.get("image_mean", usual.mean), known.get("image_std", usual.std)
            if not known["do_normalize"]:
                mean, std = (0, 0, 0), (1, 1, 1)
            usual = replace(usual, mean=_per_channel(mean), std=_per_channel(std))
        return usual

    @property
    def _resize(self) -> Mapping[str, Any]:
        return self._steps.get("Resize") or self._steps.get("LetterBoxResize") or {}

    def _as_paddle(self, usual: Preprocessing) -> Preprocessing:
        """What PaddleDetection does to pixels; what a step leaves out has its default there."""
        if "LetterBoxResize" in self._steps:
            usual = replace(usual, letterbox="centre", padding=127)
        elif self._resize.get("keep_ratio", True):
            usual = replace(usual, letterbox="top_left", padding=0)
        else:
            usual = replace(usual, letterbox="stretch")
        if (step := self._steps.get("NormalizeImage")) is None:
            return replace(usual, scale=1.0)
        usual = replace(usual, scale=1 / 255 if step.get("is_scale", True) else 1.0)
        if step.get("norm_type", "mean_std") != "mean_std":
            return usual
        return replace(usual, mean=_per_channel(step["mean"]), std=_per_channel(step["std"]))


def read_export(model: Path, metadata: Mapping[str, str]) -> Export:
    """Read what the exporter wrote.

    Args:
        model: The .onnx file; if its folder is called `onnx`, the files are looked for beside that folder as well.
        metadata: Of the file, by key.

    Raises:
        InvalidInput: A file beside the model is not readable.
    """
    folders = [model.parent, *([model.parent.parent] if model.resolve().parent.name == "onnx" else [])]
    config, processor = (_values_beside(folders, name) for name in ("config.json", "preprocessor_config.json"))
    return Export(metadata, config, processor, _values_beside(folders, "infer_cfg.yml", "inference.yml"))


def _values_beside(folders: Sequence[Path], *names: str) -> Mapping[str, Any]:
    for path in (folder / name for folder in folders for name in names):
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
                values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            except (OSError, ValueError, yaml.YAMLError) as error:
                kind = "JSON" if path.suffix == ".json" else "YAML"
                raise InvalidInput(f"{path}: not a readable {kind} file: {str(error).splitlines()[0]}") from error
            return values if isinstance(values, Mapping) else {}
    return {}


def read_names(names: str | Path | Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    """The names of classes that a user gives.

    Args:
        names: A list, a mapping of class ids, or the path of a file: YAML or JSON with a list, a mapping, or either of
            them under `names`; or a text file with a name in each line.

    Returns:
        The names by position or id.

    Raises:
        InvalidInput: There is no such file, or it holds no names.
    """
    if not isinstance(names, (str, Path)):
        found = _names_of(names)
        if not found:
            raise InvalidInput(f"names must name at least one class, got {names!r}")
        return found
    path = Path(names).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        is_text = path.suffix.lower() not in (".yaml", ".yml", ".json")
        found = _names_of(text.splitlines() if is_text else yaml.safe_load(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"names: cannot read {path}: {str(error).splitlines()[0]}") from error
    if not found:
        raise InvalidInput(
            f"names: {path} holds no class names; give a text file with one a line, or YAML with a list under 'names'"
        )
    return found


def complete_names(names: Mapping[int, str], count: int | None, first: int = 0) -> tuple[str, ...]:
    """The name of every class of a model, by class id.

    A mapping may leave ids out below its last, as COCO's 91 ids do: these stand for no class. The 80 names of COCO are
    spread over those 91 ids.

    Args:
        names: By position or id.
        count: The number of classes; None where the outputs do not tell.
        first: The id of the first class in a list.

    Raises:
        InvalidInput: There are fewer or more names than classes.
    """
    listed = list(names) == list(range(len(names)))
    coco = listed and tuple(names.values()) == COCO_CLASSES
    if coco and (count in (90, 91) or first):
        ids = [each for each in range(91) if each not in COCO_UNUSED_IDS]
        names, listed = dict(zip(ids, names.values(), strict=True)), False
    elif listed and first:
        names, listed = {each + first: name for each, name in names.items()}, False
    last = max(names)
    total = last + 1 if count is None else count
    if last + 1 != total or min(names) < 0:
        raise InvalidInput(
            f"the model has {total} classes, but {len(names)} names are given"
            f"{'' if listed else f' with ids up to {last}'}; set names to a list of {total}, or to a file with them"
        )
    return tuple(names.get(each, NO_CLASS) for each in range(total))


def real_classes(names: Sequence[str]) -> tuple[tuple[str, ...], npt.NDArray[np.intp]]:
    """Leave out ids that stand for no class; what is found of them is never reported.

    Args:
        names: Of every class id of a model.

    Returns:
        The names that are left, and the index among them of each id; -1 for no class.
    """
    real = [index for index, name in enumerate(names) if name.strip().lower() not in PLACEHOLDERS]
    class_of_id = np.full(len(names), -1, np.intp)
    class_of_id[real] = np.arange(len(real))
    return tuple(names[index] for index in real), class_of_id


def _literal(text: str) -> Any:
    """A value that is written as a literal of Python or JSON; None for anything else."""
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _per_channel(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _names_of(value: Any) -> dict[int, str] | None:
    """Names by id, from a list, a mapping of ids, or a mapping that holds either; None for anything else."""
    if isinstance(value, Mapping):
        for key in NAME_KEYS:
            if key in value:
                return _names_of(value[key])
        try:
            return {int(key): str(name) for key, name in sorted(value.items(), key=lambda item: int(item[0]))} or None
        except (TypeError, ValueError):
            return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        lines = [str(name).strip() for name in value]
        while lines and not lines[-1]:
            lines.pop()
        return dict(enumerate(lines)) if lines and all(lines) else None
    return None
