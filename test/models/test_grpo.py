"""GRPO with TRL's trainer on a tiny random model and the CPU: it steps, resumes, refuses bad input."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from grpo_fixtures import (
    RESEARCH,
    BrokenTask,
    environment,
    log_of,
    make_model,
    make_rows,
    prefer_pictures,
    require_training,
    weights,
    write_config,
)

require_training()

from activeo3_ros.core import Budget, Frame, InvalidInput, Query, View  # noqa: E402
from activeo3_ros.training import callbacks, checkpoints, dataset, grpo, picture_tokens  # noqa: E402
from activeo3_ros.training.config import load_config  # noqa: E402
from activeo3_ros.training.grpo import train  # noqa: E402
from activeo3_ros.training.rewards import RewardSettings  # noqa: E402
from activeo3_ros.training.rows import Row  # noqa: E402
from activeo3_ros.training.scoring import Scored, Scorer, TrainingError  # noqa: E402
from activeo3_ros.vlm.families import QWEN2_5_VL  # noqa: E402
from activeo3_tiny import qwen_decoding  # noqa: E402
from activeo3_tiny.scene_rows import SceneRows  # noqa: E402
from activeo3_tiny.study import Run, configuration, shorten, steps_of  # noqa: E402
from activeo3_tiny.warm_start import sensing_answer  # noqa: E402

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "start")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps in one go."""
    out = tmp_path_factory.mktemp("trained")
    policy = train(load_config(write_config(out / "config.yaml", model, data, out / "run")))
    assert policy == out / "run" / "policy"
    return out / "run"


def test_three_steps_log_every_term_and_save_panels(trained: Path) -> None:
    rows = log_of(trained)
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    for name in ("format", "overlap", "area", "coverage", "task"):
        assert all(np.isfinite(float(row[f"rewards/{name}/mean"])) for row in rows)
    for name in (
        "kl",
        "clip_ratio/region_mean",
        "completions/mean_length",
        "regions/count",
        "regions/area",
        "regions/max_iou",
    ):
        assert all(row[name] != "" for row in rows), name
    assert len(list((trained / "panels").glob("*.jpg"))) == 3
    assert list(trained.glob("runs/*/events.*")), "TensorBoard"


def test_the_policy_loads_into_the_loop(trained: Path) -> None:
    from activeo3_ros.policies.mllm import MllmSensing

    sensing = MllmSensing(
        {"type": "transformers", "model": str(trained / "policy"), "device": "cpu", "cache": "dynamic"}
    )
    frame = Frame(np.zeros((112, 112, 3), np.uint8))
    proposal = sensing.propose(frame.view(frame.window, (112, 112)), Query(classes=("lamp",)), Budget(max_tokens=4))
    assert proposal.tokens == 4


def test_a_family_that_was_never_trained_here_is_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "config.json").write_text('{"model_type": "qwen3_5"}', encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"models of type qwen2_5_vl, qwen3_vl alone, this is one of qwen3_5"):
        train(load_config(write_config(tmp_path / "config.yaml", tmp_path / "start", data, tmp_path / "run")))


def test_qwen3_vl_steps_too(data: Path, tmp_path: Path) -> None:
    """Its patches are larger than those of Qwen2.5-VL, and its coordinates are thousandths."""
    from tiny_models import build_tiny_model

    start = build_tiny_model(tmp_path / "start", "qwen3_vl")
    change = {
        "view_pixels": 128 * 128,
        "crop_pixels": 64 * 64,
        "panels_every": 0,
        "grpo": {"save_strategy": "no", "weight_decay": 0.1},
    }
    policy = train(load_config(write_config(tmp_path / "config.yaml", start, data, tmp_path / "run", 1, change)))
    (row,) = log_of(tmp_path / "run")
    assert float(row["rewards/task/mean"]) >= 0
    before, after = weights(start), weights(policy)
    assert before.keys() == after.keys()
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_trained_adapters_are_merged_into_the_policy(model: Path, data: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForImageTextToText

    lora = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False}  # adapters that change something at once
    change = {"lora": lora, "panels_every": 0}
    policy = train(load_config(write_config(tmp_path / "config.yaml", model, data, tmp_path / "run", 1, change)))
    before = AutoModelForImageTextToText.from_pretrained(model).state_dict()
    start = AutoModelForImageTextToText.from_pretrained(model)
    merged = peft.PeftModel.from_pretrained(start, tmp_path / "run" / "checkpoint-1").merge_and_unload().state_dict()
    saved = AutoModelForImageTextToText.from_pretrained(policy).state_dict()
    assert weights(policy).keys() == weights(model).keys()
    assert any(not np.array_equal(before[name], saved[name]) for name in saved)
    assert all(np.allclose(saved[name], merged[name], atol=1e-6) for name in saved)


def test_resuming_gives_the_same_next_step(trained: Path, model: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
    shutil.copy(trained / "log.csv", tmp_path / "run" / "log.csv")
    (tmp_path / "run" / "checkpoint-3").mkdir()  # a checkpoint that was being written when the power went
    assert checkpoints.last_complete_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoint-2"
    train(load_config(write_config(tmp_path / "config.yaml", model, data, tmp_path / "run")))
    before, after = weights(trained / "policy"), weights(tmp_path / "run" / "policy")
    assert all(np.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert log_of(tmp_path / "run")[2]["reward"] == log_of(trained)[2]["reward"]


def test_sigterm_saves_a_checkpoint_and_the_same_command_goes_on(model: Path, data: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml", model, data, tmp_path / "run", steps=500, change={"grpo": {"save_steps": 500}}
    )
    command = [sys.executable, "-m", "activeo3_ros.cli", "train", "grpo", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment())
    try:
        deadline = time.monotonic() + 180
        while not (tmp_path / "run" / "log.csv").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    checkpoint = checkpoints.last_complete_checkpoint(tmp_path / "run")
    assert checkpoint is not None and (checkpoint / "model.safetensors").is_file()


SCENES = "activeo3_tiny.scene_rows:SceneRows"

WRONG = [
    ({"learning_rte": 1}, "unknown training key 'learning_rte'"),
    ({"grpo": {"learning_rte": 1}}, "unknown grpo key 'learning_rte'"),
    ({"reward": {"coverage": "all"}}, "unknown coverage 'all'"),
    ({"reward": {"weights": {"tasks": 1}}}, "unknown reward weight key 'tasks'"),
    ({"data": {}}, "data needs 'path', a directory of `activeo3 train data`, or 'rows', package.module:name"),
    ({"data": {"scenes": 8}}, "unknown data key 'scenes'; known are path, rows"),
    ({"data": {"rows": SCENES, "count": 0}}, "count of drawn scenes must be a whole number from 1, got 0"),
    ({"data": {"rows": SCENES, "scenes": 8}}, f"{SCENES} does not take these settings: missing a required argument"),
    (
        {"data": {"rows": "collections:Counter"}},
        "collections:Counter must give a sequence of activeo3_ros.training.rows.Row",
    ),
    ({"data": {"rows": "no_such_package:Rows"}}, "cannot be imported (No module named 'no_such_package'); install"),
    ({"speed_up": "no_such_package:faster"}, "put the folder that holds the package on PYTHONPATH"),
    ({"speed_up": "activeo3_tiny.qwen_speed"}, "speed_up must name a function or a class as package.module:name"),
    (
        {"speed_up": "activeo3_tiny.qwen_speed:slow_down"},
        "qwen_speed has no function or class 'slow_down'",
    ),
    ({"data": {"path": "/nowhere"}}, "build the data set first"),
    ({"model": "/nowhere"}, "neither a directory nor"),
    ({"max_regions": 1000}, "max_regions must be 0 to 64"),
    ({"max_minutes": -1}, "max_minutes must be 0 to 525600"),
    ({"freeze": ["model.eyes"]}, "'freeze' names 'model.eyes'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_configuration_is_one_clear_line(
    model: Path, data: Path, tmp_path: Path, change: dict, message: str
) -> None:
    from activeo3_ros.core import PerceptionError

    config = write_config(tmp_path / "config.yaml", model, data, tmp_path / "run", change=change)
    with pytest.raises(PerceptionError) as error:
        train(load_config(config))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_pictures_that_cannot_be_read_are_listed_and_the_rest_is_used(model: Path, tmp_path: Path) -> None:
    data = make_rows(tmp_path / "data", pictures=3)
    rows = dataset.load_rows({"path": str(data)})
    Path(rows[0].image).write_bytes(b"no picture")
    Path(rows[1].image).unlink()
    assert dataset.readable_rows(rows, tmp_path / "run") == [rows[2]]
    listed = (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()
    assert len(listed) == 2 and rows[0].image in listed[0]
    Path(rows[2].image).unlink()
    with pytest.raises(InvalidInput, match="none of 3 pictures can be read"):
        dataset.readable_rows(rows, tmp_path / "run")


def save_on_full_disk(target: Path) -> None:
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_vllm_gets_one_token_for_each_image() -> None:
    """It puts all others in its place itself."""
    assert picture_tokens.one_token_an_image([1, 9, 9, 9, 2, 9, 3], image_token=9) == [1, 9, 2, 9, 3]
    assert picture_tokens.one_token_an_image([9, 9], image_token=9) == [9]
    assert picture_tokens.one_token_an_image([1, 2, 2], image_token=9) == [1, 2, 2]


def test_a_full_disk_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint-5"
    with (
        pytest.raises(TrainingError, match="free some space and run the same command again"),
        checkpoints.removed_if_half_written(target),
    ):
        save_on_full_disk(target)
    assert not target.exists()


def test_a_disk_that_fills_up_while_saving_is_one_clear_line(model: Path, data: Path, tmp_path: Path) -> None:
    """The system refuses to write files above a size, as a full disk would; the weights are larger."""
    config = write_config(tmp_path / "config.yaml", model, data, tmp_path / "run", steps=1, change={"panels_every": 0})
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
        "from activeo3_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, "train", "grpo", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=400)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.fixture(scope="module")
def picture_lover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose likeliest tokens are those that stand for pictures."""
    from transformers import AutoModelForImageTextToText

    directory = make_model(tmp_path_factory.mktemp("picture_lover") / "start")
    prefer_pictures(AutoModelForImageTextToText.from_pretrained(directory)).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("way", ["own loop", "generate"])
def test_no_answer_holds_a_token_that_stands_for_a_picture(
    picture_lover: Path, data: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One would make the next forward pass count a picture more than there are, and end the run."""
    import trl
    from transformers import AutoConfig

    calculate, decode, fits = trl.GRPOTrainer._calculate_rewards, qwen_decoding.decode, qwen_decoding.fits
    answers: list[list[int]] = []
    own: list[bool] = []

    def remember(self, inputs, prompts, completions, ids):  # type: ignore[no-untyped-def]
        answers.extend(ids)
        return calculate(self, inputs, prompts, completions, ids)

    def count(*arguments):  # type: ignore[no-untyped-def]
        own.append(True)
        return decode(*arguments)

    monkeypatch.setattr(trl.GRPOTrainer, "_calculate_rewards", remember)
    monkeypatch.setattr(qwen_decoding, "decode", count)
    monkeypatch.setattr(qwen_decoding, "fits", fits if way == "own loop" else lambda *_: False)
    change = {
        "panels_every": 0,
        "reward": {"weights": {"task": 0.0}},
        "grpo": {"save_strategy": "no", "generation_kwargs": {"suppress_tokens": [7]}},
        "speed_up": "activeo3_tiny.qwen_speed:speed_up_qwen",
    }
    train(load_config(write_config(tmp_path / "config.yaml", picture_lover, data, tmp_path / "run", 3, change)))
    config = AutoConfig.from_pretrained(picture_lover)
    barred = {getattr(config, f"{name}_token_id") for name in ("image", "video", "vision_start", "vision_end")}
    assert len(barred) == 4
    assert len(answers) == 6 and sum(map(len, answers)) > 12
    assert not barred & {token for each in answers for token in each}
    assert len(own) == (3 if way == "own loop" else 0)


def test_sampling_settings_of_a_configuration_are_kept_beside_the_barred_tokens() -> None:
    tokens = [20, 21]
    assert picture_tokens.without_pictures(None, tokens, vllm=False) == {"suppress_tokens": [20, 21]}
    given = {"suppress_tokens": [21, 3], "no_repeat_ngram_size": 4}
    assert picture_tokens.without_pictures(given, tokens, vllm=False) == {
        "suppress_tokens": [3, 20, 21],
        "no_repeat_ngram_size": 4,
    }
    assert given["suppress_tokens"] == [21, 3]
    assert picture_tokens.without_pictures(None, tokens, vllm=True) == {"logit_bias": {20: -100.0, 21: -100.0}}
    given = {"logit_bias": {"3": 1.5, 20: 5.0}, "seed": 4}
    assert picture_tokens.without_pictures(given, tokens, vllm=True) == {
        "logit_bias": {3: 1.5, 20: -100.0, 21: -100.0},
        "seed": 4,
    }


@pytest.mark.parametrize(
    ("sampling", "vllm", "message"),
    [
        ({"suppress_tokens": 5}, False, "suppress_tokens must be a list of token ids, got 5"),
        ({"suppress_tokens": "57"}, False, "suppress_tokens must be a list of token ids, got '57'"),
        ({"suppress_tokens": [True]}, False, "suppress_tokens must be a list of token ids, got [True]"),
        ({"suppress_tokens": [[1]]}, False, "suppress_tokens must be a list of token ids, got [[1]]"),
        ({"logit_bias": [1, 2]}, True, "logit_bias must map token ids to numbers, got [1, 2]"),
        ({"logit_bias": {"car": 1.0}}, True, "logit_bias must map token ids to numbers, got {'car': 1.0}"),
    ],
)
def test_a_wrong_list_of_tokens_is_one_clear_line(sampling: dict, vllm: bool, message: str) -> None:
    with pytest.raises(InvalidInput) as error:
        picture_tokens.without_pictures(sampling, [20], vllm)
    assert str(error.value) == f"grpo: generation_kwargs: {message}"


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ([1, 2], "grpo: generation_kwargs must be a mapping of names to values, got [1, 2]"),
        ({"temprature": 1.0}, "unknown generation_kwargs key 'temprature'; known are"),
    ],
)
def test_wrong_sampling_settings_are_one_clear_line(
    model: Path, data: Path, tmp_path: Path, sampling: object, message: str
) -> None:
    change = {"grpo": {"generation_kwargs": sampling}}
    with pytest.raises(InvalidInput) as error:
        train(load_config(write_config(tmp_path / "config.yaml", model, data, tmp_path / "run", 1, change)))
    assert str(error.value).startswith(message)


def test_picture_tokens_are_those_that_the_model_names() -> None:
    from tiny_models import tiny_config

    assert picture_tokens.picture_tokens(tiny_config("qwen3_vl")) == [151652, 151653, 151655, 151656]
    published = tiny_config("qwen2_5_vl")
    published.vision_token_id = 151654
    assert picture_tokens.picture_tokens(published, 151655) == [151652, 151653, 151654, 151655, 151656]
    published.text_config.vocab_size = 151655  # no model can write a token that it does not have
    assert picture_tokens.picture_tokens(published, 9) == [9, 151652, 151653, 151654]


class GivenAnswers(Scorer):
    """Scores answers of its own, as random weights write none: four in turn, the second of a region that is too small,
    the last of one on the right.
    """

    def score(self, texts: list[str], rows: list[Row]) -> list[Scored]:
        boxes = [[0, 45, 30, 65], [10, 40, 16, 46], [20, 30, 50, 75], [80, 40, 110, 70]]
        return super().score([sensing_answer([boxes[index % 4]], ["lamp"]) for index in range(len(texts))], rows)


def given_answers(monkeypatch: pytest.MonkeyPatch, task: BrokenTask) -> list[list[float]]:
    """Train with these answers and a task model; gives the advantages of each step, as steps are taken."""
    import trl

    make, generate = grpo.make_scorer, trl.GRPOTrainer._generate_and_score_completions
    taught: list[list[float]] = []

    def scorer(config, family, frames):  # type: ignore[no-untyped-def]
        made = make(config, family, frames)
        return GivenAnswers(made.settings, family, made.budget, made.shorter_side, task, frames)

    def remember(self, inputs):  # type: ignore[no-untyped-def]
        made = generate(self, inputs)
        taught.append(made["advantages"].tolist())
        return made

    monkeypatch.setattr(grpo, "make_scorer", scorer)
    monkeypatch.setattr(trl.GRPOTrainer, "_generate_and_score_completions", remember)
    return taught


FOURS = {"grpo": {"per_device_train_batch_size": 4, "num_generations": 4, "save_strategy": "no"}}


def test_an_answer_that_the_task_model_failed_on_teaches_nothing(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_the_right(view: View) -> str:
        return "no memory" if view.window.x > 60 else ""

    taught = given_answers(monkeypatch, BrokenTask(on_the_right))
    run = tmp_path / "run"
    train(load_config(write_config(tmp_path / "config.yaml", model, data, run, 3, FOURS)))
    rows = log_of(run)
    assert len(taught) == len(rows) == 3
    for advantages in taught:
        assert advantages[3] == 0
        assert sum(advantages[:3]) == pytest.approx(0, abs=1e-4), "nor do the others gain by it"
    assert any(advantages[:3] != [0, 0, 0] for advantages in taught)
    assert [float(row["task/failed"]) for row in rows] == [0.25] * 3
    assert all(np.isfinite(float(row[f"rewards/{term}/mean"])) for row in rows for term in ("format", "task"))
    assert all(np.isfinite(float(row["reward"])) and np.isfinite(float(row["loss"])) for row in rows)
    assert len(list((run / "panels").glob("*.jpg"))) == 3


def test_a_task_model_that_always_fails_ends_the_training(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = given_answers(monkeypatch, BrokenTask(lambda view: "the engine broke"))
    # Each step has one picture, and one picture may be bad.
    with pytest.raises(
        TrainingError, match=r"3 times in a row: the task model .* the engine broke \(grpo_fixtures.py, line \d+\);"
    ):
        train(load_config(write_config(tmp_path / "config.yaml", model, data, tmp_path / "run", 3, FOURS)))
    assert taught == [[0, 0, 0, 0]] * 2


def test_training_ends_when_its_time_is_up(model: Path, data: Path, tmp_path: Path) -> None:
    change = {"panels_every": 0, "max_minutes": 1e-9}
    policy = train(load_config(write_config(tmp_path / "config.yaml", model, data, tmp_path / "run", 500, change)))
    assert (policy / "model.safetensors").is_file()
    assert len(log_of(tmp_path / "run")) == 1


def test_the_learning_rate_falls_over_the_second_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    limit = callbacks.time_limit(transformers, minutes=1.0)
    control = transformers.TrainerControl()
    optimizer, scheduler = SimpleNamespace(param_groups=[{"lr": 0.0}]), SimpleNamespace(get_last_lr=lambda: [0.4])
    limit.on_train_begin(None, None, control)
    rates = []
    for now[0] in (0.0, 29.0, 45.0, 59.0, 61.0):
        limit.on_step_begin(None, None, control, optimizer=optimizer, lr_scheduler=scheduler)
        rates.append(optimizer.param_groups[0]["lr"])
        stopped = limit.on_step_end(None, None, control).should_training_stop
        assert stopped == (now[0] > 60)
    assert rates == pytest.approx([0.4, 0.4, 0.2, 0.4 / 30, 0.0])


def test_an_answer_that_goes_on_after_its_end_is_not_well_formed() -> None:
    row = SceneRows(1, 5)[0]
    scorer = Scorer(RewardSettings(), QWEN2_5_VL, Budget(3, 112_896, 112_896, 84))
    answer = sensing_answer([[10, 10, 60, 60]], ["car"])
    ended, went_on = scorer.score([answer + "\n", answer + " and so on"], [row, row])
    assert (ended.reward.terms["format"], went_on.reward.terms["format"]) == (1.0, 0.0)
    assert ended.reward.terms["area"] == went_on.reward.terms["area"] == 1.0


def test_runs_of_a_study_differ_in_reward_seed_and_scenes(tmp_path: Path) -> None:
    base = yaml.safe_load((RESEARCH / "tiny.yaml").read_text())
    made = [
        configuration(base, Run(reward, seed, tmp_path, 0), {"max_minutes": 3.0})
        for reward, seed in (("both", 0), ("heuristic", 2))
    ]
    assert [each["data"]["first_seed"] for each in made] == [20_000_000, 20_400_000]
    assert [each["grpo"]["seed"] for each in made] == [0, 2]
    assert [each["reward"]["weights"] for each in made] == [{}, {"task": 0.0}]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(made[0]))
    shorten(path, 1.0)
    assert load_config(path).max_minutes == 2.0


def test_the_steps_of_a_study_are_commands_that_exist(tmp_path: Path) -> None:
    steps = steps_of(Run("both", 0, tmp_path, -1), tmp_path / "config.yaml", "tiny/start", scenes=3, batch=4)
    for _, (module, *arguments) in steps:
        command = [sys.executable, "-m", module, *arguments[:2], "--help"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
        assert done.returncode == 0 and "usage:" in done.stdout, done.stderr[-3000:]


def test_the_log_of_repeated_steps_replaces_the_old_one(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        callbacks.append_row(tmp_path / "log.csv", {"step": step, "reward": step})
    callbacks.append_row(tmp_path / "log.csv", {"step": 2, "reward": 7, "kl": 1})
    with open(tmp_path / "log.csv", newline="") as file:
        assert [(row["step"], row["reward"], row["kl"]) for row in csv.DictReader(file)] == [
            ("1", "1", ""),
            ("2", "7", "1"),
        ]


def test_speeding_qwen_up_changes_no_number(model: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    script_free = AutoModelForImageTextToText.from_pretrained(model).eval()
    image = script_free.config.image_token_id
    ids = torch.randint(0, 500, (3, 40))
    mask = torch.ones_like(ids)
    for row in range(3):
        mask[row, :row] = 0
        ids[row, 10 + row : 10 + row + 16] = image
    grid = torch.tensor([[1, 8, 8]] * 3)
    from activeo3_tiny.qwen_speed import positions_of_one_picture

    kinds = (ids == image).long()
    fast, shift = positions_of_one_picture(ids, kinds == 1, grid, mask, merge=2)
    slow, offset = type(script_free.model).get_rope_index(
        script_free.model, ids, mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=mask
    )
    assert torch.equal(fast, slow) and torch.equal(shift, offset)


def test_requests_of_several_threads_are_answered_in_one_batch(model: Path) -> None:
    from activeo3_ros.training.rollout_batcher import RolloutBatcher
    from activeo3_ros.vlm.engine import Prompt, Reply, Request
    from activeo3_ros.vlm.families import QWEN2_5_VL

    class FakeEngine:
        family = QWEN2_5_VL
        batches: list[int] = []  # noqa: RUF012

        def generate(self, requests):  # type: ignore[no-untyped-def]
            self.batches.append(len(requests))
            return [Reply(request.prompt.after) for request in requests]

    engine = FakeEngine()
    batcher = RolloutBatcher(engine)  # type: ignore[arg-type]
    picture = np.zeros((28, 28, 3), np.uint8)
    got = {}

    def work(index: int) -> None:
        got[index] = [reply.text for reply in batcher.generate([Request(picture, Prompt(str(index)))] * 2)]

    batcher.map(work, 10, threads=4)
    assert got == {index: [str(index)] * 2 for index in range(10)}
    assert engine.batches == [8, 8, 4]
