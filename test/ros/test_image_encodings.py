"""The encodings of images against ROS itself: the names that it has, and what cv_bridge makes of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from image_fixtures import message, stored_as

from activeo3_ros.codecs.image_message import ENCODINGS, PLANAR_ENCODINGS, image_to_bgr

LIMIT = 1_000_000


def test_every_encoding_that_ros_names_for_colour_grey_bayer_and_yuv_is_understood():
    """As its own header has them, but for YUV 4:4:4 in planes, whose rows of colour are longer than `step`."""
    get_package_prefix = pytest.importorskip("ament_index_python.packages").get_package_prefix
    headers = list(Path(get_package_prefix("sensor_msgs")).glob("include/**/image_encodings.hpp"))
    if not headers:
        pytest.skip("the headers of sensor_msgs are not installed")
    named = set(re.findall(r'char \w+\[\] = "(\w+)"', headers[0].read_text(encoding="utf-8")))
    planes_of_other_rows = {"nv24"}
    numeric = {name for name in named if re.fullmatch(r"\d+[USF]+C\d", name)}  # numbers of any meaning
    assert {"rgb8", "mono16", "bayer_grbg16", "yuv422_yuy2"} <= named
    assert {"nv21"} <= named
    assert named - planes_of_other_rows - numeric <= {*ENCODINGS, *PLANAR_ENCODINGS}


BRIDGED = sorted(name for name in ENCODINGS if not re.match(r"yuv|8U|bayer.*16", name))


@pytest.mark.parametrize("encoding", BRIDGED)
def test_the_same_as_cv_bridge(encoding):
    """Rows without padding: the cv_bridge of PyPI (1.13) takes padding for pixels, and knows 8 bit only.

    That one needs NumPy 1 and OpenCV 4, where it agreed at each of the eight encodings that it knew. A robot has its
    distribution's.
    """
    bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed").CvBridge()
    image = pytest.importorskip("sensor_msgs.msg").Image
    fields = vars(message(stored_as(encoding), encoding))
    try:
        expected = bridge.imgmsg_to_cv2(image(**fields), "bgr8")
    except Exception as error:
        pytest.skip(f"this cv_bridge fails at {encoding}: {error}")
    assert np.array_equal(image_to_bgr(message(stored_as(encoding), encoding), LIMIT), expected)
