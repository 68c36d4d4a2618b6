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

"""The interfaces that plug into the loop: `SensingPolicy`, `TaskModel`, `Segmenter`; and `Detector`, for the first two.

The implementations are in `policies`, `detectors`, `segmenters` and `vlm`, or in anybody's own package: a class that
has these methods fits, without inheriting from anything here.

One instance serves one thread. A class with the attribute `concurrent = True` may be called by several threads at once,
and may answer them together.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Protocol, runtime_checkable

from .budget import Budget
from .expectation import Expectation
from .frame import Frame, Image, InputSize, View
from .query import Query
from .results import DetectedBoxes, Detection, Findings, Grounding, InstanceMask, Proposal, Region


class SensingPolicy(Protocol):
    """Chooses where to zoom."""

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        """The size at which this policy wants to see a frame.

        Args:
            width: Of the frame, source pixels.
            height: Of the frame, source pixels.
            max_pixels: Most pixels that the view may have.

        Returns:
            Width and height of the view, pixels.
        """

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        """Propose regions to zoom into.

        Args:
            view: The whole frame at the size that `view_size` gave.
            query: The phrase, question or classes to find.
            budget: The most that the frame may spend.

        Returns:
            Up to `budget.max_regions` regions in view pixels, best first.

        Raises:
            UnsupportedQuery: The policy does not understand the query.
        """


@runtime_checkable
class ExpectingPolicy(SensingPolicy, Protocol):
    """A policy that also chooses by what earlier frames have shown. Any policy can be used with a memory without it."""

    def propose_expecting(self, view: View, query: Query, budget: Budget, expected: Expectation, /) -> Proposal:
        """Propose regions that add most to what is known already.

        Args:
            view: See `propose`.
            query: See `propose`.
            budget: See `propose`.
            expected: What should be in the frame, and where earlier frames were zoomed into; empty at first.

        Returns:
            As `propose`.

        Raises:
            UnsupportedQuery: The policy does not understand the query.
        """


@runtime_checkable
class StreamingPolicy(SensingPolicy, Protocol):
    """A policy that hands over regions while it still chooses others. Its proposals have no findings of their own."""

    streams: bool
    """Whether it does so; else it is used as any other policy."""

    def propose_streaming(
        self, view: View, query: Query, budget: Budget, /
    ) -> Generator[Region | Proposal, None, None]:
        """Propose regions one by one.

        Args:
            view: See `propose`.
            query: See `propose`.
            budget: See `propose`.

        Yields:
            Each region, in view pixels, as soon as its box is known; its label and score may still be missing. At last
            the proposal as `propose` returns it, whose regions begin with these. What was found in one that is not
            there in the end is thrown away.

        Raises:
            UnsupportedQuery: The policy does not understand the query.
        """


class TaskModel(Protocol):
    """Examines views.

    A class may also have `calibration`, how far its detector can be believed (`core.calibration.Calibration`). Then a
    view that should have shown an object and does not is evidence against it. Without one whatever a view shows is
    believed, and boxes are compared by the stated defaults.

    A class whose findings have masks (`Finding.mask`) also has `makes_masks`, which is then true. They become the masks
    of the result where a query wants some and the loop has no segmenter.
    """

    batch_size: int
    """Views that one call examines together; under a deadline the loop decides anew before every call."""

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        """The size at which this model wants to see a window of the frame.

        Args:
            width: Of the window, source pixels.
            height: Of the window, source pixels.
            max_pixels: Most pixels that the view may have.

        Returns:
            Width and height of the view, pixels.
        """

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        """Find the query's objects in each view.

        Args:
            views: The views to examine; none at all only loads the models that the query needs.
            query: The phrase, question or classes to find.
            budget: The most that the frame may spend.

        Returns:
            One `Findings` for each view, in the same order, its boxes in pixels of that view.

        Raises:
            UnsupportedQuery: The model does not understand the query.
        """

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding], /) -> str | None:
        """Answer the query from the findings of all views.

        Args:
            query: The phrase, question or classes to find.
            findings: The findings of each view, as `examine` and the policy gave them.
            groundings: The merged groundings, boxes in source pixels.

        Returns:
            The answer; None if the query asks for none or none was found.
        """


@runtime_checkable
class StreamingTask(TaskModel, Protocol):
    """A task model that begins with a view while others are still to come."""

    def examine_streaming(self, views: Iterator[View], query: Query, budget: Budget, /) -> list[Findings]:
        """Find the query's objects in views that come one by one.

        Args:
            views: Waits for each next view, in this thread, and may raise, which ends the examination.
            query: See `examine`.
            budget: See `examine`.

        Returns:
            As `examine` of all these views.

        Raises:
            UnsupportedQuery: The model does not understand the query.
        """


class Segmenter(Protocol):
    """Turns detections into instance masks."""

    def segment(self, frame: Frame, detections: Sequence[Detection]) -> list[InstanceMask]:
        """Separate each detected object from its background.

        Args:
            frame: The source frame at full resolution.
            detections: The objects, boxes in source pixels.

        Returns:
            One mask for each detection, in the same order, those that cannot be separated left out.
            `InstanceMask.detection` is the index into `detections`.
        """


class Detector(Protocol):
    """Finds objects of known classes in images. Knows no views, queries or budgets: policies and task models do.

    A class may also have `batch_size`, the number of images that one call answers in little more time than one; it is
    1 where there is none. Whatever is raised, and whatever is returned that is not as below, fails the frame.
    """

    @property
    def names(self) -> Sequence[str]:
        """Name of each class id."""

    @property
    def input_size(self) -> InputSize:
        """The size at which it looks at an image, and how the image is fitted into it."""

    @property
    def concurrent(self) -> bool:
        """Whether several threads may call `detect` at once."""

    def detect(self, images: Sequence[Image], threshold: float, /) -> list[DetectedBoxes]:
        """Detect objects in a batch of images.

        Args:
            images: Each `(h, w, 3)` uint8 BGR, of any size.
            threshold: Only detections with a score above it, 0 to 1.

        Returns:
            One `DetectedBoxes` for each image, in the same order, boxes in pixels of that image, of any class. One
            object may have several boxes.

        Raises:
            InvalidInput: An array is not such an image.
        """


@runtime_checkable
class OpenVocabularyDetector(Detector, Protocol):
    """Finds what words name; its `names` are those that it looks for until it is told others."""

    def for_names(self, names: Sequence[str], /) -> Detector:
        """The same model, looking for other things.

        Args:
            names: Class names or phrases; they become the `names` of the detector that is returned.

        Returns:
            A detector that shares the model; cheap, and usable beside others.

        Raises:
            UnsupportedQuery: The model cannot read a name.
        """
