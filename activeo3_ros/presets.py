"""Presets: which policy chooses the regions, which model examines them, within which budget.

A preset is one YAML file in `config/`, or any file of that form given by its path:

    description: one line for people
    sensing: {type: NAME, setting: value, …}
    task: {type: NAME, setting: value, …}
    segmenter: {type: NAME, …}      # optional: who makes masks
    examine_view: true              # optional: let the task model see the whole frame too
    budget: {max_regions: 3, …}     # fields of `Budget`; what is absent keeps the default there
    query: {text: "", classes: []}  # what to look for until somebody asks for something else

`NAME` is a key of the tables below; its settings are the keyword arguments of that class.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from .assets.resources import config_directory
from .core import ActivePerception, Budget, InvalidInput, Query
from .core.settings import check_complete, check_kinds

SENSING_TYPES = {
    "detector_proposals": "activeo3_ros.policies.detector_proposals:DetectorProposals",
    "full_frame": "activeo3_ros.policies.fixed:FullFrame",
    "centre_crop": "activeo3_ros.policies.fixed:CentreCrop",
    "grid": "activeo3_ros.policies.fixed:Grid",
    "random": "activeo3_ros.policies.fixed:Random",
    "mllm": "activeo3_ros.policies.mllm:MllmSensing",
}
TASK_TYPES = {
    "embedded": "activeo3_ros.detectors.embedded:EmbeddedTask",
    "grounding_dino": "activeo3_ros.detectors.grounding_dino:GroundingDinoTask",
    "mllm": "activeo3_ros.vlm.task:MllmTask",
}
SEGMENTER_TYPES = {
    "grabcut": "activeo3_ros.segmenters.grabcut:GrabCut",
    "sam": "activeo3_ros.segmenters.sam:Sam",
}


@dataclass(frozen=True)
class Component:
    """One model or policy as a preset names it: its class and the keyword arguments that it is built with."""

    kind: str
    type: str
    settings: Mapping[str, Any]

    def build(self, types: Mapping[str, str]) -> Any:
        """An instance. Raises InvalidInput for a type or a setting that does not exist, or a value of a wrong kind."""
        if self.type not in types:
            raise InvalidInput(f"unknown {self.kind} type {self.type!r}; known are {', '.join(sorted(types))}")
        module, _, name = types[self.type].partition(":")
        cls = getattr(importlib.import_module(module), name)
        known = list(inspect.signature(cls).parameters)
        unknown = sorted(set(self.settings) - set(known))
        if unknown:
            raise InvalidInput(
                f"{self.kind} {self.type!r} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}"
            )
        check_kinds(f"{self.kind} {self.type!r}", cls, self.settings)
        check_complete(f"{self.kind} {self.type!r}", cls, self.settings)
        return cls(**self.settings)


@dataclass(frozen=True)
class Preset:
    """A complete choice of models and budget, still to be loaded."""

    name: str
    description: str
    sensing: Component
    task: Component
    segmenter: Component | None
    examine_view: bool
    budget: Budget
    query: Query

    def build(self) -> ActivePerception:
        """Load the models, which may take seconds to minutes, and give the loop that runs them."""
        return ActivePerception(
            self.sensing.build(SENSING_TYPES),
            self.task.build(TASK_TYPES),
            self.budget,
            self.segmenter.build(SEGMENTER_TYPES) if self.segmenter else None,
            self.examine_view,
        )


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    return sorted(path.stem for path in config_directory().glob("*.yaml"))


def load_preset(name_or_path: str) -> Preset:
    """A shipped preset by name or any by path. Raises InvalidInput, with the file and the key, if it is wrong."""
    path = (
        Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else config_directory() / f"{name_or_path}.yaml"
    )
    if not path.is_file():
        raise InvalidInput(
            f"unknown preset {name_or_path!r}; choose one of {', '.join(preset_names())} or give a .yaml file"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    try:
        return _parse(path.stem, values)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def _parse(name: str, values: Any) -> Preset:
    values = _mapping("a preset", values)
    known = {field.name for field in fields(Preset)} - {"name"}
    _reject_unknown("preset", values, known)
    for key in ("sensing", "task"):
        if key not in values:
            raise InvalidInput(f"a preset needs {key!r}")
    budget = _mapping("budget", values.get("budget", {}))
    _reject_unknown("budget", budget, {field.name for field in fields(Budget)})
    query = _mapping("query", values.get("query", {}))
    _reject_unknown("query", query, {"text", "classes", "masks"})
    return Preset(
        name=name,
        description=str(values.get("description", "")),
        sensing=_component("sensing", values["sensing"]),
        task=_component("task", values["task"]),
        segmenter=_component("segmenter", values["segmenter"]) if values.get("segmenter") else None,
        examine_view=bool(values.get("examine_view", True)),
        budget=Budget(**budget),
        query=Query(
            str(query.get("text", "")), tuple(map(str, query.get("classes", ()))), bool(query.get("masks", False))
        ),
    )


def _component(kind: str, values: Any) -> Component:
    settings = dict(_mapping(kind, values))
    if "type" not in settings:
        raise InvalidInput(f"{kind!r} needs a 'type'")
    return Component(kind, str(settings.pop("type")), settings)


def _mapping(what: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InvalidInput(f"{what} must be a mapping of names to values, got {values!r}")
    return values


def _reject_unknown(what: str, values: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(str(key) for key in set(values) - known)
    if unknown:
        raise InvalidInput(f"unknown {what} key {unknown[0]!r}; known are {', '.join(sorted(known))}")
