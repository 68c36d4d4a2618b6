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

"""Interactive segmentation, as ACTIVE-o3 (arXiv 2505.21457) evaluates it: clicks correct a mask in chosen regions.

The current mask is painted on the picture in translucent green. The policy marks up to three regions where the mask is
wrong. In each region, cropped at full resolution, a simulated click shows the segmenter the largest error. The metric
is the IoU with the ground truth after 0, 1, 2 and 3 regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from ..codecs.rle import Mask
from ..core import Box, Budget, Frame, InvalidInput, Proposal, Query, Region, View
from ..core.frame import Image
from ..core.interfaces import SensingPolicy
from ..core.optional import require_package

ZOOMS = 3
QUESTION = Query(
    "the places where the green mask is wrong: parts of the object that it misses, background that it covers"
)
GREEN = (0, 255, 0)
OPACITY = 0.5
CLICK_RADIUS_SHARE = 0.02
"""Radius of the disc that a click marks, as a share of the shorter side of the crop."""


@dataclass(frozen=True)
class Click:
    """A point, in pixels of the segmenter's picture, and whether it lies on the object."""

    x: int
    y: int
    is_object: bool


class Corrector(Protocol):
    """A segmenter that takes corrections."""

    def start(self, image: Image, box: Box) -> Mask:
        """Segment the object in a box.

        Args:
            image: `(h, w, 3)` BGR picture.
            box: In pixels of the picture.

        Returns:
            `(h, w)` bool mask.
        """

    def correct(self, image: Image, mask: Mask, clicks: Sequence[Click]) -> Mask:
        """Correct a mask.

        Args:
            image: `(h, w, 3)` BGR picture.
            mask: `(h, w)` bool, the present mask.
            clicks: In pixels of the picture.

        Returns:
            `(h, w)` bool mask.
        """


def interact(
    frame: Frame, truth: Mask, box: Box, policy: SensingPolicy, corrector: Corrector, budget: Budget
) -> tuple[list[float], list[Region]]:
    """Run the protocol on one picture. A policy that marks fewer than `ZOOMS` regions keeps its last mask.

    Args:
        frame: The picture.
        truth: `(h, w)` bool, the true mask.
        box: Box of the object in source pixels.
        policy: Marks the regions.
        corrector: Makes the masks.
        budget: Of the policy.

    Returns:
        IoU with the ground truth after 0 to `ZOOMS` regions, and the regions in source pixels.
    """
    mask = corrector.start(frame.image, box)
    ious = [mask_iou(mask, truth)]
    painted = Frame(paint(frame.image, mask))
    view = painted.view(painted.window, policy.view_size(frame.width, frame.height, budget.view_pixels))
    if isinstance(policy, ErrorOracle):
        policy.errors = mask != truth
    proposal = policy.propose(view, QUESTION, budget)
    regions = []
    for region in proposal.regions[: min(ZOOMS, budget.max_regions)]:
        window = view.box_to_source(region.box).snapped(frame.width, frame.height)
        part = window.slices()
        click = oracle_click(mask[part], truth[part])
        if click is not None:
            mask = mask.copy()
            mask[part] = corrector.correct(np.ascontiguousarray(frame.image[part]), mask[part], [click])
        ious.append(mask_iou(mask, truth))
        regions.append(Region(window, region.label, region.score))
    return ious + [ious[-1]] * (ZOOMS + 1 - len(ious)), regions


def oracle_click(mask: Mask, truth: Mask) -> Click | None:
    """Simulate a click of a person: the point deepest inside the largest connected error; None if nothing is wrong."""
    errors = (mask != truth).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(errors, connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    padded = np.pad(labels == largest, 1).astype(np.uint8)  # the border of the crop ends an error too
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return Click(int(x), int(y), bool(truth[y, x]))


def paint(image: Image, mask: Mask) -> Image:
    """Copy a picture and paint a mask on it in translucent green."""
    painted = image.copy()
    painted[mask] = (painted[mask] * (1 - OPACITY) + np.array(GREEN) * OPACITY).astype(np.uint8)
    return painted


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two `(h, w)` bool masks; 1 for two empty masks."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


class ErrorOracle:
    """Marks the regions that hold the most wrong pixels: an upper bound for policies, in practice."""

    SHARES = (1 / 3, 1 / 5, 1 / 8)
    """Sides of its regions, as shares of the longer side of the picture."""

    def __init__(self) -> None:
        self.errors: Mask = np.zeros((1, 1), bool)
        """`(h, w)` bool, true where the mask of the source is wrong."""

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return width, height

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        wrong = self.errors.astype(np.float32)
        regions = []
        for _ in range(budget.max_regions):
            best = max((self._best(wrong, share) for share in self.SHARES), key=lambda found: found[0])
            if best[0] <= 0:
                break
            regions.append(Region(best[1], "wrong", best[0]))
            wrong[best[1].slices()] = 0
        return Proposal(tuple(regions), used_view=False)

    def _best(self, wrong: np.ndarray[tuple[int, ...], np.dtype[np.float32]], share: float) -> tuple[float, Box]:
        """Score and place of the square with the most wrong pixels; the score prefers small squares."""
        height, width = wrong.shape
        side = max(2, round(share * max(height, width)))
        tall, wide = min(side, height), min(side, width)
        sums = cv2.integral(wrong)
        held = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
        y, x = np.unravel_index(int(np.argmax(held)), held.shape)
        return float(held[y, x]) * share**-0.5, Box(float(x), float(y), float(wide), float(tall))


class GrabCutCorrector:
    """OpenCV's GrabCut: needs no weights and separates by colour alone."""

    MAX_SIDE_PX = 640
    REACH_SHARE = 0.5
    """Distance from a click within which the mask may change, as a share of the longer side."""
    ITERATIONS = 3

    def start(self, image: Image, box: Box) -> Mask:
        labels = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
        labels[box.snapped(image.shape[1], image.shape[0]).slices()] = cv2.GC_PR_FGD
        return self._cut(image, labels, fallback=labels == cv2.GC_PR_FGD)

    def correct(self, image: Image, mask: Mask, clicks: Sequence[Click]) -> Mask:
        height, width = mask.shape
        labels = np.where(mask, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
        near = np.zeros(mask.shape, np.uint8)
        for click in clicks:
            cv2.circle(near, (click.x, click.y), max(2, round(self.REACH_SHARE * max(height, width))), 1, cv2.FILLED)
        labels[near > 0] = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD)[near > 0]
        radius = max(1, round(CLICK_RADIUS_SHARE * min(height, width)))
        for click in clicks:
            cv2.circle(labels, (click.x, click.y), radius, cv2.GC_FGD if click.is_object else cv2.GC_BGD, cv2.FILLED)
        return self._cut(image, labels, fallback=mask)

    def _cut(self, image: Image, labels: Image, fallback: Mask) -> Mask:
        is_object = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        if is_object.all() or not is_object.any():
            return fallback  # there are no two colour models to learn
        size = image.shape[1], image.shape[0]
        scale = min(1.0, self.MAX_SIDE_PX / max(size))
        small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        shown = cv2.resize(image, small, interpolation=cv2.INTER_AREA) if scale < 1 else image
        cut = cv2.resize(labels, small, interpolation=cv2.INTER_NEAREST)
        is_object = (cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD)
        if is_object.all() or not is_object.any():
            return fallback
        cv2.setRNGSeed(0)  # GrabCut starts from k-means: the same picture must give the same mask
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        mode = cv2.GC_INIT_WITH_MASK
        cv2.grabCut(np.ascontiguousarray(shown), cut, (0, 0, 1, 1), background, foreground, self.ITERATIONS, mode)
        found = ((cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD)).astype(np.uint8)
        mask = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_NEAREST) > 0)
        return mask if mask.any() else fallback


class SamCorrector:
    """Segment Anything (Kirillov et al. 2023) through transformers, from a local directory of weights."""

    MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    """Of red, green and blue, 0 to 255, in its training data."""

    def __init__(self, weights: str) -> None:
        """Load the weights.

        Args:
            weights: Directory in the format of transformers.

        Raises:
            InvalidInput: There are no weights that can be read.
            MissingPackageError: torch or transformers is not installed.
        """
        self._torch = require_package("torch", "to run SAM")
        transformers = require_package("transformers", "to run SAM")
        try:
            model = transformers.SamModel.from_pretrained(weights, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"{weights}: no weights of SAM that can be read: {str(error).splitlines()[0]}"
            ) from error
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)
        self._side = int(model.config.vision_config.image_size)

    def start(self, image: Image, box: Box) -> Mask:
        return self._predict(image, [], box)

    def correct(self, image: Image, mask: Mask, clicks: Sequence[Click]) -> Mask:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        points = list(clicks)
        deepest = oracle_click(np.zeros_like(mask), mask)  # a click deep inside the mask keeps the object in mind
        if len(rows) and len(columns) and deepest is not None:
            points.append(deepest)
        return self._predict(image, points, None)

    def _predict(self, image: Image, clicks: Sequence[Click], box: Box | None) -> Mask:
        torch = self._torch
        height, width = image.shape[:2]
        scale = self._side / max(height, width)
        size = round(width * scale), round(height * scale)
        shown = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2RGB)
        pixels = np.zeros((self._side, self._side, 3), np.float32)
        pixels[: size[1], : size[0]] = (shown - np.array(self.MEAN, np.float32)) / np.array(self.DEVIATION, np.float32)
        inputs = {"pixel_values": torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())}
        if clicks:
            inputs["input_points"] = torch.tensor([[[[c.x * scale, c.y * scale] for c in clicks]]], dtype=torch.float32)
            inputs["input_labels"] = torch.tensor([[[int(c.is_object) for c in clicks]]])
        if box is not None:
            corners = [box.x * scale, box.y * scale, box.right * scale, box.bottom * scale]
            inputs["input_boxes"] = torch.tensor([[corners]], dtype=torch.float32)
        with torch.inference_mode():
            output = self._model(
                **{name: value.to(self._device) for name, value in inputs.items()}, multimask_output=False
            )
        logits = output.pred_masks[0, 0, 0].float().cpu().numpy()
        large = cv2.resize(logits, (self._side, self._side), interpolation=cv2.INTER_LINEAR)[: size[1], : size[0]]
        return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_LINEAR) > 0)
