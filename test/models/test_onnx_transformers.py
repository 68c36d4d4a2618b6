"""Detectors of transformers, with random weights, exported to ONNX: our boxes are those of the library's own processor.

The models are small and the inputs too; what is compared does not depend on size. Weights are drawn wide, so that
scores spread and boxes lie all over the image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from activeo3_ros.core.geometry import to_corners  # noqa: E402
from activeo3_ros.core.results import DetectedBoxes  # noqa: E402
from activeo3_ros.detectors.onnx_detector import OnnxDetector  # noqa: E402
from activeo3_ros.detectors.onnx_inputs import fit  # noqa: E402

WIDTH, HEIGHT = 96, 64
IMAGES = 200
THRESHOLD = 0.25
OUTPUTS = ["logits", "pred_boxes"]
CLASSES = {index: f"thing {index}" for index in range(7)}
NAMED = {"id2label": CLASSES, "label2id": {name: index for index, name in CLASSES.items()}}
ATTENTION = {
    "d_model": 16,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
HYBRID = {
    **ATTENTION,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [16, 16, 16],
    "decoder_in_channels": [16, 16, 16],
    "num_queries": 12 * 8 + 6 * 4 + 3 * 2,  # every cell: which of two that score alike is a query would be chance
    "num_denoising": 0,
}
STAGES = ["stage2", "stage3", "stage4"]


def resnet(kind: str, stages: list[str]) -> Any:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return getattr(transformers, kind)(**sizes, out_features=stages)


def rt_detr() -> Any:
    backbone = resnet("RTDetrResNetConfig", STAGES)
    return transformers.RTDetrForObjectDetection(
        transformers.RTDetrConfig(backbone_config=backbone, decoder_layers=1, **HYBRID, **NAMED)
    )


def d_fine() -> Any:
    backbone = transformers.HGNetV2Config(
        hidden_sizes=[8, 16, 16, 16],
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=STAGES,
    )
    sampling = {"num_feature_levels": 3, "decoder_n_points": [2, 2, 2], "hidden_expansion": 1.0, "decoder_layers": 2}
    return transformers.DFineForObjectDetection(
        transformers.DFineConfig(backbone_config=backbone, **HYBRID, **sampling, **NAMED)
    )


def classic(name: str, stages: list[str], **more: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=resnet("ResNetConfig", stages),
        num_queries=20,
        encoder_layers=1,
        **{**ATTENTION, "decoder_layers": 1, **more},
        **NAMED,
    )
    return getattr(transformers, f"{name}ForObjectDetection")(config)


def yolos() -> Any:
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[HEIGHT, WIDTH],
        patch_size=16,
        num_detection_tokens=20,
        **NAMED,
    )
    return transformers.YolosForObjectDetection(config)


class Architecture(NamedTuple):
    build: Callable[[], Any]
    processor: str
    layout: str


ARCHITECTURES = {
    "RT-DETR": Architecture(rt_detr, "RTDetrImageProcessorPil", "rt_detr"),
    "D-FINE": Architecture(d_fine, "RTDetrImageProcessorPil", "rt_detr"),
    "DETR": Architecture(lambda: classic("Detr", ["stage4"]), "DetrImageProcessorPil", "detr"),
    "Conditional DETR": Architecture(
        lambda: classic("ConditionalDetr", ["stage4"]), "ConditionalDetrImageProcessorPil", "deformable_detr"
    ),
    "Deformable DETR": Architecture(
        lambda: classic(
            "DeformableDetr", STAGES, d_model=32, decoder_layers=2, num_feature_levels=3
        ),  # it normalises in groups of 32
        "DeformableDetrImageProcessorPil",
        "deformable_detr",
    ),
    "YOLOS": Architecture(yolos, "YolosImageProcessorPil", "detr"),
}


class Exported(NamedTuple):
    model: Any
    processor: Any
    path: Path


class _Outputs(torch.nn.Module):
    """What an export computes: logits and boxes of pixels."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Any) -> tuple[Any, Any]:
        outputs = self.model(pixel_values=pixel_values)
        return outputs.logits, outputs.pred_boxes


def spread_weights(model: Any) -> None:
    random = torch.Generator().manual_seed(1)
    for name, weights in model.named_parameters():
        if weights.dim() > 1 and weights.numel():
            weights.data = torch.randn(weights.shape, generator=random) * (1.3 / weights[0].numel() ** 0.5)
        elif name.endswith("bias"):
            weights.data = torch.randn(weights.shape, generator=random) * 0.3


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exported(request, tmp_path_factory) -> Exported:
    """The model in a folder as exporters leave it: the graph, config.json and preprocessor_config.json."""
    architecture = ARCHITECTURES[request.param]
    torch.manual_seed(0)
    model = architecture.build().eval()
    spread_weights(model)
    processor = getattr(transformers, architecture.processor)(size={"height": HEIGHT, "width": WIDTH}, do_pad=False)
    folder = tmp_path_factory.mktemp("exported")
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    batch = {0: "batch"}
    torch.onnx.export(
        _Outputs(model).eval(),
        (torch.rand(1, 3, HEIGHT, WIDTH),),
        folder / "model.onnx",
        input_names=["pixel_values"],
        output_names=OUTPUTS,
        dynamic_axes={"pixel_values": batch, "logits": batch, "pred_boxes": batch},
        opset_version=17,
        dynamo=False,
    )
    return Exported(model, processor, folder / "model.onnx")


def odd_images(count: int) -> list[np.ndarray]:
    """Coloured noise of a few pixels' grain, of sizes from 17 x 17 to 255 x 191."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        width, height = 2 * int(random.integers(8, 128)) + 1, 2 * int(random.integers(8, 96)) + 1
        coarse = random.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
        images.append(np.ascontiguousarray(coarse.repeat(6, axis=0).repeat(6, axis=1)[:height, :width]))
    return images


def same_detections(
    ours: DetectedBoxes, theirs: dict[str, Any], width: int, height: int, most: int, pixels: float
) -> int:
    """Check that each has the detections of the other to so many pixels; returns how many.

    One whose score lies within a hundredth of the threshold, or of the last that the library keeps, may be in either
    alone.
    """
    mine = np.hstack([to_corners(ours.boxes), ours.scores[:, None], ours.class_ids[:, None]])
    limits = [width, height] * 2
    boxes = np.clip(theirs["boxes"].numpy().astype(np.float64), 0, limits)
    other = np.hstack([boxes, theirs["scores"].numpy()[:, None], theirs["labels"].numpy()[:, None]])
    other = other[(other[:, 2] > other[:, 0]) & (other[:, 3] > other[:, 1])]
    is_full = len(theirs["scores"]) >= most
    lowest = max(THRESHOLD, float(theirs["scores"].min())) if is_full else THRESHOLD
    for these, those in ((mine, other), (other, mine)):
        for row in these[these[:, 4] > lowest + 1e-2]:
            distance = np.abs(those - row) / [pixels, pixels, pixels, pixels, 1e-2, 0.5]
            assert len(those) and (distance.max(axis=1) < 1).any(), f"{row} is not in the other"
    return len(other)


def test_our_boxes_are_those_of_the_librarys_own_processor(exported):
    detector = OnnxDetector(exported.path, batch=25, threads=1)
    assert detector.names == tuple(CLASSES.values())
    images = odd_images(IMAGES)
    fitted = [fit(image, WIDTH, HEIGHT, "stretch", 0)[0] for image in images]
    pixels = detector._inputs.feeds(fitted, detector._preprocessing)["pixel_values"]
    with torch.no_grad():
        of_torch = exported.model.eval()(pixel_values=torch.from_numpy(pixels))
    of_graph = SimpleNamespace(
        **{
            name: torch.from_numpy(array)
            for name, array in zip(OUTPUTS, detector._session.run({"pixel_values": pixels}), strict=True)
        }
    )
    found = detector.detect(images, THRESHOLD)
    sizes = [image.shape[:2] for image in images]
    most = 100 if detector.layout == "deformable_detr" else of_torch.logits.shape[1]
    # The same numbers give the same boxes; those of torch differ a little, a box of the whole image by less than 1 px.
    for outputs, pixel in ((of_graph, 0.01), (of_torch, 1)):
        library = exported.processor.post_process_object_detection(outputs, THRESHOLD - 1e-2, sizes)
        compared = sum(
            same_detections(ours, theirs, image.shape[1], image.shape[0], most, pixel)
            for image, ours, theirs in zip(images, found, library, strict=True)
        )
        assert compared > IMAGES / 2


def test_it_is_recognised_by_what_the_exporter_left_beside_it(exported, request):
    detector = OnnxDetector(exported.path)
    assert detector.layout == ARCHITECTURES[request.node.callspec.params["exported"]].layout
    assert (detector.input_size.width, detector.input_size.height) == (WIDTH, HEIGHT)
    assert not detector.input_size.keeps_aspect


def test_pixels_are_prepared_as_the_librarys_processor_does(exported):
    detector = OnnxDetector(exported.path)
    prepared = detector._preprocessing
    random = np.random.default_rng(0)

    def both(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        canvas, _ = fit(image, WIDTH, HEIGHT, prepared.letterbox, prepared.padding)
        ours = detector._inputs.feeds([canvas], prepared)["pixel_values"]
        return ours, exported.processor(images=image[:, :, ::-1], return_tensors="np")["pixel_values"]

    ours, theirs = both(random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # Resampling differs: the library's shrinks with a triangle as wide as two new pixels, ours averages over one; what
    # is smooth comes out alike.
    y, x = np.mgrid[0:201, 0:301]
    smooth = np.stack([x * 255 / 300, y * 255 / 200, 127 + 60 * np.sin(x / 40)], axis=2).astype(np.uint8)
    ours, theirs = both(smooth)
    grey_level = prepared.scale / min(prepared.std)
    assert np.abs(ours - theirs).mean() < grey_level
    assert np.abs(ours - theirs).max() < 3 * grey_level
