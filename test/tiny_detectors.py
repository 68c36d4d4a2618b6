"""Tiny detectors of the transformers library with random weights, saved as a hub has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {0: "car", 1: "person", 2: "N/A", 3: "traffic light"}
"""As the 91 ids of COCO have it: one of them stands for no class."""
RESNET: dict[str, Any] = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
RT_RESNET: dict[str, Any] = {**RESNET, "model_type": "rt_detr_resnet"}
HGNET: dict[str, Any] = {
    "model_type": "hgnet_v2", "embedding_size": 8, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16],
    "stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 8, 16], "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 8, 16, 16], "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True], "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 3, 3], "stage_numb_of_layers": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
DETR: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 20, "use_timm_backbone": False,
    "use_pretrained_backbone": False, "backbone": None, "backbone_config": RESNET, "id2label": NAMES,
}  # fmt: skip
RT_DETR: dict[str, Any] = {
    "encoder_hidden_dim": 16, "encoder_in_channels": [8, 16, 16], "encoder_ffn_dim": 16, "encoder_attention_heads": 2,
    "d_model": 16, "num_queries": 20, "decoder_in_channels": [16, 16, 16], "decoder_ffn_dim": 16, "decoder_layers": 2,
    "decoder_attention_heads": 2, "num_denoising": 0, "hidden_expansion": 0.5, "id2label": NAMES,
}  # fmt: skip
WINDOWED: dict[str, Any] = {
    "d_model": 32, "decoder_ffn_dim": 16, "decoder_layers": 2, "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2, "decoder_n_points": 2, "num_queries": 10, "group_detr": 2, "id2label": NAMES,
}  # fmt: skip


def fixed_class_models() -> dict[str, Callable[[], Any]]:
    """Makers of one model of each architecture with fixed classes, by a name for it."""
    import transformers as t

    vit = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    lw = t.LwDetrViTConfig(**vit, image_size=64, patch_size=16, num_windows=4, window_block_indices=[0], out_indices=[1, 2])  # fmt: skip
    rf = {"model_type": "rf_detr_dinov2", **vit, "image_size": 64, "patch_size": 16, "num_windows": 2, "out_indices": [1, 2]}  # fmt: skip
    all_stages = {**RESNET, "hidden_sizes": [8, 8, 16, 16], "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    hidden = {"hidden_size": 32, **{key: value for key, value in DETR.items() if key != "d_model"}}
    d_fine = {**RT_DETR, "backbone_config": HGNET}
    two_stage = {"two_stage": True, "with_box_refine": True, "two_stage_num_proposals": 20}
    yolos = {**vit, "intermediate_size": 16, "image_size": [64, 96], "patch_size": 16, "num_detection_tokens": 20}
    return {
        "detr": lambda: t.DetrForObjectDetection(t.DetrConfig(**DETR)),
        "detr_masks": lambda: t.DetrForSegmentation(
            t.DetrConfig(
                **DETR
                | {
                    "d_model": 64,
                    "encoder_attention_heads": 8,
                    "decoder_attention_heads": 8,
                    "backbone_config": all_stages,
                }
            )
        ),  # fmt: skip
        "table_transformer": lambda: t.TableTransformerForObjectDetection(t.TableTransformerConfig(**DETR)),
        "yolos": lambda: t.YolosForObjectDetection(t.YolosConfig(**yolos, id2label=NAMES)),
        "conditional_detr": lambda: t.ConditionalDetrForObjectDetection(t.ConditionalDetrConfig(**DETR)),
        "dab_detr": lambda: t.DabDetrForObjectDetection(t.DabDetrConfig(**hidden)),
        "deformable_detr": lambda: t.DeformableDetrForObjectDetection(t.DeformableDetrConfig(**DETR)),
        "deformable_detr_two_stage": lambda: t.DeformableDetrForObjectDetection(
            t.DeformableDetrConfig(**DETR, **two_stage)
        ),  # fmt: skip
        "lw_detr": lambda: t.LwDetrForObjectDetection(
            t.LwDetrConfig(backbone_config=lw, projector_scale_factors=[1.0], **WINDOWED)
        ),  # fmt: skip
        "rf_detr": lambda: t.RfDetrForObjectDetection(
            t.RfDetrConfig(backbone_config=rf, projector_scale_factors=[1.0], **WINDOWED)
        ),  # fmt: skip
        "rf_detr_masks": lambda: t.RfDetrForInstanceSegmentation(
            t.RfDetrConfig(backbone_config=rf, projector_scale_factors=[1.0], **WINDOWED)
        ),  # fmt: skip
        "rt_detr": lambda: t.RTDetrForObjectDetection(t.RTDetrConfig(backbone_config=RT_RESNET, **RT_DETR)),
        "rt_detr_v2": lambda: t.RTDetrV2ForObjectDetection(t.RTDetrV2Config(backbone_config=RT_RESNET, **RT_DETR)),
        "d_fine": lambda: t.DFineForObjectDetection(t.DFineConfig(**d_fine)),
        "deimv2": lambda: t.Deimv2ForObjectDetection(t.Deimv2Config(**d_fine)),
    }


PROCESSORS: dict[str, dict[str, Any]] = {
    "detr": {"image_processor_type": "DetrImageProcessor", "size": {"shortest_edge": 64, "longest_edge": 107}},
    "detr_masks": {"image_processor_type": "DetrImageProcessor", "size": {"shortest_edge": 64, "longest_edge": 107}},
    "table_transformer": {
        "image_processor_type": "DetrImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 80},
    },
    "yolos": {"image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": 64, "longest_edge": 107}},
    "conditional_detr": {
        "image_processor_type": "ConditionalDetrImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 107},
    },
    "dab_detr": {
        "image_processor_type": "ConditionalDetrImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 107},
    },
    "deformable_detr": {
        "image_processor_type": "DeformableDetrImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 107},
    },
    "deformable_detr_two_stage": {
        "image_processor_type": "DeformableDetrImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 107},
    },
    "lw_detr": {"image_processor_type": "DeformableDetrImageProcessor", "size": {"height": 64, "width": 64}},
    "rf_detr": {"image_processor_type": "RfDetrImageProcessor", "size": {"height": 64, "width": 64}},
    "rf_detr_masks": {"image_processor_type": "RfDetrImageProcessor", "size": {"height": 64, "width": 64}},
    "rt_detr": {"image_processor_type": "RTDetrImageProcessor", "size": {"height": 64, "width": 96}},
    "rt_detr_v2": {"image_processor_type": "RTDetrImageProcessor", "size": {"height": 64, "width": 96}},
    "d_fine": {"image_processor_type": "RTDetrImageProcessor", "size": {"height": 64, "width": 96}},
    "deimv2": {"image_processor_type": "RTDetrImageProcessor", "size": {"height": 64, "width": 96}},
}
"""The preprocessor_config.json of each, with the image processor of its published models and a small input."""


def save_fixed_class_model(name: str, directory: Path, seed: int = 0) -> Path:
    """Save a model of an architecture in the layout of a hub.

    Args:
        name: A key of `fixed_class_models`.
        directory: To save it in.
        seed: Of its weights.

    Returns:
        The directory.
    """
    import torch

    torch.manual_seed(seed)
    model = fixed_class_models()[name]()
    spread_outputs(model)
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[name]), encoding="utf-8")
    return directory


def spread_outputs(model: Any) -> None:
    """Make the heads of a model give scores from 0 to 1 and boxes all over the image, as those of a trained one."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "class" in name or "score" in name:
                parameter.normal_(0, 1) if parameter.dim() > 1 else parameter.zero_()
            elif "bbox" in name and parameter.dim() > 1:
                parameter.normal_(0, 0.5)
