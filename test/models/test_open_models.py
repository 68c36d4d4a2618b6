"""GroundingDINO and SAM on tiny models of random weights: real processors, real post-processing, made-up weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from tiny_models import require_torch

from activeo3_ros.core import Box, Budget, Detection, Frame, InvalidInput, Query, Status, UnsupportedQuery
from activeo3_ros.core.errors import EngineError

require_torch()

import torch  # noqa: E402

from activeo3_ros.detectors.detector_task import DetectorTask  # noqa: E402
from activeo3_ros.detectors.grounding_dino import GroundingDino  # noqa: E402
from activeo3_ros.presets import load_preset  # noqa: E402
from activeo3_ros.segmenters.sam import Sam  # noqa: E402
from activeo3_tiny.scene_rows import HELD_OUT_SEED  # noqa: E402
from activeo3_tiny.scenes import draw_scene  # noqa: E402


@pytest.fixture(scope="module")
def dino_directory(tmp_path_factory):
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    directory = tmp_path_factory.mktemp("dino")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "car", "traffic", "light", "person",
             "motor", "##bike", "sign"]  # fmt: skip
    (directory / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin", "image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2],
            "window_size": 4, "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={"model_type": "bert", "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "intermediate_size": 32},
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=12,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(directory)
    tokenizer = BertTokenizer(str(directory / "vocab.txt"))
    GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer).save_pretrained(directory)
    return directory


def views(count=3):
    frame = Frame(np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8))
    return [frame.view(Box(10.0 * n, 5.0, 60, 40), (120, 80), n) for n in range(count)]


def grounding_dino(directory, threshold=0.3, **settings):
    return DetectorTask(GroundingDino(str(directory), device="cpu", **settings), threshold, label="grounding_dino")


def test_grounding_dino_gives_scored_boxes_of_the_asked_classes_inside_each_view(dino_directory):
    task = grounding_dino(dino_directory, threshold=0.01, text_threshold=0.01)
    findings = task.examine(views(), Query(classes=("car", "traffic light")), Budget())
    assert len(findings) == 3 and any(each.objects for each in findings)
    for finding in (finding for each in findings for finding in each.objects):
        assert finding.label in ("car", "traffic light") and 0 < finding.score <= 1
        assert 0 <= finding.box.x <= finding.box.right <= 120 + 1e-3 and finding.box.bottom <= 80 + 1e-3


def test_grounding_dino_examines_views_together_as_it_does_one_by_one(dino_directory):
    task = grounding_dino(dino_directory, threshold=0.01, text_threshold=0.01)
    query = Query(text="car")
    together = task.examine(views(), query, Budget())
    for view, each in zip(views(), together, strict=True):
        alone = task.examine([view], query, Budget())[0]
        assert [f.score for f in each.objects] == pytest.approx([f.score for f in alone.objects], abs=1e-4)


def test_grounding_dino_refuses_questions(dino_directory):
    task = grounding_dino(dino_directory)
    with pytest.raises(UnsupportedQuery, match="answers no questions"):
        task.examine(views(1), Query(text="What number is on the car?"), Budget())


class LitTokens:
    """Stands for the model: box n of each picture has the n-th row of scores for the tokens of the prompt."""

    def __init__(self, *rows):
        self.rows, self.prompts = rows, []

    def __call__(self, input_ids, **_):
        self.prompts.append(input_ids[0].tolist())
        logits = torch.full((len(input_ids), len(self.rows), 256), -torch.inf)
        boxes = torch.zeros((len(input_ids), len(self.rows), 4))
        for index, row in enumerate(self.rows):
            logits[:, index, 1 : 1 + len(row)] = torch.logit(torch.tensor(row))
            boxes[:, index] = torch.tensor([0.1 + 0.2 * index, 0.5, 0.1, 0.2])
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


def light(task, *rows):
    """Put `LitTokens` in the place of the model of a task."""
    task.detector.model = LitTokens(*rows)


@pytest.mark.parametrize(
    ("classes", "lit", "name", "score"),
    [
        (("motorbike", "car"), [0.8, 0.1, 0.0, 0.1], "motorbike", 0.8),  # motor, ##bike, ., car
        (("motorbike", "car"), [0.1, 0.7, 0.0, 0.1], "motorbike", 0.7),
        (("car", "person"), [0.5, 0.0, 0.9], "person", 0.9),  # both light up
        (("car", "person"), [0.9, 0.0, 0.5], "car", 0.9),
        (("traffic light", "traffic sign"), [0.6, 0.3, 0.0, 0.6, 0.7], "traffic sign", 0.7),
        (("Car.", "person"), [0.9, 0.0, 0.5], "Car.", 0.9),
    ],
)
def test_grounding_dino_gives_a_box_the_class_of_its_best_token(dino_directory, classes, lit, name, score):
    task = grounding_dino(dino_directory)
    light(task, lit)
    (found,) = task.examine(views(1), Query(classes=classes), Budget())[0].objects
    assert found.label == name and found.score == pytest.approx(score)
    assert found.box.as_tuple() == pytest.approx((6, 32, 12, 16), abs=1e-3)


def test_grounding_dino_reads_phrases_with_stops_between_them(dino_directory):
    task = grounding_dino(dino_directory)
    light(task, [0.1, 0.0, 0.9])
    assert [f.label for f in task.examine(views(1), Query("Car. Person."), Budget())[0].objects] == ["person"]


def test_grounding_dino_takes_no_box_for_the_stop_between_names(dino_directory):
    task = grounding_dino(dino_directory)
    light(task, [0.1, 0.9, 0.1])
    assert task.examine(views(1), Query(classes=("car", "person")), Budget())[0].objects == ()


def test_grounding_dino_splits_many_classes_into_prompts_that_its_text_encoder_reads(dino_directory):
    from transformers import BertTokenizer

    classes = (*[f"car light {number}" for number in range(150)], "person")
    task = grounding_dino(dino_directory, threshold=0.01, text_threshold=0.01)
    assert any(each.objects for each in task.examine(views(), Query(classes=classes), Budget()))
    light(task, [0.5])
    task.examine(views(1), Query(classes=classes), Budget())
    prompts = task.detector.model.prompts
    assert len(prompts) == 3 and all(len(ids) <= 256 for ids in prompts)
    stop, person = (
        BertTokenizer.from_pretrained(dino_directory).convert_tokens_to_ids(word) for word in (".", "person")
    )
    assert sum(ids.count(stop) for ids in prompts) == len(classes), "each class once"
    assert prompts[-1][-3] == person


def test_grounding_dino_finds_the_classes_of_the_last_prompt_too(dino_directory):
    classes = (*[f"car light {number}" for number in range(150)], "person")
    task = grounding_dino(dino_directory)
    person = task.detector.for_names(["person"])._prompts[0].encoded["input_ids"][0, 1]

    def lit_persons(input_ids, **_):
        return LitTokens((input_ids[0, 1:] == person).float().mul(0.9).tolist())(input_ids)

    task.detector.model = lit_persons
    (found,) = task.examine(views(1), Query(classes=classes), Budget())[0].objects
    assert found.label == "person" and found.score == pytest.approx(0.9)


@pytest.mark.parametrize("query", [Query(text="car," * 200), Query(classes=("car", "..."))])
def test_grounding_dino_names_what_its_text_encoder_cannot_read(dino_directory, query):
    task = grounding_dino(dino_directory)
    with pytest.raises(UnsupportedQuery, match="reads names of 1 to 253 tokens"):
        task.examine(views(1), query, Budget())


@pytest.fixture(scope="module")
def sam_directory(tmp_path_factory):
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    directory = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    config = SamConfig(
        vision_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32,
                       "image_size": 64, "patch_size": 8, "output_channels": 32, "num_pos_feats": 16,
                       "window_size": 4, "global_attn_indexes": [0]},
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8},
        mask_decoder_config={"hidden_size": 32, "num_hidden_layers": 1, "mlp_dim": 32, "num_attention_heads": 2,
                             "iou_head_hidden_dim": 16},
    )  # fmt: skip
    SamModel(config).save_pretrained(directory)
    side = {"height": 64, "width": 64}
    masks = {"mask_size": {"longest_edge": 32}, "mask_pad_size": {"height": 32, "width": 32}}
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size=side, **masks)
    SamProcessor(processor).save_pretrained(directory)
    return directory


def sam2_parts():
    """The settings that SAM 2 for pictures and SAM 2 for videos share."""
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 16, "num_attention_heads": 1, "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }  # fmt: skip
    vision = {
        "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 32,
    }  # fmt: skip
    return {
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": 32, "image_size": 128, "patch_size": 16},
        "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    }


@pytest.fixture(scope="module")
def sam2_directory(tmp_path_factory):
    from transformers import Sam2Config, Sam2Model

    directory = tmp_path_factory.mktemp("sam2")
    torch.manual_seed(0)
    Sam2Model(Sam2Config(**sam2_parts())).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def sam2_video_directory(tmp_path_factory):
    """As SAM 2 is published: for videos, of which pictures use a part."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    directory = tmp_path_factory.mktemp("sam2_video")
    torch.manual_seed(0)
    config = Sam2VideoConfig(
        **sam2_parts(), image_size=128, memory_attention_hidden_size=32, memory_attention_feed_forward_hidden_size=32,
        memory_encoder_hidden_size=32, memory_encoder_output_channels=16, mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
    )  # fmt: skip
    Sam2VideoModel(config).save_pretrained(directory)
    return directory


@pytest.fixture(params=["sam_directory", "sam2_directory", "sam2_video_directory"])
def sam(request):
    return Sam(str(request.getfixturevalue(request.param)), device="cpu")


def test_sam_makes_masks_that_cover_their_boxes(sam):
    frame = Frame(np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8))
    detections = [Detection("car", 0.5, Box(10.2, 20.7, 40, 30)), Detection("bus", 0.7, Box(100, 0, 60, 90), 2)]
    for mask in sam.segment(frame, detections):
        assert mask.mask.shape == (int(mask.box.height), int(mask.box.width)) and mask.mask.dtype == bool
        assert mask.label == detections[mask.detection].label


def test_sam_takes_clicks(sam):
    image = np.zeros((90, 160, 3), np.uint8)
    assert sam.mask(image, [(40, 50), (100, 10)], [True, False]).shape == (90, 160)
    with pytest.raises(InvalidInput, match="SAM needs a box, or points"):
        sam.mask(image)


def blobs(high, wide):
    """A smooth picture, of which a larger one is the same, only sampled more finely."""
    y, x = np.mgrid[0:high, 0:wide] + 0.5
    waves = [np.sin(2 * np.pi * (a * x / wide + b * y / high)) for a, b in ((1, 2), (2, -1), (1.5, 1))]
    return np.clip(127 + 120 * np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("across", "down"), [(3, 3), (3, 1), (1, 3)])
def test_sam_2_sees_the_same_in_a_stretched_picture(sam2_directory, across, down):
    """It sees every picture as one square, so box, click and mask are stretched with it: in x and y by their own."""
    sam = Sam(str(sam2_directory), device="cpu")
    prompts = {"box": Box(20, 20, 60, 40)}, {"points": [(40, 30), (100, 60)], "positive": [True, False]}
    stretched = (
        {"box": Box(20 * across, 20 * down, 60 * across, 40 * down)},
        {"points": [(40 * across, 30 * down), (100 * across, 60 * down)], "positive": [True, False]},
    )
    for prompt, larger in zip(prompts, stretched, strict=True):
        mask = sam.mask(blobs(90, 160), **prompt)
        other = sam.mask(blobs(90 * down, 160 * across), **larger)[down // 2 :: down, across // 2 :: across]
        assert 0.02 < mask.mean() < 0.98, "a mask of everything or nothing would show nothing"
        assert (mask == other).mean() > 0.99
        moved = sam.mask(blobs(90, 160), **({"box": Box(100, 40, 40, 40)} if "box" in prompt else
                                            {"points": [(140, 80), (10, 10)], "positive": [True, False]}))  # fmt: skip
        assert (mask == moved).mean() < 0.9, "and it depends on where one points"


def test_sam_2_is_given_what_its_own_processor_gives(sam2_directory, monkeypatch):
    """Where torchvision is, without which transformers has no processor of SAM 2."""
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    from transformers import Sam2ImageProcessor, Sam2Processor

    sam = Sam(str(sam2_directory), device="cpu")
    seen = []
    forward = sam._model.forward
    monkeypatch.setattr(sam._model, "forward", lambda **inputs: seen.append(inputs) or forward(**inputs))
    sam.mask(blobs(90, 160), [(40, 30)], [True], Box(20, 20, 60, 40))
    processor = Sam2Processor(Sam2ImageProcessor(size={"height": 128, "width": 128}))
    expected = processor(
        images=blobs(90, 160)[:, :, ::-1].copy(), input_points=[[[[40, 30]]]], input_labels=[[[1]]],
        input_boxes=[[[20, 20, 80, 60]]], return_tensors="pt",
    )  # fmt: skip
    for name in ("input_points", "input_labels", "input_boxes"):
        assert torch.equal(seen[0][name], expected[name])
    assert torch.allclose(seen[0]["pixel_values"], expected["pixel_values"], atol=0.02)


def test_a_model_of_another_kind_is_refused(dino_directory):
    with pytest.raises(EngineError, match="cannot be loaded"):
        Sam(str(dino_directory), device="cpu")


@pytest.mark.parametrize(
    "sensing",
    [
        {"type": "grid"},
        {"type": "mllm", "engine": {"type": "transformers", "model": "tiny/policy", "device": "cpu"},
         "reasoning": "full", "shorter_side": 4096},
    ],
    ids=lambda sensing: sensing["type"],
)  # fmt: skip
def test_any_policy_serves_any_task_model_by_configuration(tmp_path, dino_directory, sam2_directory, sensing):
    """As the preset active_o3_gdino does, with masks besides: the parts know nothing of each other."""
    preset = {
        "sensing": sensing,
        "task": {"type": "grounding_dino", "model": str(dino_directory), "threshold": 0.01, "text_threshold": 0.01,
                 "device": "cpu"},
        "segmenter": {"type": "sam", "model": str(sam2_directory), "device": "cpu"},
        "examine_view": False,
        "budget": {"max_regions": 2, "view_pixels": 112_896, "crop_pixels": 10_000, "max_tokens": 200},
        "query": {"classes": ["traffic light"], "masks": True},
    }  # fmt: skip
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump(preset), encoding="utf-8")
    loaded = load_preset(str(path))
    frame = Frame(draw_scene(HELD_OUT_SEED + 1).image)
    result = loaded.build().perceive(frame, loaded.query)
    assert result.status is Status.COMPLETE, result.status_message
    assert len(result.regions) == 2 and result.detections, "thresholds this low find something in anything"
    for detection in result.detections:
        assert detection.label == "traffic light" and detection.region in (0, 1)
        assert 0 <= detection.box.x < detection.box.right <= frame.width + 1
    for mask in result.masks:
        assert mask.mask.shape == (round(mask.box.height), round(mask.box.width)) and mask.mask.any()
