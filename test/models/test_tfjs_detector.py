"""The converter on the real detector of the embedded preset."""

from __future__ import annotations

import pytest

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import CENTERNET, require
from activeo3_ros.assets.tfjs import CONVERTER_VERSION, convert

pytest.importorskip("onnx")


def test_the_real_detector_converts_the_same_way_twice_and_says_where_it_came_from():
    try:
        topology, _ = require(CENTERNET.topology), require(CENTERNET.weights)
    except AssetError as error:
        pytest.skip(str(error))
    models = [convert(topology, CENTERNET.outputs, {"source": "abc"}) for _ in range(2)]
    assert models[0].SerializeToString(deterministic=True) == models[1].SerializeToString(deterministic=True)
    assert models[0].producer_version == CONVERTER_VERSION
    assert {entry.key: entry.value for entry in models[0].metadata_props} == {"source": "abc"}
    # Every convolution stands among channels-first values: only the image and the two heads change their layout.
    assert sum(node.op_type == "Transpose" for node in models[0].graph.node) <= 4
