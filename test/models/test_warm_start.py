"""Examples of the supervised start, and the speed-up of training, which changes no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_models import require_torch

require_torch()

import torch  # noqa: E402
import transformers  # noqa: E402

from activeo3_ros.assets.weights import local_model  # noqa: E402
from activeo3_ros.core.geometry import from_corners, iou  # noqa: E402
from activeo3_ros.vlm.backends.preprocessing import (  # noqa: E402
    patches,
    pixel_format,
    prompt_ids,
)
from activeo3_ros.vlm.families import QWEN2_5_VL  # noqa: E402
from activeo3_ros.vlm.prompts import load_prompt, target_of  # noqa: E402
from activeo3_tiny import qwen_decoding, qwen_speed  # noqa: E402
from activeo3_tiny.scene_rows import HELD_OUT_SEED, SceneRows  # noqa: E402
from activeo3_tiny.warm_start import VIEW_PIXELS, Batches, examples, losses, random_regions  # noqa: E402

START = local_model("tiny/start")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(START)


@pytest.fixture(scope="module")
def model() -> Any:
    """The shipped start, sped up."""
    qwen_speed.speed_up_qwen()
    return transformers.AutoModelForImageTextToText.from_pretrained(START, dtype=torch.float32).eval()


def test_regions_of_examples_hardly_overlap_and_have_the_areas_of_the_prompt() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        corners = random_regions(rng, 448, 252)
        boxes = from_corners(corners)
        shares = (boxes[:, 2] + 1) * (boxes[:, 3] + 1) / (448 * 252)
        assert len(corners) == 3
        assert ((shares >= 0.01) & (shares <= 0.5)).all()
        assert np.triu(iou(boxes, boxes), k=1).max() <= 0.3


def test_regions_of_examples_do_not_depend_on_where_objects_are() -> None:
    """Asked about one scene many times, they lie all over the view."""
    rng = np.random.default_rng(0)
    middles = np.concatenate([from_corners(random_regions(rng, 448, 252)) for _ in range(400)])
    middles = middles[:, :2] + middles[:, 2:] / 2
    assert np.abs(middles.mean(axis=0) - (224, 126)).max() < 12


def test_an_answer_has_the_tokens_that_the_tokenizer_makes_of_it(tokenizer: Any) -> None:
    batches = Batches(tokenizer, 16, seed=0)
    rng = np.random.default_rng(0)
    for seed in range(0, 400, 100):
        for example in examples(rng, seed, 16):
            assert batches._encode_answer(example.answer) == tokenizer(example.answer).input_ids


def test_questions_about_one_view_share_its_picture(tokenizer: Any, model: Any) -> None:
    made = examples(np.random.default_rng(0), 7, 6)
    arrays = Batches(tokenizer, 6, seed=0).arrays(made)
    assert len(arrays["pictures"]) == len(arrays["cells"]) == 3
    for picture, example in zip(arrays["picture_of"], made, strict=True):
        assert (arrays["pictures"][picture] == example.view.image).all()
    head = torch.nn.Linear(model.config.text_config.hidden_size, 10)
    with torch.no_grad():
        together = losses(model, head, {name: torch.from_numpy(value) for name, value in arrays.items()})
        arrays["pictures"], arrays["cells"] = (arrays[name][arrays["picture_of"]] for name in ("pictures", "cells"))
        arrays["picture_of"] = np.arange(6)
        apart = losses(model, head, {name: torch.from_numpy(value) for name, value in arrays.items()})
    assert torch.allclose(together[0], apart[0], atol=1e-4)


def inputs_of(model: Any, tokenizer: Any, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Left-padded sensing questions about some scenes, as the trainer and the engine give them to `generate`."""
    pictures, prompts = [], []
    for row in SceneRows(count, HELD_OUT_SEED + 50):
        frame = row.frame()
        pictures.append(frame.view(frame.window, QWEN2_5_VL.fit(frame.width, frame.height, VIEW_PIXELS)).image)
        prompt = load_prompt("sensing_detection").fill("full", target=target_of(row.query), max_regions=3)
        prompts.append(prompt_ids(tokenizer, prompt, QWEN2_5_VL, [144], model.config.image_token_id))
    longest = max(map(len, prompts)) + 1
    ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(each)) + each for each in prompts])
    pixels, grids = patches(pictures, pixel_format(START, model.config.vision_config), torch.device("cpu"))
    return ids, {
        "attention_mask": (ids != tokenizer.pad_token_id).long(),
        "mm_token_type_ids": (ids == model.config.image_token_id).long(),
        "pixel_values": pixels,
        "image_grid_thw": grids,
    }


def settings(tokenizer: Any, **changes: Any) -> Any:
    return transformers.GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id, **changes
    )


def test_fast_decoding_writes_what_generate_writes(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, inputs = inputs_of(model, tokenizer, 3)
    greedy = settings(tokenizer, max_new_tokens=24, do_sample=False)
    assert qwen_decoding.fits(model, ids, greedy, inputs)
    fast = model.generate(input_ids=ids, generation_config=greedy, **inputs)
    monkeypatch.setattr(qwen_decoding, "fits", lambda *_: False)
    assert torch.equal(fast, model.generate(input_ids=ids, generation_config=greedy, **inputs))


@pytest.mark.parametrize("sample", [False, True], ids=["greedy", "sampled"])
def test_fast_decoding_never_writes_what_is_barred(model: Any, tokenizer: Any, sample: bool) -> None:
    ids, inputs = inputs_of(model, tokenizer, 1)
    chosen = {"max_new_tokens": 24, **({"do_sample": True, "top_k": 0} if sample else {"do_sample": False})}
    torch.manual_seed(0)
    written = model.generate(input_ids=ids, generation_config=settings(tokenizer, **chosen), **inputs)
    favourites = written[0, ids.shape[1] :].unique().tolist()
    assert len(favourites) > 3
    barred = settings(tokenizer, **chosen, suppress_tokens=[*favourites, len(tokenizer) + 5])  # one that is none
    assert qwen_decoding.fits(model, ids, barred, inputs)
    torch.manual_seed(0)
    otherwise = model.generate(input_ids=ids, generation_config=barred, **inputs)
    assert not set(favourites) & set(otherwise[0, ids.shape[1] :].tolist())
    if not sample:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(qwen_decoding, "fits", lambda *_: False)
            slow = model.generate(input_ids=ids, generation_config=barred, **inputs)
        assert torch.equal(otherwise[:, : slow.shape[1]], slow), "up to where it ended"


def test_fast_decoding_samples_as_often_as_the_model_says(model: Any, tokenizer: Any) -> None:
    """The mean surprise of a sample is the entropy of its distribution."""
    ids, inputs = inputs_of(model, tokenizer, 1)
    many = {name: torch.cat([value] * 24) for name, value in inputs.items()}
    sampled = settings(tokenizer, max_new_tokens=32, do_sample=True, top_k=0, top_p=1.0)
    assert qwen_decoding.fits(model, torch.cat([ids] * 24), sampled, many)
    torch.manual_seed(0)
    written = model.generate(input_ids=torch.cat([ids] * 24), generation_config=sampled, **many)
    new = written[:, ids.shape[1] :]
    many["attention_mask"] = torch.cat([many["attention_mask"], torch.ones_like(new)], dim=1)
    many["mm_token_type_ids"] = torch.cat([many["mm_token_type_ids"], torch.zeros_like(new)], dim=1)
    with torch.no_grad():
        logits = model(input_ids=written, **many).logits[:, ids.shape[1] - 1 : -1].log_softmax(-1)
    surprise = -logits.gather(-1, new[..., None])[..., 0].mean()
    assert float(surprise) == pytest.approx(float(-(logits.exp() * logits).sum(-1).mean()), rel=0.1)


def test_settings_unknown_to_fast_decoding_are_left_to_generate(model: Any, tokenizer: Any) -> None:
    ids, inputs = inputs_of(model, tokenizer, 1)
    for change in (
        {"num_beams": 2},
        {"do_sample": True, "top_k": 5},
        {"repetition_penalty": 1.2},
        {"no_repeat_ngram_size": 3},
        {"bad_words_ids": [[5]]},
    ):
        assert not qwen_decoding.fits(model, ids, settings(tokenizer, max_new_tokens=8, **change), inputs)
    greedy = settings(tokenizer, max_new_tokens=8)
    assert not qwen_decoding.fits(model, torch.cat([ids, ids]), greedy, inputs), "not one picture a row"


@pytest.mark.parametrize("window", [112, 1120])
def test_where_patches_are_does_not_depend_on_how_it_is_worked_out(
    model: Any, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pictures of different sizes, and with blocks that attend to windows."""
    tower = model.model.visual
    grids = torch.tensor([[1, 18, 32], [1, 24, 24], [1, 10, 8], [1, 18, 32]])
    pixels = torch.randn(int(grids.prod(1).sum()), 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(tower, "window_size", window)
    monkeypatch.setattr(tower, "fullatt_block_indexes", [1, 4])
    with torch.no_grad():
        fast = tower(pixels, grid_thw=grids).pooler_output
        monkeypatch.setattr(qwen_speed, "where_patches_are", lambda *_: {})
        assert torch.allclose(fast, tower(pixels, grid_thw=grids).pooler_output, atol=1e-5)
