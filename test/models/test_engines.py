"""The choice of an engine, and the engine `vllm` against a stand-in with vLLM's Python interface."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import math
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from activeo3_ros.assets.weights import local_model
from activeo3_ros.core import InvalidInput
from activeo3_ros.core.errors import EngineError, OutOfMemory
from activeo3_ros.vlm import engine_registry as choice
from activeo3_ros.vlm.backends import vllm_engine, vllm_private_inputs, vllm_private_state
from activeo3_ros.vlm.backends.vllm_engine import VllmEngine
from activeo3_ros.vlm.engine import Prompt, Request, Turn
from activeo3_ros.vlm.families import QWEN2_5_VL, conversation, whole_cell_size

PROMPT = Prompt("Where?", before="Findings. ", prefix="<answer>[", stop=("</answer>",))


@pytest.mark.parametrize(
    ("installed", "cuda", "machine", "engine"),
    [
        ({}, False, "x86_64", "remote"),
        ({"torch": "2"}, False, "x86_64", "transformers"),
        ({"torch": "2"}, True, "x86_64", "transformers"),
        ({"torch": "2", "vllm": "0.22.1"}, True, "x86_64", "vllm"),
        ({"torch": "2", "vllm": "0.33.0"}, True, "x86_64", "transformers"),
        ({"torch": "2", "vllm": "0.22.1"}, True, "aarch64", "transformers"),
        ({"torch": "2", "vllm": "0.22.1"}, False, "x86_64", "transformers"),
    ],
)
def test_the_fastest_engine_that_runs_is_chosen(monkeypatch, installed, cuda, machine, engine):
    monkeypatch.setattr(choice, "has_package", lambda name: name in installed)
    monkeypatch.setattr(choice, "installed_version", lambda name: installed[name])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: cuda)))
    monkeypatch.setattr(choice.platform, "machine", lambda: machine)
    name, reason = choice.choose()
    assert name == engine and reason


def test_auto_without_any_engine_says_what_to_do(monkeypatch):
    monkeypatch.setattr(choice, "has_package", lambda name: False)
    with pytest.raises(InvalidInput, match=r"torch is not installed.*install the extra `gpu`.*activeo3 doctor"):
        choice.shared_engine({"type": "auto", "model": "somebody/something"})


def test_auto_takes_the_server_where_one_is_named(monkeypatch):
    monkeypatch.setattr(choice, "has_package", lambda name: False)
    engine = choice.shared_engine({"type": "auto", "model": "policy", "url": "http://localhost:1/v1", "dtype": "auto"})
    assert engine.describe() == "policy at http://localhost:1/v1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "abacus"}, "unknown engine type 'abacus'; known are auto, transformers, vllm, remote"),
        ({"type": "remote", "uri": "x"}, "engine 'remote' has no setting 'uri'; its settings are"),
        ("remote", "must be a mapping"),
        ({"type": "vllm", "model": "x", "drafts": "many"}, "engine 'vllm': drafts must be a whole number, got 'many'"),
        ({"type": "vllm", "model": "x", "drafts": True}, "engine 'vllm': drafts must be a whole number, got True"),
        ({"type": "vllm", "model": "x", "memory_share": []}, r"memory_share must be a number, got \[\]"),
        ({"type": "transformers", "model": "x", "dtype": 16}, "engine 'transformers': dtype must be a text, got 16"),
        ({"type": "transformers", "model": ["x"]}, r"engine 'transformers': model must be a text, got \['x'\]"),
        ({"type": "remote", "url": 8000, "model": "x"}, "engine 'remote': url must be a text, got 8000"),
        ({"type": "transformers"}, "engine 'transformers' needs the setting 'model'"),
        ({"type": ["vllm"]}, r"unknown engine type \['vllm'\]"),
    ],
)
def test_a_wrong_engine_is_named(settings, message):
    with pytest.raises(InvalidInput, match=message):
        choice.shared_engine(settings)


class FakeEngine:
    """vLLM 0.22's `LLMEngine` as far as the engine uses it: writes `pieces`, one token each, or raises `error`."""

    pieces: tuple[str, ...] = ()
    error: Exception | None = None

    def __init__(self, torch, tokenizer):
        self.tokenizer = tokenizer
        vision = SimpleNamespace(patch_size=14, spatial_merge_size=2, temporal_patch_size=2)
        self.model_config = SimpleNamespace(dtype=torch.float16, hf_config=SimpleNamespace(vision_config=vision))
        self.engine_core = SimpleNamespace(shutdown=lambda: setattr(self, "is_shut", True))
        self.is_shut = False
        self.waiting: dict[str, Any] = {}
        self.seen: list[Any] = []
        self.aborted: list[str] = []

    def add_request(self, request_id, prompt, params):
        assert isinstance(request_id, str) and request_id not in self.waiting
        self.waiting[request_id] = (prompt, params)
        self.seen.append(prompt)

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def abort_request(self, request_ids):
        self.aborted += request_ids
        self.waiting.clear()

    def step(self):
        """Finishes the request that came last, as nothing says that they finish in their order."""
        if self.error:
            raise self.error
        name, (prompt, _) = self.waiting.popitem()
        text = "".join(piece for piece in self.pieces if not piece.startswith("<|"))
        ids = [self.tokenizer.encode(piece, add_special_tokens=False)[0] for piece in self.pieces]
        written = SimpleNamespace(
            text=text, token_ids=ids, finish_reason="stop",
            logprobs=[{each: SimpleNamespace(logprob=math.log(0.5), decoded_token=None)} for each in ids],
        )  # fmt: skip
        asked = prompt.get("prompt_token_ids") or self.tokenizer.encode(prompt["prompt"])
        return [SimpleNamespace(request_id=name, finished=True, outputs=[written], prompt_token_ids=asked)]


@dataclass(frozen=True)
class FakeField:
    """vLLM's fields, which say how the values of several requests are joined."""

    slices: Any = None
    keep_on_cpu: bool = False

    def _reduce_data(self, batch, *, pin_memory):
        return batch, pin_memory


@pytest.fixture
def vllm(monkeypatch):
    """A stand-in for the package, and the directory of a checkpoint."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    directory = local_model("tiny/start")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    started: list[dict[str, Any]] = []

    def llm(**settings):
        started.append(settings)
        return SimpleNamespace(llm_engine=FakeEngine(torch, tokenizer), get_tokenizer=lambda: tokenizer)

    def stand_in(name, **members):
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    kinds = SimpleNamespace(FINAL_ONLY="final")
    module = stand_in("vllm", __version__="0.22.1", LLM=llm, SamplingParams=SimpleNamespace, started=started)
    stand_in("vllm.sampling_params", RequestOutputKind=kinds, StructuredOutputsParams=SimpleNamespace)
    stand_in("vllm.inputs", mm_input=lambda **values: {"type": "multimodal", **values})
    stand_in("vllm.engine")
    stand_in("vllm.engine.arg_utils", EngineArgs=SimpleNamespace(__dataclass_fields__={"model": None}))
    stand_in("vllm.multimodal")
    stand_in(
        "vllm.multimodal.inputs", MultiModalFieldElem=SimpleNamespace, MultiModalBatchedField=FakeField,
        MultiModalFlatField=FakeField, MultiModalKwargsItems=dict, MultiModalKwargsItem=dict,
        PlaceholderRange=SimpleNamespace,
    )  # fmt: skip
    vllm_private_inputs._on_device_field.cache_clear()
    monkeypatch.setattr(vllm_private_state, "_in_use", [])
    monkeypatch.setattr(vllm_private_state, "_retired", [])
    yield module, str(directory)
    vllm_private_inputs._on_device_field.cache_clear()


def ask(engine, *sizes):
    return engine.generate([Request(np.zeros((*size, 3), np.uint8), PROMPT, 30) for size in sizes or [(56, 84)]])


def test_vllm_replies_carry_text_tokens_and_probabilities(vllm):
    engine = VllmEngine(vllm[1])
    engine._engine.pieces = ("1", ",", "2", "]\n", "<|im_end|>")
    reply = ask(engine, (56, 84), (28, 28))[0]
    assert reply.text == "<answer>[1,2]\n" and reply.input_size == (84, 56)
    assert reply.probability([(len("<answer>["), len(reply.text))]) == pytest.approx(0.5)
    assert len(reply.tokens) == 5 and reply.prompt_tokens == len(engine._engine.seen[0]["prompt_token_ids"])


def test_vllm_is_asked_through_its_public_interface_for_a_family_that_was_not_tried_with_it(vllm, tmp_path, caplog):
    shutil.copytree(vllm[1], tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_5"}))
    engine = VllmEngine(str(tmp_path / "m"))
    assert vllm[0].started[0]["speculative_config"] is None
    assert vllm[0].started[0]["compilation_config"]["compile_mm_encoder"] is False
    assert "qwen3_5 were not tried with vLLM" in caplog.text
    ask(engine, (64, 96))
    (sent,) = engine._engine.seen
    assert sent["prompt"].endswith("<think>\n\n</think>\n\n" + PROMPT.prefix)
    assert sent["multi_modal_data"]["image"].size == (96, 64)


def test_vllm_says_that_it_takes_one_picture_a_request(vllm):
    engine = VllmEngine(vllm[1])
    picture = np.zeros((56, 56, 3), np.uint8)
    with pytest.raises(EngineError, match="takes one picture a request, a model that calls a zoom tool needs several"):
        engine.generate([Request(picture, PROMPT, turns=(Turn("a", "", picture),))])


def test_vllm_gets_the_same_tokens_and_patches_as_transformers(vllm):
    engine = VllmEngine(vllm[1])
    ask(engine, (56, 84), (100, 60))
    prompt, other = engine._engine.seen
    (place,) = prompt["mm_placeholders"]["image"]
    ids = prompt["prompt_token_ids"]
    text = engine._tokenizer.decode([*ids[: place.offset + 1], *ids[place.offset + place.length :]])
    assert text == conversation(PROMPT.system, PROMPT.before, PROMPT.after, PROMPT.prefix)
    assert ids[place.offset : place.offset + place.length] == [engine._image_id] * 6
    (item,) = prompt["mm_kwargs"]["image"]
    assert item["pixel_values"].data.shape == (24, 1176) and item["image_grid_thw"].data.tolist() == [1, 4, 6]
    assert prompt["mm_hashes"] != other["mm_hashes"], "a view is never taken for another"
    # vLLM joins values of one kind of field alone, and must not pin memory that is on the device.
    field = item["pixel_values"].field
    assert field is other["mm_kwargs"]["image"][0]["pixel_values"].field
    assert field._reduce_data([1], pin_memory=True) == ([1], False)


def test_vllm_tells_at_which_size_it_saw_a_view_that_is_not_in_whole_cells(vllm):
    engine = VllmEngine(vllm[1])
    reply = ask(engine, (100, 60))[0]
    assert reply.input_size == whole_cell_size(60, 100, QWEN2_5_VL)
    assert engine._engine.seen[0]["mm_kwargs"]["image"][0]["image_grid_thw"].data.tolist() == [
        1, reply.input_size[1] // 14, reply.input_size[0] // 14,
    ]  # fmt: skip


def test_vllm_quantizes_the_language_model_alone(vllm):
    module, directory = vllm
    VllmEngine(directory)
    VllmEngine(directory, quantization="fp8")
    plain, small = module.started
    assert plain["quantization"] is None
    assert small["quantization_config"] == {"ignore": ["re:.*visual.*"]}


def test_vllm_drafts_the_fixed_parts_of_answers_unless_told_otherwise(vllm):
    module, directory = vllm
    drafting = VllmEngine(directory)
    plain = VllmEngine(directory, drafts=0, max_requests=5)
    with_drafts, without = module.started
    assert with_drafts["speculative_config"] == {
        "method": "custom_class", "model": "activeo3_ros.vlm.backends.vllm_drafts.VllmDrafts",
        "num_speculative_tokens": 7,
    }  # fmt: skip
    assert without["speculative_config"] is None
    # A step that is a CUDA graph has the tokens of a draft and one more for each request.
    assert set(with_drafts["compilation_config"]["cudagraph_capture_sizes"]) >= {8, 24, 48, 144}
    assert without["compilation_config"]["cudagraph_capture_sizes"] == [1, 2, 3, 4, 5]
    assert "7 tokens drafted" in drafting.describe() and "drafted" not in plain.describe()


def test_vllm_compiles_the_vision_tower_where_that_was_measured(vllm, monkeypatch):
    """On CUDA devices, with vLLM 0.22, unless told otherwise."""
    module, directory = vllm
    engines = [VllmEngine(directory)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(vllm_engine, "_stream", lambda: None)
    monkeypatch.setattr("torch.cuda.stream", contextlib.nullcontext)
    engines += [VllmEngine(directory, compile_tower=False), VllmEngine(directory), VllmEngine(directory)]
    monkeypatch.setattr(module, "__version__", "0.32.0")
    engines += [VllmEngine(directory)]
    asked = [settings["compilation_config"]["compile_mm_encoder"] for settings in module.started]
    assert asked == [False, False, True, True, False]
    assert ["compiled" in engine.describe() for engine in engines] == asked


def test_vllm_holds_the_model_to_the_answer_grammar_of_a_prompt_on_request(vllm):
    held = Request(np.zeros((28, 28, 3), np.uint8), replace(PROMPT, regex=r"[0-9, ]*\]"), 30)
    free = Request(np.zeros((28, 28, 3), np.uint8), PROMPT, 30)
    engine = VllmEngine(vllm[1], structured=True)
    assert engine._sampling(held).structured_outputs.regex == r"[0-9, ]*\]"
    assert engine._sampling(free).structured_outputs is None
    assert VllmEngine(vllm[1])._sampling(held).structured_outputs is None


def test_vllm_running_out_of_memory_is_told_apart(vllm):
    engine = VllmEngine(vllm[1])
    engine._engine.error = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(OutOfMemory, match="lower memory_share"):
        ask(engine)
    engine._engine.error = RuntimeError("something else")
    with pytest.raises(EngineError, match="vLLM cannot answer: something else"):
        ask(engine)
    assert engine._engine.aborted and not engine._engine.waiting
    engine._engine.error, engine._engine.pieces = None, ("1",)
    assert ask(engine)[0].text.endswith("1"), "it goes on with the next frame"


def test_vllm_is_shut_down_with_its_engine(vllm):
    engine = VllmEngine(vllm[1])
    inner = engine._engine
    engine.close()
    engine.close()
    assert inner.is_shut
    with pytest.raises(EngineError, match="start: the engine is closed"):
        ask(engine)


def test_vllm_is_shut_down_with_the_last_engine_of_the_process(vllm):
    first, last = VllmEngine(vllm[1]), VllmEngine(vllm[1])
    inner, other = first._engine, last._engine
    first.close()
    assert not inner.is_shut, "what the two share would go with it"
    last.close()
    assert inner.is_shut and other.is_shut


def test_vllm_that_would_normalize_pixels_itself_is_told_not_to(vllm):
    module, directory = vllm
    VllmEngine(directory)
    assert "mm_device_do_normalize" not in module.started[-1], "0.22 does not know it"
    sys.modules["vllm.engine.arg_utils"].EngineArgs.__dataclass_fields__["mm_device_do_normalize"] = None
    VllmEngine(directory)
    assert module.started[-1]["mm_device_do_normalize"] is False


@pytest.mark.parametrize("version", ["0.21.0", "0.33.0", "1.0.0", "dev"])
def test_a_vllm_that_was_not_tried_is_used_through_its_public_interface(vllm, monkeypatch, caplog, version):
    """It might take pixels in another layout, and see something else without failing."""
    module, directory = vllm
    monkeypatch.setattr(module, "__version__", version)
    sys.modules["vllm.engine.arg_utils"].EngineArgs.__dataclass_fields__["mm_device_do_normalize"] = None
    engine = VllmEngine(directory)
    assert "through its own image processor" in engine.describe() and "drafted" not in engine.describe()
    for without in ("nothing is drafted", "pictures go through"):
        assert f"vLLM {version} is installed, and this engine was tried with 0.22 to 0.32: {without}" in caplog.text
    (started,) = module.started
    assert started["speculative_config"] is None
    assert "mm_device_do_normalize" not in started, "vLLM's own processor leaves that to vLLM"
    assert_pictures_are_sent(engine)


def test_vllms_own_processor_resizes_no_view_once_more(vllm, monkeypatch):
    """It would enlarge small ones; views are in whole cells, from one cell to all that a request holds."""
    module, directory = vllm
    VllmEngine(directory)
    assert "mm_processor_kwargs" not in module.started[0]
    monkeypatch.setattr(module, "__version__", "0.33.0")
    VllmEngine(directory, max_length=4096)
    assert module.started[1]["mm_processor_kwargs"] == {
        "size": {"shortest_edge": 28**2, "longest_edge": 4096 * 28**2},
    }  # fmt: skip


@pytest.mark.parametrize("version", ["0.22.0", "0.32.1.dev3+g1234567"])
def test_a_vllm_that_was_tried_gets_pixels_from_the_device_and_drafts(vllm, monkeypatch, version):
    monkeypatch.setattr(vllm[0], "__version__", version)
    engine = VllmEngine(vllm[1])
    ask(engine)
    assert "mm_kwargs" in engine._engine.seen[0]
    assert "7 tokens drafted" in engine.describe() and "processor" not in engine.describe()


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("vllm.inputs", "mm_input"),
        ("vllm.multimodal.inputs", "MultiModalFlatField"),
        ("vllm.multimodal.inputs", "MultiModalKwargsItem"),
        ("vllm.multimodal.inputs", "PlaceholderRange"),
    ],
)
def test_a_vllm_without_a_private_part_of_its_inputs_gets_pictures(vllm, monkeypatch, caplog, module, part):
    monkeypatch.delattr(sys.modules[module], part)
    engine = VllmEngine(vllm[1])
    assert f"lacks a private part (module '{module}' has no attribute '{part}')" in caplog.text
    assert "7 tokens drafted" in engine.describe(), "the other reaches stay"
    assert_pictures_are_sent(engine)


def assert_pictures_are_sent(engine):
    """Requests reach vLLM as its documentation has them: the text of the prompt, and a picture in RGB."""
    engine._engine.pieces = ("1", "]")
    image = np.zeros((56, 84, 3), np.uint8)
    image[..., 0] = 200  # blue
    [reply] = engine.generate([Request(image, PROMPT, 30)])
    assert reply.text == "<answer>[1]" and reply.input_size == (84, 56) and len(reply.tokens) == 2
    (sent,) = engine._engine.seen
    assert sent["prompt"] == conversation(PROMPT.system, PROMPT.before, PROMPT.after, PROMPT.prefix)
    picture = sent["multi_modal_data"]["image"]
    assert picture.size == (84, 56) and picture.getpixel((0, 0)) == (0, 0, 200)


def test_a_vllm_without_its_private_state_starts_and_closes(vllm, monkeypatch):
    assert "vllm.compilation" not in sys.modules, "the stand-in has no CUDA graphs to spare"
    engine = VllmEngine(vllm[1])
    monkeypatch.delattr(engine._engine, "engine_core")
    vllm_private_state._in_use[:] = [None]
    engine.close()
    assert not vllm_private_state._in_use and not vllm_private_state._retired


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (
            "1 validation error for ModelConfig\n  Value error, no such architecture [type=value_error, input={}]\n"
            "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
            "vLLM cannot start: no such architecture; the engine `transformers`",
        ),
        # As it refuses the second of two engines that each take half of a GPU; told in the words of the preset.
        (
            "Free memory on device cuda:0 (60.1/139.8 GiB) on startup is less than desired GPU memory utilization "
            "(0.5, 69.9 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            r"by other processes\. This is memory_share here; .* take it each$",
        ),
    ],
)
def test_a_refusal_of_vllm_is_told_with_its_reason(vllm, monkeypatch, refusal, says):
    def refuse(**settings):
        raise ValueError(refusal)

    monkeypatch.setattr(vllm[0], "LLM", refuse)
    with pytest.raises(EngineError, match=says):
        VllmEngine(vllm[1])


def test_vllm_settings_are_checked(vllm):
    with pytest.raises(InvalidInput, match=r"memory_share must be 0.05 to 0.95, got 2"):
        VllmEngine(vllm[1], memory_share=2)
    with pytest.raises(InvalidInput, match="quantization must be '' or 'fp8', got 'int1'"):
        VllmEngine(vllm[1], quantization="int1")
    with pytest.raises(InvalidInput, match="drafts must be 0 to 31, got 32"):
        VllmEngine(vllm[1], drafts=32)
    with pytest.raises(InvalidInput, match="structured must be true or false, got 'sglang'"):
        VllmEngine(vllm[1], structured="sglang")


@pytest.mark.parametrize("kind", choice.ENGINE_TYPES)
def test_every_setting_of_an_engine_is_documented_with_its_default(kind):
    page = (Path(__file__).parents[2] / "docs" / "reference" / "components.md").read_text(encoding="utf-8")
    section = page.partition("## The settings of an engine")[2].partition("\n## ")[0]
    table = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in section.splitlines() if line[:2] == "| "]
    documented = {name: default for engine, name, default in table if engine == kind}
    signature = inspect.signature(choice.load_engine_class(kind)).parameters
    assert documented == {
        name: "" if each.default is each.empty else json.dumps(each.default) for name, each in signature.items()
    }


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((0, 28, 3), np.uint8), "at least one pixel, got 28 x 0"),
        (np.zeros((28, 28, 3)), r"a \(height, width, 3\) uint8 BGR image, got float64 \(28, 28, 3\); convert"),
        (np.zeros((28, 28), np.uint8), r"a \(height, width, 3\) uint8 BGR image, got uint8 \(28, 28\); convert"),
        (None, r"a \(height, width, 3\) uint8 BGR image, got NoneType; convert"),
    ],
)
def test_only_pictures_can_be_asked_about(image, says):
    with pytest.raises(InvalidInput, match="an engine needs " + says):
        Request(image, PROMPT)
    with pytest.raises(InvalidInput, match="max_new_tokens must be at least 1, got 0"):
        Request(np.zeros((28, 28, 3), np.uint8), PROMPT, 0)


def test_an_engine_has_answered_before_it_is_handed_out():
    """So no frame waits for kernels to be compiled: the node is configured when an engine is warm."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine

    answered: list[int] = []

    class Watched(TransformersEngine):
        def _generate_batch(self, requests):
            replies = super()._generate_batch(requests)
            answered.append(len(replies))
            return replies

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activeo3_ros.vlm.backends.transformers_engine.TransformersEngine", Watched)
        engine = choice.shared_engine({"type": "transformers", "model": "tiny/start", "device": "cpu"})
    assert answered == list(choice.WARM_UP_COUNTS)
    del engine


def test_an_engine_that_nobody_holds_any_more_frees_the_device(vllm):
    """So a node that is cleaned up can be configured again."""
    settings = {"type": "vllm", "model": vllm[1]}
    sensing, task = choice.shared_engine(settings), choice.shared_engine(settings)
    assert sensing is task
    inner = sensing.engine._engine
    del sensing
    gc.collect()
    assert not inner.is_shut
    del task
    gc.collect()
    assert inner.is_shut
    assert not choice.shared_engine(settings).engine._engine.is_shut


def test_an_engine_that_cannot_answer_does_not_start(vllm, monkeypatch):
    monkeypatch.setattr(FakeEngine, "error", RuntimeError("no kernel image is available"))
    with pytest.raises(EngineError, match="vLLM cannot answer: no kernel image is available"):
        choice.shared_engine({"type": "vllm", "model": vllm[1]})
