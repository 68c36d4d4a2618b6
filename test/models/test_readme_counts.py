"""The counts in the README and on the page of the demo are those of the truth."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from loading import EXAMPLES, load_script

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import MOTORWAY_PICTURE, require
from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.core import Frame
from activeo3_ros.presets import load_preset

ROOT = EXAMPLES.parent


@pytest.fixture(scope="module")
def counts():
    """Reported and right, by preset."""
    try:
        image = read_image(require(MOTORWAY_PICTURE))
    except AssetError as error:
        pytest.skip(str(error))
    drawing = load_script(ROOT / "docs" / "draw_motorway.py")
    truth = np.array(json.loads((ROOT / "docs" / "motorway_truth.json").read_text(encoding="utf-8"))["vehicles"])
    found = {}
    for preset in ("full_frame", "embedded"):
        result = load_preset(preset).build().perceive(Frame(image), drawing.QUERY)
        found[preset] = len(result.detections), drawing.matches(result, truth), len(truth)
    return found


def test_the_readme_counts_what_is_reported_and_what_is_right(counts):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    one = re.search(r"\(`full_frame`, above\): (\d+) vehicles reported, (\d+) right", text)
    four = re.search(r"\(`embedded`, below\): (\d+) reported, (\d+) right", text)
    labelled = re.search(r"with (\d+) labelled by hand", text)
    assert one and four and labelled
    assert (*map(int, one.groups()), int(labelled[1])) == counts["full_frame"]
    assert (*map(int, four.groups()), int(labelled[1])) == counts["embedded"]


def test_the_page_of_the_demo_counts_the_same(counts):
    text = (ROOT / "docs" / "results" / "demo.md").read_text(encoding="utf-8")
    for preset, (reported, right, _) in counts.items():
        assert re.search(rf"{preset}: \d views, {reported} vehicles reported, {right} of them right", text)
