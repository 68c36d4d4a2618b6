"""GRPO in two processes on the CPU, by the shipped files for accelerate: whole weights, FSDP 2, DeepSpeed ZeRO-3."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from grpo_fixtures import (
    TINY,
    environment,
    log_of,
    make_model,
    make_rows,
    require_training,
    weights,
    write_config,
    write_scenes_config,
)

require_training()

from activeo3_ros.core import InvalidInput  # noqa: E402
from activeo3_ros.training.checkpoints import check_resumable  # noqa: E402

pytestmark = pytest.mark.timeout(600)

ACCELERATE = Path(__file__).parents[2] / "config" / "training" / "accelerate"


def launch(settings: str, config: Path, *options: str) -> None:
    """`accelerate launch` with a shipped file, in two processes on a CPU."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / settings), *options,
        "--main_process_port", "0", str(Path(__file__).parents[1] / "cpu_sharding.py"), "train", "grpo",
        "--config", str(config),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    model, data = make_model(tmp_path / "start"), make_rows(tmp_path / "data")
    config = write_config(tmp_path / "config.yaml", model, data, tmp_path / "run", steps=1, change={"panels_every": 0})
    launch("cpu2.yaml", config)
    (row,) = log_of(tmp_path / "run")
    assert float(row["epoch"]) == 4 / 16, "each of two processes did 2 of the 16 answers"
    assert (tmp_path / "run" / "policy" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def unsharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The policy of one update of two processes that have all weights each."""
    folder = tmp_path_factory.mktemp("unsharded")
    return weights(one_update("cpu2", folder) / "policy")


def one_update(settings: str, folder: Path, *options: str) -> Path:
    """The run of one update of activeo3-tiny."""
    grpo = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 256}
    launch(f"{settings}.yaml", write_scenes_config(folder / "config.yaml", folder / "run", 1, grpo), *options)
    return folder / "run"


@pytest.mark.parametrize("settings", ["fsdp", "zero3"])
def test_sharded_weights_learn_and_are_saved_as_whole_ones(
    settings: str, unsharded: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """FSDP 2 and DeepSpeed ZeRO-3 as shipped: the policy is that of two unsharded processes."""
    if settings == "zero3" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed; run: make setup EXTRAS='mllm train deepspeed'")
    run = one_update(settings, tmp_path, "--num_processes", "2", "--mixed_precision", "no")
    sharded, before = weights(run / "policy"), weights(TINY / "policy")
    assert float(log_of(run)[0]["grad_norm"]) > 0
    assert any(not np.array_equal(before[name], unsharded[name]) for name in before)
    # Adam's first step is 1e-3 in size whatever the gradient is, so that rounding shows where that is nearly nothing.
    apart = [np.abs(unsharded[name] - sharded[name]) for name in unsharded]
    assert all(each.max() < 2e-4 and (each > 1e-5).mean() < 0.001 for each in apart)


# One process and two, with the same answers: what is learned, and going on from each other's checkpoints.


def fixed_config(folder: Path, model: Path, data: Path, processes: int) -> Path:
    """Two steps of eight answers, however many processes share them."""
    grpo = {"per_device_train_batch_size": 8 // processes, "num_generations": 4, "max_completion_length": 64}
    change = {"panels_every": 0, "task": None, "reward": {"weights": {"task": 0.0}}, "grpo": grpo}
    change |= {"speed_up": "fixed_answers:write_fixed_answers"}
    return write_config(folder / f"{processes}.yaml", model, data, folder / "run", 2, change)


def train_in(processes: int, config: Path, settings: str = "cpu2") -> None:
    """Train, or go on, in so many processes."""
    if processes > 1:
        launch(f"{settings}.yaml", config, "--num_processes", str(processes), "--mixed_precision", "no")
        return
    command = [sys.executable, "-m", "activeo3_ros.cli", "train", "grpo", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its data."""
    folder = tmp_path_factory.mktemp("start")
    return make_model(folder / "model"), make_rows(folder / "data")


@pytest.fixture(scope="module")
def alone(start: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, with the checkpoint of each of two steps."""
    folder = tmp_path_factory.mktemp("alone")
    train_in(1, fixed_config(folder, *start, 1))
    return folder / "run"


def same_policy(first: Path, second: Path) -> None:
    one, other = weights(first / "policy"), weights(second / "policy")
    apart = [np.abs(one[name] - other[name]) for name in one]
    # Adam's first steps are 1e-3 in size whatever the gradient is, so that rounding shows where that is nearly nothing.
    assert all((each > 1e-5).mean() < 0.01 for each in apart)
    rewards = [[row["reward"] for row in log_of(run)] for run in (first, second)]
    assert rewards[0] == rewards[1]


def test_two_processes_learn_what_one_does_and_one_goes_on_from_their_checkpoint(
    start: tuple[Path, Path], alone: Path, tmp_path: Path
) -> None:
    train_in(2, fixed_config(tmp_path, *start, 2))
    same_policy(alone, tmp_path / "run")
    for later in ("checkpoint-2", "policy"):
        shutil.rmtree(tmp_path / "run" / later)
    train_in(1, fixed_config(tmp_path, *start, 1))
    same_policy(alone, tmp_path / "run")


def test_two_processes_go_on_from_the_checkpoint_of_one(start: tuple[Path, Path], alone: Path, tmp_path: Path) -> None:
    shutil.copytree(alone / "checkpoint-1", tmp_path / "run" / "checkpoint-1")
    shutil.copy(alone / "log.csv", tmp_path / "run" / "log.csv")
    train_in(2, fixed_config(tmp_path, *start, 2))
    same_policy(alone, tmp_path / "run")


def test_a_checkpoint_of_another_kind_of_run_is_refused(alone: Path, tmp_path: Path) -> None:
    check_resumable(alone / "checkpoint-1", "")
    with pytest.raises(InvalidInput, match="was written without spreading weights, and this run trains with FSDP"):
        check_resumable(alone / "checkpoint-1", "FSDP")
    for name, written in (("global_step1/zero.pt", "DeepSpeed"), ("optimizer.bin", "FSDP")):
        file = tmp_path / written / name
        file.parent.mkdir(parents=True)
        file.touch()
        check_resumable(tmp_path / written, written)
        with pytest.raises(InvalidInput, match="begin a new one from its weights"):
            check_resumable(tmp_path / written, "")
