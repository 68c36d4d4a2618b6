"""GRPO for a policy that chooses regions, by TRL's trainer: `activeo3 train grpo --config FILE`.

The file, all keys but `model` and `data` with defaults:

    model: DIR                      # a checkpoint: of the policy, or of the model to start from
    output: DIR                     # checkpoints, logs, panels
    data: {scenes: 4096, first_seed: 0}   # drawn scenes, or {path: DIR} of `activeo3 train data`
    view_pixels, shorter_side, crop_pixels, max_regions: what the policy and the task model get to see
    task: {type: mllm, engine: …}   # as in a preset; absent: the heuristic terms alone
    reward: {coverage: purity, min_purity: …, weights: {task: 1.0, …}}   # fields of RewardSettings
    lora: {r: 16, …}                # arguments of peft.LoraConfig; absent: all weights are trained
    freeze: [model.visual]          # parts that stay as they are
    grpo: {learning_rate: …}        # arguments of trl.GRPOConfig
    panels_every: 25                # steps between sample panels; 0 for none
    max_minutes: 0                  # ends as if the last step were done, the learning rate falling to nothing over the
                                    # second half; 0 for no such limit
"""

from __future__ import annotations

import csv
import inspect
import json
import logging
import shutil
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from ..assets.weights import local_model
from ..core import Budget, Frame, InvalidInput
from ..core.errors import PerceptionError
from ..core.optional import require_package
from ..presets import TASK_TYPES, Component
from ..vlm.engine_registry import shared_engine
from ..vlm.families import Family, family_named
from ..vlm.prompts import load_prompt, target_of
from .rewards import RewardSettings, RewardWeights
from .rows import Row, SceneRows, read_rows
from .scoring import TERMS, RolloutBatcher, Scored, Scorer, TrainingError, region_statistics

logger = logging.getLogger(__name__)

FRAMES_IN_MEMORY = 192
PANEL_ANSWERS = 4
PICTURE_TOKENS = (
    "image_token_id", "video_token_id", "vision_token_id", "vision_start_token_id", "vision_end_token_id",
)  # fmt: skip
"""Of a model's configuration: tokens that stand for pictures, and those that begin and end them."""
LEAST_BIAS = -100.0
"""No server of vLLM takes less; a token of such a bias has no chance."""


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

    @property
    def budget(self) -> Budget:
        return Budget(self.max_regions, self.view_pixels, self.crop_pixels, self.max_task_tokens)


def load_config(path: Path, output: Path | None = None) -> TrainingConfig:
    """The configuration in a YAML file. Raises InvalidInput, with file and key, if anything in it is wrong."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    try:
        values = _mapping("a training configuration", values)
        _reject_unknown("training", values, [each.name for each in fields(TrainingConfig)])
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


def _beside(config: Path, model: str) -> Path | str:
    """A model that is named relative to the configuration file, as the shipped ones are, else as it stands."""
    candidate = config.parent / model
    return candidate.resolve() if (candidate / "config.json").is_file() else model


def _reward(values: dict[str, Any]) -> RewardSettings:
    _reject_unknown("reward", values, [each.name for each in fields(RewardSettings)])
    weights = _mapping("reward weights", values.pop("weights", {}))
    _reject_unknown("reward weight", weights, [each.name for each in fields(RewardWeights)])
    return RewardSettings(**values, weights=RewardWeights(**weights))


def load_data(data: Mapping[str, Any]) -> Sequence[Row]:
    """The rows that a configuration names."""
    _reject_unknown("data", data, ["path", "scenes", "first_seed"])
    if "path" in data:
        return read_rows(Path(str(data["path"])))
    count = data.get("scenes", 0)
    if not isinstance(count, int) or count < 1:
        raise InvalidInput(f"data needs 'path' or a positive number of 'scenes', got {dict(data)!r}")
    return SceneRows(count, int(data.get("first_seed", 0)))


class Frames:
    """The pictures of rows, the recent ones kept: a group of answers and the task model need the same one."""

    def __init__(self, size: int = FRAMES_IN_MEMORY) -> None:
        self._size = size
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._lock = threading.Lock()
        self._background = ThreadPoolExecutor(2, thread_name_prefix="frames")

    def __call__(self, row: Row) -> Frame:
        with self._lock:
            frame = self._frames.get(row.image)
        if frame is None:
            frame = row.frame()
            with self._lock:
                self._frames[row.image] = frame
                while len(self._frames) > self._size:
                    self._frames.popitem(last=False)
        return frame

    def ahead(self, rows: Sequence[Row], indices: Sequence[int]) -> None:
        """Get the frames of rows ready in the background, as far as they exist, for when they are asked for."""
        for index in dict.fromkeys(indices):
            if index < len(rows):
                self._background.submit(self._ready, rows, index)

    def _ready(self, rows: Sequence[Row], index: int) -> Row:
        row = rows[index]
        self(row)
        return row

    def many(self, rows: Sequence[Row], indices: Sequence[int]) -> dict[int, Row]:
        """The rows at some indices, with their frames ready, read or drawn in parallel."""

        different = sorted(set(indices))
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(different, pool.map(lambda index: self._ready(rows, index), different), strict=True))


def usable(rows: Sequence[Row], out: Path, frames: Callable[[Row], Frame] = Row.frame) -> Sequence[Row]:
    """The rows whose pictures can be read; the others are listed in `out/unreadable.jsonl`.

    Raises InvalidInput if none remains. Drawn scenes always can.
    """
    if isinstance(rows, SceneRows):
        return rows
    good: list[Row] = []
    bad: list[dict[str, str]] = []
    for row in rows:
        try:
            frames(row)
            good.append(row)
        except InvalidInput as error:
            bad.append({"image": row.image, "reason": str(error)})
    if bad:
        out.mkdir(parents=True, exist_ok=True)
        (out / "unreadable.jsonl").write_text("".join(json.dumps(each) + "\n" for each in bad), encoding="utf-8")
        logger.warning(
            "%d of %d pictures cannot be read; they are listed in %s", len(bad), len(rows), out / "unreadable.jsonl"
        )
    if not good:
        raise InvalidInput(
            f"none of {len(rows)} pictures can be read, the first because: {bad[0]['reason'] if bad else ''}"
        )
    return good


def make_dataset(rows: Sequence[Row], config: TrainingConfig, family: Family, frames: Frames) -> Any:
    """A `datasets.Dataset` whose rows become prompt and picture when they are read."""
    datasets = require_package("datasets", "to train", "activeo3_ros[train]")
    require_package("PIL.Image", "to train", "pillow")
    from PIL import Image as PillowImage

    from .processor import chat

    template = load_prompt(config.prompt)
    last: dict[str, Any] = {"rows": None, "columns": {}}

    def transform(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        # Each update asks for the rows of its generation again.
        if last["rows"] != batch["row"]:
            last.update(rows=list(batch["row"]), columns=prepare(batch))
        columns: dict[str, list[Any]] = last["columns"]
        return columns

    def prepare(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        ready = frames.many(rows, batch["row"])
        chosen = [ready[index] for index in batch["row"]]
        views: dict[str, Any] = {}
        for row in chosen:
            if row.image not in views:
                frame = frames(row)
                size = family.fit(frame.width, frame.height, config.view_pixels, config.shorter_side)
                views[row.image] = PillowImage.fromarray(
                    np.ascontiguousarray(frame.view(frame.window, size).image[..., ::-1])
                )
        prompts = [
            chat(
                template.fill(
                    "full", target=target_of(row.query), question=target_of(row.query), max_regions=config.max_regions
                )
            )
            for row in chosen
        ]
        if not config.grpo.get("shuffle_dataset", True):
            count = max(batch["row"]) + 1 - min(batch["row"])
            frames.ahead(rows, [index + count for index in batch["row"]])
        return {"prompt": prompts, "image": [views[row.image] for row in chosen], "row": list(batch["row"])}

    dataset = datasets.Dataset.from_dict({"row": list(range(len(rows)))})
    return dataset.with_transform(transform)


def reward_functions(
    scorer: Scorer, rows: Sequence[Row], on_scored: Callable[[Sequence[Scored]], None]
) -> tuple[list[Callable[..., list[float | None]]], list[float]]:
    """One function for each term, as TRL takes them, and their weights. A batch is scored once for all.

    The reward of an answer for a term that it does not have is None: for the task term if the task model failed on it.
    Terms without a weight are computed too, for the log; only the task model does not run for nothing.
    """
    weights = scorer.settings.weights
    terms = [name for name in TERMS if name != "task" or (weights.task and scorer.task is not None)]
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


def train(config: TrainingConfig, resume: bool = True) -> Path:
    """Train, and give the directory of the trained policy, a checkpoint like any other.

    Goes on from the last complete checkpoint in the output directory if there is one and `resume` is set. On SIGTERM it
    saves a checkpoint after the step in progress and raises KeyboardInterrupt.
    """
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    transformers = require_package("transformers", "to train", "activeo3_ros[train]")
    require_package("trl", "to train", "activeo3_ros[train]")
    from .qwen_speed import speed_up_qwen

    speed_up_qwen()
    directory = local_model(config.model)
    family = family_named(json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type", ""))
    frames = Frames()
    rows = usable(load_data(config.data), config.output)
    scorer = make_scorer(config, family, frames)

    def load() -> Any:
        return transformers.AutoModelForImageTextToText.from_pretrained(
            directory, dtype=torch.bfloat16 if config.grpo.get("bf16") and config.lora else torch.float32,
            local_files_only=True, use_safetensors=True
        )  # fmt: skip

    stop = _StopOnSignal(transformers)
    trainer = make_trainer(config, load(), directory, rows, scorer, frames, [stop])
    checkpoint = last_complete_checkpoint(config.output) if resume else None
    if checkpoint is not None:
        logger.warning("going on from %s", checkpoint)
    with stop.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.asked:
        raise KeyboardInterrupt
    target = config.output / "policy"
    _save_policy(trainer, config, load, target)
    return target


def _save_policy(trainer: Any, config: TrainingConfig, load: Callable[[], Any], target: Path) -> None:
    """Write the trained policy, adapters merged; every process calls it. load: makes the model of the start."""
    # Where the weights are sharded, all processes give their part, and only the result is a model that can be saved.
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        if config.lora is not None:
            peft = require_package("peft", "to train adapters", "activeo3_ros[train]")
            adapted = peft.get_peft_model(load(), peft.LoraConfig(**config.lora))
            adapted.load_state_dict(state)
            trained = adapted.merge_and_unload()
            state = trained.state_dict()
        with _no_half_saves(target):
            trained.save_pretrained(target, state_dict=state)
            trainer.processing_class.save_pretrained(target)
    trainer.accelerator.wait_for_everyone()


def make_trainer(
    config: TrainingConfig,
    model: Any,
    directory: Path,
    rows: Sequence[Row],
    scorer: Scorer,
    frames: Frames,
    callbacks: Sequence[Any] = (),
) -> Any:
    """TRL's trainer for a loaded model. directory: where its tokenizer is."""
    trl = require_package("trl", "to train", "activeo3_ros[train]")
    transformers = require_package("transformers", "to train", "activeo3_ros[train]")
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    from ..vlm.backends.preprocessing import pixel_format
    from .processor import make_processor

    arguments = _grpo_arguments(config, trl.GRPOConfig, torch, transformers)
    panels = Panels(config.output / "panels", config.panels_every, scorer, frames)
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
            _csv_log(transformers, config.output / "log.csv"),
            panels.callback(transformers),
            _time_limit(transformers, config.max_minutes),
        ],
    )


def make_scorer(config: TrainingConfig, family: Family, frames: Callable[[Row], Frame]) -> Scorer:
    """The scorer of a configuration, its task model loaded."""
    task, gathering = None, None
    if config.task is not None and config.reward.weights.task:
        settings = dict(config.task)
        kind = str(settings.pop("type", ""))
        if "engine" in settings:
            gathering = RolloutBatcher(shared_engine(settings["engine"]))
            settings["engine"] = gathering
        task = Component("task", kind, settings).build(TASK_TYPES)
    return Scorer(config.reward, family, config.budget, config.shorter_side, task, frames, gathering)


def last_complete_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint that was written to its end: its state is the last file that the trainer writes."""
    complete = [
        path
        for path in output.glob("checkpoint-*")
        if (path / "trainer_state.json").is_file() and path.name[11:].isdigit()
    ]
    return max(complete, key=lambda path: int(path.name[11:]), default=None)


def _grpo_arguments(config: TrainingConfig, grpo_config: Any, torch: Any, transformers: Any) -> Any:
    known = inspect.signature(grpo_config).parameters
    _reject_unknown("grpo", config.grpo, list(known))
    sampling = config.grpo.get("generation_kwargs") or {}
    if not isinstance(sampling, Mapping):
        raise InvalidInput(f"grpo: generation_kwargs must be a mapping of names to values, got {sampling!r}")
    if not config.grpo.get("use_vllm"):  # which tells of unknown ones itself
        names = transformers.GenerationConfig().to_dict()
        _reject_unknown("generation_kwargs", sampling, [name for name in names if not name.startswith("_")])
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


def picture_tokens(config: Any, *more: int) -> list[int]:
    """The tokens of a model that an answer must not hold; more: such that its configuration does not name."""
    named = [getattr(config, name, None) for name in PICTURE_TOKENS]
    words = config.get_text_config().vocab_size
    return sorted({token for token in (*named, *more) if token is not None and token < words})


def without_pictures(given: Mapping[str, Any] | None, tokens: Sequence[int], vllm: bool) -> dict[str, Any]:
    """TRL's `generation_kwargs`, those given and one more, by which some tokens are never sampled.

    At a temperature of 1 any token comes up sooner or later. One that stands for a picture makes prompt and answer hold
    a picture more than there are, and the next forward pass ends the run.
    """
    settings = dict(given or {})
    if vllm:  # TRL makes vLLM's SamplingParams of them
        biases = settings.get("logit_bias") or {}
        if not (isinstance(biases, Mapping) and all(str(token).isdecimal() for token in biases)):
            raise InvalidInput(f"grpo: generation_kwargs: logit_bias must map token ids to numbers, got {biases!r}")
        biases = {int(token): bias for token, bias in biases.items()}
        settings["logit_bias"] = {**biases, **dict.fromkeys(tokens, LEAST_BIAS)}
    else:  # transformers' GenerationConfig; what is given here replaces TRL's own list, which is the image token alone
        barred = settings.get("suppress_tokens") or []
        if not (isinstance(barred, list) and all(type(token) is int and token >= 0 for token in barred)):
            raise InvalidInput(f"grpo: generation_kwargs: suppress_tokens must be a list of token ids, got {barred!r}")
        settings["suppress_tokens"] = sorted({*barred, *tokens})
    return settings


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

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            target = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            with _no_half_saves(target):
                super()._save_checkpoint(model, trial)

    return Trainer


def one_token_an_image(ids: Sequence[int], image_token: int) -> list[int]:
    """A prompt whose runs of image tokens are one token each."""
    return [id for index, id in enumerate(ids) if id != image_token or index == 0 or ids[index - 1] != image_token]


class _no_half_saves:  # noqa: N801 - reads as the context that it is
    """Removes a directory whose writing failed, and says so in one line."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, PerceptionError):
            return
        # safetensors reports a full disk as its own error, torch as RuntimeError.
        said = str(error).lower()
        if isinstance(error, OSError) or any(sign in said for sign in ("space", "write", "i/o error")):
            shutil.rmtree(self.target, ignore_errors=True)
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"{self.target} could not be written ({reason}); free some space and run the same command again: "
                "it goes on from the last checkpoint"
            ) from error


def _StopOnSignal(transformers: Any) -> Any:  # noqa: N802 - makes a class that needs an optional package
    class StopOnSignal(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        """On SIGTERM, lets the step end, saves, and stops."""

        asked = False

        def listening(self) -> Any:
            return _signal(signal.SIGTERM, self._ask)

        def _ask(self, signum: int, frame: Any) -> None:
            self.asked = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if self.asked:
                control.should_save = control.should_training_stop = True
            return control

    return StopOnSignal()


class _signal:  # noqa: N801 - reads as the context that it is
    def __init__(self, number: int, handler: Any) -> None:
        self.number, self.handler = number, handler

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        self.before = signal.signal(self.number, self.handler) if main else None

    def __exit__(self, *_: Any) -> None:
        if self.before is not None:
            signal.signal(self.number, self.before)


def _csv_log(transformers: Any, path: Path) -> Any:
    class CsvLog(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        """Everything that the trainer logs, one row a step."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if state.is_world_process_zero and logs and "reward" in logs:
                append_row(path, {"step": state.global_step, **logs})

    return CsvLog()


def _time_limit(transformers: Any, minutes: float) -> Any:
    broadcast_object_list = require_package("accelerate.utils", "to train", "activeo3_ros[train]").broadcast_object_list

    class TimeLimit(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        """Ends the training, without any error, when its time is up, and lets the learning rate fall before that."""

        left = 1.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.end = time.monotonic() + 60 * minutes

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if minutes:
                # All processes go by one clock: they have to take the same steps.
                shares = [(self.end - time.monotonic()) / (60 * minutes)]
                self.left = max(0.0, broadcast_object_list(shares)[0])
                rates = kwargs["lr_scheduler"].get_last_lr()
                for group, rate in zip(kwargs["optimizer"].param_groups, rates, strict=True):
                    group["lr"] = rate * min(1.0, 2 * self.left)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if self.left <= 0:
                control.should_training_stop = True
            return control

    return TimeLimit()


def append_row(path: Path, values: Mapping[str, Any]) -> None:
    """Append one row to a CSV file; steps that are done again replace those that follow, new columns are added."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < int(values["step"])]
    rows.append(dict(values))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


class Panels:
    """Pictures of what the policy chose and what it got for it, every so many steps."""

    def __init__(self, directory: Path, every: int, scorer: Scorer, frames: Callable[[Row], Frame]) -> None:
        self.directory, self.every, self.scorer, self.frames = directory, every, scorer, frames
        self._latest: Sequence[Scored] = ()

    def remember(self, scored: Sequence[Scored]) -> None:
        self._latest = scored

    def callback(self, transformers: Any) -> Any:
        panels = self

        class SavePanels(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if panels.every and state.is_world_process_zero and state.global_step % panels.every == 0:
                    panels.save(state.global_step)

        return SavePanels()

    def save(self, step: int) -> None:
        """Write the panel of the newest answers: one of each picture."""
        different = list({each.row.image: each for each in self._latest}.values())[:PANEL_ANSWERS]
        if not different:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        tiles = [draw_scored(each, self.frames(each.row)) for each in different]
        cv2.imwrite(str(self.directory / f"step-{step:06d}.jpg"), np.vstack(tiles))


def draw_scored(scored: Scored, frame: Frame, width: int = 960, height: int = 540) -> Any:
    """`(height, width, 3)` picture with targets (green), regions (orange), detections (red) and the reward in words."""
    scale = min(width / frame.width, (height - 24) / frame.height)
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    tile = np.zeros((height, width, 3), np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    found = [each.box.as_tuple() for each in scored.detections or ()]
    for boxes, colour in ((scored.row.boxes, (80, 220, 80)), (scored.regions, (0, 150, 255)), (found, (60, 60, 255))):
        for x, y, wide, tall in np.asarray(boxes, np.float64).reshape(-1, 4) * scale:
            cv2.rectangle(tile, (int(x) - 1, int(y) - 1), (int(x + wide) + 1, int(y + tall) + 1), colour, 1)
    words = ", ".join(f"{name} {value:.2f}" for name, value in scored.reward.terms.items())
    words += ", task failed" if scored.failure else ""
    line = f"{', '.join(scored.row.classes)}: {scored.reward.total:.2f} ({words})"
    cv2.putText(tile, line, (6, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return tile


def _mapping(what: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InvalidInput(f"{what} must be a mapping of names to values, got {values!r}")
    return dict(values)


def _reject_unknown(what: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(str(key) for key in set(values) - set(known))
    if unknown:
        raise InvalidInput(f"unknown {what} key {unknown[0]!r}; known are {', '.join(sorted(known))}")
