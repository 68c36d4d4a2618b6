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

"""Converts a model of the catalogue (see `packages`) to ONNX, and tries it before it is put into the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from .cache import AssetError, put_in_place
from .onnx_session import OnnxSession
from .packages import ConvertedModel, conversion_key, converted_directory, require


def convert_model(model: ConvertedModel, workspace: Path) -> None:
    """Make the ONNX model, try it, and move it to its place; its name holds its own checksum.

    Args:
        model: Its sources have been fetched.
        workspace: A directory in the cache for unfinished files.

    Raises:
        AssetError: A source is missing, or the converted model fails its test.
    """
    from .tfjs import convert

    topology, _ = require(model.topology), require(model.weights)
    sources = {"source_topology_sha256": model.topology.sha256, "source_weights_sha256": model.weights.sha256}
    converted = convert(topology, model.outputs, sources).SerializeToString(deterministic=True)
    unchecked = workspace / f"{model.name}.onnx"
    unchecked.write_bytes(converted)
    _try_model(model, unchecked)
    name = f"{model.name}-{conversion_key(model)}-{hashlib.sha256(converted).hexdigest()[:16]}.onnx"
    put_in_place(unchecked, converted_directory() / name)


def _try_model(model: ConvertedModel, path: Path) -> None:
    """Raise AssetError unless the converted model gives for a chequered picture the score of the original."""
    test = model.test
    rows, columns = np.indices((test.side_px, test.side_px)) // test.square_px
    picture = np.repeat(((rows + columns) % 2 * 255).astype(np.float32)[None, ..., None], 3, axis=3)
    found = OnnxSession(path).run({test.input: picture}, list(model.outputs))[0]
    best = float(found[..., test.score_column].max(initial=-np.inf))
    if not abs(best - test.best_score) <= test.tolerance:
        raise AssetError(
            f"the converted model {model.name!r} gives {best:.4f} instead of {test.best_score} for its test picture; "
            "reinstall onnx and onnxruntime and run activeo3 prefetch again"
        )
