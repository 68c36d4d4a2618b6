"""Detectors of other libraries, with random weights, exported each in its own way: our boxes are those of the library.

None of these libraries is a requirement of the package or of its tests. Each test is skipped where its library is not
installed.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")

from activeo3_ros.core.geometry import to_corners  # noqa: E402
from activeo3_ros.core.results import DetectedBoxes  # noqa: E402
from activeo3_ros.detectors.onnx_detector import OnnxDetector  # noqa: E402
from activeo3_ros.detectors.onnx_inputs import Placement, fit  # noqa: E402

WIDTH, HEIGHT = 96, 64
IMAGES = 200
NAMES = ["car", "bus", "dog"]
NEAR = 2e-3
"""A score that is so near to the threshold may fall on either side."""


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    torch.manual_seed(0)


def odd_images(count: int = IMAGES) -> list[np.ndarray]:
    """Coloured noise of a few pixels' grain, of sizes from 17 x 17 to 255 x 191."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        width, height = 2 * int(random.integers(8, 128)) + 1, 2 * int(random.integers(8, 96)) + 1
        coarse = random.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
        images.append(np.ascontiguousarray(coarse.repeat(6, axis=0).repeat(6, axis=1)[:height, :width]))
    return images


def prepared(detector: OnnxDetector, image: np.ndarray) -> tuple[dict[str, np.ndarray], Placement]:
    """The inputs of the model for an image, and where the image lies in them."""
    settings, size = detector._preprocessing, detector.input_size
    canvas, place = fit(image, size.width, size.height, settings.letterbox, settings.padding)
    return detector._inputs.feeds([canvas], settings), place


def some_pixels(width: int, height: int) -> Any:
    """`(16, 3, height, width)` of the images that a model will see, 0 to 255."""
    canvases = [fit(image, width, height, "stretch", 0)[0] for image in odd_images(16)]
    return torch.from_numpy(np.stack(canvases).transpose(0, 3, 1, 2).astype(np.float32))


def compare(ours: DetectedBoxes, theirs: np.ndarray, threshold: float, pixels: float = 0.02) -> int:
    """Check that each has the detections of the other; returns how many.

    Args:
        ours: From our detector.
        theirs: `(n, 6)` x1, y1, x2, y2, score, class in pixels of the image.
        threshold: Of both.
        pixels: By how much corners may differ; boxes hardly wider than that may be missing.
    """
    mine = np.hstack([to_corners(ours.boxes), ours.scores[:, None], ours.class_ids[:, None]])
    theirs = theirs[((theirs[:, 2:4] - theirs[:, :2]) > 1e-3).all(axis=1)].astype(np.float64)
    tolerance = np.array([pixels] * 4 + [NEAR, 0.5])
    for these, those in ((mine, theirs), (theirs, mine)):
        for row in these[these[:, 4] > threshold + NEAR]:
            if (row[2:4] - row[:2] > 2 * pixels).all():
                assert len(those) and (np.abs(those - row) < tolerance).all(axis=1).any(), f"{row} is not in the other"
    return len(theirs)


def spread(model: Any, pixels: Any, gain: float = 1.0) -> None:
    """Weights that make an untrained network answer differently to different pixels.

    Args:
        model: Is changed.
        pixels: A batch of what it will see, by which it normalises.
        gain: Spread of the weights.
    """
    random = torch.Generator().manual_seed(1)
    for name, weights in model.named_parameters():
        if weights.dim() > 1 and weights.numel():
            weights.data = torch.randn(weights.shape, generator=random) * (gain / weights[0].numel() ** 0.5)
        elif name.endswith("bias"):
            weights.data = torch.randn(weights.shape, generator=random) * 0.3
    norms = [module for module in model.eval().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(pixels)
    model.eval()


# ultralytics


@pytest.fixture(scope="module")
def ultralytics():
    os.environ["YOLO_AUTOINSTALL"] = "false"
    return pytest.importorskip("ultralytics")


def exported_yolo(folder: Path, config: str, **settings: Any) -> Path:
    """A YOLO of three classes in a file, as its library exports it."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel

    whole = YOLO(f"{config}.yaml")
    kind = SegmentationModel if "seg" in config else DetectionModel
    model = kind(f"{config}.yaml", nc=len(NAMES), verbose=False)
    model.args, model.task, model.names = whole.model.args, whole.task, dict(enumerate(NAMES))
    model.pt_path = str(folder / f"{config}.pt")
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=random)
            module.weight.data.fill_(1.6)
    for name, weights in model.model[-1].named_parameters():
        if "cv" in name and name.endswith("2.weight") and weights.dim() > 1:
            gain = 12 if "cv3" in name else 1
            weights.data = torch.randn(weights.shape, generator=random) * (gain / weights[0].numel() ** 0.5)
        if "cv" in name and name.endswith("2.bias"):
            weights.data.normal_(-0.5 if "cv3" in name else 2.5, 1, generator=random)
    whole.model = model
    whole.export(format="onnx", imgsz=(HEIGHT, WIDTH), simplify=False, verbose=False, **settings)
    return folder / f"{config}.onnx"


DENSE, END_TO_END = "yolov8", "end_to_end"
YOLOS = [
    ("yolov5n", {}, DENSE),
    ("yolov8n", {}, DENSE),
    ("yolo11n", {}, DENSE),
    ("yolo26n", {}, DENSE),
    ("yolo26n", {"nms": False}, END_TO_END),
    ("yolov10n", {"nms": False}, END_TO_END),
    ("yolov8n", {"nms": True, "conf": 0.25, "iou": 0.6}, END_TO_END),
    ("yolo11n", {"nms": True, "conf": 0.25, "iou": 0.6}, END_TO_END),
    ("yolov8n", {"dynamic": True}, DENSE),
    ("yolov8n-seg", {}, DENSE),
    ("yolo26n-seg", {"nms": False}, END_TO_END),
    ("yolov8n-seg", {"nms": True, "conf": 0.25, "iou": 0.6}, END_TO_END),
]


@pytest.mark.parametrize(("config", "settings", "layout"), YOLOS, ids=lambda value: str(value))
def test_yolos_of_ultralytics(ultralytics, tmp_path, config, settings, layout):
    from ultralytics.utils import nms, ops

    threshold, limit = 0.3, 0.6
    path = exported_yolo(tmp_path, config, **settings)
    detector = OnnxDetector(path, nms_iou=limit)
    assert (detector.layout, detector.names) == (layout, tuple(NAMES))
    compared = masks = 0
    for image in odd_images():
        [ours] = detector.detect([image], threshold)
        feeds, _ = prepared(detector, image)
        # In double precision, or the rounding of its sums decides about boxes that overlap as much as the limit says.
        outputs = [torch.from_numpy(array).double() for array in detector._session.run(feeds)]
        end_to_end = layout == END_TO_END
        if layout == DENSE and has_ties(outputs[0][0], threshold):
            continue
        [rows] = nms.non_max_suppression(outputs[0], threshold, limit, nc=len(NAMES), end2end=end_to_end, max_nms=30000)
        boxes = ops.scale_boxes((HEIGHT, WIDTH), rows[:, :4].clone(), image.shape[:2])
        theirs = np.hstack([boxes.numpy(), rows[:, 4:6].numpy()])
        compared += compare(ours, theirs, threshold)
        assert (ours.masks is None) == ("seg" not in config)
        if ours.masks is not None and len(rows):
            native = (
                ops.process_mask_native(
                    outputs[1][0].float(), rows[:, 6:].float(), boxes.float(), image.shape[:2]
                ).numpy()
                > 0
            )
            masks += agreeing_masks(ours, theirs, native)
    assert compared > IMAGES
    assert ("seg" not in config) or masks > IMAGES / 2


def has_ties(columns: Any, threshold: float) -> bool:
    """Whether two boxes of one score could be taken in either order: the library's sort leaves that to chance."""
    scores = np.sort(columns[4 : 4 + len(NAMES)].amax(0).numpy())
    return bool((np.diff(scores[scores > threshold]) < 1e-7).any())


def agreeing_masks(ours: DetectedBoxes, theirs: np.ndarray, masks: np.ndarray) -> int:
    """Masks of both are of the same pixels, but for a seam: both interpolate, from differently rounded places."""
    compared = 0
    for index, box in enumerate(to_corners(ours.boxes)):
        same = (np.abs(theirs[:, :4] - box) < 0.02).all(axis=1) & (np.abs(theirs[:, 4] - ours.scores[index]) < 1e-6)
        for other in np.flatnonzero(same)[:1]:
            left, top, right, bottom = box
            if min(right - left, bottom - top) >= 12:
                different = (ours.masks[index] ^ masks[other]).sum()
                assert different <= 0.2 * (right - left) * (bottom - top) + (right - left) + (bottom - top)
                compared += 1
    return compared


def test_the_whole_way_equals_that_of_ultralytics_where_nothing_is_resampled(ultralytics, tmp_path):
    path = exported_yolo(tmp_path, "yolov8n")
    detector = OnnxDetector(path, nms_iou=0.6)
    model = ultralytics.YOLO(str(path), task="detect")
    random, compared = np.random.default_rng(1), 0
    for height in range(33, HEIGHT + 1, 2):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = np.ascontiguousarray(coarse.repeat(6, axis=0).repeat(6, axis=1)[:height])
        [ours] = detector.detect([image], 0.3)
        [result] = model.predict(image, imgsz=(HEIGHT, WIDTH), conf=0.3, iou=0.6, verbose=False, rect=False)
        compared += compare(ours, result.boxes.data.numpy(), 0.3)
    assert compared > 20


def test_rt_detr_of_ultralytics(ultralytics, tmp_path):
    from ultralytics.utils import ops

    whole = ultralytics.RTDETR("rtdetr-l.yaml")
    spread(whole.model, some_pixels(WIDTH, WIDTH) / 255, 1.2)
    whole.model.pt_path = str(tmp_path / "rtdetr.pt")
    whole.export(format="onnx", imgsz=WIDTH, simplify=False, verbose=False)
    detector = OnnxDetector(tmp_path / "rtdetr.onnx")
    assert (detector.layout, len(detector.names)) == ("ultralytics_rt_detr", 80)
    compared = 0
    for image in odd_images(20):
        [ours] = detector.detect([image], 0.3)
        [rows] = (torch.from_numpy(array)[0] for array in detector._session.run(prepared(detector, image)[0]))
        height, width = image.shape[:2]
        corners = np.clip(ops.xywh2xyxy(rows[:, :4]).numpy() * ([width, height] * 2), 0, [width, height] * 2)
        scores = rows[:, 4:].numpy()
        ids = scores[:, 1] if rows.shape[1] == 6 else scores.argmax(axis=1)
        best = scores[:, 0] if rows.shape[1] == 6 else scores.max(axis=1)
        theirs = np.hstack([corners, best[:, None], ids[:, None]])[best > 0.3]
        compared += compare(ours, theirs, 0.3)
    assert compared > 20


# YOLOv5, from its repository, which is no package


@pytest.mark.parametrize("segments", [False, True])
def test_yolov5_of_its_own_repository(tmp_path, monkeypatch, segments):
    folder = os.environ.get("YOLOV5_CHECKOUT")
    if not folder:
        pytest.skip("YOLOV5_CHECKOUT names no checkout")
    monkeypatch.syspath_prepend(folder)
    yolo, general = (importlib.import_module(name) for name in ("models.yolo", "utils.general"))
    config = "segment/yolov5n-seg.yaml" if segments else "yolov5n.yaml"
    model = (yolo.SegmentationModel if segments else yolo.DetectionModel)(f"{folder}/models/{config}", nc=len(NAMES))
    model.names = dict(enumerate(NAMES))
    spread(model, some_pixels(WIDTH, HEIGHT) / 255)
    head = model.model[-1]
    head.export = True
    outputs = ["output0", "output1"] if segments else ["output0"]
    path = tmp_path / "yolov5.onnx"
    torch.onnx.export(
        model, torch.rand(1, 3, HEIGHT, WIDTH), path, input_names=["images"], output_names=outputs, dynamo=False
    )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {"stride": str(int(max(model.stride))), "names": str(model.names)})
    onnx.save(written, path)  # as its export.py does
    detector = OnnxDetector(path, nms_iou=0.45)
    assert (detector.layout, detector.names) == ("yolov5", tuple(NAMES))
    compared = 0
    for image in odd_images():
        [ours] = detector.detect([image], 0.25)
        feeds, place = prepared(detector, image)
        found = torch.from_numpy(detector._session.run(feeds)[0]).double()
        [rows] = general.non_max_suppression(found, 0.25, 0.45, nm=32 if segments else 0)
        rows = rows.numpy()[:, :6]
        compared += compare(ours, np.hstack([place.to_image(rows[:, :4]), rows[:, 4:]]), 0.25)
        assert (ours.masks is None) != segments
    assert compared > IMAGES


# YOLOX


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_yolox(tmp_path, decoded, dynamic):
    yolox = pytest.importorskip("yolox.models")
    from yolox.utils import postprocess

    backbone = yolox.YOLOPAFPN(0.33, 0.125, in_channels=[256, 512, 1024])
    model = yolox.YOLOX(backbone, yolox.YOLOXHead(len(NAMES), 0.125, in_channels=[256, 512, 1024])).eval()
    spread(model, some_pixels(WIDTH, HEIGHT))
    model.head.decode_in_inference = decoded
    batch = {"images": {0: "batch"}, "output": {0: "batch"}} if dynamic else None
    torch.onnx.export(
        model,
        torch.randn(1, 3, HEIGHT, WIDTH),
        tmp_path / "yolox.onnx",
        input_names=["images"],
        output_names=["output"],
        dynamic_axes=batch,
        opset_version=11,
        dynamo=False,
    )
    detector = OnnxDetector(tmp_path / "yolox.onnx", names=NAMES, nms_iou=0.45)
    assert detector.layout == ("yolox_decoded" if decoded else "yolox")
    model.eval().head.decode_in_inference = True
    compared = 0
    for image in odd_images(IMAGES if not dynamic else 20):
        [ours] = detector.detect([image], 0.3)
        feeds, place = prepared(detector, image)
        with torch.no_grad():
            [rows] = postprocess(model(torch.from_numpy(feeds["images"])).double(), len(NAMES), 0.3, 0.45)
        if rows is None:
            assert len(ours.scores) == 0
            continue
        rows = rows.numpy()
        corners = place.to_image(rows[:, :4])
        compared += compare(ours, np.hstack([corners, rows[:, 4:5] * rows[:, 5:6], rows[:, 6:7]]), 0.3)
        # Its demo divides by the one ratio that was asked for; the image was scaled to whole pixels.
        ratio = min(HEIGHT / image.shape[0], WIDTH / image.shape[1])
        demo = np.clip(rows[:, :4] / ratio, 0, [image.shape[1], image.shape[0]] * 2)
        assert np.abs(demo - corners).max() <= 0.5 / ratio + 0.01
    assert compared > (IMAGES if not dynamic else 20)


# RF-DETR


@pytest.mark.parametrize("masks", [False, True])
def test_rf_detr(tmp_path, masks):
    rfdetr = pytest.importorskip("rfdetr")
    from rfdetr.models.postprocess import PostProcess

    side, threshold = 120 if masks else 128, 0.25  # whole patches
    kind = rfdetr.RFDETRSegNano if masks else rfdetr.RFDETRNano
    whole = kind(pretrain_weights=None, device="cpu", num_classes=len(NAMES))
    network = whole.model.model
    random = torch.Generator().manual_seed(1)
    for name, weights in network.named_parameters():
        if "class_embed" in name or "bbox_embed" in name or "segmentation" in name:
            spread_of = 3 / weights[0].numel() ** 0.5 if weights.dim() > 1 else 0.5
            weights.data = torch.randn(weights.shape, generator=random) * spread_of
    path = whole.export(output_dir=str(tmp_path), shape=(side, side), verbose=False)
    detector = OnnxDetector(path, names=NAMES)
    assert (detector.layout, detector.names) == ("rf_detr", tuple(NAMES))
    compared = compared_masks = 0
    for image in odd_images():
        [ours] = detector.detect([image], threshold)
        outputs = detector._session.run(prepared(detector, image)[0])
        named = dict(zip(("pred_boxes", "pred_logits", "pred_masks"), map(torch.from_numpy, outputs), strict=False))
        # The last column is the background; the library ranks it too, we do not.
        named["pred_logits"] = named["pred_logits"][..., : len(NAMES)]
        [result] = PostProcess(outputs[0].shape[1])(named, torch.tensor([image.shape[:2]]))
        theirs = np.hstack(
            [result["boxes"].numpy(), result["scores"].numpy()[:, None], result["labels"].numpy()[:, None]]
        )
        theirs = theirs[theirs[:, 4] > threshold]
        compared += compare(ours, theirs, threshold)
        if masks:
            compared_masks += agreeing_masks(ours, theirs, inside(theirs, result["masks"][: len(theirs), 0].numpy()))
    assert compared > IMAGES / 2
    assert compared_masks > IMAGES / 2 or not masks


def inside(boxes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Masks cut by their boxes, as ours are."""
    cut = np.zeros_like(masks)
    for mask, (left, top, right, bottom), target in zip(masks, boxes[:, :4], cut, strict=True):
        part = np.s_[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
        target[part] = mask[part]
    return cut


# RT-DETR and D-FINE from their repositories, which are no packages


CHECKOUTS = {
    "RT_DETR_CHECKOUT": ("configs/rtdetrv2/rtdetrv2_r18vd_120e_coco.yml", {"PResNet": {"pretrained": False}}),
    "D_FINE_CHECKOUT": ("configs/dfine/dfine_hgnetv2_n_coco.yml", {"HGNetv2": {"pretrained": False}}),
}
"""Environment variables that name a checkout (its folder with `src`): a configuration, and what is changed in it."""


@pytest.mark.parametrize("variable", CHECKOUTS)
def test_transformers_from_their_own_repositories(tmp_path, monkeypatch, variable):
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no checkout")
    for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:  # both call their package so
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder)
    core = importlib.import_module("src.core")
    config, changes = CHECKOUTS[variable]
    side, threshold = 320, 0.3
    settings = core.YAMLConfig(str(Path(folder, config)), **changes, eval_spatial_size=[side, side])

    class Exported(torch.nn.Module):
        """As in the repositories' tools/export_onnx.py."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.postprocessor = settings.model.deploy(), settings.postprocessor.deploy()

        def forward(self, images: Any, orig_target_sizes: Any) -> Any:
            return self.postprocessor(self.model(images), orig_target_sizes)

    model = Exported().eval()
    random = torch.Generator().manual_seed(1)
    for name, weights in model.named_parameters():
        if ("score_head" in name or "bbox_head" in name) and weights.dim() > 1:
            weights.data = torch.randn(weights.shape, generator=random) * (2 / weights[0].numel() ** 0.5)
        elif "score_head" in name:
            weights.data = torch.randn(weights.shape, generator=random)
    torch.onnx.export(
        model,
        (torch.rand(1, 3, side, side), torch.tensor([[side, side]])),
        tmp_path / "model.onnx",
        input_names=["images", "orig_target_sizes"],
        output_names=["labels", "boxes", "scores"],
        dynamic_axes={"images": {0: "N"}, "orig_target_sizes": {0: "N"}},
        opset_version=16,
        dynamo=False,
    )
    detector = OnnxDetector(tmp_path / "model.onnx", names=[f"thing {index}" for index in range(80)])
    assert detector.layout == "rt_detr_sizes"
    images, compared = odd_images(), 0
    for image, ours in zip(images, detector.detect(images, threshold), strict=True):
        height, width = image.shape[:2]
        feeds, _ = prepared(detector, image)
        labels, boxes, scores = detector._session.run({**feeds, "orig_target_sizes": np.array([[width, height]])})
        boxes = np.clip(boxes[0], 0, [width, height] * 2)
        theirs = np.hstack([boxes, scores[0][:, None], labels[0][:, None]])
        compared += compare(ours, theirs[theirs[:, 4] > threshold], threshold)
    assert compared > IMAGES
