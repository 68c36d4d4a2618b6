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

"""Callbacks of the trainer: stop on SIGTERM, log to CSV, end when the time is up.

Each is made by a function, as its base class is in an optional package.
"""

from __future__ import annotations

import csv
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.optional import require_package


def stop_on_signal(transformers: Any) -> Any:
    """Make the callback that lets a step end, saves and stops after SIGTERM, inside its context `listening()`.

    Args:
        transformers: The package.

    Returns:
        The callback; its `asked` says whether the signal came.
    """

    class StopOnSignal(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        asked = False

        @contextmanager
        def listening(self) -> Iterator[None]:
            main = threading.current_thread() is threading.main_thread()
            before = signal.signal(signal.SIGTERM, self._ask) if main else None
            try:
                yield
            finally:
                if before is not None:
                    signal.signal(signal.SIGTERM, before)

        def _ask(self, signum: int, frame: Any) -> None:
            self.asked = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if self.asked:
                control.should_save = control.should_training_stop = True
            return control

    return StopOnSignal()


def csv_log(transformers: Any, path: Path) -> Any:
    """Make the callback that appends the trainer's log to a CSV file, one row a step.

    Args:
        transformers: The package.
        path: The file.

    Returns:
        The callback.
    """

    class CsvLog(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if state.is_world_process_zero and logs and "reward" in logs:
                append_row(path, {"step": state.global_step, **logs})

    return CsvLog()


def time_limit(transformers: Any, minutes: float) -> Any:
    """Make the callback that ends the training, without any error, when its time is up.

    Over the second half of the time the learning rate falls to nothing.

    Args:
        transformers: The package.
        minutes: The time, 0 for no limit.

    Returns:
        The callback.
    """
    broadcast_object_list = require_package("accelerate.utils", "to train", "activeo3_ros[train]").broadcast_object_list

    class TimeLimit(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        left = 1.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.end = time.monotonic() + 60 * minutes

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if minutes:
                # All processes go by one clock: they have to take the same steps.
                shares = [(self.end - time.monotonic()) / (60 * minutes)]
                self.left = max(0.0, broadcast_object_list(shares)[0])
                rates = kwargs["lr_scheduler"].get_last_lr()
                for group, rate in zip(kwargs["optimizer"].param_groups, rates, strict=True):
                    group["lr"] = rate * min(1.0, 2 * self.left)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if self.left <= 0:
                control.should_training_stop = True
            return control

    return TimeLimit()


def append_row(path: Path, values: Mapping[str, Any]) -> None:
    """Append one row to a CSV file; a repeated step replaces the rows from that step on, new columns are added.

    Args:
        path: The file, made where it is missing.
        values: By column; `step` is one of them.
    """
    rows: list[dict[str, Any]] = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < int(values["step"])]
    rows.append(dict(values))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
