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

"""The rows of a configuration and their pictures, as the data set that TRL's trainer reads prompts and views from."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Frame, InvalidInput
from ..core.optional import require_package
from ..vlm.families import Family
from ..vlm.prompts import load_prompt, target_of
from .config import TrainingConfig, reject_unknown
from .extensions import call_extension
from .rows import Row, read_rows

logger = logging.getLogger(__name__)

FRAMES_IN_MEMORY = 192


def load_rows(data: Mapping[str, Any]) -> Sequence[Row]:
    """Load the rows that a configuration names.

    Args:
        data: `{path: DIR}`, a data set of `activeo3 train data`; or `{rows: package.module:name, …}`, a class or
            function that gives a sequence of `Row`, and its arguments.

    Returns:
        The rows, at least one.

    Raises:
        InvalidInput: The mapping names neither, or the rows cannot be loaded.
    """
    if "rows" not in data:
        reject_unknown("data", data, ["path", "rows"])
        if "path" not in data:
            raise InvalidInput(
                "data needs 'path', a directory of `activeo3 train data`, or 'rows', package.module:name"
            )
        return read_rows(Path(str(data["path"])))
    name = data["rows"]
    rows: Sequence[Row] = call_extension("data: rows", name, {key: data[key] for key in data if key != "rows"})
    if not isinstance(rows, Sequence) or not rows or not isinstance(rows[0], Row):
        raise InvalidInput(f"data: {name} must give a sequence of activeo3_ros.training.rows.Row, at least one")
    return rows


class FrameCache:
    """The pictures of rows, the recent ones kept: a group of answers and the task model need the same one."""

    def __init__(self, size: int = FRAMES_IN_MEMORY) -> None:
        self._size = size
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._lock = threading.Lock()
        self._background = ThreadPoolExecutor(2, thread_name_prefix="frames")

    def __call__(self, row: Row) -> Frame:
        """The picture of a row. Raises InvalidInput if it cannot be read."""
        with self._lock:
            frame = self._frames.get(row.image)
        if frame is None:
            frame = row.frame()
            with self._lock:
                self._frames[row.image] = frame
                while len(self._frames) > self._size:
                    self._frames.popitem(last=False)
        return frame

    def load_ahead(self, rows: Sequence[Row], indices: Sequence[int]) -> None:
        """Load frames in the background, for later calls; indices behind the last row are left out."""
        for index in dict.fromkeys(indices):
            if index < len(rows):
                self._background.submit(self._load, rows, index)

    def load(self, rows: Sequence[Row], indices: Sequence[int]) -> dict[int, Row]:
        """Get rows and load their frames, in parallel.

        Args:
            rows: All rows.
            indices: Of the rows wanted; one may come several times.

        Returns:
            The rows by index.
        """
        different = sorted(set(indices))
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(different, pool.map(lambda index: self._load(rows, index), different), strict=True))

    def _load(self, rows: Sequence[Row], index: int) -> Row:
        row = rows[index]
        self(row)
        return row


def readable_rows(rows: Sequence[Row], out: Path) -> Sequence[Row]:
    """Leave out the rows whose pictures cannot be read; `out/unreadable.jsonl` lists them.

    Args:
        rows: A list of rows. Another sequence, which makes rows on demand, is taken as it is.
        out: Directory of the run.

    Returns:
        The rows whose pictures can be read.

    Raises:
        InvalidInput: None can.
    """
    if not isinstance(rows, list):
        return rows
    good: list[Row] = []
    bad: list[dict[str, str]] = []
    for row in rows:
        try:
            row.frame()
            good.append(row)
        except InvalidInput as error:
            bad.append({"image": row.image, "reason": str(error)})
    if bad:
        out.mkdir(parents=True, exist_ok=True)
        (out / "unreadable.jsonl").write_text("".join(json.dumps(each) + "\n" for each in bad), encoding="utf-8")
        logger.warning(
            "%d of %d pictures cannot be read; they are listed in %s", len(bad), len(rows), out / "unreadable.jsonl"
        )
    if not good:
        raise InvalidInput(
            f"none of {len(rows)} pictures can be read, the first because: {bad[0]['reason'] if bad else ''}"
        )
    return good


def make_dataset(rows: Sequence[Row], config: TrainingConfig, family: Family, frames: FrameCache) -> Any:
    """Make the data set of the trainer; its rows become prompt and view when they are read.

    Args:
        rows: The questions.
        config: Says the sizes of views, the prompt and the order.
        family: Of the model, which rounds sizes of views.
        frames: The pictures.

    Returns:
        A `datasets.Dataset` with the columns `prompt`, `image` and `row`, the index of the row.

    Raises:
        MissingPackageError: A package is not installed.
    """
    datasets = require_package("datasets", "to train", "activeo3_ros[train]")
    require_package("PIL.Image", "to train", "pillow")
    from PIL import Image as PillowImage

    from .processor import chat

    template = load_prompt(config.prompt)
    last: dict[str, Any] = {"rows": None, "columns": {}}

    def transform(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        # Each update asks again for the rows that its answers were sampled for.
        if last["rows"] != batch["row"]:
            last.update(rows=list(batch["row"]), columns=columns_of(batch))
        columns: dict[str, list[Any]] = last["columns"]
        return columns

    def columns_of(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        loaded = frames.load(rows, batch["row"])
        chosen = [loaded[index] for index in batch["row"]]
        views: dict[str, Any] = {}
        for row in chosen:
            if row.image not in views:
                frame = frames(row)
                size = family.fit(frame.width, frame.height, config.view_pixels, config.shorter_side)
                views[row.image] = PillowImage.fromarray(
                    np.ascontiguousarray(frame.view(frame.window, size).image[..., ::-1])
                )
        prompts = [
            chat(
                template.fill(
                    "full", target=target_of(row.query), question=target_of(row.query), max_regions=config.max_regions
                )
            )
            for row in chosen
        ]
        if not config.grpo.get("shuffle_dataset", True):
            count = max(batch["row"]) + 1 - min(batch["row"])
            frames.load_ahead(rows, [index + count for index in batch["row"]])
        return {"prompt": prompts, "image": [views[row.image] for row in chosen], "row": list(batch["row"])}

    dataset = datasets.Dataset.from_dict({"row": list(range(len(rows)))})
    return dataset.with_transform(transform)
