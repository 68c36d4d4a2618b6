"""The supervised start of activeo3-tiny: it learns to see, to answer the task prompt, and to write sensing answers.

It is not taught which regions to choose: those of its sensing answers are random, three that hardly overlap, so that
the reward alone can teach it (`activeo3 train grpo`). Without a dense auxiliary head on the vision tokens, which
names the class and box of the object that is centred in each cell, a model of this size learns no grounding at all; the
head is not saved.

    PYTHONPATH=research python -m activeo3_tiny.warm_start --tokenizer DIR --out DIR --minutes 6
    PYTHONPATH=research python -m activeo3_tiny.warm_start --model DIR --out DIR --minutes 4 --rate 6e-4

The second command goes on from a start, on scenes that it was not trained on if `--seed` is new.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from activeo3_ros.core.frame import Frame, View
from activeo3_ros.core.geometry import Box, areas, as_array, from_corners, intersections, iou
from activeo3_ros.core.query import Query
from activeo3_ros.vlm.backends.preprocessing import PixelFormat
from activeo3_ros.vlm.families import QWEN2_5_VL, conversation
from activeo3_ros.vlm.prompts import load_prompt, target_of

from .architecture import make_start
from .qwen_speed import positions_of_one_picture, speed_up_qwen
from .scene_rows import HELD_OUT_SEED
from .scenes import FULL_HD, LABELS, SQUARE, Scene, draw_scene

VIEW_PIXELS = 448 * 252
"""Of the view of the whole frame and of each crop: 144 tokens."""
MAX_REGIONS = 3
MAX_OBJECTS = 5
"""Objects listed in one answer, the largest of them."""
MIN_LEGIBLE_PX = 6.0
"""Objects that are smaller in a view, as the root of their area, are not asked for in it."""
MIN_VISIBLE_PX = 2.0
"""Objects that are smaller in a view, as the root of their area, are none to the auxiliary head either."""
MIN_SHOWN = 0.6
"""An object of which a crop shows less is not asked for in it."""
SCENES_A_SEED = 2_000_000
"""Scenes that are set aside for each seed of a training; seeds 0 to 4 have none in common."""
REGION_AREAS = (0.0105, 0.2)
"""Least and greatest share of the view that a region of a sensing answer has: within what its prompt asks for."""
MAX_REGION_IOU = 0.3
QUESTIONS = 2
"""About each view: its vision tokens cost most."""
CROPS_A_SCENE = 8
WHOLE_SHARE = 0.25
"""Of the batches: those that show whole frames, or most of them."""
AVERAGING = 0.998
"""Share of the averaged weights that stays at each step; the weights saved are averages over some 500 steps."""
THOUGHT = "Small targets may be far away; I zoom into {count} regions."


_prompt = lru_cache(load_prompt)
"""Read once: parsing its file would take longer than drawing an example."""


@dataclass(frozen=True)
class Example:
    """One conversation: a question about a view, the answer, and the objects in the view.

    boxes: `(n, 4)` in view pixels, of all objects, for the auxiliary head; labels: their indices in `LABELS`. Examples
    that follow each other may share a view.
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
    """An answer after the prefix of the task prompt, which has opened the list already."""
    return listing(boxes, labels)[1:] + "\n```"


def random_regions(rng: np.random.Generator, width: int, height: int, count: int = MAX_REGIONS) -> list[list[int]]:
    """Corners of regions anywhere, from small to large, that hardly overlap: no thought of where targets are."""
    regions: list[list[int]] = []
    for attempt in range(count * 50):
        area = math.exp(rng.uniform(*np.log(REGION_AREAS))) * width * height
        aspect = math.exp(rng.uniform(-0.7, 0.7))
        wide, tall = min(math.sqrt(area * aspect), 0.98 * width), min(math.sqrt(area / aspect), 0.98 * height)
        x, y = rng.uniform(0, width - wide), rng.uniform(0, height - tall)
        corners = [round(x), round(y), round(x + wide), round(y + tall)]
        apart = not regions or iou(from_corners([corners]), from_corners(regions)).max() <= MAX_REGION_IOU
        if apart or attempt >= count * 40:
            regions.append(corners)
        if len(regions) == count:
            break
    return regions


def choose_query(rng: np.random.Generator, present: Sequence[str], several: float = 0.06) -> Query:
    """Mostly one class that is there, sometimes one that is not, sometimes several."""
    if rng.random() < several:
        names = rng.permutation(LABELS)[: rng.integers(2, len(LABELS) + 1)]
        return Query(classes=tuple(str(name) for name in names))
    likely = sorted(set(present))
    pool = likely if likely and rng.random() < 0.75 else LABELS
    return Query(classes=(str(rng.choice(pool)),))


def choose_queries(rng: np.random.Generator, present: Sequence[str], count: int) -> list[Query]:
    """Different ones where that is possible."""
    chosen = [choose_query(rng, present)]
    while len(chosen) < count:
        left = [label for label in present if all(label not in query.classes for query in chosen)]
        chosen.append(choose_query(rng, left))
    return chosen


def crop_window(rng: np.random.Generator, scene: Scene, aspect: float, most: bool = False) -> Box:
    """A window of the scene, mostly of the size of a useful region and around some object, else anywhere.

    most: one of most of the frame instead.
    """
    height, width = scene.image.shape[:2]
    usual = rng.random() < 0.8
    shares = (0.4, 0.95) if most else (0.008, 0.12) if usual else (0.12, 0.6)
    area = math.exp(rng.uniform(*np.log(shares))) * width * height
    wide = math.sqrt(area * aspect)
    fitting = min(1.0, 0.98 * width / wide, 0.98 * height / (wide / aspect))
    wide, tall = wide * fitting, wide * fitting / aspect
    if scene.objects and not most and rng.random() < 0.85:
        x, y = scene.objects[rng.integers(len(scene.objects))].box.center
        x, y = x - wide * rng.uniform(0.05, 0.95), y - tall * rng.uniform(0.05, 0.95)
    else:
        x, y = rng.uniform(0, width - wide), rng.uniform(0, height - tall)
    x, y = min(max(x, 0.0), width - wide), min(max(y, 0.0), height - tall)
    return Box(x, y, wide, tall).snapped(width, height)


def sensing_example(rng: np.random.Generator, scene: Scene, view: View) -> Example:
    """An answer about a view of the whole scene, or most of it, with regions at random."""
    query = choose_query(rng, [each.label for each in scene.objects])
    regions = random_regions(rng, view.width, view.height)
    names = [str(rng.choice(query.classes)) for _ in regions]
    boxes, labels = _visible(scene, view)
    return Example(view, sensing_text(query), sensing_answer(regions, names), boxes, labels)


def task_examples(rng: np.random.Generator, scene: Scene, view: View, count: int) -> list[Example]:
    """Questions about a view of the scene, each with the objects asked for."""
    boxes, labels = _visible(scene, view)
    legible = [index for index in range(len(labels)) if math.sqrt(boxes[index, 2] * boxes[index, 3]) >= MIN_LEGIBLE_PX]
    examples = []
    for query in choose_queries(rng, [LABELS[labels[index]] for index in legible], count):
        asked = [index for index in legible if LABELS[labels[index]] in query.classes]
        asked = sorted(asked, key=lambda index: -boxes[index, 2] * boxes[index, 3])[:MAX_OBJECTS]
        asked.sort(key=lambda index: (boxes[index, 1] // QWEN2_5_VL.cell_px, boxes[index, 0]))
        corners = [QWEN2_5_VL.from_view(Box(*boxes[i].tolist()), (view.width, view.height), view) for i in asked]
        answer = task_answer(corners, [LABELS[labels[index]] for index in asked])
        examples.append(Example(view, task_text(query), answer, boxes, labels))
    return examples


def _visible(scene: Scene, view: View) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
    """The objects of which a view shows something: boxes in its pixels, cut at its border, and label indices."""
    boxes = view.from_source(as_array(each.box for each in scene.objects))
    whole = [(0.0, 0.0, float(view.width), float(view.height))]
    if not len(boxes):
        return boxes, ()
    inside = intersections(boxes, whole)[:, 0]
    kept = (inside >= MIN_SHOWN * areas(boxes)) & (np.sqrt(inside) >= MIN_VISIBLE_PX)
    cut = [Box(*row.tolist()).clipped(view.width, view.height) for row in boxes[kept]]
    labels = tuple(LABELS.index(scene.objects[index].label) for index in np.flatnonzero(kept))
    return as_array(cut), labels


def examples(rng: np.random.Generator, seed: int, count: int) -> list[Example]:
    """`count` examples, `QUESTIONS` about each view, whose views all have one size, from scenes drawn from `seed` on.

    In a batch of whole frames one question about each view is a sensing one.
    """
    size = FULL_HD if rng.random() < 0.6 else SQUARE
    whole = QWEN2_5_VL.fit(*size, VIEW_PIXELS)
    if rng.random() < WHOLE_SHARE:
        aspect, target, crops = whole[0] / whole[1], whole, 0
    else:
        aspect = math.exp(rng.uniform(math.log(0.4), math.log(2.6)))
        target, crops = QWEN2_5_VL.fit(aspect * 1000, 1000, VIEW_PIXELS), CROPS_A_SCENE
    made: list[Example] = []
    while len(made) < count:
        scene = draw_scene(seed, size)
        frame = Frame(scene.image)
        seed += 1
        if crops:
            for _ in range(crops):
                view = frame.view(crop_window(rng, scene, aspect), target, region=0)
                made += task_examples(rng, scene, view, QUESTIONS)
        else:
            for window in (frame.window, crop_window(rng, scene, aspect, most=True)):
                view = frame.view(window, target)
                made += [sensing_example(rng, scene, view), *task_examples(rng, scene, view, QUESTIONS - 1)]
    return made[:count]


class Batches:
    """An endless stream of batches as arrays, drawn by worker processes; no scene is ever drawn twice."""

    def __init__(self, tokenizer: Any, batch: int, seed: int) -> None:
        self.tokenizer, self.batch, self.seed = tokenizer, batch, seed
        self._tokens: dict[str, list[int]] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import torch

        cv2.setNumThreads(1)
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        rng = np.random.default_rng([self.seed, worker])
        scene_seed = self.seed * SCENES_A_SEED + worker
        while True:
            made = examples(rng, scene_seed % HELD_OUT_SEED, self.batch)
            scene_seed += workers * self.batch
            yield {name: torch.from_numpy(value) for name, value in self.arrays(made).items()}

    def arrays(self, made: Sequence[Example]) -> dict[str, npt.NDArray[Any]]:
        """Right-padded tokens, the tokens to learn (-100 elsewhere), the pictures, which of them each row is about,
        and the targets of the auxiliary head for each picture.
        """
        image_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        width, height = made[0].view.width, made[0].view.height
        cells = (width // QWEN2_5_VL.cell_px) * (height // QWEN2_5_VL.cell_px)
        rows = []
        for example in made:
            question, answer = self._encode(example.question), self._encode_answer(example.answer)
            at = question.index(image_id)
            rows.append(([*question[:at], *[image_id] * cells, *question[at + 1 :]], [*answer, end]))
        longest = max(len(question) + len(answer) for question, answer in rows)
        tokens = np.full((len(rows), longest), self.tokenizer.pad_token_id, np.int64)
        learn = np.full((len(rows), longest), -100, np.int64)
        for index, (question, answer) in enumerate(rows):
            stop = len(question) + len(answer)
            tokens[index, :stop] = question + answer
            learn[index, len(question) : stop] = answer
        shown = [at for at, example in enumerate(made) if not at or example.view is not made[at - 1].view]
        return {
            "tokens": tokens,
            "learn": learn,
            "pictures": np.stack([made[at].view.image for at in shown]),
            "picture_of": np.searchsorted(shown, np.arange(len(made)), side="right") - 1,
            "cells": np.stack([_cells(made[at]) for at in shown]),
        }

    def _encode_answer(self, text: str) -> list[int]:
        """Digits are tokens of their own, and between them stand few texts, so that nearly all of it is looked up."""
        return [token for piece in re.findall(r"\d|\D+", text) for token in self._encode(piece)]

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


def to_patches(pictures: Any, pixel_format: PixelFormat | None = None) -> Any:
    """`(n, h, w, 3)` uint8 BGR pictures of one size to `(n * patches, values)` for the vision tower."""
    import torch

    pixel_format = pixel_format or PixelFormat()
    side, merge = pixel_format.patch_px, pixel_format.merge
    mean = torch.tensor(pixel_format.mean, device=pictures.device).view(3, 1, 1) * 255
    std = torch.tensor(pixel_format.std, device=pictures.device).view(3, 1, 1) * 255
    pixels = (pictures.flip(3).permute(0, 3, 1, 2).float() - mean) / std
    count, _, height, width = pixels.shape
    high, wide = height // side, width // side
    tiled = pixels.reshape(count, 3, high // merge, merge, side, wide // merge, merge, side).permute(
        0, 2, 5, 3, 6, 1, 4, 7
    )
    repeated = tiled.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, pixel_format.frames, -1, -1)
    return repeated.reshape(count * high * wide, 3 * pixel_format.frames * side * side)


def losses(model: Any, head: Any, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Text, class and box losses of one batch."""
    import torch
    from torch.nn import functional

    pictures, tokens, learn, cells = (batch[name] for name in ("pictures", "tokens", "learn", "cells"))
    count, height, width, _ = pictures.shape
    grid = torch.tensor([[1, height // 14, width // 14]]).repeat(len(tokens), 1)  # on the CPU, where it is read
    seen = model.model.visual(to_patches(pictures), grid_thw=grid[:count]).pooler_output
    seen = seen.reshape(count, -1, seen.shape[-1])
    inner = model.model.language_model
    picture = tokens == model.config.image_token_id
    embedded = inner.embed_tokens(tokens)
    embedded = embedded.masked_scatter(picture.unsqueeze(-1), seen[batch["picture_of"]].to(embedded.dtype))
    positions, _ = positions_of_one_picture(tokens, picture, grid.to(tokens.device), None, merge=2)
    hidden = inner(inputs_embeds=embedded, position_ids=positions, use_cache=False).last_hidden_state
    wanted = learn[:, 1:] != -100
    logits = model.lm_head(hidden[:, :-1][wanted]).float()
    text = functional.cross_entropy(logits, learn[:, 1:][wanted])

    dense = head(seen.float()).float()
    classes, boxes = dense[..., : len(LABELS) + 1], dense[..., len(LABELS) + 1 :]
    truth = cells[..., 0].long()
    weight = torch.ones(len(LABELS) + 1, device=tokens.device)
    weight[0] = 0.1
    named = functional.cross_entropy(classes.flatten(0, 1), truth.flatten(), weight=weight)
    there = truth > 0
    sides = cells.new_tensor([width, height] * 2)
    placed = _misplaced(boxes[there] * sides, cells[there][:, 1:] * sides)
    return text, named, placed


def _misplaced(boxes: Any, truth: Any) -> Any:
    """How far `(n, 4)` corners in pixels are off: in cells, and, since an object is found or not by its IoU, in IoU."""
    apart = (boxes - truth).abs().sum(-1) / QWEN2_5_VL.cell_px
    corner, opposite = boxes[:, :2].maximum(truth[:, :2]), boxes[:, 2:].minimum(truth[:, 2:])
    shared = (opposite - corner).clamp(min=0).prod(-1)
    own, true = ((each[:, 2:] - each[:, :2]).clamp(min=0).prod(-1) for each in (boxes, truth))
    shares = shared / (own + true - shared).clamp(min=1)
    # Of an object that hardly covers a cell's corner no model could say more than its place.
    legible = (true >= MIN_LEGIBLE_PX**2).float()
    return (0.15 * apart + legible * (1 - shares)).sum() / max(1, len(boxes))


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
    learning rate; it falls to nothing. Averaged weights are saved, every two minutes too.
    """
    import torch
    from transformers import AutoTokenizer

    speed_up_qwen()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    model = make(out).to(device).train()
    tokenizer = AutoTokenizer.from_pretrained(out)
    head = torch.nn.Linear(model.config.text_config.hidden_size, len(LABELS) + 5).to(device)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGING)
    )
    if device.type == "cuda":
        compile_blocks(model)
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
                group["lr"] = rate * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * share))
            each = {name: value.to(device, non_blocking=True) for name, value in each.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                text, named, placed = losses(model, head, each)
            loss = text + named + placed
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            averaged.update_parameters(model)
            step += 1
            if step % 50 == 0 or step < 4:
                seconds = time.monotonic() - start
                line = f"{seconds:.1f},{step},{step * batch},{text.item():.4f},{named.item():.4f},{placed.item():.4f}"
                log.write(line + "\n")
                log.flush()
                print(f"{line} {step * batch / seconds:.0f}/s", flush=True)
            if time.monotonic() - saved > 110:
                save(averaged.module, out)
                saved = time.monotonic()
    save(averaged.module, out)


def compile_blocks(model: Any) -> None:
    """Let torch compile the layers, which are bound by memory: one compilation serves all layers and all sizes.

    Where torch has no compiler to use, they run as they are.
    """
    import torch

    torch._dynamo.config.suppress_errors = True
    for block in (*model.model.visual.blocks, *model.model.language_model.layers):
        block.compile(dynamic=True)


def copy_start(source: Path, out: Path) -> Any:
    """Copy the files of a checkpoint to a directory, and give its model with float32 weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, out)
    return AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32, local_files_only=True)


def save(model: Any, out: Path) -> None:
    """Write the weights in half precision, as in `weights/`."""
    import copy

    import torch

    half = copy.deepcopy(model).to(torch.float16)
    with tempfile.TemporaryDirectory(dir=out.parent) as made:  # a reader finds either the old weights or the new ones
        half.save_pretrained(made)
        for path in Path(made).iterdir():
            path.replace(out / path.name)


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
