"""Settings: the annotations of a constructor say what is allowed, and a wrong value is named in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from activeo3_ros.core import InvalidInput
from activeo3_ros.presets import COMPONENT_TYPES, describe_components
from activeo3_ros.settings import REQUIRED, check_settings, settings_of, validated, within


class Lens:
    """Stands for an object that only Python code can hand over."""


class Camera:
    """A component as others are."""

    @validated
    def __init__(
        self,
        width: Annotated[int, within(28, 4096, "pixels")],
        gain: Annotated[float, within(0, 0.5)] = 0.25,
        mode: Literal["", "fast", "slow"] = "",
        names: Sequence[str] = (),
        threads: Annotated[int, within(1)] | None = None,
        lens: Mapping[str, Any] | Lens = {},  # noqa: B006
        upright: bool = True,
        shutter: Lens | None = None,
    ) -> None:
        """Open the camera.

        Args:
            width: Of the image,
                in full.
            gain: Of the sensor.

        Raises:
            InvalidInput: A value is not allowed.
        """
        self.width = width


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"width": 27}, "width must be 28 to 4096 pixels, got 27"),
        ({"width": "wide"}, "width must be a whole number, got 'wide'; allowed is 28 to 4096 pixels"),
        ({"width": True}, "width must be a whole number, got True; allowed is 28 to 4096 pixels"),
        ({"width": 64.5}, "width must be a whole number, got 64.5; allowed is 28 to 4096 pixels"),
        ({"gain": 0.6}, "gain must be 0 to 0.5, got 0.6"),
        ({"gain": float("nan")}, "gain must be 0 to 0.5, got nan"),
        ({"mode": "loud"}, "mode must be one of '', 'fast', 'slow', got 'loud'"),
        ({"mode": 3}, "mode must be a text, got 3; allowed is one of '', 'fast', 'slow'"),
        ({"names": "left"}, "names must be a list of texts, got 'left'"),
        ({"names": [1]}, "names must be a list of texts, got [1]"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"lens": "wide"}, "lens must be a mapping of names to values, got 'wide'"),
        ({"upright": "no"}, "upright must be true or false, got 'no'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(settings, complaint):
    with pytest.raises(InvalidInput) as refusal:
        Camera(**{"width": 64, **settings})
    assert str(refusal.value) == complaint
    with pytest.raises(InvalidInput) as refusal:
        check_settings("camera 'front'", Camera, {"width": 64, **settings})
    assert str(refusal.value) == f"camera 'front': {complaint}"


def test_what_is_allowed_is_taken():
    camera = Camera(np.int64(28), 0, "fast", ["left"], None, Lens(), shutter=Lens())
    assert camera.width == 28
    check_settings("camera", Camera, {"width": 28, "threads": None, "lens": {"type": "wide"}})


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do_and_the_nearest():
    with pytest.raises(InvalidInput, match=r"camera has no setting 'widht'; it has width, .*; did you mean 'width'\?$"):
        check_settings("camera", Camera, {"widht": 28})
    with pytest.raises(InvalidInput, match="camera has no setting 'shutter'"):
        check_settings("camera", Camera, {"width": 28, "shutter": 1})


def test_a_setting_that_is_missing_is_named():
    with pytest.raises(InvalidInput, match="camera needs the setting 'width'"):
        check_settings("camera", Camera, {})
    with pytest.raises(TypeError, match="width"):
        Camera()


def test_settings_are_described_from_their_declaration():
    settings = settings_of(Camera)
    assert list(settings) == ["width", "gain", "mode", "names", "threads", "lens", "upright"]
    width, gain = settings["width"], settings["gain"]
    assert (width.kind, width.allowed, width.default) == ("a whole number", "28 to 4096 pixels", REQUIRED)
    assert (width.meaning, gain.meaning) == ("Of the image, in full.", "Of the sensor.")


def test_every_component_of_the_presets_is_described():
    described = list(describe_components())
    assert {(each.kind, each.type) for each in described} >= {
        (kind, name) for kind, types in COMPONENT_TYPES.items() for name in types
    }
    assert all(each.summary for each in described)
    grid = next(each for each in described if each.type == "grid")
    assert [(setting.name, setting.allowed, setting.default) for setting in grid.settings] == [
        ("overlap", "0 to 0.9", 0.25)
    ]
