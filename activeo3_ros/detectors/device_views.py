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

"""Views for a detector on a CUDA device: the frame goes there once, and is cut and resized there.

The pixels are those of `core.frame`, to a grey level: halved by averaging as long as that goes, then interpolated.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..core.frame import Frame, View
from ..core.optional import require_package

if TYPE_CHECKING:
    import torch

BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 18, 24, 32, 48, 64)
"""Numbers of views that a CUDA graph is recorded for; a batch is filled up to the next of them."""
KEPT_RESAMPLINGS = 64
"""Pairs of sizes whose matrices stay on the device; some MB each."""
WARM_UP_RUNS = 3
"""Runs before a graph is recorded: libraries choose their algorithms in the first ones."""


SAME = 0.05
"""Most by which a recorded graph may differ from the model, in shares of the image and scores: rounding of fp16."""


class DeviceViews:
    """Makes the input of a model from views, on its device.

    Resampling is linear and the same for every row, so it is two products of matrices: one launch for all rows, one for
    all columns. Launching is what takes the time, not the arithmetic.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        size: tuple[int, int],
        scale: float,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Say what the model's input is.

        Args:
            device: Where it runs.
            dtype: Of its input.
            size: Width and height of its input, to which a view is stretched, pixels.
            scale: Input values for a grey level.
            mean: Subtracted from red, green and blue.
            std: Divides red, green and blue after that.
        """
        self._torch = require_package("torch", "to run a model on a GPU", "activeo3_ros[gpu]")
        self._device, self._dtype, self._size = device, dtype, size
        # Half precision holds grey levels exactly, and its products are off by less than half of one.
        self._exact = self._torch.float16 if device.type == "cuda" else self._torch.float32
        values = {"device": device, "dtype": self._torch.float32}
        self._factor = (scale / self._torch.tensor(std, **values))[:, None, None]
        self._offset = (self._torch.tensor(mean, **values) / self._torch.tensor(std, **values))[:, None, None]
        self._frames: WeakKeyDictionary[Frame, torch.Tensor] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._stages = lru_cache(maxsize=KEPT_RESAMPLINGS)(self._new_stages)

    def upload(self, frame: Frame) -> torch.Tensor:
        """The `(3, h, w)` RGB grey levels of a frame on the device; they stay there as long as the frame lives."""
        with self._lock:
            pixels = self._frames.get(frame)
        if pixels is None:
            host = self._torch.from_numpy(frame.image)
            if self._device.type == "cuda":
                host = host.pin_memory()
            # OpenCV's images are blue, green, red.
            pixels = host.to(self._device, non_blocking=True).permute(2, 0, 1).flip(0).to(self._exact)
            with self._lock:
                self._frames[frame] = pixels
        return pixels

    def batch(self, views: Sequence[View]) -> torch.Tensor:
        """The model's input for views.

        Args:
            views: Of any frames.

        Returns:
            `(n, 3, h, w)` RGB, scaled and normalised.
        """
        with self._torch.inference_mode():
            stretched = self._torch.stack([self._resampled(view, self._size) for view in views])
            return (stretched.round_().clamp_(0, 255) * self._factor - self._offset).to(self._dtype)

    def pixels(self, view: View) -> torch.Tensor:
        """The `(3, h, w)` RGB grey levels of a view on the device, whole numbers as in `View.image`."""
        with self._torch.inference_mode():
            return self._resampled(view, view.size).round().clamp(0, 255)

    def _resampled(self, view: View, size: tuple[int, int]) -> torch.Tensor:
        """A view at `size` (width, height), not rounded yet, or the pixels of the frame themselves."""
        rows, columns = view.window.slices()
        image = self.upload(view.frame)[:, rows, columns]
        while all(
            have % 2 == 0 and have >= 2 * want for have, want in zip(image.shape[2:0:-1], view.size, strict=True)
        ):
            image = (self._torch.nn.functional.avg_pool2d(image, 2) + 0.5).floor()
        stages = self._stages((image.shape[2], image.shape[1]), view.size, size)
        for index, (left, right) in enumerate(stages):
            if index:
                image = image.round_().clamp_(0, 255)
            image = self._torch.matmul(self._torch.matmul(left, image), right)
        return image if stages else image.clone()

    def _new_stages(
        self, have: tuple[int, int], view: tuple[int, int], want: tuple[int, int]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The matrices that take an image from one size to that of a view, and from that to a third.

        Both are one step where the first cannot leave the range of grey levels.

        Args:
            have: Width and height, pixels.
            view: Of the view.
            want: Of the result.

        Returns:
            For each step the matrix for the rows, on the left, and that for the columns, on the right.
        """
        stages = []
        if have != view:
            kind = _interpolation(have, view)
            stages.append((_weights(have[1], view[1], kind), _weights(have[0], view[0], kind)))
        if view != want:
            stages.append((_weights(view[1], want[1], "antialias"), _weights(view[0], want[0], "antialias")))
        if len(stages) == 2 and all(bool((each >= 0).all()) for each in stages[0]):
            stages = [(stages[1][0] @ stages[0][0], stages[1][1] @ stages[0][1])]
        moved = [tuple(each.to(self._device, self._exact) for each in (rows, columns.T)) for rows, columns in stages]
        return [(left.contiguous(), right.contiguous()) for left, right in moved]


def _interpolation(have: tuple[int, int], want: tuple[int, int]) -> str:
    """How `core.frame` gets from one width and height to another, which is not half of it or less in both."""
    if max(have[0] / want[0], have[1] / want[1]) >= 2:
        return "area"
    return "bilinear" if want[0] * want[1] < have[0] * have[1] else "bicubic"


def _weights(have: int, want: int, interpolation: str) -> torch.Tensor:
    """`(want, have)` float64: what each of `have` lines adds to each of `want`."""
    import torch

    lines = torch.eye(have, dtype=torch.float64)
    if have == want:
        return lines
    if interpolation == "area":
        # Each line of the result is the mean of the length that it covers.
        edges = torch.arange(want + 1, dtype=torch.float64) * (have / want)
        starts = torch.arange(have, dtype=torch.float64)
        covered = torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)
        return covered.clamp(min=0) * (want / have)
    antialias = interpolation == "antialias"
    mode = "bilinear" if antialias else interpolation
    resized = torch.nn.functional.interpolate(lines[None, None], (want, have), mode=mode, antialias=antialias)
    return resized[0, 0]


class InputBatches:
    """Answers batches of inputs: a generator for `vlm.dynamic_batching.CallBatcher`."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Say what runs.

        Args:
            run: Takes `(n, 3, h, w)`, returns `(n, k, 7)`.
        """
        self._torch = require_package("torch", "to run a model on a GPU", "activeo3_ros[gpu]")
        self._run = run

    def generate(self, requests: Sequence[torch.Tensor]) -> list[npt.NDArray[np.float32]]:
        """One `(k, 7)` for each `(3, h, w)`, on the CPU; no more than that comes back from the device."""
        with self._torch.inference_mode():
            return list(self._run(self._torch.stack(list(requests))).cpu().numpy())


class BatchGraphs:
    """Runs a function of a batch by CUDA graphs, one for each of `BATCH_SIZES`: launching kernels one by one takes
    longer than a small model computes."""

    def __init__(
        self, run: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor, largest: int, fuse: bool = False
    ) -> None:
        """Record the graphs, which takes some seconds.

        Args:
            run: Takes `(n, 3, h, w)`, returns `(n, …)`; its work may depend on shapes alone.
            like: `(3, h, w)` of the type and on the device of the inputs.
            largest: Most inputs of a batch.
            fuse: Compile the function first, which takes minutes.
        """
        self._torch = require_package("torch", "to run a model on a GPU", "activeo3_ros[gpu]")
        self._run = self._torch.compile(run) if fuse else run
        self._fuse = fuse
        self._pool = self._torch.cuda.graph_pool_handle()
        self._graphs: dict[int, tuple[Any, torch.Tensor, torch.Tensor]] = {}
        # The largest first: the smaller ones then fit into its memory, since outputs are copied at once.
        smallest = 2 if fuse else 1  # a batch of one would be compiled for itself
        sizes = {max(smallest, largest), *(size for size in BATCH_SIZES if smallest <= size < largest)}
        for count in sorted(sizes, reverse=True):
            self._record(count, like)
        self._largest = largest

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """The function's output for a batch of any size; one thread at a time."""
        parts = [self._part(batch[start : start + self._largest]) for start in range(0, len(batch), self._largest)]
        return parts[0] if len(parts) == 1 else self._torch.cat(parts)

    def _record(self, count: int, like: torch.Tensor) -> None:
        torch = self._torch
        given = torch.rand((count, *like.shape), dtype=like.dtype, device=like.device)
        if self._fuse:
            torch._dynamo.mark_dynamic(given, 0)  # one compilation for all sizes
        decisions = None if self._fuse else _Decisions()
        stream = torch.cuda.Stream(like.device)
        stream.wait_stream(torch.cuda.current_stream(like.device))
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                with decisions.noted() if decisions else contextlib.nullcontext():
                    expected = self._run(given)
        torch.cuda.current_stream(like.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        repeating = decisions.repeated() if decisions else contextlib.nullcontext()
        try:
            with torch.inference_mode(), repeating, torch.cuda.graph(graph, pool=self._pool):
                output = self._run(given)
        except RuntimeError as error:
            raise error.__context__ or error from None  # what could not be recorded, not that the recording failed
        graph.replay()
        if not torch.allclose(output.float(), expected.float(), atol=SAME, rtol=SAME, equal_nan=True):
            raise RuntimeError("its recorded graph gives another result than the model")
        self._graphs[count] = graph, given, output

    def _part(self, batch: torch.Tensor) -> torch.Tensor:
        count = min(size for size in self._graphs if size >= len(batch))
        graph, given, output = self._graphs[count]
        given[: len(batch)].copy_(batch)
        graph.replay()
        return output[: len(batch)].clone()


class _Decisions:
    """Lets the code around a model run while a graph is recorded, when the CPU may not wait for the device.

    What it asks of tensors (is their sum as it should be?) is noted in a run before and repeated. A number that it puts
    into a tensor is filled in on the device, since no graph can record a copy from the CPU.
    """

    def __init__(self) -> None:
        self._noted: list[Any] = []

    def noted(self) -> contextlib.AbstractContextManager[Any]:
        """In this block the answers are noted, those of the last block alone."""
        import torch

        self._noted = []

        def ask(function: Any, args: Any, kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            if function in (torch.Tensor.__bool__, torch.Tensor.item):
                self._noted.append(answer)
            return answer

        return _intercepted(ask)

    def repeated(self) -> contextlib.AbstractContextManager[Any]:
        """In this block the noted answers are given again."""
        import torch

        answers = iter(self._noted)

        def answer(function: Any, args: Any, kwargs: Any) -> Any:
            if function in (torch.Tensor.__bool__, torch.Tensor.item):
                return next(answers)
            if function is torch.Tensor.__setitem__ and isinstance(args[2], (int, float)):
                return args[0][args[1]].fill_(args[2])
            return function(*args, **kwargs)

        return _intercepted(answer)


def _intercepted(call: Callable[[Any, Any, Any], Any]) -> contextlib.AbstractContextManager[Any]:
    """In this block torch's functions are called through `call(function, args, kwargs)`."""
    from torch.overrides import TorchFunctionMode

    class Interception(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return call(function, args, kwargs or {})

    return Interception()
