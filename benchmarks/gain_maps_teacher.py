"""Windows from what the teacher of gain maps itself found in a frame, for the table of `gain_maps.py`.

A head learns to tell from a small view what its teacher found by looking at the whole picture at every magnification.
With the teacher's own findings in place of what the head expects, the same choice of windows shows what a perfect
student would reach, so that the rest of the way to the best windows is that of the maps and of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from activeo3_ros.assets.resources import config_directory
from activeo3_ros.core import Box, Budget, Frame, Proposal, Query, View
from activeo3_ros.core.geometry import as_array
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.evaluation.detector_oracle import TrueObject
from activeo3_ros.policies.gain_maps import GainHead, LearnedProposals
from activeo3_ros.policies.map_windows import GainMaps, map_windows
from activeo3_ros.training.proposals_scenes import DENSE_ZOOMS, Scene
from activeo3_ros.training.proposals_teacher import LookedPicture, Teacher, are_found

LABELLED, CALIBRATED, TRUSTING = "teacher, labels", "teacher, no labels", "teacher, no labels, believed"
WAYS = (LABELLED, CALIBRATED, TRUSTING)
"""With the true objects; with those that the detector finds and how far they are believed; with those, as certain."""
REFERENCE_BELIEF = 0.5
"""From this probability on something counts as an object where nobody labelled any."""


class TeachersMaps:
    """Proposes the windows that follow from the teacher's findings in `frame`, whose true objects are `objects`."""

    def __init__(self, task: DetectorTask, way: str, min_gain: float) -> None:
        self.frame = Frame(np.zeros((1, 1, 3), np.uint8))
        self.objects: Sequence[TrueObject] = ()
        self._task, self._way, self._min_gain = task, way, min_gain
        self._teacher = Teacher(task.detector, task.label, task.threshold, task.calibration)
        self._head = GainHead(config_directory() / LearnedProposals.packaged_files["model"]).description
        self._looked: tuple[Frame, LookedPicture] | None = None

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        """As the detector's."""
        return self._task.view_size(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        """Choose windows as gain maps do, by maps that say what the teacher found."""
        if not budget.max_regions:
            return Proposal(used_view=False)
        scene = self._scene(view, query)
        maps = GainMaps(self._head.zooms, scene.target(self._head).astype(float), self._head.cell_px)
        own = self._task.detector.input_size
        crop = self._task.view_size(own.width, own.height, budget.crop_pixels)
        regions = map_windows(maps, scene.size, crop, scene.largest_zoom, budget.max_regions, self._min_gain)
        return Proposal(regions, used_view=False)

    def _scene(self, view: View, query: Query) -> Scene:
        """The view, and what zooming into it would find by what the teacher found."""
        looked = self._record()
        target = self._task.resolve(query)
        [detected] = self._task.detector.detect([view.image], self._task.threshold)
        boxes = looked.boxes * view.zoom
        return Scene(
            view.image,
            (view.frame.width, view.frame.height),
            detected,
            boxes,
            looked.class_ids,
            looked.weight,
            np.stack([looked.found_at(view.zoom * zoom) for zoom in DENSE_ZOOMS.tolist()], axis=1),
            are_found(boxes, looked.class_ids, detected),
            tuple(self._task.class_ids(target.classes, target)),
        )

    def _record(self) -> LookedPicture:
        if self._looked is None or self._looked[0] is not self.frame:
            labels = (
                as_array(each.box for each in self.objects),
                np.array([each.category for each in self.objects], int),
            )
            looked = self._teacher.look(self.frame.image, labels if self._way == LABELLED else None)
            if self._way == TRUSTING:
                looked = replace(looked, weight=np.ones(len(looked.boxes)))
            self._looked = self.frame, looked
        return self._looked[1]


def reference_objects(task: DetectorTask, frame: Frame, query: Query) -> tuple[TrueObject, ...]:
    """What the detector finds in a frame that nobody labelled, at all magnifications, where it can be believed."""
    looked = Teacher(task.detector, task.label, task.threshold, task.calibration).look(frame.image)
    target = task.resolve(query)
    is_asked = np.isin(looked.class_ids, task.class_ids(target.classes, target))
    return tuple(
        TrueObject(int(looked.class_ids[index]), Box(*looked.boxes[index].tolist()))
        for index in np.flatnonzero(is_asked & (looked.weight >= REFERENCE_BELIEF))
    )
