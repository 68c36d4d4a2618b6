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

"""Trains the head of gain maps: composed scenes, the teacher's counts, a Poisson loss, windows as the measure.

Every scene has a seed of its own, made of the run's seed and its number, and all state stands in one checkpoint. So a
run gives the same weights each time on one machine's CPU, also where it was killed and went on.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from ..core.budget import Budget
from ..core.errors import InvalidInput
from ..core.expectation import Expectation
from ..core.query import Query
from ..core.results import Region
from ..detectors.detector_task import DetectorTask
from ..detectors.vocabulary import Target
from ..evaluation.item_files import write_atomically
from ..policies.box_maps import MAP_CELL_PX, box_maps
from ..policies.detector_proposals import DetectorProposals
from ..policies.gain_maps import HeadDescription, detector_classes, head_view, padded_maps, with_rules
from ..policies.map_windows import GainMaps, map_windows
from .proposals_net import CELL_PX, PAD_PX, GainNet, export
from .proposals_scenes import Composer, Scene
from .proposals_sets import sampled_sets, set_loss
from .proposals_teacher import LookedPicture
from .threads import each_ahead

ZOOMS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Magnifications against the view for which a head gives a map."""
HINT_THRESHOLD = 0.03
TRAINING, VALIDATION, SETS = 0, 1, 2
"""Of the seeds of scenes."""
REGIONS = (1, 3, 8)
"""Numbers of windows at which a head is judged; the mean of them chooses the best one."""
RULES_SHARES = (0.0, 0.3)
"""Shares of the rules of detector proposals that are tried with a trained head."""
MIN_GAIN = 1e-3
WARM_UP = 0.05
"""Share of the steps in which the rate of learning rises."""
MAX_NORM = 5.0
"""Of the gradient."""
STANDARD_ERRORS = 2.0
"""Of the difference in the same scenes, by which the second stage has to be better."""
CHECKPOINT = "checkpoint.safetensors"
VERSION = 2
"""Of checkpoints; those of others are refused."""
NET, BEST, START = "net.", "best.", "start."
"""How the names of tensors begin in it: the head in progress, the best so far, and that with which the second stage
began; the rest are of the optimizer."""
HEAD = "head.onnx"
RELIABILITY_LIMITS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class TrainingSettings:
    """How a head is trained.

    Attributes:
        seed: Of weights and scenes.
        steps: Batches.
        batch: Scenes in each.
        learning_rate: The highest one.
        weight_decay: Of AdamW.
        mosaics: Share of mosaics among the scenes for training that are made of photographs.
        frame_mosaics: Of those that are made of frames of a camera, which is judged by its frames as they are: mosaics
            add variety, and make small things of what is large.
        judged_mosaics: Share of mosaics among the scenes of photographs that a head is judged on.
        validation_scenes: Scenes of held-out pictures on which a head is judged.
        validate_every: Steps between two judgements, and two checkpoints.
        view: Whether the head sees the view.
        boxes: Whether the head sees the detector's boxes.
        stage2_steps: Batches of the second stage (`proposals_sets`), which goes on from the best head; 0 for none.
        stage2_rate: Its rate of learning.
    """

    seed: int = 0
    steps: int = 1500
    batch: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    mosaics: float = 0.5
    frame_mosaics: float = 0.25
    judged_mosaics: float = 0.5
    validation_scenes: int = 96
    validate_every: int = 100
    view: bool = True
    boxes: bool = True
    stage2_steps: int = 0
    stage2_rate: float = 1e-4

    @property
    def all_steps(self) -> int:
        """Batches of both stages."""
        return self.steps + self.stage2_steps


@dataclass(frozen=True)
class Judgement:
    """How good a head is on scenes of held-out pictures.

    Attributes:
        step: After so many batches.
        training_loss: Mean loss of the batches since the judgement before; NaN for none.
        loss: Mean Poisson loss of a scene.
        gain: Objects newly found in a scene, for each of `REGIONS`.
    """

    step: int
    training_loss: float
    loss: float
    gain: tuple[float, ...]

    @property
    def score(self) -> float:
        """What chooses the best head."""
        return float(np.mean(self.gain))


@dataclass(frozen=True)
class Reliability:
    """Windows of about the same expected gain: how many, and objects expected and found in one on average."""

    windows: int
    expected: float
    found: float


@dataclass(frozen=True)
class Outcome:
    """What a training gave.

    Attributes:
        head: The file of the best head.
        history: Each judgement.
        best: The judgement of the best head.
        baseline: Gain of detector proposals in the same scenes, for each of `REGIONS`.
        ceiling: Gain of windows from the teacher's own counts.
        reliability: Windows by expected gain, after the scores were scaled.
        score_factor: By which they were.
        stages: The best judgement of the first stage and that of the second; none where there was no second.
    """

    head: Path
    history: tuple[Judgement, ...]
    best: Judgement
    baseline: tuple[float, ...]
    ceiling: tuple[float, ...]
    reliability: tuple[Reliability, ...]
    score_factor: float
    stages: tuple[Judgement, ...]

    @property
    def kept_stage2(self) -> bool:
        """Whether the head is of the second stage."""
        return bool(self.stages) and self.best.step != self.stages[0].step


@dataclass
class _State:
    """All that a run needs to go on."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[Judgement] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    """Weights that the second stage began with."""


class ProposalsTrainer:
    """Trains a head for one detector."""

    def __init__(
        self,
        task: DetectorTask,
        budget: Budget,
        query: Query,
        training: Sequence[LookedPicture],
        held_out: Sequence[LookedPicture],
        settings: TrainingSettings,
        about: Mapping[str, Any] = MappingProxyType({}),
        jobs: int = 1,
    ) -> None:
        """Prepare network, pictures and the scenes on which it is judged.

        Args:
            task: Of the preset; its detector sees the scenes.
            budget: Of the preset: the size of views and crops.
            query: Of the preset.
            training: Pictures that scenes for training are made of.
            held_out: Pictures that it is judged on.
            settings: How.
            about: What the file of the head says of its making.
            jobs: Scenes that are composed at once; weights do not depend on it.

        Raises:
            InvalidInput: There is nothing to learn from, or nothing to judge by.
        """
        for pictures, what in ((training, "training"), (held_out, "held-out")):
            if not any(each.weight.sum() > 0 for each in pictures):
                raise InvalidInput(
                    f"the teacher found no object in any of {len(pictures)} {what} pictures: there is nothing to "
                    "learn; give pictures that show what the detector knows"
                )
        self.task, self.settings = task, settings
        own = task.detector.input_size
        self.crop_size = task.view_size(own.width, own.height, budget.crop_pixels)
        self.description = HeadDescription(
            detector=task.label,
            classes=detector_classes(task),
            input_px=(own.width, own.height),
            view_px=max(task.view_size(own.width, own.height, budget.view_pixels)),
            hint_threshold=HINT_THRESHOLD,
            threshold=task.threshold,
            zooms=ZOOMS,
            cell_px=CELL_PX,
            pad_px=PAD_PX,
            about=dict(about),
        )
        torch.set_num_threads(1)  # so that sums have one order, on any machine; the net is small
        torch.manual_seed(settings.seed)
        self.net, self._start_net = (GainNet(len(ZOOMS), settings.view, settings.boxes) for _ in range(2))
        self.optimizer = self._new_optimizer()
        self._jobs = jobs if task.detector.concurrent else 1
        self._composer = Composer(
            task, training, budget, query, settings.mosaics, settings.frame_mosaics, HINT_THRESHOLD
        )
        judging = Composer(task, held_out, budget, query, settings.judged_mosaics, 0.0, HINT_THRESHOLD)
        seeds = [(settings.seed, VALIDATION, number) for number in range(settings.validation_scenes)]
        self.scenes = list(each_ahead(judging.scene, seeds, self._jobs))
        self._budget = budget

    def _new_optimizer(self) -> torch.optim.AdamW:
        settings = self.settings
        return torch.optim.AdamW(self.net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)

    def train(self, out: Path, show: Callable[[float], None], resume: bool = True) -> Outcome:
        """Train, judge, keep the best.

        Args:
            out: Where the checkpoint and the head go.
            show: Called with the number of steps that are done.
            resume: Whether to go on from the checkpoint of an earlier run.

        Raises:
            InvalidInput: The checkpoint there is of other settings or material.
        """
        state = self._restored(out / CHECKPOINT) if resume and (out / CHECKPOINT).is_file() else _State()
        torch.use_deterministic_algorithms(True)
        try:
            if not state.history:
                self._judge(state)
            batches = self._batches(state.step)
            for step in range(state.step, self.settings.all_steps):
                if step == self.settings.steps:
                    self._begin_stage2(state)
                take = self._step if step < self.settings.steps else self._set_step
                state.losses.append(take(step, next(batches)))
                state.step = step + 1
                ends = self.settings.steps, self.settings.all_steps
                if state.step % self.settings.validate_every == 0 or state.step in ends:
                    self._judge(state)
                    self._save(out / CHECKPOINT, state)
                show(state.step)
        finally:
            torch.use_deterministic_algorithms(False)
        return self._finish(out, state)

    def _batches(self, first: int) -> Iterator[list[Scene]]:
        """The scenes of each step from one on."""
        settings = self.settings
        numbers = range(first * settings.batch, settings.all_steps * settings.batch)
        seeds = ((settings.seed, TRAINING, number) for number in numbers)
        scenes = each_ahead(self._composer.scene, seeds, self._jobs)
        while batch := list(itertools.islice(scenes, settings.batch)):
            yield batch

    def _step(self, step: int, scenes: Sequence[Scene]) -> float:
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_share(step, settings.steps)
        self.net.train()
        view, maps, target, counts = self._batch(scenes)
        return self._descend(poisson_loss(self.net(view, maps), target, counts))

    def _descend(self, loss: torch.Tensor) -> float:
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), MAX_NORM)
        self.optimizer.step()
        return float(loss.item())

    def _begin_stage2(self, state: _State) -> None:
        """Go on from the best head of the first stage, with an optimizer of its own."""
        state.start = {name: value.clone() for name, value in state.best["weights"].items()}
        self.net.load_state_dict(state.start)
        self._start_net.load_state_dict(state.start)
        self.optimizer = self._new_optimizer()

    def _set_step(self, step: int, scenes: Sequence[Scene]) -> float:
        """Draw sets of windows in scenes, and make the better ones of each group more likely."""
        settings = self.settings
        share = learning_rate_share(step - settings.steps, settings.stage2_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.stage2_rate * share
        self.net.eval()  # the statistics of the normalisation stay those of the first stage
        self._start_net.eval()
        losses = []
        for number, scene in enumerate(scenes):
            view, maps, *_ = self._batch([scene])
            rows, columns = scene.target(self.description).shape[1:]
            with torch.no_grad():
                start = self._start_net(view, maps)[0, :, :rows, :columns].exp()
            rates = self.net(view, maps)[0, :, :rows, :columns].exp()
            random = np.random.default_rng([settings.seed, SETS, step, number])
            count = int(random.choice(REGIONS))
            sets, log_probability, divergence = sampled_sets(
                rates, start, scene, ZOOMS, CELL_PX, self.crop_size, count, random
            )
            losses.append(set_loss(log_probability, divergence, [each.reward.total for each in sets]))
        return self._descend(torch.stack(losses).mean())

    def _batch(self, scenes: Sequence[Scene]) -> tuple[torch.Tensor, ...]:
        """View, maps, target and which cells count, all padded to the largest scene."""
        views, maps, targets, counts = [], [], [], []
        for scene in scenes:
            drawn = box_maps(
                scene.detected, scene.asked, self._composer.classes, scene.size, self.description.threshold
            )
            target = scene.target(self.description)
            views.append(head_view(scene.image, PAD_PX))
            maps.append(padded_maps(drawn, scene.size, PAD_PX))
            targets.append(target)
            counts.append(np.ones_like(target[:1]))
        height, width = (max(view.shape[axis] for view in views) for axis in (1, 2))
        padded = [
            np.stack([_pad(each, height // cell, width // cell) for each in arrays])
            for arrays, cell in (
                (views, 1),
                (maps, MAP_CELL_PX),
                (targets, CELL_PX),
                (counts, CELL_PX),
            )
        ]
        return tuple(torch.from_numpy(each) for each in padded)

    def rates(self, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, GainMaps, float]]:
        """What the network expects in scenes, and its loss there."""
        self.net.eval()
        for scene in scenes:
            view, maps, target, counts = self._batch([scene])
            with torch.no_grad():
                log_rates = self.net(view, maps)
                loss = float(poisson_loss(log_rates, target, counts))
            rows, columns = scene.target(self.description).shape[1:]
            rates = log_rates[0].exp().double().numpy()[:, :rows, :columns]
            yield scene, GainMaps(ZOOMS, rates, CELL_PX), loss

    def windows(self, scene: Scene, maps: GainMaps, max_regions: int) -> tuple[Region, ...]:
        """The windows that the policy takes from maps."""
        return map_windows(maps, scene.size, self.crop_size, scene.largest_zoom, max_regions, MIN_GAIN)

    def _judge(self, state: _State) -> None:
        losses, gains = [], []
        for scene, maps, loss in self.rates(self.scenes):
            losses.append(loss)
            gains.append(self._gain(scene, self.windows(scene, maps, max(REGIONS))))
        trained = float(np.mean(state.losses)) if state.losses else math.nan
        judgement = Judgement(state.step, trained, float(np.mean(losses)), tuple(np.mean(gains, axis=0).tolist()))
        state.losses.clear()
        state.history.append(judgement)
        scores = np.mean(gains, axis=1)
        if not state.best or self._is_better(judgement, scores, state.best):
            weights = {name: value.clone() for name, value in self.net.state_dict().items()}
            state.best = {"judgement": judgement, "weights": weights, "scores": scores}

    def _is_better(self, judgement: Judgement, scores: npt.NDArray[np.float64], best: dict[str, Any]) -> bool:
        """Whether a head takes the place of the best one so far; scores: `(scenes,)`, of the head.

        The second stage has to find more than neighbouring judgements of one training differ by: it costs what the
        first one has learned of how much to expect.
        """
        if not best["judgement"].step <= self.settings.steps < judgement.step:
            return judgement.score > float(best["judgement"].score)
        more = scores - best["scores"]
        error = float(np.std(more, ddof=1)) / math.sqrt(len(more)) if len(more) > 1 else math.inf
        return float(np.mean(more)) > STANDARD_ERRORS * error

    def _gain(self, scene: Scene, regions: Sequence[Region]) -> list[float]:
        """Objects that the first of some windows newly find, for each of `REGIONS`."""
        each = scene.gain_of(regions, self.crop_size)
        return [float(each[:count].sum()) for count in REGIONS]

    def _finish(self, out: Path, state: _State) -> Outcome:
        """Write the best head with its scores scaled, and compare it."""
        best: Judgement = state.best["judgement"]
        self.net.load_state_dict(state.best["weights"])
        learned = [(scene, maps) for scene, maps, _ in self.rates(self.scenes)]
        tried = {share: self._windows_with_rules(learned, share) for share in RULES_SHARES}
        gains = {
            share: np.mean([self._gain(scene, regions) for (scene, _), regions in zip(learned, chosen, strict=True)], 0)
            for share, chosen in tried.items()
        }
        share = max(gains, key=lambda each: float(np.mean(gains[each])))
        expected = [region.score for regions in tried[share] for region in regions]
        found = [
            gain
            for (scene, _), regions in zip(learned, tried[share], strict=True)
            for gain in scene.gain_of(regions, self.crop_size).tolist()
        ]
        best = replace(best, gain=tuple(gains[share].tolist()))
        factor = float(np.clip(sum(found) / max(sum(expected), 1e-9), 0.25, 4.0))
        about = {**self.description.about, "step": best.step, "seed": self.settings.seed}
        description = replace(self.description, rules_share=share, score_factor=factor, about=about)
        export(self.net, description, out / HEAD)
        baseline, ceiling = [], []
        for scene in self.scenes:
            baseline.append(self._gain(scene, self.proposed(scene, max(REGIONS))))
            truth = GainMaps(ZOOMS, scene.target(self.description).astype(np.float64), CELL_PX)
            ceiling.append(self._gain(scene, self.windows(scene, truth, max(REGIONS))))
        return Outcome(
            out / HEAD,
            tuple(state.history),
            best,
            tuple(np.mean(baseline, axis=0).tolist()),
            tuple(np.mean(ceiling, axis=0).tolist()),
            reliability(np.array(expected) * factor, np.array(found)),
            factor,
            self._stages(state) if self.settings.stage2_steps else (),
        )

    def _stages(self, state: _State) -> tuple[Judgement, ...]:
        """The best judgement of each stage."""
        steps = self.settings.steps
        parts = ([each for each in state.history if (each.step > steps) == later] for later in (False, True))
        return tuple(max(part, key=lambda each: each.score) for part in parts)

    def _windows_with_rules(self, learned: Sequence[tuple[Scene, GainMaps]], share: float) -> list[tuple[Region, ...]]:
        """The windows of scenes where the rules have a share of the maps."""
        proposals = DetectorProposals(HINT_THRESHOLD, task=self.task)
        chosen = []
        for scene, maps in learned:
            possible = proposals.objects_to_find(scene.view, scene.detected, self._target(scene), Expectation())
            mixed = with_rules(maps, possible, self.task.calibration, share)
            chosen.append(self.windows(scene, mixed, max(REGIONS)))
        return chosen

    def _target(self, scene: Scene) -> Target:
        """What a scene is asked for."""
        return self.task.resolve(Query(classes=tuple(self.task.detector.names[index] for index in scene.asked)))

    def proposed(self, scene: Scene, max_regions: int) -> Sequence[Region]:
        """The windows that detector proposals choose in a scene."""
        proposals = DetectorProposals(HINT_THRESHOLD, task=self.task)
        budget = Budget(max_regions, self._budget.view_pixels, self._budget.crop_pixels)
        return proposals.regions_from(scene.view, scene.detected, self._target(scene), budget)

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint depends on."""
        pictures = [[float(each.weight.sum()), each.share, *each.size] for each in self._composer.pictures]
        detector = replace(self.description, about={}).to_text()
        return {
            "version": VERSION,
            "settings": asdict(self.settings),
            "detector": detector,
            "pictures": pictures,
            "classes": sorted({each.classes for each in self._composer.pictures}),
        }

    def _save(self, path: Path, state: _State) -> None:
        optimizer = self.optimizer.state_dict()
        content = {
            "facts": self._facts(),
            "groups": optimizer["param_groups"],
            "step": state.step,
            "history": [asdict(each) for each in state.history],
            "best": asdict(state.best["judgement"]),
            "scores": state.best["scores"].tolist(),
        }
        tensors = {f"{NET}{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"{BEST}{name}": value for name, value in state.best["weights"].items()}
        tensors |= {f"{START}{name}": value for name, value in state.start.items()}
        for number, values in optimizer["state"].items():
            tensors |= {f"{number}.{name}": value for name, value in values.items()}
        # No pickle: nothing in the file can be code.
        write_atomically(path, safetensors.torch.save(tensors, {"content": json.dumps(content)}))

    def _restored(self, path: Path) -> _State:
        try:
            with safetensors.safe_open(path, "pt") as file:
                content = json.loads(file.metadata()["content"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        except Exception as error:  # safetensors raises many
            raise InvalidInput(f"{path}: is no checkpoint of this training; remove it or give another --out") from error
        if content["facts"] != json.loads(json.dumps(self._facts())):
            raise InvalidInput(
                f"{path}: is of other settings, pictures or another detector; give another --out, or start anew with "
                "--afresh"
            )
        parts: dict[str, dict[str, Any]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        self.net.load_state_dict(parts.pop(NET[:-1]))
        best = {"weights": parts.pop(BEST[:-1]), "judgement": _judgement(content["best"])}
        best["scores"] = np.array(content["scores"])
        start = parts.pop(START[:-1], {})
        if start:
            self._start_net.load_state_dict(start)
        moments = {int(number): values for number, values in parts.items()}
        self.optimizer.load_state_dict({"state": moments, "param_groups": content["groups"]})
        history = [_judgement(each) for each in content["history"]]
        return _State(content["step"], [], history, best, start)


def _judgement(values: dict[str, Any]) -> Judgement:
    return Judgement(**{**values, "gain": tuple(values["gain"])})


def _pad(array: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """`(c, h, w)` with zeros at its right and bottom up to a size."""
    return np.pad(array, ((0, 0), (0, height - array.shape[1]), (0, width - array.shape[2])))


def poisson_loss(log_rates: torch.Tensor, target: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of counts, summed over maps and cells, mean of the scenes; without the constant.

    Args:
        log_rates: `(n, z, h, w)`.
        target: `(n, z, h, w)` expected counts.
        counts: `(n, 1, h, w)`, 1 for cells that are in the view.
    """
    each = (log_rates.exp() - target * log_rates) * counts
    return each.sum(dim=(1, 2, 3)).mean()


def learning_rate_share(step: int, steps: int) -> float:
    """Share of the highest learning rate: it rises, then falls as a cosine."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def reliability(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> tuple[Reliability, ...]:
    """Windows by their expected gain: what was expected and what was found."""
    bins = np.searchsorted(RELIABILITY_LIMITS, expected)
    rows = []
    for index in range(len(RELIABILITY_LIMITS) + 1):
        own = bins == index
        if own.any():
            rows.append(Reliability(int(own.sum()), float(expected[own].mean()), float(found[own].mean())))
    return tuple(rows)
