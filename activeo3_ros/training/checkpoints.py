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

"""Checkpoints of a training run: finding the last complete one, and leaving none that is half written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import InvalidInput, PerceptionError
from ..core.optional import require_package
from .config import TrainingConfig
from .scoring import TrainingError


def last_complete_checkpoint(output: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end.

    Args:
        output: Directory of the run.

    Returns:
        Its directory, None if there is none.
    """
    # The trainer writes its state last.
    complete = [
        path
        for path in output.glob("checkpoint-*")
        if (path / "trainer_state.json").is_file() and path.name[11:].isdigit()
    ]
    return max(complete, key=lambda path: int(path.name[11:]), default=None)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Give a model all weights of a checkpoint.

    Checkpoints have the names of published ones, a model of transformers others: its trainer would find none of them,
    and only warn.

    Args:
        model: Of transformers, whole, in this process.
        checkpoint: Its directory.
    """
    whole = type(model).from_pretrained(checkpoint, dtype=model.dtype, local_files_only=True, use_safetensors=True)
    model.load_state_dict(whole.state_dict())


def check_resumable(checkpoint: Path, spread: str) -> None:
    """Refuse the checkpoint of a run whose weights were spread otherwise: its optimizer is written in another way.

    Args:
        checkpoint: Its directory.
        spread: "FSDP" or "DeepSpeed" where this run spreads weights over processes, else "".

    Raises:
        InvalidInput: It cannot be gone on from; the message says how to use its weights.
    """
    written = "DeepSpeed" if any(checkpoint.glob("global_step*")) else ""
    written = written or ("FSDP" if (checkpoint / "optimizer.bin").is_file() else "")
    if written != spread:
        kinds = {"": "without spreading weights", "FSDP": "with FSDP", "DeepSpeed": "with DeepSpeed"}
        raise InvalidInput(
            f"{checkpoint} was written {kinds[written]}, and this run trains {kinds[spread]}: start it as that one, or "
            f"begin a new one from its weights (model: {checkpoint}, and another output)"
        )


@contextmanager
def removed_if_half_written(target: Path) -> Iterator[None]:
    """Remove a directory if writing it fails inside this context.

    Args:
        target: The directory.

    Raises:
        TrainingError: Writing failed, as on a full disk; one line says why and how to go on.
    """
    try:
        yield
    except PerceptionError:
        raise
    except Exception as error:
        # safetensors reports a full disk as its own error, torch as RuntimeError.
        said = str(error).lower()
        if not isinstance(error, OSError) and not any(sign in said for sign in ("space", "write", "i/o error")):
            raise
        shutil.rmtree(target, ignore_errors=True)
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{target} could not be written ({reason}); free some space and run the same command again: "
            "it goes on from the last checkpoint"
        ) from error


def save_policy(trainer: Any, config: TrainingConfig, load: Callable[[], Any], target: Path) -> None:
    """Write the trained policy, adapters merged; every process of a run calls it.

    Args:
        trainer: TRL's trainer.
        config: Says whether adapters were trained.
        load: Makes the model that the training started from.
        target: Directory of the policy.

    Raises:
        TrainingError: It could not be written.
    """
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
        with removed_if_half_written(target):
            trained.save_pretrained(target, state_dict=state)
            trainer.processing_class.save_pretrained(target)
    trainer.accelerator.wait_for_everyone()
