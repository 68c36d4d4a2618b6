"""Tiny detectors of the transformers library with random weights, in the layout of a hub, made for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

NAMES = {0: "car", 1: "person", 2: "N/A", 3: "traffic light"}
"""As the 91 ids of COCO have it: one of them stands for no class."""

# fmt: off
RESNET: dict[str, Any] = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"],
}
ALL_STAGES = RESNET | {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
HGNET = {
    "model_type": "hgnet_v2", "embedding_size": 8, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16],
    "stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 8, 16], "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 8, 16, 16], "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True], "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 3, 3], "stage_numb_of_layers": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}
SWIN = {
    "model_type": "swin", "image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2],
    "window_size": 4, "out_features": ["stage2", "stage3", "stage4"],
}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LW_VIT = VIT | {
    "model_type": "lw_detr_vit", "image_size": 64, "patch_size": 16, "num_windows": 4, "window_block_indices": [0],
    "out_indices": [1, 2],
}
RF_VIT = VIT | {
    "model_type": "rf_detr_dinov2", "image_size": 64, "patch_size": 16, "num_windows": 2, "out_indices": [1, 2],
}
LAYERS = {
    "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 20,
}
DETR: dict[str, Any] = LAYERS | {
    "num_queries": 40,  # with four classes more pairs than the hundred that some keep
    "d_model": 32, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
    "backbone_config": RESNET, "id2label": NAMES,
}
RT_DETR = LAYERS | {
    "d_model": 16, "encoder_hidden_dim": 16, "encoder_in_channels": [8, 16, 16], "decoder_in_channels": [16, 16, 16],
    "num_denoising": 0, "hidden_expansion": 0.5, "backbone_config": RESNET | {"model_type": "rt_detr_resnet"},
    "id2label": NAMES,
}
WINDOWED = {
    "d_model": 32, "decoder_ffn_dim": 16, "decoder_layers": 2, "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2, "decoder_n_points": 2, "num_queries": 10, "group_detr": 2,
    "projector_scale_factors": [1.0], "id2label": NAMES,
}
DEFORMABLE = DETR | {"d_model": 64}  # two values in each group of its norms, also on a map of one cell
TWO_STAGE = {"two_stage": True, "with_box_refine": True, "two_stage_num_proposals": 40}
CLIP = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CLIP_TEXT = CLIP | {"vocab_size": 191, "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1,
                    "eos_token_id": 2}
OWL = {"text_config": CLIP_TEXT, "vision_config": CLIP | {"image_size": 64, "patch_size": 16}, "projection_dim": 32}
GROUNDING = LAYERS | {
    "backbone_config": SWIN, "d_model": 64,  # two values in each group of its norms, also on a map of one cell
    "text_config": {"model_type": "bert", "vocab_size": 14, "hidden_size": 16, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "intermediate_size": 32},
}
OMDET = {
    "text_config": CLIP_TEXT | {"model_type": "clip_text_model", "max_position_embeddings": 77},
    "backbone_config": SWIN, "use_timm_backbone": False, "apply_layernorm_after_vision_backbone": False,
    "disable_custom_kernels": True, "image_size": 64, "text_projection_in_dim": 32, "text_projection_out_dim": 32,
    "task_encoder_hidden_dim": 16, "class_embed_dim": 32, "num_queries": 20, "encoder_hidden_dim": 16,
    "vision_features_channels": [16, 16, 16], "encoder_in_channels": [32, 64, 128], "encoder_attention_heads": 2,
    "encoder_dim_feedforward": 16, "decoder_hidden_dim": 16, "decoder_num_heads": 2, "decoder_num_layers": 2,
    "decoder_dim_feedforward": 16, "decoder_num_points": 2,
}
# fmt: on
EDGES = {"shortest_edge": 64, "longest_edge": 107}
WIDE = {"height": 64, "width": 96}
SQUARE = {"height": 64, "width": 64}
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "car", "traffic", "light", "person",
              "motor", "##bike", "sign"]  # fmt: skip


class TinyDetector(NamedTuple):
    """One architecture.

    Attributes:
        model: Name of its class in transformers.
        config: Name of the class of its configuration.
        settings: Of the configuration.
        processor: Name of the class of the image processor that its published models have.
        size: Of the image processor, in pixels.
    """

    model: str
    config: str
    settings: dict[str, Any]
    processor: str
    size: dict[str, int]


FIXED_CLASSES = {
    "detr": TinyDetector("DetrForObjectDetection", "DetrConfig", DETR, "DetrImageProcessor", EDGES),
    "table_transformer": TinyDetector(
        "TableTransformerForObjectDetection", "TableTransformerConfig", DETR, "DetrImageProcessor", EDGES
    ),
    "yolos": TinyDetector(
        "YolosForObjectDetection",
        "YolosConfig",
        VIT
        | {"intermediate_size": 16, "image_size": [64, 96], "patch_size": 16, "num_detection_tokens": 20}
        | {"id2label": NAMES},
        "YolosImageProcessor",
        EDGES,
    ),
    "conditional_detr": TinyDetector(
        "ConditionalDetrForObjectDetection", "ConditionalDetrConfig", DETR, "ConditionalDetrImageProcessor", EDGES
    ),
    "dab_detr": TinyDetector(
        "DabDetrForObjectDetection",
        "DabDetrConfig",
        {name: value for name, value in DETR.items() if name != "d_model"} | {"hidden_size": 32},
        "ConditionalDetrImageProcessor",
        EDGES,
    ),
    "deformable_detr": TinyDetector(
        "DeformableDetrForObjectDetection", "DeformableDetrConfig", DEFORMABLE, "DeformableDetrImageProcessor", EDGES
    ),
    "deformable_detr_two_stage": TinyDetector(
        "DeformableDetrForObjectDetection",
        "DeformableDetrConfig",
        DEFORMABLE | TWO_STAGE,
        "DeformableDetrImageProcessor",
        EDGES,
    ),
    "lw_detr": TinyDetector(
        "LwDetrForObjectDetection",
        "LwDetrConfig",
        WINDOWED | {"backbone_config": LW_VIT},
        "DeformableDetrImageProcessor",
        SQUARE,
    ),
    "rf_detr": TinyDetector(
        "RfDetrForObjectDetection",
        "RfDetrConfig",
        WINDOWED | {"backbone_config": RF_VIT},
        "RfDetrImageProcessor",
        SQUARE,
    ),
    "rt_detr": TinyDetector("RTDetrForObjectDetection", "RTDetrConfig", RT_DETR, "RTDetrImageProcessor", WIDE),
    "rt_detr_v2": TinyDetector("RTDetrV2ForObjectDetection", "RTDetrV2Config", RT_DETR, "RTDetrImageProcessor", WIDE),
    "d_fine": TinyDetector(
        "DFineForObjectDetection", "DFineConfig", RT_DETR | {"backbone_config": HGNET}, "RTDetrImageProcessor", WIDE
    ),
    "deimv2": TinyDetector(
        "Deimv2ForObjectDetection", "Deimv2Config", RT_DETR | {"backbone_config": HGNET}, "RTDetrImageProcessor", WIDE
    ),
}
WITH_MASKS = {
    "detr_masks": TinyDetector(
        "DetrForSegmentation",
        "DetrConfig",
        DETR
        | {"d_model": 64, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "backbone_config": ALL_STAGES},
        "DetrImageProcessor",
        EDGES,
    ),
    "rf_detr_masks": TinyDetector(
        "RfDetrForInstanceSegmentation",
        "RfDetrConfig",
        WINDOWED | {"backbone_config": RF_VIT},
        "RfDetrImageProcessor",
        SQUARE,
    ),
}
OPEN_VOCABULARY = {
    "grounding_dino": TinyDetector(
        "GroundingDinoForObjectDetection", "GroundingDinoConfig", GROUNDING, "GroundingDinoImageProcessor", EDGES
    ),
    "mm_grounding_dino": TinyDetector(
        "MMGroundingDinoForObjectDetection", "MMGroundingDinoConfig", GROUNDING, "GroundingDinoImageProcessor", EDGES
    ),
    "owlvit": TinyDetector("OwlViTForObjectDetection", "OwlViTConfig", OWL, "OwlViTImageProcessor", SQUARE),
    "owlv2": TinyDetector("Owlv2ForObjectDetection", "Owlv2Config", OWL, "Owlv2ImageProcessor", SQUARE),
    "omdet_turbo": TinyDetector(
        "OmDetTurboForObjectDetection", "OmDetTurboConfig", OMDET, "DetrImageProcessor", SQUARE
    ),
}
TINY_DETECTORS = FIXED_CLASSES | WITH_MASKS | OPEN_VOCABULARY


def save_tiny_detector(name: str, directory: Path, seed: int = 0) -> Path:
    """Save a model with all that a published one has.

    Args:
        name: A key of `TINY_DETECTORS`.
        directory: To save it in.
        seed: Of its weights.

    Returns:
        The directory.
    """
    import torch
    import transformers

    tiny = TINY_DETECTORS[name]
    torch.manual_seed(seed)
    model = getattr(transformers, tiny.model)(getattr(transformers, tiny.config)(**tiny.settings))
    _spread_outputs(model)
    model.save_pretrained(directory)
    settings = {"image_processor_type": tiny.processor, "size": tiny.size}
    (directory / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if name in OPEN_VOCABULARY:
        _tokenizer(name).save_pretrained(directory)
    return directory


def _spread_outputs(model: Any) -> None:
    """Make a model give scores from 0 to 1 and boxes all over the image, which differ from image to image."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 2 / parameter[0].numel() ** 0.5)
            elif "class" in name or "score" in name:
                parameter.zero_()


def _tokenizer(name: str) -> Any:
    """A tokenizer of few words (BERT's) or of single characters (CLIP's), of the kind that a model has."""
    from transformers import BertTokenizer, CLIPTokenizer

    if "dino" in name:
        return BertTokenizer(vocab={word: index for index, word in enumerate(BERT_WORDS)}, model_max_length=512)
    characters = [chr(code) for code in range(33, 127)]
    words = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", *characters, *[f"{each}</w>" for each in characters]]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<|pad|>", model_max_length=77)
