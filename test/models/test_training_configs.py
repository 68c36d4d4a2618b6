"""Every configuration that ships is one that the trainer, or accelerate, takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpo_fixtures import RESEARCH, require_training

require_training()

from activeo3_ros.training.config import load_config  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "config" / "training"


@pytest.mark.parametrize("path", [*sorted(CONFIGS.glob("*.yaml")), RESEARCH / "tiny.yaml"], ids=lambda path: path.stem)
def test_every_training_configuration_is_accepted(path: Path, tmp_path: Path) -> None:
    from trl import GRPOConfig

    config = load_config(path, tmp_path)
    assert config.output == tmp_path
    # bf16 is a claim about the machine that trains, not about the file.
    settings = {**config.grpo, "bf16": False, "use_cpu": True, "report_to": []}
    arguments = GRPOConfig(output_dir=str(tmp_path), **settings)
    assert arguments.num_generations == 8, "the paper's group"
    if config.lora is not None:
        peft = pytest.importorskip("peft")
        assert peft.LoraConfig(**config.lora).r == config.lora["r"]


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_accepts_every_configuration(path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(path))
    assert loaded.num_processes >= 2
    assert str(loaded.distributed_type.value) in ("MULTI_GPU", "FSDP", "DEEPSPEED")


def test_the_settings_of_fsdp_are_known_to_it() -> None:
    """accelerate passes unknown names on in silence, so a misspelt one would have no effect."""
    accelerate = pytest.importorskip("accelerate")
    import inspect

    import yaml

    values = yaml.safe_load((CONFIGS / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]
    known = set(inspect.signature(accelerate.FullyShardedDataParallelPlugin).parameters)
    renamed = {"transformer_layer_cls_to_wrap": "transformer_cls_names_to_wrap", "version": "fsdp_version"}
    for name in values:
        plain = name.removeprefix("fsdp_")
        assert renamed.get(plain, plain) in known, name
