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

"""GRPO for a policy that chooses regions, by TRL's trainer. `config.py` describes the configuration of a run."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..assets.weights import local_model
from ..core import Frame, InvalidInput
from ..core.optional import require_package
from ..presets import Component
from ..vlm.engine_registry import shared_engine
from ..vlm.families import Family, family_named
from .callbacks import csv_log, stop_on_signal, time_limit
from .checkpoints import (
    check_resumable,
    last_complete_checkpoint,
    load_weights,
    removed_if_half_written,
    save_policy,
)
from .config import TrainingConfig, reject_unknown
from .dataset import FrameCache, load_rows, make_dataset, readable_rows
from .extensions import call_extension
from .panels import Panels
from .picture_tokens import one_token_an_image, picture_tokens, without_pictures
from .rollout_batcher import RolloutBatcher
from .rows import Row
from .scoring import TERMS, Scored, Scorer, region_statistics

logger = logging.getLogger(__name__)
TRAINED_FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Those with which a run was tried."""


def train(config: TrainingConfig, resume: bool = True) -> Path:
    """Train a policy as a configuration says.

    On SIGTERM the step in progress ends, and a checkpoint is saved.

    Args:
        config: The configuration.
        resume: Go on from the last complete checkpoint in the output directory, if there is one.

    Returns:
        The directory of the trained policy, a checkpoint like any other.

    Raises:
        InvalidInput: The configuration cannot be used.
        MissingPackageError: A package is not installed.
        TrainingError: The training cannot go on.
        KeyboardInterrupt: SIGTERM came.
    """
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    transformers = require_package("transformers", "to train", "activeo3_ros[train]")
    require_package("trl", "to train", "activeo3_ros[train]")
    if config.speed_up is not None:
        call_extension("speed_up", config.speed_up, {})
    directory = local_model(config.model)
    family = family_named(json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type", ""))
    if family.name not in TRAINED_FAMILIES:
        raise InvalidInput(
            f"{directory}: training is tried with models of type {', '.join(TRAINED_FAMILIES)} alone, this is one of "
            f"{family.name}, whose conversations begin otherwise or whose layers were never trained here"
        )
    frames = FrameCache()
    rows = readable_rows(load_rows(config.data), config.output)
    scorer = make_scorer(config, family, frames)

    def load() -> Any:
        return transformers.AutoModelForImageTextToText.from_pretrained(
            directory, dtype=torch.bfloat16 if config.grpo.get("bf16") and config.lora else torch.float32,
            local_files_only=True, use_safetensors=True
        )  # fmt: skip

    stop = stop_on_signal(transformers)
    trainer = make_trainer(config, load(), directory, rows, scorer, frames, [stop])
    checkpoint = last_complete_checkpoint(config.output) if resume else None
    if checkpoint is not None:
        spread = "FSDP" if trainer.is_fsdp_enabled else "DeepSpeed" if trainer.is_deepspeed_enabled else ""
        check_resumable(checkpoint, spread)
        logger.warning("going on from %s", checkpoint)
    with stop.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.asked:
        raise KeyboardInterrupt
    target = config.output / "policy"
    save_policy(trainer, config, load, target)
    return target


def make_trainer(
    config: TrainingConfig,
    model: Any,
    directory: Path,
    rows: Sequence[Row],
    scorer: Scorer,
    frames: FrameCache,
    callbacks: Sequence[Any] = (),
) -> Any:
    """Make TRL's trainer.

    Args:
        config: The configuration.
        model: The loaded model, which is trained.
        directory: Of its tokenizer and image settings.
        rows: The questions.
        scorer: Rewards the answers.
        frames: The pictures of rows.
        callbacks: Called before those of logs, panels and the time limit.

    Returns:
        A `trl.GRPOTrainer`.

    Raises:
        InvalidInput: The configuration cannot be used.
        MissingPackageError: A package is not installed.
    """
    trl = require_package("trl", "to train", "activeo3_ros[train]")
    transformers = require_package("transformers", "to train", "activeo3_ros[train]")
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    from ..vlm.backends.preprocessing import pixel_format
    from .processor import make_processor

    arguments = _grpo_arguments(config, trl.GRPOConfig, torch, transformers)
    panels = Panels(config.output / "panels", config.panels_every, frames)
    functions, arguments.reward_weights = reward_functions(scorer, rows, panels.remember)
    for name in config.freeze:
        try:
            model.get_submodule(name).requires_grad_(False)
        except AttributeError as error:
            raise InvalidInput(f"'freeze' names {name!r}, which this model does not have") from error
    lora = None
    if config.lora is not None:
        lora = require_package("peft", "to train adapters", "activeo3_ros[train]").LoraConfig(**config.lora)
    device = "cpu" if arguments.use_cpu or not torch.cuda.is_available() else f"cuda:{arguments.local_process_index}"
    processor = make_processor(directory, pixel_format(directory, model.config.vision_config), device)
    arguments.generation_kwargs = without_pictures(
        arguments.generation_kwargs, picture_tokens(model.config, processor.image_token_id), arguments.use_vllm
    )
    return _trainer_class(trl)(
        model=model,
        processing_class=processor,
        reward_funcs=functions,
        args=arguments,
        train_dataset=make_dataset(rows, config, scorer.family, frames),
        peft_config=lora,
        callbacks=[
            *callbacks,
            csv_log(transformers, config.output / "log.csv"),
            panels.callback(transformers),
            time_limit(transformers, config.max_minutes),
        ],
    )


def make_scorer(config: TrainingConfig, family: Family, frames: Callable[[Row], Frame]) -> Scorer:
    """Make the scorer of a configuration, and load its task model.

    Args:
        config: The configuration.
        family: Of the policy's model, which reads its coordinates.
        frames: Gives the picture of a row.

    Returns:
        The scorer; without a task model where the configuration has none, or gives its term no weight.

    Raises:
        InvalidInput: The task model's settings are wrong.
    """
    task, batcher = None, None
    if config.task is not None and config.reward.weights.task:
        settings = dict(config.task)
        kind = str(settings.pop("type", ""))
        if "engine" in settings:
            batcher = RolloutBatcher(shared_engine(settings["engine"]))
            settings["engine"] = batcher
        task = Component("task", kind, settings).build()
    return Scorer(config.reward, family, config.budget, config.shorter_side, task, frames, batcher)


def reward_functions(
    scorer: Scorer, rows: Sequence[Row], on_scored: Callable[[Sequence[Scored]], None]
) -> tuple[list[Callable[..., list[float | None]]], list[float]]:
    """Make one reward function for each term, as TRL takes them. A batch is scored once for all of them.

    The reward of an answer for a term that it does not have is None: for the task term if the task model failed on it.
    Terms without a weight are computed too, for the log; only the task model does not run for nothing.

    Args:
        scorer: Rewards the answers.
        rows: The questions; TRL's column `row` has their indices.
        on_scored: Called with the scored answers of each batch.

    Returns:
        The functions, named by their terms, and their weights.
    """
    weights = scorer.settings.weights
    used = {"task": bool(weights.task) and scorer.task is not None}
    used |= {name: bool(getattr(weights, name)) for name in ("looks", "negatives")}
    terms = [name for name in TERMS if used.get(name, True)]
    last: dict[str, Any] = {"key": None, "scored": []}

    def scored_once(completions: Sequence[Any], indices: Sequence[int], log_metric: Any) -> Sequence[Scored]:
        texts = [completion[0]["content"] for completion in completions]
        key = (tuple(texts), tuple(indices))
        if last["key"] != key:
            scored = scorer.score(texts, [rows[index] for index in indices])
            last.update(key=key, scored=scored)
            if log_metric is not None:
                for name, value in region_statistics(scored).items():
                    log_metric(name, value)
                if "task" in terms:
                    log_metric("task/failed", float(np.mean([bool(each.failure) for each in scored])))
            on_scored(scored)
        found: Sequence[Scored] = last["scored"]
        return found

    def function(term: str) -> Callable[..., list[float | None]]:
        def reward(completions: Any, row: Any, log_metric: Any = None, **columns: Any) -> list[float | None]:
            return [each.reward.terms.get(term) for each in scored_once(completions, row, log_metric)]

        reward.__name__ = term
        return reward

    return [function(term) for term in terms], [float(getattr(weights, term)) for term in terms]


def _grpo_arguments(config: TrainingConfig, grpo_config: Any, torch: Any, transformers: Any) -> Any:
    known = inspect.signature(grpo_config).parameters
    reject_unknown("grpo", config.grpo, list(known))
    sampling = config.grpo.get("generation_kwargs") or {}
    if not isinstance(sampling, Mapping):
        raise InvalidInput(f"grpo: generation_kwargs must be a mapping of names to values, got {sampling!r}")
    if not config.grpo.get("use_vllm"):  # which tells of unknown ones itself
        names = transformers.GenerationConfig().to_dict()
        reject_unknown("generation_kwargs", sampling, [name for name in names if not name.startswith("_")])
    defaults = {
        "logging_steps": 1,
        "remove_unused_columns": False,
        "report_to": ["tensorboard"],
        "logging_first_step": True,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "log_completions": False,
    }
    try:
        return grpo_config(**{**defaults, **config.grpo, "output_dir": str(config.output)})
    except (TypeError, ValueError, ImportError) as error:
        raise InvalidInput(f"grpo: {str(error).splitlines()[0]}") from error


def _trainer_class(trl: Any) -> Any:
    class Trainer(trl.GRPOTrainer):  # type: ignore[misc, name-defined, unused-ignore]
        """Leaves no half-written checkpoint behind, hands prompts to vLLM as it takes them, and learns nothing from
        an answer that the task model failed on.
        """

        def _generate_single_turn(self, prompt_ids: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
            # vLLM in this process puts an image's tokens in place of one; TRL's prompts hold all of them already, which
            # would leave the rest in the text. (TRL's server gets the tokens, and places the images among them itself.)
            if self.use_vllm and self.vllm_mode == "colocate" and images:
                image = self.processing_class.image_token_id
                prompt_ids = [one_token_an_image(ids, image) for ids in prompt_ids]
            return super()._generate_single_turn(prompt_ids, images, *args, **kwargs)

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            # TRL sums the rewards that are there, so that a missing one would count as 0: the answer would be worse
            # than others of its group for what the task model did. One without any reward stays out of the group's mean
            # and has an advantage of 0.
            rewards = super()._calculate_rewards(*args, **kwargs)
            rewards[rewards.isnan().any(dim=1)] = float("nan")
            return rewards

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if self.is_fsdp_enabled or hasattr(self.model, "peft_config"):
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            else:
                load_weights(self.model, Path(resume_from_checkpoint))

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            target = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            with removed_if_half_written(target):
                super()._save_checkpoint(model, trial)

    return Trainer
