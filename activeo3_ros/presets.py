"""Presets: which policy chooses the regions, which model examines them, within which budget.

A preset is one YAML file in `config/`, or any file of that form given by its path:

    description: one line for people
    sensing: {type: NAME, setting: value, …}
    task: {type: NAME, setting: value, …}
    segmenter: {type: NAME, …}      # optional: makes masks
    examine_view: true              # optional: let the task model see the whole frame too
    budget: {max_regions: 3, …}     # fields of `Budget`; what is absent keeps the default there
    query: {text: "", classes: []}  # the query until another is set

Where `NAME.calibration.yaml` lies beside `NAME.yaml`, as `activeo3 calibrate NAME.yaml` writes it, the task reads it.

`NAME` is a key of the tables below; its settings are the keyword arguments of that class, whose annotations declare
the values that are allowed (see `settings`). A file is checked when it is loaded, before any model is.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from .assets.cache import sha256_of
from .assets.resources import config_directory
from .core import ActivePerception, Budget, InvalidInput, Query
from .detectors.calibration import calibration_beside
from .settings import Setting, check_settings, did_you_mean, named, settings_of
from .vlm.engine_registry import ENGINE_TYPES

SENSING_TYPES = {
    "detector_proposals": "activeo3_ros.policies.detector_proposals:DetectorProposals",
    "full_frame": "activeo3_ros.policies.fixed:FullFrame",
    "centre_crop": "activeo3_ros.policies.fixed:CentreCrop",
    "grid": "activeo3_ros.policies.fixed:Grid",
    "random": "activeo3_ros.policies.fixed:Random",
    "sahi": "activeo3_ros.policies.slicing:SahiSlices",
    "adaptive_slices": "activeo3_ros.policies.slicing:AdaptiveSlices",
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
COMPONENT_TYPES = {"sensing": SENSING_TYPES, "task": TASK_TYPES, "segmenter": SEGMENTER_TYPES}
"""By kind, the key of a preset: the classes by type, each as `module:name`."""


@dataclass(frozen=True)
class Component:
    """One model or policy as a preset names it.

    Attributes:
        kind: "sensing", "task" or "segmenter".
        type: A key of the table of that kind.
        settings: Keyword arguments of the class.
        source: The file that says so, for messages; "" for none.
    """

    kind: str
    type: str
    settings: Mapping[str, Any]
    source: str = ""

    @property
    def label(self) -> str:
        """Its name in messages, such as "sensing 'grid'"."""
        return f"{self.kind} {self.type!r}"

    @property
    def facts(self) -> list[Any]:
        """Type, settings, and a digest of the calibration file that they name: what results depend on."""
        file = self.settings.get("calibration")
        digest = [sha256_of(Path(str(file)).expanduser())] if file and Path(str(file)).expanduser().is_file() else []
        return [self.type, dict(self.settings), *digest]

    def check(self, types: Mapping[str, str]) -> Callable[..., Any]:
        """Find the class and compare the settings with what it declares; loads no model.

        Args:
            types: The classes by type, each as `module:name`.

        Returns:
            The class.

        Raises:
            InvalidInput: The type or a setting does not exist, a setting is missing, or a value is not allowed.
        """
        if self.type not in types:
            known = ", ".join(sorted(types))
            raise InvalidInput(
                f"unknown {self.kind} type {self.type!r}; known are {known}{did_you_mean(self.type, types)}"
            )
        found: Callable[..., Any] = _class_of(types[self.type])
        check_settings(self.label, found, self.settings)
        return found

    def build(self, types: Mapping[str, str]) -> Any:
        """Build an instance, which loads its model.

        Args:
            types: The classes by type, each as `module:name`.

        Raises:
            InvalidInput: As `check`, or the class refuses a value; the message names the file.
        """
        found = self.check(types)
        with named(self.source), named(self.label):
            return found(**self.settings)


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
        """Load the models, which may take seconds to minutes.

        Returns:
            The loop that runs them.
        """
        return ActivePerception(
            self.sensing.build(SENSING_TYPES),
            self.task.build(TASK_TYPES),
            self.budget,
            self.segmenter.build(SEGMENTER_TYPES) if self.segmenter else None,
            self.examine_view,
        )


@dataclass(frozen=True)
class PresetFile:
    """The keys of a preset's file, as they stand there.

    Attributes:
        sensing: The policy that chooses regions: `type` and its settings.
        task: The model that examines them: `type` and its settings.
        segmenter: The model that makes masks: `type` and its settings.
        description: One line for people.
        examine_view: Let the task model see the whole frame too.
        budget: What one frame may spend: fields of `Budget`.
        query: The query until another is set: `text`, `classes`, `masks`.
    """

    sensing: Mapping[str, Any]
    task: Mapping[str, Any]
    segmenter: Mapping[str, Any] | None = None
    description: str = ""
    examine_view: bool = True
    budget: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    return sorted(path.stem for path in config_directory().glob("*.yaml"))


def load_preset(name_or_path: str) -> Preset:
    """Read and check a preset; loads no model.

    Args:
        name_or_path: A shipped preset by name, or any by the path of its .yaml file.

    Raises:
        InvalidInput: There is none, or it is wrong; the message says the file, the key, the value and what is allowed.
    """
    path = _preset_path(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    with named(str(path)):
        return _parse(path, values)


def _preset_path(name_or_path: str) -> Path:
    """The file of a preset. Raises InvalidInput where there is none."""
    names = preset_names()
    if name_or_path in names:
        return config_directory() / f"{name_or_path}.yaml"
    path, similar = Path(name_or_path), did_you_mean(Path(name_or_path).stem, names)
    if path.suffix.lower() in (".yaml", ".yml"):
        path = path.expanduser()
        if path.is_file():
            return path
        problem = "is a directory" if path.is_dir() else "does not exist"
        raise InvalidInput(f"the preset file {path.absolute()} {problem}; give the path of one that does{similar}")
    if path.is_dir() or len(path.parts) > 1:
        raise InvalidInput(f"a preset file ends in .yaml, got {name_or_path!r}{similar}")
    raise InvalidInput(
        f"unknown preset {name_or_path!r}; choose one of {', '.join(names)} or give a .yaml file{similar}"
    )


@dataclass(frozen=True)
class ComponentDescription:
    """A component that presets can name, for reference pages.

    Attributes:
        kind: "sensing", "task", "segmenter" or "engine".
        type: Its name in presets.
        path: `module:name` of its class.
        summary: The first line of the docstring of the class.
        settings: In the order of the constructor.
    """

    kind: str
    type: str
    path: str
    summary: str
    settings: tuple[Setting, ...]


def describe_components() -> Iterator[ComponentDescription]:
    """Describe every component that presets can name, from the declarations that presets are checked against."""
    for kind, types in {**COMPONENT_TYPES, "engine": ENGINE_TYPES}.items():
        for type_name, path in types.items():
            found = _class_of(path)
            summary = inspect.cleandoc(found.__doc__ or "").partition("\n")[0]
            yield ComponentDescription(kind, type_name, path, summary, tuple(settings_of(found).values()))


def _parse(path: Path, values: Any) -> Preset:
    file = PresetFile(**_section("preset", PresetFile, values))
    budget, query = _section("budget", Budget, file.budget), _section("query", Query, file.query, ("revision",))
    with named("budget"):
        checked_budget = Budget(**budget)
    with named("query"):
        checked_query = Query(**{**query, "classes": tuple(query.get("classes", ()))})
    task = _with_calibration(_component("task", file.task, str(path)), _file_beside(path))
    sensing = _component("sensing", file.sensing, str(path))
    return Preset(
        name=path.stem,
        description=file.description,
        sensing=_with_calibration(sensing, task.settings.get("calibration", "")),
        task=task,
        segmenter=_component("segmenter", file.segmenter, str(path)) if file.segmenter else None,
        examine_view=file.examine_view,
        budget=checked_budget,
        query=checked_query,
    )


def _component(kind: str, values: Mapping[str, Any], source: str) -> Component:
    settings = dict(values)
    if "type" not in settings:
        raise InvalidInput(f"{kind!r} needs a 'type'")
    component = Component(kind, str(settings.pop("type")), settings, source)
    component.check(COMPONENT_TYPES[kind])
    return component


def _file_beside(path: Path) -> str:
    """The calibration that `activeo3 calibrate` wrote beside a preset, "" for none."""
    beside = calibration_beside(path)
    return str(beside) if beside.is_file() else ""


def _with_calibration(component: Component, file: str) -> Component:
    """The component with a calibration, where it takes one and its settings name none."""
    takes_one = "calibration" in settings_of(component.check(COMPONENT_TYPES[component.kind]))
    if not file or not takes_one or component.settings.get("calibration"):
        return component
    return replace(component, settings={**component.settings, "calibration": file})


def _section(name: str, declared: Callable[..., Any], values: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of one section of the file, checked against the fields of a dataclass."""
    if not isinstance(values, dict):
        raise InvalidInput(f"{name} must be a mapping of names to values, got {values!r}")
    unknown, missing = f"unknown {name} key {{name!r}}; known are {{known}}", f"a {name} needs {{name!r}}"
    check_settings("" if declared is PresetFile else name, declared, values, unknown, missing, without)
    return values


def _class_of(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
