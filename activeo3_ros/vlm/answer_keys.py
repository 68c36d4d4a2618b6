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

"""The keys that models give to places, labels and words, in small letters and without `_`, `-` and spaces.

Qwen's models answer in Chinese where they are asked in it, keys included.
"""

from __future__ import annotations


def _keys(names: str) -> list[str]:
    return names.split()


BOX_KEYS = frozenset(
    _keys(
        """
        bbox2d bbox bboxes box2d box boxes boundingbox boundingboxes region bndbox rect rectangle xyxy
        bboxxyxy xywh bboxxywh cxcywh bboxcxcywh location position roi 边界框 检测框 框 坐标
        """
    )
)
POINT_KEYS = frozenset(_keys("point2d point points click clicks coordinate coordinates"))
LABEL_KEYS = {
    **dict.fromkeys(
        _keys(
            """
        label labels class classname classes classnames classlabel cls category categoryname categories
        objectname objectclass objecttype labelname ref phrase 标签 类别
        """
        ),
        0,
    ),
    **dict.fromkeys(_keys("name names object type tag entity target kind objectlabel 名称"), 1),
    **dict.fromkeys(_keys("classid categoryid labelid"), 2),
    **dict.fromkeys(_keys("description title caption"), 3),
}
"""Keys of labels; where an object has several, the one of the lowest rank holds.

One of rank 3 may describe a whole picture: it is no label of objects further in.
"""
ANSWER_KEYS = frozenset({"answer", "response"})
CORNER_KEYS = {
    **dict.fromkeys(_keys("x1 xmin left minx xstart"), "x1"),
    **dict.fromkeys(_keys("y1 ymin top miny ystart"), "y1"),
    **dict.fromkeys(_keys("x2 xmax right maxx xend"), "x2"),
    **dict.fromkeys(_keys("y2 ymax bottom maxy yend"), "y2"),
    **dict.fromkeys(_keys("cx centerx xcenter centrex xcentre"), "cx"),
    **dict.fromkeys(_keys("cy centery ycenter centrey ycentre"), "cy"),
    **dict.fromkeys(["w", "width"], "w"),
    **dict.fromkeys(["h", "height"], "h"),
    **{key: key for key in ("x", "y", "x0", "y0")},
    **dict.fromkeys(_keys("topleft lefttop upperleft min"), "first"),
    **dict.fromkeys(_keys("bottomright rightbottom lowerright max"), "last"),
}
"""Names of a box's sides, as this parser calls them."""
CONTAINER_KEYS = frozenset(
    _keys(
        """
        detections detection objects object results result items item predictions prediction annotations
        annotation instances instance output outputs data findings targets target regions boxes
        boundingboxes bboxes answer response list entities found image images frame view json value values 结果
        检测结果 物体 目标 对象
        content
        """
    )
)
"""Keys that hold objects and are no labels of them."""
OTHER_KEYS = frozenset(
    _keys(
        """
        score scores confidence confidences conf prob probability id ids trackid index count number color
        colour rgb rgba hsv bgr size imagesize imgsize resolution shape dimension dimensions area occluded
        truncated visible visibility state status iscrowd difficulty difficult attributes attribute reason
        explanation reasoning text textcontent mean std scale padding margin orientation rotation quaternion
        angle pose velocity speed distance depth timestamp time camera offset range bounds threshold version
        unit units format note notes comment
        """
    )
)
"""Keys of other things: neither labels nor places."""
PLAIN_WORDS = frozenset(
    _keys(
        """
        the a an of is are at in there here this that and my these those i found following sure json list box boxes
        bbox bboxes bounding coordinates coordinate region regions result results answer detection detections object
        objects position location detected output as follows for all each image picture
        """
    )
)
"""Words before a box in prose that do not name what it shows."""
