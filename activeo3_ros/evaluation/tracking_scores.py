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

"""IDF1 and HOTA of sequences, computed by trackeval, the reference implementation of HOTA (MIT licence).

trackeval asks pip for `opencv-python`, which would replace the `opencv-python-headless` of this package and needs a
display's libraries. Its metrics use SciPy alone, so it is installed without its dependencies.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.optional import MissingPackageError, require_package

INSTALL = "pip install --no-deps 'trackeval>=1.3' && pip install scipy tabulate"
NAMES = ("IDF1", "HOTA", "DetA", "AssA")

Counts = Mapping[str, Mapping[str, Any]]
"""What trackeval counts in one sequence, by its metric: `Identity` and `HOTA`."""


@dataclass(frozen=True)
class FrameMatches:
    """The objects of one frame for the scores.

    Attributes:
        true_ids: `(n,)` id of each true object, distinct.
        found_ids: `(m,)` id of each object that was found, distinct.
        similarity: `(n, m)` their overlaps, 0 to 1; 0 for pairs of different categories.
    """

    true_ids: Sequence[str]
    found_ids: Sequence[str]
    similarity: npt.NDArray[np.float64]


def check_installed() -> None:
    """Check that the scores can be computed.

    Raises:
        MissingPackageError: trackeval or what it needs is not installed; says how to install it.
    """
    _metrics()


def count_sequence(frames: Sequence[FrameMatches]) -> Counts:
    """Count what IDF1 and HOTA are made of in one sequence.

    Args:
        frames: All judged frames in their order.

    Raises:
        MissingPackageError: trackeval or what it needs is not installed.
    """
    true_ids = {name: n for n, name in enumerate(dict.fromkeys(name for f in frames for name in f.true_ids))}
    found_ids = {name: n for n, name in enumerate(dict.fromkeys(name for f in frames for name in f.found_ids))}
    data = {
        "num_timesteps": len(frames),
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(found_ids),
        "num_gt_dets": sum(len(f.true_ids) for f in frames),
        "num_tracker_dets": sum(len(f.found_ids) for f in frames),
        "gt_ids": [np.array([true_ids[name] for name in f.true_ids], int) for f in frames],
        "tracker_ids": [np.array([found_ids[name] for name in f.found_ids], int) for f in frames],
        "similarity_scores": [f.similarity for f in frames],
    }
    return {name: metric.eval_sequence(data) for name, metric in _metrics().items()}


def tracking_scores(counts: Sequence[Counts]) -> dict[str, float]:
    """IDF1, HOTA, DetA and AssA, 0 to 1, of several sequences together; a sequence may be there several times.

    HOTA, DetA and AssA are means over the overlaps from 0.05 to 0.95, IDF1 is at 0.5. NaN where there is nothing.
    """
    if not counts:
        return dict.fromkeys(NAMES, math.nan)
    both = {
        name: metric.combine_sequences({str(n): each[name] for n, each in enumerate(counts)})
        for name, metric in _metrics().items()
    }
    identity, hota = both["Identity"], both["HOTA"]
    if not identity["IDTP"] + identity["IDFN"] + identity["IDFP"]:
        return dict.fromkeys(NAMES, math.nan)
    return {"IDF1": float(identity["IDF1"])} | {name: float(np.mean(hota[name])) for name in NAMES[1:]}


@lru_cache(maxsize=1)
def _metrics() -> dict[str, Any]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # it prints what of its own data sets cannot be read
            package = require_package("trackeval.metrics", "to compute IDF1 and HOTA")
    except MissingPackageError as error:
        raise MissingPackageError(
            f"trackeval is needed to compute IDF1 and HOTA but cannot be imported ({error.__cause__}); run: {INSTALL}"
        ) from error
    return {"Identity": package.Identity({"PRINT_CONFIG": False}), "HOTA": package.HOTA()}
