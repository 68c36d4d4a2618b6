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

"""Reads a model's calls of a zoom tool, in the forms of Qwen's chat templates.

Qwen2.5-VL, Qwen3-VL and models trained from them, such as DeepEyes (arXiv 2505.14362), write a JSON object between
`<tool_call>` tags; Qwen3.5 writes `<function=…>` and `<parameter=…>` there. Anything else becomes an error that says
what was wrong: a call is never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .answer_tree import Span
from .parsing import parse_answer
from .reply_notes import excerpt

ZOOM_TOOL = "image_zoom_in_tool"

_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|\Z)", re.DOTALL)
_NAME = re.compile(r"""["']name["']\s*:\s*["']([^"']{0,100})["']|<function=([^>\s]{0,100})>""")
_LABEL = re.compile(r"""["']label["']\s*:\s*["']([^"']{0,200})["']|<parameter=label>\s*(.{0,200}?)\s*</parameter>""")
_PICTURE = re.compile(r"""["']img_idx["']\s*:\s*(-?\d{1,4})|<parameter=img_idx>\s*(-?\d{1,4})\s*</parameter>""")


@dataclass(frozen=True)
class ZoomCall:
    """A call of the zoom tool.

    Attributes:
        corners: `x1, y1, x2, y2` in the model's coordinates of the picture.
        label: What the model expects there.
        picture: Number of the picture, 0 for the first of the conversation.
        spans: Of the box in the text.
    """

    corners: tuple[float, float, float, float]
    label: str
    picture: int
    spans: tuple[Span, ...] = ()


def zoom_calls(text: str) -> list[ZoomCall | str]:
    """The tool calls in a text, in their order; one that cannot be followed as an error for people and for the model.

    Args:
        text: What the model wrote; thoughts before a call are no part of it.
    """
    start = text.find("</think>") + 1
    return [_zoom_call(match) for match in _CALL.finditer(text, start)]


def _zoom_call(match: re.Match[str]) -> ZoomCall | str:
    body = match[1]
    if not match[2]:
        return f"the tool call breaks off: {excerpt(body)}"
    named = _NAME.search(body)
    name = (named[1] or named[2] or "") if named else ""
    if name != ZOOM_TOOL:
        called = f"unknown tool {name!r}" if name else f"the tool call {excerpt(body)} names no tool"
        return f"{called}; the only one is {ZOOM_TOOL!r}"
    boxes = parse_answer(body).boxes
    if len(boxes) != 1:
        found = f"{len(boxes)} boxes" if boxes else "no box"
        return f"the tool call {excerpt(body)} has {found}; it takes one bbox_2d: [x1, y1, x2, y2]"
    label, picture = _LABEL.search(body), _PICTURE.search(body)
    offset = match.start(1)
    return ZoomCall(
        boxes[0].corners,
        (label[1] or label[2] or "").strip() if label else "",
        int(picture[1] or picture[2]) if picture else 0,
        tuple((first + offset, last + offset) for first, last in boxes[0].spans),
    )
