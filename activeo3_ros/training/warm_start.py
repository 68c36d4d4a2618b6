"""The supervised start of `activeo3-tiny`: it learns to see, to answer the task prompt, and the form of a sensing
answer.

Where to look is not taught: the regions of its sensing answers are drawn at random, so that the reward alone can teach
that
(`activeo3 train grpo`). Without a dense auxiliary head on the vision tokens, which names the class and box of the
object
that is centred in each cell, a model of this size learns no grounding at all; the head is not saved.

    python -m activeo3_ros.training.warm_start --tokenizer DIR --out DIR --minutes 6
    python -m activeo3_ros.training.warm_start --model DIR --out DIR --minutes 4 --rate 6e-4

The second form goes on from a start, on scenes that it has not seen if `--seed` is new.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..engines.pixels import PixelFormat
from ..engines.prompts import load_prompt, target_of
from ..engines.qwen import QWEN2_5_VL, conversation
from ..perception.frame import Frame, View
from ..perception.geometry import Box, areas, as_array, intersections
from ..perception.query import Query
from .qwen_speed import positions_of_one_picture, speed_up_qwen
from .rows import HELD_OUT_SEED
from .scenes import FULL_HD, LABELS, SQUARE, Scene, draw_scene
from .tiny import make_start

VIEW_PIXELS = 448 * 252
"""Of the view of the whole frame and of each crop: 144 tokens."""
MAX_REGIONS = 3
MAX_OBJECTS = 5
"""Objects listed in one answer, the largest of them."""
MIN_LEGIBLE_PX = 6.0
"""Objects that are smaller in a view, as the root of their area, are not asked for in it."""
MIN_VISIBLE = 0.6
"""An object of which a crop shows less is not asked for in it."""
SCENES_A_SEED = 2_000_000
"""Scenes that are set aside for each seed of a training; seeds 0 to 4 have none in common."""
THOUGHT = "Small targets may be far away; I zoom into {count} regions."


_prompt = lru_cache(load_prompt)
"""Read once: parsing its file would take longer than drawing an example."""


@dataclass(frozen=True)
class Example:
    """One conversation: what is asked about which view, the answer, and the objects in the view.

    boxes: `(n, 4)` in view pixels, of all objects, for the auxiliary head; labels: their indices in `LABELS`.
    """

    view: View
    question: str
    answer: str
    boxes: npt.NDArray[np.float64]
    labels: tuple[int, ...]


def sensing_text(query: Query) -> str:
    """The conversation that asks for regions, up to the answer."""
    prompt = _prompt("sensing_detection").fill("full", target=target_of(query), max_regions=MAX_REGIONS)
    return conversation(prompt.system, prompt.before, prompt.after, prompt.prefix)


def task_text(query: Query) -> str:
    """The conversation that asks for objects, up to where the answer goes on after its prefix."""
    prompt = _prompt("task_grounding").fill("none", target=target_of(query))
    return conversation(prompt.system, prompt.before, prompt.after, prompt.prefix)


def listing(boxes: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Boxes as JSON, in the words of the prompts."""
    return (
        "["
        + ", ".join(
            f'{{"bbox_2d": [{", ".join(map(str, box))}], "label": "{label}"}}'
            for box, label in zip(boxes, labels, strict=False)
        )
        + "]"
    )


def sensing_answer(boxes: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """A well-formed answer with these regions."""
    words = {1: "one", 2: "two", 3: "three"}
    thought = THOUGHT.format(count=words[len(boxes)])
    return f"<think>{thought}</think>\n<answer>{listing(boxes, labels)}</answer>"


def task_answer(boxes: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """What follows the prefix of the task prompt, which has opened the list already."""
    return listing(boxes, labels)[1:] + "\n```"


def random_regions(rng: np.random.Generator, width: int, height: int, count: int = MAX_REGIONS) -> list[list[int]]:
    """Corners of regions anywhere, from too small to large, without any thought of where targets are."""
    regions = []
    for _ in range(count):
        area, aspect = math.exp(rng.uniform(math.log(0.008), math.log(0.25))), math.exp(rng.uniform(-0.7, 0.7))
        wide = min(math.sqrt(area * aspect), 0.98) * width
        tall = min(math.sqrt(area / aspect), 0.98) * height
        x, y = rng.uniform(0, width - wide), rng.uniform(0, height - tall)
        regions.append([round(x), round(y), round(x + wide), round(y + tall)])
    return regions


def choose_query(rng: np.random.Generator, present: Sequence[str], several: float = 0.1) -> Query:
    """Mostly one class that is there, sometimes one that is not, sometimes several."""
    if rng.random() < several:
        names = rng.permutation(LABELS)[: rng.integers(2, len(LABELS) + 1)]
        return Query(classes=tuple(str(name) for name in names))
    likely = sorted(set(present))
    pool = likely if likely and rng.random() < 0.75 else LABELS
    return Query(classes=(str(rng.choice(pool)),))


def crop_window(rng: np.random.Generator, scene: Scene, aspect: float) -> Box:
    """A window of the scene, from close-up to half the frame: mostly around some object, else anywhere."""
    height, width = scene.image.shape[:2]
    wide = math.exp(rng.uniform(math.log(130), math.log(min(width, height * aspect) * 0.8)))
    tall = wide / aspect
    if tall > height * 0.9:
        wide, tall = height * 0.9 * aspect, height * 0.9
    if scene.objects and rng.random() < 0.85:
        x, y = scene.objects[rng.integers(len(scene.objects))].box.center
        x, y = x - wide * rng.uniform(0.1, 0.9), y - tall * rng.uniform(0.1, 0.9)
    else:
        x, y = rng.uniform(0, width - wide), rng.uniform(0, height - tall)
    x, y = min(max(x, 0.0), width - wide), min(max(y, 0.0), height - tall)
    return Box(x, y, wide, tall).snapped(width, height)


def sensing_example(rng: np.random.Generator, scene: Scene) -> Example:
    """The whole scene, small, and an answer with regions at random."""
    frame = Frame(scene.image)
    view = frame.view(frame.window, QWEN2_5_VL.fit(frame.width, frame.height, VIEW_PIXELS))
    query = choose_query(rng, [each.label for each in scene.objects])
    regions = random_regions(rng, view.width, view.height)
    names = [str(rng.choice(query.classes)) for _ in regions]
    boxes, labels = _visible(scene, view)
    return Example(view, sensing_text(query), sensing_answer(regions, names), boxes, labels)


def task_example(rng: np.random.Generator, scene: Scene, window: Box, size: tuple[int, int]) -> Example:
    """A window of the scene at a size, and the answer with the objects asked for."""
    view = Frame(scene.image).view(window, size, region=0)
    boxes, labels = _visible(scene, view)
    query = choose_query(rng, [LABELS[label] for label in labels])
    asked = [index for index, label in enumerate(labels) if LABELS[label] in query.classes]
    asked = sorted(asked, key=lambda index: -boxes[index, 2] * boxes[index, 3])[:MAX_OBJECTS]
    asked.sort(key=lambda index: (boxes[index, 1] // QWEN2_5_VL.cell_px, boxes[index, 0]))
    corners = [QWEN2_5_VL.from_view(Box(*boxes[index].tolist()), (view.width, view.height), view) for index in asked]
    answer = task_answer(corners, [LABELS[labels[index]] for index in asked])
    return Example(view, task_text(query), answer, boxes, labels)


def _visible(scene: Scene, view: View) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
    """The objects that can be made out in a view: boxes in its pixels, cut at its border, and label indices."""
    boxes = view.from_source(as_array(each.box for each in scene.objects))
    whole = [(0.0, 0.0, float(view.width), float(view.height))]
    if not len(boxes):
        return boxes, ()
    inside = intersections(boxes, whole)[:, 0]
    kept = (inside >= MIN_VISIBLE * areas(boxes)) & (np.sqrt(inside) >= MIN_LEGIBLE_PX)
    cut = [Box(*row.tolist()).clipped(view.width, view.height) for row in boxes[kept]]
    labels = tuple(LABELS.index(scene.objects[index].label) for index in np.flatnonzero(kept))
    return as_array(cut), labels


def examples(rng: np.random.Generator, seed: int, count: int, sensing_share: float) -> list[Example]:
    """`count` examples whose views all have one size, from several scenes drawn from `seed` on."""
    full_hd = rng.random() < 0.6
    size = FULL_HD if full_hd else SQUARE
    whole = QWEN2_5_VL.fit(*size, VIEW_PIXELS)
    global_batch = rng.random() < 0.5
    aspect = whole[0] / whole[1] if global_batch else math.exp(rng.uniform(math.log(0.45), math.log(2.3)))
    target = whole if global_batch else QWEN2_5_VL.fit(aspect * 1000, 1000, VIEW_PIXELS)
    made: list[Example] = []
    while len(made) < count:
        scene = draw_scene(seed, size)
        seed += 1
        if global_batch:
            made += [sensing_example(rng, scene) for _ in range(2) if rng.random() < 2 * sensing_share]
            if rng.random() < 0.5:
                made.append(task_example(rng, scene, Frame(scene.image).window, target))
        made += [
            task_example(rng, scene, crop_window(rng, scene, aspect), target) for _ in range(2 if global_batch else 5)
        ]
    return made[:count]


class Batches:
    """An endless stream of batches as arrays, drawn by worker processes; no scene is ever drawn twice."""

    def __init__(self, tokenizer: Any, batch: int, seed: int, sensing_share: float = 0.4) -> None:
        self.tokenizer, self.batch, self.seed, self.sensing_share = tokenizer, batch, seed, sensing_share
        self._tokens: dict[str, list[int]] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import torch

        cv2.setNumThreads(1)
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        rng = np.random.default_rng([self.seed, worker])
        scene_seed = self.seed * SCENES_A_SEED + worker
        while True:
            made = examples(rng, scene_seed % HELD_OUT_SEED, self.batch, self.sensing_share)
            scene_seed += workers * self.batch
            yield {name: torch.from_numpy(value) for name, value in self.arrays(made).items()}

    def arrays(self, made: Sequence[Example]) -> dict[str, npt.NDArray[Any]]:
        """Right-padded tokens, the tokens to learn (-100 elsewhere), the pictures, and the targets of the auxiliary
        head.
        """
        image_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        width, height = made[0].view.width, made[0].view.height
        cells = (width // QWEN2_5_VL.cell_px) * (height // QWEN2_5_VL.cell_px)
        answers = self.tokenizer([example.answer for example in made], add_special_tokens=False).input_ids
        rows = []
        for example, answer in zip(made, answers, strict=True):
            question = self._encode(example.question)
            at = question.index(image_id)
            rows.append(([*question[:at], *[image_id] * cells, *question[at + 1 :]], [*answer, end]))
        longest = max(len(question) + len(answer) for question, answer in rows)
        tokens = np.full((len(rows), longest), self.tokenizer.pad_token_id, np.int64)
        learn = np.full((len(rows), longest), -100, np.int64)
        for index, (question, answer) in enumerate(rows):
            stop = len(question) + len(answer)
            tokens[index, :stop] = question + answer
            learn[index, len(question) : stop] = answer
        return {
            "tokens": tokens,
            "learn": learn,
            "pictures": np.stack([example.view.image for example in made]),
            "cells": np.stack([_cells(example) for example in made]),
        }

    def _encode(self, text: str) -> list[int]:
        if text not in self._tokens:
            self._tokens[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._tokens[text]


def _cells(example: Example) -> npt.NDArray[np.float32]:
    """`(cells, 5)`: class (0 for none) and box as shares of the view of the largest object centred in each cell."""
    side = QWEN2_5_VL.cell_px
    columns, rows = example.view.width // side, example.view.height // side
    targets = np.zeros((rows * columns, 5), np.float32)
    scale = np.array([example.view.width, example.view.height] * 2)
    for index in np.argsort(areas(example.boxes)) if len(example.boxes) else []:
        x, y, wide, tall = example.boxes[index]
        column = min(columns - 1, int((x + wide / 2) // side))
        row = min(rows - 1, int((y + tall / 2) // side))
        targets[row * columns + column, 0] = example.labels[index] + 1
        targets[row * columns + column, 1:] = np.array([x, y, x + wide, y + tall]) / scale
    return targets


def to_patches(pictures: Any, form: PixelFormat | None = None) -> Any:
    """`(n, h, w, 3)` uint8 BGR pictures of one size to `(n * patches, values)` for the vision tower."""
    import torch

    form = form or PixelFormat()
    side, merge = form.patch_px, form.merge
    mean = torch.tensor(form.mean, device=pictures.device).view(3, 1, 1) * 255
    std = torch.tensor(form.std, device=pictures.device).view(3, 1, 1) * 255
    pixels = (pictures.flip(3).permute(0, 3, 1, 2).float() - mean) / std
    count, _, height, width = pixels.shape
    high, wide = height // side, width // side
    tiled = pixels.reshape(count, 3, high // merge, merge, side, wide // merge, merge, side).permute(
        0, 2, 5, 3, 6, 1, 4, 7
    )
    repeated = tiled.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, form.frames, -1, -1)
    return repeated.reshape(count * high * wide, 3 * form.frames * side * side)


def losses(model: Any, head: Any, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Text, class and box losses of one batch."""
    import torch
    from torch.nn import functional

    pictures, tokens, learn, cells = (batch[name] for name in ("pictures", "tokens", "learn", "cells"))
    count, height, width, _ = pictures.shape
    grid = torch.tensor([[1, height // 14, width // 14]], device=tokens.device).repeat(count, 1)
    seen = model.model.visual(to_patches(pictures), grid_thw=grid).pooler_output
    inner = model.model.language_model
    picture = tokens == model.config.image_token_id
    embedded = inner.embed_tokens(tokens)
    embedded = embedded.masked_scatter(picture.unsqueeze(-1), seen.to(embedded.dtype))
    positions, _ = positions_of_one_picture(tokens, picture, grid, None, merge=2)
    hidden = inner(inputs_embeds=embedded, position_ids=positions, use_cache=False).last_hidden_state
    wanted = learn[:, 1:] != -100
    logits = model.lm_head(hidden[:, :-1][wanted]).float()
    text = functional.cross_entropy(logits, learn[:, 1:][wanted])

    dense = head(seen.float()).reshape(count, -1, len(LABELS) + 5)
    classes, boxes = dense[..., : len(LABELS) + 1].float(), dense[..., len(LABELS) + 1 :].float()
    truth = cells[..., 0].long()
    weight = torch.ones(len(LABELS) + 1, device=tokens.device)
    weight[0] = 0.1
    named = functional.cross_entropy(classes.flatten(0, 1), truth.flatten(), weight=weight)
    there = truth > 0
    placed = (functional.l1_loss(boxes, cells[..., 1:], reduction="none").sum(-1) * there).sum() / there.sum().clamp(
        min=1
    )
    return text, named, placed


def corpus() -> list[str]:
    """Every text that the model meets, for the tokenizer."""
    numbers = [" ".join(str(value) for value in range(start, start + 100)) for start in (0, 100)]
    queries = [Query(classes=(label,)) for label in LABELS] + [Query(classes=LABELS)]
    texts = [text for query in queries for text in (sensing_text(query), task_text(query))]
    box = [[1, 2, 3, 4]]
    answers = [
        answer(box * count, [label] * count)
        for label in LABELS
        for count in (1, 2, 3)
        for answer in (sensing_answer, task_answer)
    ]
    return [*texts, *answers, task_answer([], []), *numbers]


def train(
    make: Callable[[Path], Any], out: Path, minutes: float, batch: int, workers: int, seed: int, rate: float
) -> None:
    """Train a model for `minutes`, and save it; a log of losses goes to `out/warm_start.csv`.

    make: writes the files of a checkpoint to a directory and gives its model, with float32 weights. rate: the highest
    learning rate.
    """
    import torch
    from transformers import AutoTokenizer

    speed_up_qwen()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    model = make(out).to(device).train()
    tokenizer = AutoTokenizer.from_pretrained(out)
    head = torch.nn.Linear(model.config.text_config.hidden_size, len(LABELS) + 5).to(device)
    weights = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.05, betas=(0.9, 0.98), fused=device.type == "cuda")
    stream = torch.utils.data.DataLoader(
        _iterable(Batches(tokenizer, batch, seed)), batch_size=None, num_workers=workers, pin_memory=device.type ==
        "cuda",
        prefetch_factor=3 if workers else None,
    )  # fmt: skip
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    start, step, saved = time.monotonic(), 0, time.monotonic()
    with open(out / "warm_start.csv", "w", encoding="utf-8") as log:
        log.write("seconds,step,examples,text,class,box\n")
        for each in stream:
            share = (time.monotonic() - start) / (60 * minutes)
            if share >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
            each = {name: value.to(device, non_blocking=True) for name, value in each.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                text, named, placed = losses(model, head, each)
            loss = text + named + 2 * placed
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            step += 1
            if step % 50 == 0 or step < 4:
                seconds = time.monotonic() - start
                line = f"{seconds:.1f},{step},{step * batch},{text.item():.4f},{named.item():.4f},{placed.item():.4f}"
                log.write(line + "\n")
                log.flush()
                print(f"{line} {step * batch / seconds:.0f}/s", flush=True)
            if time.monotonic() - saved > 90:
                save(model, out)
                saved = time.monotonic()
    save(model, out)


def copy_start(source: Path, out: Path) -> Any:
    """Copy the files of a checkpoint to a directory, and give its model with float32 weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, out)
    return AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32, local_files_only=True)


def save(model: Any, out: Path) -> None:
    """Write the weights in half precision, which is what is shipped."""
    import copy

    import torch

    copy.deepcopy(model).to(torch.float16).save_pretrained(out)


def _iterable(batches: Batches) -> Any:
    import torch

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc, type-arg, unused-ignore]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter(batches)

    return Stream()


def main() -> None:
    """Read the command line, and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--tokenizer", type=Path, help="begin with random weights: directory with Qwen's tokenizer.json")
    begin.add_argument("--model", type=Path, help="go on from this checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--batch", type=int, default=256, help="examples a step")
    parser.add_argument("--workers", type=int, default=15, help="processes that draw scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest learning rate")
    args = parser.parse_args()

    def make(out: Path) -> Any:
        return make_start(args.tokenizer, corpus(), out, args.seed) if args.tokenizer else copy_start(args.model, out)

    train(make, args.out, args.minutes, args.batch, args.workers, args.seed, args.rate)
    print(json.dumps({"saved": str(args.out)}))


if __name__ == "__main__":
    main()
