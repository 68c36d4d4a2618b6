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

"""Progress of long work on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

PROGRESS_LINES = 20
"""Of a benchmark, where there is no terminal."""
UNKNOWN_TOTAL = 1000
"""Where the total is not known, the lines come as often as with this one."""


@contextmanager
def progress(step: str, total: int | None, lines: int = 4, unit: str = "frame") -> Iterator[Callable[[float], None]]:
    """Show a bar with rate and time left on a terminal, a few lines elsewhere.

    Args:
        step: Name of the step.
        total: Number of things to do; None where nobody knows.
        lines: How many lines to print where there is no terminal.
        unit: Name of one thing.

    Yields:
        A function to be called with the number of things that are done; a fraction of one that takes long counts.
    """
    with tqdm(total=total, desc=step, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        shown = 0.0

        def show(done: float) -> None:
            nonlocal shown
            if not bar.disable:
                bar.update(done - bar.n)
            elif done and (done - shown) * lines >= (total or UNKNOWN_TOTAL):
                print(f"{step}: {round(done, 1):g}{f' of {total}' if total else ''}", file=sys.stderr, flush=True)
                shown = done

        yield show
