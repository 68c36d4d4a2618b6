"""The architecture of `activeo3-tiny`: Qwen2.5-VL's classes at 7 M parameters, and its real tokenizer with fewer words.

Nearly all of Qwen's 151,936 tokens would never be used, and their embeddings alone would weigh more than the whole
model.
`trim_tokenizer` keeps the 256 bytes, the most frequent merges, and every merge that a given text needs: texts of those
words
become exactly the tokens that the full tokenizer makes of them, every other text more tokens, none is impossible.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from activeo3_ros.core.optional import require_package
from activeo3_ros.vlm.families import CHAT_TEMPLATE

FREQUENT_MERGES = 1500
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Those of Qwen2.5-VL that a model can meet here."""


def trim_tokenizer(source: Path, corpus: Iterable[str], target: Path, frequent: int = FREQUENT_MERGES) -> int:
    """Write to `target` the tokenizer of directory `source` with the tokens described above; gives their number.

    Token numbers are new: bytes, then words, then special tokens.
    """
    tokenizers = require_package("tokenizers", "to trim a tokenizer")
    full = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    special = [token for token in full["added_tokens"] if token["content"] in SPECIAL_TOKENS]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in full["model"]["merges"]]
    made_by = {first + second: (first, second) for first, second in reversed(merges)}
    keep: set[str] = {first + second for first, second in merges[:frequent]}

    plain = json.loads(json.dumps(full))
    plain["added_tokens"] = special  # tokens that are special only in other models are ordinary text here
    everything = tokenizers.Tokenizer.from_str(json.dumps(plain))
    waiting = [token for text in corpus for token in everything.encode(text).tokens]
    while waiting:
        token = waiting.pop()
        if token in made_by and token not in keep:
            keep.add(token)
            waiting += made_by[token]

    alphabet = sorted((token for token in full["model"]["vocab"] if len(token) == 1), key=full["model"]["vocab"].get)
    words = [first + second for first, second in merges if first + second in keep]
    tokens = list(dict.fromkeys([*alphabet, *words]))
    plain["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    plain["model"]["merges"] = [list(merge) for merge in merges if merge[0] + merge[1] in keep]
    plain["added_tokens"] = [{**token, "id": len(tokens) + index} for index, token in enumerate(special)]
    target.mkdir(parents=True, exist_ok=True)
    (target / "tokenizer.json").write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "bos_token": None,
        "unk_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "model_max_length": 4096,
        "split_special_tokens": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (target / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return len(tokens) + len(special)


def image_settings(min_pixels: int = 28 * 28, max_pixels: int = 448 * 448) -> dict[str, Any]:
    """Qwen2.5-VL's image preprocessing, `preprocessor_config.json`."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "merge_size": 2,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": min_pixels, "longest_edge": max_pixels},
    }


def model_config(
    tokenizer: Any,
    hidden: int = 256,
    layers: int = 5,
    vision_hidden: int = 192,
    vision_layers: int = 6,
    feed_forward: int = 512,
) -> Any:
    """The configuration of a small Qwen2.5-VL for a trimmed tokenizer.

    Every vision block attends to the whole picture: at 144 tokens a view, windows would only cost time.
    """
    transformers = require_package("transformers", "to make a model")

    def number(token: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(token))

    return transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": hidden,
            "intermediate_size": feed_forward,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // 64,
            "num_key_value_heads": max(1, hidden // 128),
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "bos_token_id": number("<|endoftext|>"),
            "eos_token_id": number("<|im_end|>"),
            "pad_token_id": number("<|endoftext|>"),
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_hidden,
            "intermediate_size": feed_forward,
            "num_heads": max(1, vision_hidden // 64),
            "out_hidden_size": hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 1120,
            "fullatt_block_indexes": list(range(vision_layers)),
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def make_start(source: Path, corpus: Iterable[str], target: Path, seed: int = 0, **sizes: int) -> Any:
    """Write a model with random weights, its tokenizer and its image settings to a directory, as checkpoints are;
    gives it.
    """
    torch = require_package("torch", "to make a model")
    transformers = require_package("transformers", "to make a model")
    trim_tokenizer(source, corpus, target)
    (target / "preprocessor_config.json").write_text(json.dumps(image_settings(), indent=2) + "\n", encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    torch.manual_seed(seed)
    model = transformers.Qwen2_5_VLForConditionalGeneration(model_config(tokenizer, **sizes))
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=model.config.text_config.eos_token_id,
        pad_token_id=model.config.text_config.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(target)
    return model
