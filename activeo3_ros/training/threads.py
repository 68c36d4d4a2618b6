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

"""Work of several threads, in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2
"""Results that wait, for each thread."""


def each_ahead(do: Callable[[T], R], things: Iterable[T], threads: int) -> Iterator[R]:
    """The result of each of some things, in their order; several are worked on at once, few of them ahead.

    Args:
        do: Gives the result of one; NumPy, OpenCV and onnxruntime let other threads run meanwhile.
        things: Taken as they are needed.
        threads: How many; one works without any thread.
    """
    if threads <= 1:
        yield from map(do, things)
        return
    waiting = iter(things)
    pool = ThreadPoolExecutor(threads)
    try:
        results = deque(pool.submit(do, each) for each in itertools.islice(waiting, AHEAD * threads))
        while results:
            yield results.popleft().result()
            results.extend(pool.submit(do, each) for each in itertools.islice(waiting, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
