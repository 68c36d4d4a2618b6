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

"""The configuration of a training run, one YAML file: `activeo3 train grpo --config FILE`.

All keys but `model` and `data` have defaults:

    model: DIR                      # a checkpoint: of the policy, or of the model to start from
    output: DIR                     # checkpoints, logs, panels
    data: {path: DIR}               # of `activeo3 train data`
    view_pixels, shorter_side, crop_pixels, max_regions: the sizes that the policy and the task model get
    task: {type: mllm, engine: …}   # as in a preset; absent: the heuristic terms alone
    reward: {coverage: purity, min_purity: …, weights: {task: 1.0, …}}   # fields of RewardSettings
    lora: {r: 16, …}                # arguments of peft.LoraConfig; absent: all weights are trained
    freeze: [model.visual]          # submodules that are not trained
    grpo: {learning_rate: …}        # arguments of trl.GRPOConfig
    panels_every: 25                # steps between sample panels; 0 for none
    max_minutes: 0                  # ends as if the last step were done, the learning rate falling to nothing over the
                                    # second half; 0 for no such limit

Code of other packages plugs in by name, `package.module:name`. The run imports and calls it, so a configuration is as
trusted as a program:

    data: {rows: package.module:name, …}   # instead of `path`: a class or function that gives a sequence of `Row`; the
                                           # other keys are its arguments
    speed_up: package.module:name          # called without arguments before the models are loaded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..core import Budget, InvalidInput
from .rewards import RewardSettings, RewardWeights


@dataclass(frozen=True)
class TrainingConfig:
    """A configuration file, checked. See the module for its keys."""

    model: str
    data: Mapping[str, Any]
    output: Path
    view_pixels: int = 1820 * 1024
    shorter_side: int | None = 1024
    crop_pixels: int = 840 * 840
    max_regions: int = 3
    max_task_tokens: int = 256
    prompt: str = "sensing_detection"
    task: Mapping[str, Any] | None = None
    reward: RewardSettings = field(default_factory=RewardSettings)
    lora: Mapping[str, Any] | None = None
    freeze: Sequence[str] = ()
    grpo: Mapping[str, Any] = field(default_factory=dict)
    panels_every: int = 25
    max_minutes: float = 0.0
    speed_up: str | None = None

    @property
    def budget(self) -> Budget:
        """The budget of one frame: regions, pixels of view and crops, tokens of the task model."""
        return Budget(self.max_regions, self.view_pixels, self.crop_pixels, self.max_task_tokens)


def load_config(path: Path, output: Path | None = None) -> TrainingConfig:
    """Read and check a configuration file.

    Args:
        path: The YAML file.
        output: Directory of the run, instead of the one that the file names.

    Returns:
        The configuration.

    Raises:
        InvalidInput: Anything in it is wrong; the message names file and key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    try:
        values = _mapping("a training configuration", values)
        reject_unknown("training", values, [each.name for each in fields(TrainingConfig)])
        for key in ("model", "data"):
            if key not in values:
                raise InvalidInput(f"a training configuration needs {key!r}")
        values["data"] = _mapping("data", values["data"])
        minutes = values.get("max_minutes", 0.0)
        if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 <= minutes <= 525_600:
            raise InvalidInput(f"max_minutes must be 0 to 525600, got {minutes!r}")
        if "reward" in values:
            values["reward"] = _reward(_mapping("reward", values["reward"]))
        for key in ("task", "lora"):
            if values.get(key) is not None:
                values[key] = _mapping(key, values[key])
        values["grpo"] = _mapping("grpo", values.get("grpo", {}))
        values["model"] = str(_beside(path, str(values["model"])))
        values["output"] = output or Path(values.get("output") or "out/grpo")
        config = TrainingConfig(**values)
        config.budget  # noqa: B018 - checks its own ranges
        return config
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def reject_unknown(what: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse keys that do not exist.

    Args:
        what: Names the mapping in the message: "unknown WHAT key …".
        values: The mapping.
        known: The keys that exist.

    Raises:
        InvalidInput: A key is not among `known`.
    """
    unknown = sorted(str(key) for key in set(values) - set(known))
    if unknown:
        raise InvalidInput(f"unknown {what} key {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _beside(config: Path, model: str) -> Path | str:
    """A model that is named relative to the configuration file, else as it stands."""
    candidate = config.parent / model
    return candidate.resolve() if (candidate / "config.json").is_file() else model


def _reward(values: dict[str, Any]) -> RewardSettings:
    reject_unknown("reward", values, [each.name for each in fields(RewardSettings)])
    weights = _mapping("reward weights", values.pop("weights", {}))
    reject_unknown("reward weight", weights, [each.name for each in fields(RewardWeights)])
    return RewardSettings(**values, weights=RewardWeights(**weights))


def _mapping(what: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InvalidInput(f"{what} must be a mapping of names to values, got {values!r}")
    return dict(values)
