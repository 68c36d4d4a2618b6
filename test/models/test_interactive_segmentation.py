"""Interactive segmentation: the protocol, the clicks, the segmenters."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from activeo3_ros.cli import main as cli
from activeo3_ros.core import Box, Budget, Frame, InvalidInput
from activeo3_ros.evaluation.interactive_segmentation import (
    Click,
    ErrorOracle,
    GrabCutCorrector,
    SamCorrector,
    interact,
    mask_iou,
    oracle_click,
    paint,
)
from activeo3_ros.policies.fixed import FullFrame


def fork() -> tuple[np.ndarray, np.ndarray]:
    """A red fork with thin tines on a grey, noisy ground, and its mask."""
    mask = np.zeros((240, 320), np.uint8)
    cv2.rectangle(mask, (40, 110), (200, 130), 1, cv2.FILLED)
    for y in (80, 100, 120, 140, 160):
        cv2.line(mask, (200, y), (290, y), 1, 3)
    cv2.line(mask, (200, 80), (200, 160), 1, 5)
    image = np.random.default_rng(0).normal(120, 12, (240, 320, 3))
    image[mask > 0] = np.random.default_rng(1).normal((40, 40, 200), 12, (int(mask.sum()), 3))
    return image.clip(0, 255).astype(np.uint8), mask > 0


class FakeBadStart(GrabCutCorrector):
    """Starts with a mask that misses the tines and covers a patch of the ground."""

    def start(self, image: np.ndarray, box: Box) -> np.ndarray:
        mask = fork()[1].copy()
        mask[:, 210:] = False
        mask[200:230, 20:60] = True
        return mask


def test_a_click_goes_into_the_middle_of_the_largest_error():
    truth = np.zeros((50, 50), bool)
    truth[10:31, 10:31] = True
    assert oracle_click(np.zeros_like(truth), truth) == Click(20, 20, is_object=True)
    assert oracle_click(np.ones_like(truth), truth) is not None
    assert oracle_click(np.ones_like(truth), truth).is_object is False
    assert oracle_click(truth, truth) is None


def test_regions_on_the_errors_make_the_mask_better_each_time():
    image, truth = fork()
    box = Box(38, 78, 254, 85)
    ious, regions = interact(Frame(image), truth, box, ErrorOracle(), FakeBadStart(), Budget(max_regions=3))
    assert len(ious) == 4
    assert ious == sorted(ious)
    assert ious[3] > ious[0] + 0.15
    assert len(regions) == 2  # they hold all that is wrong
    again, _ = interact(Frame(image), truth, box, ErrorOracle(), FakeBadStart(), Budget(max_regions=3))
    assert again == ious


def test_a_policy_that_marks_nothing_keeps_its_first_mask():
    image, truth = fork()
    ious, regions = interact(
        Frame(image), truth, Box(38, 78, 254, 85), FullFrame(), FakeBadStart(), Budget(max_regions=3)
    )
    assert len(set(ious)) == 1
    assert regions == []


def test_the_mask_is_painted_in_green_and_the_rest_stays():
    image, truth = fork()
    painted = paint(image, truth)
    assert np.array_equal(painted[~truth], image[~truth])
    assert painted[truth][:, 1].mean() > image[truth][:, 1].mean() + 50
    assert mask_iou(truth, truth) == 1.0


def test_thinobjects_goes_from_its_folders_to_rows_beside_the_paper(tmp_path: Path, capsys):
    pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")
    pytest.importorskip("matplotlib", reason="needs requirements/eval.txt")
    image, mask = fork()
    root = tmp_path / "ThinObject5K"
    for folder in ("images", "masks", "list"):
        (root / folder).mkdir(parents=True)
    cv2.imwrite(str(root / "images" / "fork.jpg"), image)
    cv2.imwrite(str(root / "masks" / "fork.png"), mask.astype(np.uint8) * 255)
    (root / "list" / "test.txt").write_text("fork.jpg\n")
    out = tmp_path / "out"
    command = ["benchmark", "thinobjects", "--root", str(root), "--out", str(out), "--baselines", "--bootstrap", "10"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "ACTIVE-o3: mIoU 0 0.796, mIoU 1 0.840, mIoU 2 0.859, mIoU 3 0.863  [published" in printed
    assert "[measured here]" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    (item,) = (json.loads(path.read_text()) for path in out.glob("items/oracle-3/*.json"))
    (oracle,) = (method for method in metrics["methods"] if method["id"] == "oracle-3")
    assert [oracle["quality"][f"mIoU at zoom budget {k}"][0] for k in range(4)] == pytest.approx(item["ious"])
    assert item["ious"][3] >= item["ious"][0]


def test_sam_gives_masks_of_the_size_of_the_picture_from_boxes_and_clicks(tmp_path: Path):
    pytest.importorskip("torch", reason="needs requirements/mllm.txt")
    transformers = pytest.importorskip("transformers", reason="needs requirements/mllm.txt")
    vision = transformers.SamVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8, output_channels=16,
        mlp_dim=16, global_attn_indexes=[0], window_size=4, num_pos_feats=8,
    )  # fmt: skip
    prompt = transformers.SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16, num_hidden_layers=2
    )
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    transformers.SamModel(config).save_pretrained(tmp_path / "sam")
    corrector = SamCorrector(str(tmp_path / "sam"))
    image, truth = fork()
    mask = corrector.start(image, Box(38, 78, 254, 85))
    assert mask.shape == truth.shape
    assert corrector.correct(image, truth, [Click(5, 5, False)]).dtype == bool
    with pytest.raises(InvalidInput, match="no weights of SAM"):
        SamCorrector(str(tmp_path / "nothing"))
