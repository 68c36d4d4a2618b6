"""The core: a frame goes in, a policy says where to look closer, what was found comes out. Imports no ROS.

>>> from activeo3_ros.core import Budget, Frame, Query
>>> from activeo3_ros.presets import load_preset
>>> perception = load_preset("embedded").build()                       # doctest: +SKIP
>>> result = perception.perceive(Frame(image), Query(classes=("car",)))  # doctest: +SKIP
"""

from .budget import Budget, Cost
from .errors import Cancelled, InvalidInput, PerceptionError, UnsupportedQuery
from .frame import Frame, View
from .geometry import Box
from .loop import ActivePerception
from .query import Query
from .results import Detection, Finding, Findings, Grounding, InstanceMask, Proposal, Region, Result, Status

__all__ = [
    "ActivePerception",
    "Box",
    "Budget",
    "Cancelled",
    "Cost",
    "Detection",
    "Finding",
    "Findings",
    "Frame",
    "Grounding",
    "InstanceMask",
    "InvalidInput",
    "PerceptionError",
    "Proposal",
    "Query",
    "Region",
    "Result",
    "Status",
    "UnsupportedQuery",
    "View",
]
