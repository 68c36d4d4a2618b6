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

"""Sharding: any number of processes share the items of a benchmark, on one machine or on several with a common disk.

Each process takes every WORLD_SIZE-th item, starting with its RANK, the variables that `torchrun` sets. Nothing is
computed twice, except the items in progress when a process was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from ..core import Frame, InvalidInput, PerceptionError
from .datasets import Dataset, Sample
from .item_files import failed_item, item_path, write_item
from .methods import Method, models_key
from .protocols import Runner, make_runner
from .settings import RunSettings


@dataclass(frozen=True)
class Shard:
    """The items of one process: every `world_size`-th item, starting with `rank`."""

    rank: int = 0
    world_size: int = 1

    @staticmethod
    def from_environment() -> Shard:
        """Read RANK and WORLD_SIZE; without them, one shard holds all items.

        Raises:
            InvalidInput: The variables are no whole numbers, or RANK is out of range.
        """
        values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        try:
            shard = Shard(int(values[0]), int(values[1]))
        except ValueError:
            raise InvalidInput(
                f"RANK and WORLD_SIZE must be whole numbers, got {values[0]!r} and {values[1]!r}"
            ) from None
        if not 0 <= shard.rank < shard.world_size:
            raise InvalidInput(f"RANK must be 0 to WORLD_SIZE - 1, got {shard.rank} of {shard.world_size}")
        return shard

    def items(self, dataset: Dataset, methods: Sequence[Method]) -> list[tuple[Method, Sample]]:
        """The items of this process."""
        return [(method, sample) for method in methods for sample in dataset.samples][self.rank :: self.world_size]

    def use_one_gpu(self) -> None:
        """Let this process see one GPU, the LOCAL_RANK-th; to be called before any library opens the GPUs."""
        local = os.environ.get("LOCAL_RANK")
        if local is not None and "CUDA_VISIBLE_DEVICES" not in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = local


def run_shard(
    settings: RunSettings,
    dataset: Dataset,
    methods: Sequence[Method],
    shard: Shard,
    show: Callable[[float], None],
) -> None:
    """Compute the missing items of a shard. A frame that cannot be read counts as failed.

    Args:
        settings: Settings of the run.
        dataset: The data set.
        methods: Methods to run.
        shard: The items of this process.
        show: Called with the number of items that are done; a fraction within an item that takes long.

    Raises:
        UnsupportedQuery: A preset does not understand the queries; raised before its first frame.
    """
    items = shard.items(dataset, methods)
    missing = [(method, sample) for method, sample in items if not item_path(settings.out, method, sample).exists()]
    done = len(items) - len(missing)
    show(done)
    runner: Runner | None = None
    engine: object = None
    for _, group in groupby(missing, key=lambda item: models_key(item[0])):
        work = list(group)
        if engine != (engine := work[0][0].preset.sensing.settings.get("engine")):
            runner = None  # a device may have no room for the last model beside the next
        runner = make_runner(work[0][0], dataset, settings)
        runner.check(work[0][1].query, work[0][0].budget)
        # Sample after sample, so that each frame is decoded once for all budgets.
        for _, of_sample in groupby(sorted(work, key=lambda item: item[1].id), key=lambda item: item[1].id):
            frame: Frame | InvalidInput | None = None
            for method, sample in of_sample:
                frame = frame or _load(sample)
                if isinstance(frame, Frame):
                    item = runner.run(frame, sample, method.budget, partial(_show_share, show, done))
                else:
                    item = failed_item(sample, frame)
                write_item(item_path(settings.out, method, sample), item)
                done += 1
                show(done)


def _show_share(show: Callable[[float], None], done: int, share: float) -> None:
    show(done + share)


def _load(sample: Sample) -> Frame | InvalidInput:
    try:
        return sample.load()
    except InvalidInput as error:
        return error


def run_in_processes(count: int, arguments: Sequence[str]) -> None:
    """Run `activeo3 ARGUMENTS` in several processes, each with its shard and with one GPU where there are some.

    Args:
        count: Number of processes.
        arguments: Arguments of the command.

    Raises:
        PerceptionError: A process failed.
    """
    children = []
    for rank in range(count):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
        # Models that use all cores each would only get in each other's way.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        children.append(subprocess.Popen([sys.executable, "-m", "activeo3_ros.cli", *arguments], env=environment))
    try:
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if any(codes):
        raise PerceptionError(f"{sum(map(bool, codes))} of {count} processes failed; what they said is above")
