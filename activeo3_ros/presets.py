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

"""Presets: which policy chooses the regions, which model examines them, within which budget.

A preset is one YAML file in `config/`, or any file of that form given by its path:

    description: one line for people
    sensing: {type: NAME, setting: value, …}
    task: {type: NAME, setting: value, …}
    segmenter: {type: NAME, …}      # optional: makes masks, instead of those that a detector gives
    examine_view: true              # optional: let the task model see the whole frame too
    budget: {max_regions: 3, …}     # fields of `Budget`; what is absent keeps the default there
    query: {text: "", classes: []}  # the query until another is set

Paths of models, names, calibrations, vocabularies and prompts count from the directory of the preset file.
Where `NAME.calibration.yaml` lies beside `NAME.yaml`, as `activeo3 calibrate NAME.yaml` writes it, the task reads it.

`NAME` is a key of the tables below, or what an installed package registers (see `plugins`). A preset file given by its
path may also name a class, as `package.module:Class`. A task may be any detector: its settings and those of
`DetectorTask` stand side by side. The settings are the keyword arguments of the class, whose annotations declare the
values that are allowed (see `settings`). A file is checked when it is loaded, before any model is.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from .assets.cache import sha256_of
from .assets.resources import config_directory
from .assets.resources import preset_names as preset_names
from .core import ActivePerception, Budget, InvalidInput, Query, Segmenter, SensingPolicy, TaskModel
from .core.checks import raised
from .core.errors import ComponentError, PerceptionError
from .detectors.calibration import calibration_beside
from .plugins import find_plugin, load_class, plugins
from .settings import Setting, check_names, check_settings, did_you_mean, named, settings_of
from .vlm.engine_registry import ENGINE_TYPES, REMOTE
from .vlm.imported_prompts import chosen_set

SENSING_TYPES = {
    "detector_proposals": "activeo3_ros.policies.detector_proposals:DetectorProposals",
    "gain_maps": "activeo3_ros.policies.gain_maps:LearnedProposals",
    "full_frame": "activeo3_ros.policies.fixed:FullFrame",
    "centre_crop": "activeo3_ros.policies.fixed:CentreCrop",
    "grid": "activeo3_ros.policies.fixed:Grid",
    "random": "activeo3_ros.policies.fixed:Random",
    "sahi": "activeo3_ros.policies.slicing:SahiSlices",
    "adaptive_slices": "activeo3_ros.policies.slicing:AdaptiveSlices",
    "mllm": "activeo3_ros.policies.mllm:MllmSensing",
    "zoom_tool": "activeo3_ros.policies.zoom_tool:ZoomToolSensing",
}
TASK_TYPES = {"mllm": "activeo3_ros.vlm.task:MllmTask"}
"""Task models that are no detectors; every detector is a task, too."""
DETECTOR_TYPES = {
    "embedded": "activeo3_ros.detectors.centernet:CenterNet",
    "onnx": "activeo3_ros.detectors.onnx_detector:OnnxDetector",
    "transformers": "activeo3_ros.detectors.transformers_detector:TransformersDetector",
    "grounding_dino": "activeo3_ros.detectors.grounding_dino:GroundingDino",
    "served": "activeo3_ros.detectors.served_detector:ServedDetector",
}
SEGMENTER_TYPES = {
    "grabcut": "activeo3_ros.segmenters.grabcut:GrabCut",
    "sam": "activeo3_ros.segmenters.sam:Sam",
}
COMPONENT_TYPES = {
    "sensing": SENSING_TYPES,
    "task": TASK_TYPES,
    "detector": DETECTOR_TYPES,
    "segmenter": SEGMENTER_TYPES,
}
"""By kind: the classes by type, each as `module:name`."""
DETECTOR_TASK = "activeo3_ros.detectors.detector_task:DetectorTask"
ANY_DETECTOR, ANY_DETECTOR_SUMMARY = "any detector", "What every detector has besides, as a task."
NAMES_CODE = ("custom_ops",)
"""Settings that name a library, which runs as part of this process."""
SET_BY_LOADER = ("label", "reports")
"""Parameters of components that no file sets."""


@dataclass(frozen=True)
class Component:
    """One model or policy as a preset names it.

    Attributes:
        kind: "sensing", "task", "detector" or "segmenter".
        type: A key of the table of that kind, the name of a plug-in, or `package.module:Class`.
        settings: Keyword arguments of the class.
        source: The file that says so, for messages; "" for none.
        may_name_class: Whether the type may be a class of any module.
    """

    kind: str
    type: str
    settings: Mapping[str, Any]
    source: str = ""
    may_name_class: bool = False

    @property
    def label(self) -> str:
        """Its name in messages, such as "sensing 'grid'"."""
        return f"{self.kind} {self.type!r}"

    @cached_property
    def detector(self) -> Component | None:
        """The detector of a task; that of its own of a policy. None if it has none."""
        if self.kind == "task" and self.type not in TASK_TYPES:
            return replace(self, kind="detector")
        own = self.settings.get("detector") if self.kind == "sensing" and self.shares_task else None
        if own is None:
            return None
        if not isinstance(own, Mapping) or "type" not in own:
            raise InvalidInput(f"{self.label}: detector must be a mapping with a 'type', got {own!r}")
        settings = {name: value for name, value in own.items() if name != "type"}
        return Component("detector", str(own["type"]), settings, self.source, self.may_name_class)

    @property
    def facts(self) -> list[Any]:
        """Type, settings, and the digest of each file that they name in place of its path: what results depend on."""
        paths = [name for name, setting in self._declared().items() if setting.is_path]
        named_files = {name: Path(self.settings[name]).expanduser() for name in paths if _is_text(self.settings, name)}
        for name, inside in getattr(self.class_, "packaged_files", {}).items():
            if not self.settings.get(name):  # then it is the file that the package brings, which changes with it
                named_files[name] = config_directory() / inside
        digests = {name: sha256_of(file) for name, file in named_files.items() if file.is_file()}
        settings = {**self.settings, **digests}
        if self.kind == "sensing" and self.detector is not None:
            settings["detector"] = self.detector.facts
        if self.settings.get("words") in ("auto", "imported"):
            chosen = chosen_set(self.settings["words"])
            del settings["words"]  # where none is imported, results are those of a preset that knows no such choice
            settings |= {} if chosen is None else {"words": chosen.describe()}
        class_ = self.detector_class
        if self.type == "served" and class_ is not None:
            settings["socket"] = class_(**self._split()[0]).identity  # whatever the other process has
        return [self.type, settings]

    @property
    def shares_task(self) -> bool:
        """Whether it is a policy that works with the detector of the task."""
        return self.kind == "sensing" and "task" in inspect.signature(self.class_).parameters

    @cached_property
    def class_(self) -> Callable[..., Any]:
        """Its class.

        Raises:
            InvalidInput: The type does not exist, or its class cannot be imported.
        """
        types = COMPONENT_TYPES[self.kind]
        if self.type in types:
            return _class_of(types[self.type])
        if self.kind == "task":
            return replace(self, kind="detector").class_
        if ":" in self.type:
            self._check_may("name a class")
            return load_class(self.type, self.label)
        plugin = find_plugin(self.kind, self.type)
        if plugin is not None:
            return plugin.load()
        known = sorted(
            [*types, *(TASK_TYPES if self.kind == "detector" else ()), *(p.name for p in plugins(self.kind))]
        )
        raise InvalidInput(
            f"unknown {self.kind} type {self.type!r}; known are {', '.join(known)}{did_you_mean(self.type, known)}"
        )

    def check(self) -> None:
        """Compare the settings with what the class declares; loads no model.

        Raises:
            InvalidInput: The type or a setting does not exist, a setting is missing, or a value is not allowed.
        """
        code = next((name for name in NAMES_CODE if self.settings.get(name)), "")
        if code:
            self._check_may(f"set {code}")
        if self.kind in ("task", "detector") and self.detector_class is not None:
            own, around = self._split()
            check_settings(self.label, self.detector_class, own)
            check_settings(self.label, _class_of(DETECTOR_TASK), around, without=SET_BY_LOADER)
            return
        settings = dict(self.settings)
        if self.detector is not None:
            if "reports" not in inspect.signature(self.class_).parameters:
                raise InvalidInput(
                    f"{self.label} takes no detector of its own: its constructor has no parameter 'reports', by which "
                    "it is told to report nothing of what that detector finds"
                )
            self.detector.check()
            settings.pop("detector")
        check_settings(self.label, self.class_, settings, without=SET_BY_LOADER)

    def _check_may(self, do: str) -> None:
        """Raise InvalidInput where a preset that was chosen while a program runs does what brings code."""
        if not self.may_name_class:
            raise InvalidInput(
                f"{self.label}: only a preset file given by its path when a program starts may {do}, not one chosen "
                "while it runs"
            )

    @property
    def detector_class(self) -> Callable[..., Any] | None:
        """The class of a detector, also of one that is the task; None for anything else."""
        if self.kind == "detector":
            return self.class_
        return self.detector.class_ if self.kind == "task" and self.detector is not None else None

    def _declared(self) -> dict[str, Setting]:
        """Its settings; of a detector also those of the task around it."""
        if self.detector_class is None:
            return settings_of(self.class_)
        return {**settings_of(_class_of(DETECTOR_TASK)), **settings_of(self.detector_class)}

    def located(self, folder: Path) -> Component:
        """The same with relative paths counted from a folder.

        Args:
            folder: Of the preset file.

        Raises:
            InvalidInput: A file is not there, but in the current directory.
        """
        settings = dict(self.settings)
        with named(self.label):
            for name, setting in self._declared().items():
                takes_name = isinstance(setting.default, str) and _is_bare(setting.default)
                if setting.is_path and _is_text(settings, name) and not (takes_name and _is_bare(settings[name])):
                    settings[name] = _located(folder, name, settings[name])
            engine = settings.get("engine")
            if isinstance(engine, Mapping) and _is_text(engine, "model") and engine.get("type") != REMOTE:
                settings["engine"] = {**engine, "model": _located(folder, "model", engine["model"])}
            if self.kind == "sensing" and self.detector is not None:
                own = self.detector.located(folder)
                settings["detector"] = {"type": own.type, **own.settings}
        return replace(self, settings=settings)

    def build(self, task: TaskModel | None = None) -> Any:
        """Build an instance, which loads its model.

        Args:
            task: The task model, for a policy that works with its detector.

        Raises:
            InvalidInput: As `check`, or the class refuses a value; the message names the file.
            ComponentError: The class is of another package and raised something else.
        """
        self.check()
        with named(self.source), named(self.label):
            if self.detector_class is not None:
                own, around = self._split()
                detector = self._new(self.detector_class, own)
                label = detector.label if self.type == "served" else self.type
                return _class_of(DETECTOR_TASK)(detector, label=label, **around)
            settings = dict(self.settings)
            own_detector = self.detector
            if own_detector is not None:
                del settings["detector"]
                settings |= {"task": own_detector.build(), "reports": False}
            elif self.shares_task:
                settings["task"] = task
            return self._new(self.class_, settings)

    def _new(self, class_: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
        """An instance. Raises ComponentError where the class of another package raises what is not of ours."""
        try:
            return class_(**settings)
        except PerceptionError:
            raise
        except Exception as error:
            if class_.__module__.startswith(f"{__package__}."):
                raise
            raise ComponentError(f"{self.label} raised {raised(error, class_)}") from error

    def _split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of a detector, and those of the task around it."""
        assert self.detector_class is not None
        own, around = settings_of(self.detector_class), settings_of(_class_of(DETECTOR_TASK))
        allowed = [*own, *(name for name in around if name not in (*own, *SET_BY_LOADER))]
        check_names(self.label, allowed, self.settings)
        return (
            {name: value for name, value in self.settings.items() if name in own},
            {name: value for name, value in self.settings.items() if name not in own},
        )


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
        _check_detector_for(self.sensing, self.task)
        task: TaskModel = self.task.build()
        sensing: SensingPolicy = self.sensing.build(task)
        segmenter: Segmenter | None = self.segmenter.build() if self.segmenter else None
        return ActivePerception(sensing, task, self.budget, segmenter, self.examine_view)

    def build_policy(self) -> SensingPolicy:
        """Load the policy alone, with the models that it needs itself."""
        _check_detector_for(self.sensing, self.task)
        shares = self.sensing.shares_task and self.sensing.detector is None
        policy: SensingPolicy = self.sensing.build(self.task.build() if shares else None)
        return policy


@dataclass(frozen=True)
class PresetFile:
    """The keys of a preset's file, as they stand there.

    Attributes:
        sensing: The policy that chooses regions: `type` and its settings.
        task: The model that examines them: `type` and its settings.
        segmenter: The model that makes masks: `type` and its settings; none for those that the detector gives.
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


def load_preset(name_or_path: str, may_name_classes: bool = True) -> Preset:
    """Read and check a preset; loads no model.

    Args:
        name_or_path: A shipped preset by name, or any by the path of its .yaml file.
        may_name_classes: Whether a file may name a class of any module, which is imported. Not for a name that came
            over the network.

    Raises:
        InvalidInput: There is none, or it is wrong; the message says the file, the key, the value and what is allowed.
    """
    path = _preset_path(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    with named(str(path)):
        return _parse(path, values, may_name_classes)


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
            settings = [setting for setting in settings_of(found).values() if setting.name not in SET_BY_LOADER]
            yield ComponentDescription(kind, type_name, path, summary, tuple(settings))
        if kind == "detector":
            yield ComponentDescription(kind, ANY_DETECTOR, DETECTOR_TASK, ANY_DETECTOR_SUMMARY, task_settings())


def task_settings() -> tuple[Setting, ...]:
    """The settings that every detector as a task has besides its own."""
    settings = settings_of(_class_of(DETECTOR_TASK)).values()
    return tuple(setting for setting in settings if setting.name not in SET_BY_LOADER)


def _parse(path: Path, values: Any, may_name_classes: bool) -> Preset:
    file = PresetFile(**_section("preset", PresetFile, values))
    budget, query = _section("budget", Budget, file.budget), _section("query", Query, file.query, ("revision",))
    with named("budget"):
        checked_budget = Budget(**budget)
    with named("query"):
        checked_query = Query(**{**query, "classes": tuple(query.get("classes", ()))})
    sensing = _component("sensing", file.sensing, path, may_name_classes)
    task = _calibrated(path, _component("task", file.task, path, may_name_classes))
    _check_detector_for(sensing, task)
    return Preset(
        name=path.stem,
        description=file.description,
        sensing=sensing,
        task=task,
        segmenter=_component("segmenter", file.segmenter, path, may_name_classes) if file.segmenter else None,
        examine_view=file.examine_view,
        budget=checked_budget,
        query=checked_query,
    )


def _check_detector_for(sensing: Component, task: Component) -> None:
    """Raise InvalidInput where a policy works with the detector of a task that has none."""
    if sensing.shares_task and sensing.detector is None and task.detector is None:
        raise InvalidInput(
            f"{sensing.label} works with the detector of the task, and {task.label} has none; give it one of its own, "
            f"such as sensing: {{type: {sensing.type}, detector: {{type: embedded}}}}"
        )


def _component(kind: str, values: Mapping[str, Any], source: Path, may_name_class: bool) -> Component:
    settings = dict(values)
    if "type" not in settings:
        raise InvalidInput(f"{kind!r} needs a 'type'")
    component = Component(kind, str(settings.pop("type")), settings, str(source), may_name_class)
    component.check()
    return component if source.parent == config_directory() else component.located(source.parent)


def _is_text(settings: Mapping[str, Any], name: str) -> bool:
    return isinstance(settings.get(name), str) and bool(settings[name])


def _located(folder: Path, name: str, text: str) -> str:
    """A path in a preset file, counted from the folder of that file; a hub id as it stands.

    Raises:
        InvalidInput: It is not there, but in the current directory, from which it is not counted.
    """
    path = Path(text).expanduser()
    if path.is_absolute():
        return text
    if os.path.exists(folder / path):
        return str(folder / path)
    if os.path.exists(path):
        raise InvalidInput(
            f"{name}: {text} is in the current directory and not in that of the preset file, from which paths count; "
            f"write {name}: {os.path.relpath(path, folder)}"
        )
    may_be_hub_id = name == "model" and path.suffix.lower() != ".onnx"
    return text if may_be_hub_id else str(folder / path)


def _is_bare(text: str) -> bool:
    """Whether a text looks like a name and not like a path."""
    return bool(text) and len(Path(text).parts) == 1 and not Path(text).suffix


def _calibrated(path: Path, task: Component) -> Component:
    """The task with the calibration that `activeo3 calibrate` wrote beside the preset, unless the preset names one."""
    beside = calibration_beside(path)
    if task.detector is not None and not task.settings.get("calibration") and beside.is_file():
        return replace(task, settings={**task.settings, "calibration": str(beside)})
    return task


def _section(name: str, declared: Callable[..., Any], values: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of one section of the file, checked against the fields of a dataclass."""
    if not isinstance(values, dict):
        raise InvalidInput(f"{name} must be a mapping of names to values, got {values!r}")
    unknown, missing = f"unknown {name} key {{name!r}}; known are {{known}}", f"a {name} needs {{name!r}}"
    check_settings("" if declared is PresetFile else name, declared, values, unknown, missing, without)
    return values


def _class_of(path: str) -> Callable[..., Any]:
    return load_class(path, "activeo3_ros")
