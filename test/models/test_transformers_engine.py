"""The transformers engine on tiny models of random weights: it answers as plain `generate` does, in batches."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny_models import build_tiny_model, let_write, require_torch

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.core import InvalidInput
from activeo3_ros.core.errors import EngineError, OutOfMemory
from activeo3_ros.vlm.engine import Prompt, Request, Turn
from activeo3_ros.vlm.out_of_memory import generate_within_memory
from activeo3_ros.vlm.prompts import load_prompt

require_torch()

import torch  # noqa: E402

from activeo3_ros.vlm.backends import attention  # noqa: E402
from activeo3_ros.vlm.backends.preprocessing import request_text  # noqa: E402
from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine  # noqa: E402

NEW_TOKENS = 12


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def checkpoint(request, tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def engine(checkpoint):
    return TransformersEngine(str(checkpoint), device="cpu", cache="static", max_batch=16)


def random_requests(engine, count, reasoning, seed=0):
    generator = np.random.default_rng(seed)
    template = load_prompt("sensing_detection")
    cell = engine.family.cell_px
    requests = []
    for number in range(count):
        high, wide = generator.integers(1, 7, 2) * cell
        prompt = template.fill(reasoning, target="cars " * int(generator.integers(1, 9)), max_regions=1 + number % 3)
        requests.append(Request(generator.integers(0, 255, (high, wide, 3), dtype=np.uint8), prompt, NEW_TOKENS))
    return requests


def plain_generate(engine, checkpoint, request):
    """One request the way the documentation of the model shows it: processor, then `generate`."""
    from transformers import Qwen2VLImageProcessor

    processor = Qwen2VLImageProcessor.from_pretrained(checkpoint)
    values = processor(images=[request.image[:, :, ::-1].copy()], return_tensors="pt")
    count = int(values["image_grid_thw"].prod()) // 4
    messages = [
        {"role": "system", "content": request.prompt.system},
        {"role": "user", "content": [
            {"type": "text", "text": request.prompt.before}, {"type": "image"},
            {"type": "text", "text": request.prompt.after},
        ]},
    ]  # fmt: skip
    text = engine.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    start = "" if request.prompt.thinks else engine.family.no_thoughts
    text = (text + start + request.prompt.prefix).replace("<|image_pad|>", "<|image_pad|>" * count)
    ids = engine.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    kinds = (ids == engine.model.config.image_token_id).long()
    with torch.inference_mode():
        out = engine.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, **values,
            max_new_tokens=request.max_new_tokens, do_sample=False, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    written = out.sequences[0, ids.shape[1] :].tolist()
    probabilities = [float(step[0].float().softmax(-1).max()) for step in out.logits]
    return written, probabilities


@pytest.mark.parametrize("reasoning", ["full", "none"])
def test_a_batch_writes_what_plain_generate_writes_one_by_one(engine, checkpoint, reasoning):
    requests = random_requests(engine, 50, reasoning)
    for request, reply in zip(requests, engine.generate(requests), strict=True):
        written, probabilities = plain_generate(engine, checkpoint, request)
        assert [token.id for token in reply.tokens] == written
        assert [token.probability for token in reply.tokens] == pytest.approx(probabilities, rel=1e-3)
        assert reply.text.startswith(request.prompt.prefix)
        assert reply.input_size == (request.image.shape[1], request.image.shape[0])


@pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_5_moe", "qwen3_vl_moe"])
def test_a_further_family_writes_in_a_batch_what_plain_generate_writes_one_by_one(kind, tmp_path):
    """Padding must not reach the state of the linear attention, nor the choice of experts."""
    checkpoint = build_tiny_model(tmp_path / kind, kind)
    engine = TransformersEngine(str(checkpoint), device="cpu")
    requests = random_requests(engine, 5, "full", seed=4) + random_requests(engine, 5, "none", seed=5)
    for request, reply in zip(requests, engine.generate(requests), strict=True):
        written, probabilities = plain_generate(engine, checkpoint, request)
        assert [token.id for token in reply.tokens] == written
        assert [token.probability for token in reply.tokens] == pytest.approx(probabilities, rel=1e-3)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_5"])
def test_a_conversation_with_several_pictures_is_answered_as_plain_generate_does(kind, tmp_path):
    """The pictures of all requests go through the tower together, each to its own place in its own conversation."""
    from transformers import Qwen2VLImageProcessor

    checkpoint = build_tiny_model(tmp_path / kind, kind)
    engine = TransformersEngine(str(checkpoint), device="cpu")
    cell = engine.family.cell_px
    views = [np.random.default_rng(n).integers(0, 255, (2 * cell, 3 * cell, 3), np.uint8) for n in range(3)]
    prompt = Prompt("What is it?", thinks=True)
    turns = (Turn("There.", "Look: ", views[1], "."), Turn("Where?", after="No."), Turn("There.", "", views[2]))
    plain = Request(views[1], prompt, NEW_TOKENS)
    long = Request(views[0], prompt, NEW_TOKENS, turns=turns)
    replies = engine.generate([plain, long])
    processor = Qwen2VLImageProcessor.from_pretrained(checkpoint)
    values = processor(images=[view[:, :, ::-1].copy() for view in views], return_tensors="pt")
    text = request_text(prompt, engine.family, turns).replace("<|image_pad|>", "<|image_pad|>" * 6)
    ids = engine.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    kinds = (ids == engine.model.config.image_token_id).long()
    out = engine.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, **values,
        max_new_tokens=NEW_TOKENS, do_sample=False,
    )  # fmt: skip
    assert [token.id for token in replies[1].tokens] == out[0, ids.shape[1] :].tolist()
    assert replies[1].prompt_tokens == ids.shape[1] and replies[1].input_size == (3 * cell, 2 * cell)
    assert replies[0].text == engine.generate([plain])[0].text


def test_the_text_is_the_prefix_and_the_tokens(engine):
    for reply in engine.generate(random_requests(engine, 5, "short", seed=1)):
        assert reply.text == "<think>" + "".join(token.text for token in reply.tokens)
        ids = [token.id for token in reply.tokens]
        assert "".join(token.text for token in reply.tokens) == engine.tokenizer.decode(ids, skip_special_tokens=True)


def test_words_that_are_one_token_of_their_own_are_text(engine, monkeypatch):
    """As the tags around the reasoning are in Qwen3's tokenizer; tokens that only steer are none."""
    monkeypatch.setattr(engine.model, "generate", engine.model.generate)  # so that it is put back
    written = "<think>Far 汽车.</think>\n<answer>[]</answer>"
    assert "<think>" in engine.tokenizer.get_added_vocab()
    let_write(engine, written + "<|im_end|>")
    reply = engine.generate([Request(np.zeros((56, 56, 3), np.uint8), Prompt("?"), 60)])[0]
    assert reply.text == "".join(token.text for token in reply.tokens) == written and reply.finished


def test_an_answer_ends_with_its_stop_text_and_leaves_the_others_running(engine):
    requests = random_requests(engine, 3, "full", seed=2)
    free = engine.generate(requests)
    stop = free[1].tokens[4].text
    assert stop.strip()
    prompt = Prompt(requests[1].prompt.after, requests[1].prompt.before, stop=(stop,))
    stopped = engine.generate([requests[0], Request(requests[1].image, prompt, NEW_TOKENS), requests[2]])
    first = next(index for index, token in enumerate(free[1].tokens) if stop in token.text)
    assert [token.id for token in stopped[1].tokens] == [token.id for token in free[1].tokens[: first + 1]]
    assert stopped[1].finished and stopped[1].text.endswith(stop)
    assert not stopped[0].finished and stopped[0].text == free[0].text and stopped[2].text == free[2].text


def test_each_request_has_its_own_limit_of_tokens(engine):
    short, long = random_requests(engine, 2, "full", seed=3)
    replies = engine.generate([Request(short.image, short.prompt, 3), long])
    assert [len(reply.tokens) for reply in replies] == [3, NEW_TOKENS]


def test_sizes_outside_of_whole_cells_are_fitted(engine):
    reply = engine.generate([Request(np.zeros((75, 131, 3), np.uint8), Prompt("What is it?"), 2)])[0]
    assert all(side % engine.family.cell_px == 0 for side in reply.input_size)


@pytest.mark.parametrize(
    ("device", "dtype", "installed", "chosen"),
    [
        ("cuda", torch.bfloat16, ("flash_attn", "torch.nn.attention.varlen"), "flash_attention_2"),
        ("cuda", torch.float16, ("flash_attn",), "flash_attention_2"),
        ("cuda", torch.bfloat16, ("torch.nn.attention.varlen",), "varlen"),
        ("cuda", torch.bfloat16, (), "sdpa"),
        ("cuda", torch.float32, ("flash_attn", "torch.nn.attention.varlen"), "sdpa"),
        ("cpu", torch.bfloat16, ("flash_attn", "torch.nn.attention.varlen"), "sdpa"),
    ],
)
def test_the_fastest_attention_that_runs_is_chosen(monkeypatch, device, dtype, installed, chosen):
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object() if name in installed else None)
    assert attention.best_attention("auto", torch.device(device), dtype) == chosen
    assert attention.best_attention("eager", torch.device(device), dtype) == "eager"
    assert attention.loading_name("flash_attention_2") == "flash_attention_2"  # transformers has it under this name


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "dtype"),
    [("cuda", True, torch.bfloat16), ("cuda", False, torch.float16), ("cpu", False, torch.float32)],
)
def test_the_numbers_suit_the_device(monkeypatch, engine, device, has_bfloat16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    monkeypatch.setattr(engine, "device", torch.device(device))
    assert engine._dtype_for("auto") is dtype
    assert engine._dtype_for("float16") is torch.float16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_runs_in_numbers_of_each_kind(checkpoint, dtype):
    engine = TransformersEngine(str(checkpoint), device="cpu", dtype=dtype)
    reply = engine.generate(random_requests(engine, 2, "none", seed=6))[0]
    assert len(reply.tokens) == NEW_TOKENS and all(0 < token.probability <= 1 for token in reply.tokens)
    assert f"{dtype}, sdpa" in engine.describe()


class FakeShortMemory:
    """A device on which `generate` fails as CUDA does for more than `patches` patches together."""

    def __init__(self, generate, patches):
        self.generate, self.patches = generate, patches
        self.asked: list[int] = []

    def __call__(self, **inputs):
        self.asked.append(len(inputs["pixel_values"]))
        if self.asked[-1] > self.patches:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.generate(**inputs)


def test_out_of_memory_splits_the_batch_then_shrinks_the_views_then_gives_up(checkpoint, engine, monkeypatch):
    cell = engine.family.cell_px
    prompt = load_prompt("task_grounding").fill(target="cars")
    requests = [Request(np.full((8 * cell, 8 * cell, 3), n, np.uint8), prompt, 4) for n in range(4)]
    memory = FakeShortMemory(engine.model.generate, patches=256)  # a view of 8 x 8 cells, but not two
    monkeypatch.setattr(engine.model, "generate", memory)
    with pytest.raises(OutOfMemory, match=r"out of memory for 4 requests .*ask for fewer or smaller views"):
        engine.generate(requests)

    memory.asked.clear()
    replies = generate_within_memory(engine, requests)
    assert memory.asked == [1024, 512, 256, 256, 512, 256, 256]
    assert all(reply.input_size == (8 * cell, 8 * cell) and not reply.notes for reply in replies)

    memory.patches = 150
    reply = generate_within_memory(engine, requests[:1])[0]
    assert 0.4 < reply.input_size[0] * reply.input_size[1] / (8 * cell) ** 2 <= 0.5
    assert "memory was short: shown at" in reply.notes[0]

    memory.patches = 0
    with pytest.raises(OutOfMemory, match="out of memory for 1 requests"):
        generate_within_memory(engine, requests[:1])
    memory.patches = 256
    assert len(generate_within_memory(engine, requests)) == 4, "it goes on with the next frame"


def test_weights_that_do_not_fit_are_told_apart(checkpoint, monkeypatch):
    def load(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", load)
    with pytest.raises(OutOfMemory, match="the weights do not fit into the memory of cpu"):
        TransformersEngine(str(checkpoint), device="cpu")


def fake_varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    """The definition of `torch.nn.attention.varlen.varlen_attn`, which only CUDA has: `(tokens, heads, head size)`."""
    assert torch.equal(cu_seq_q, cu_seq_k) and max_q == max_k == int(cu_seq_q.diff().max())
    out = torch.empty_like(query)
    for start, stop in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        q, k, v = (tensor[start:stop].transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
        out[start:stop] = torch.nn.functional.scaled_dot_product_attention(q, k, v).squeeze(0).transpose(0, 1)
    return out


def test_variable_length_attention_sees_what_the_windows_show(checkpoint, engine, monkeypatch):
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this PyTorch has no variable-length attention")
    monkeypatch.setattr(varlen, "varlen_attn", fake_varlen_attn)
    other = TransformersEngine(str(checkpoint), device="cpu", attention="varlen")
    requests = random_requests(engine, 6, "none", seed=5)
    assert [r.text for r in other.generate(requests)] == [r.text for r in engine.generate(requests)]


def test_loading_reads_safetensors_only_and_runs_no_code(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = broken / "model.safetensors"
    weights.rename(broken / "pytorch_model.bin")
    with pytest.raises(EngineError, match="cannot be loaded"):
        TransformersEngine(str(broken), device="cpu")


def test_a_truncated_checkpoint_says_which_file_is_wrong(checkpoint, tmp_path):
    broken = tmp_path / "truncated"
    shutil.copytree(checkpoint, broken)
    with (broken / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(EngineError, match=r"truncated.*cannot be loaded"):
        TransformersEngine(str(broken), device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "nobody/nothing"}, "run: activeo3 prefetch"),
        ({"dtype": "int7"}, "dtype must be one of auto, bfloat16"),
        ({"device": "abacus"}, "device 'abacus' is unknown"),
        ({"max_batch": 0}, "max_batch must be 1 to 1024, got 0"),
    ],
)
def test_a_wrong_setting_is_named(checkpoint, settings, message):
    with pytest.raises((InvalidInput, AssetError, EngineError), match=message):
        TransformersEngine(**{"model": str(checkpoint), "device": "cpu", **settings})


def test_a_model_of_another_kind_is_refused(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"unknown family 'llava'.*known are qwen2_5_vl, qwen3_vl"):
        TransformersEngine(str(tmp_path), device="cpu")
