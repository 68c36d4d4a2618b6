"""A package of three files with a detector and a policy, installed with pip: what somebody else writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "gizmo-detector"
version = "1.2"

[project.entry-points."activeo3_ros.detectors"]
gizmo = "gizmo_detector:GizmoDetector"
broken = "gizmo_detector.nothing:Missing"
onnx = "gizmo_detector:GizmoDetector"

[project.entry-points."activeo3_ros.policies"]
left = "gizmo_detector:Left"

[tool.setuptools]
packages = ["gizmo_detector"]
"""
CODE = '''
import numpy as np

from activeo3_ros.core import Box, DetectedBoxes, InputSize, Proposal, Region
from activeo3_ros.core.frame import fit_within


class GizmoDetector:
    """Sees a gizmo of the given size in the middle of every image."""

    names = ("gizmo",)
    input_size = InputSize(320, 320)
    concurrent = False

    def __init__(self, size: int = 20) -> None:
        """Create the detector.

        Args:
            size: Of the gizmo, pixels.
        """
        self.size = size

    def detect(self, images, threshold):
        found = []
        for image in images:
            x, y = (image.shape[1] - self.size) / 2, (image.shape[0] - self.size) / 2
            boxes = np.array([[x, y, self.size, self.size]], float)
            found.append(DetectedBoxes(boxes, np.array([0.75], np.float32), np.zeros(1, np.intp)))
        return found


class Left:
    """Zooms into the left half."""

    def view_size(self, width, height, max_pixels):
        return fit_within(width, height, max_pixels)

    def propose(self, view, query, budget):
        return Proposal((Region(Box(0, 0, view.width / 2, view.height), "left"),), used_view=False)
'''
PRESET = "sensing: {type: left}\ntask: {type: gizmo, size: 16}\nbudget: {max_regions: 1}\n"


def install(directory: Path) -> dict[str, str]:
    """Install the package below a directory.

    Returns:
        The environment in which it is there.
    """
    source, target = directory / "source", directory / "site"
    (source / "gizmo_detector").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (source / "gizmo_detector" / "__init__.py").write_text(CODE, encoding="utf-8")
    (source / "README.md").write_text("# Gizmos\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])}
