"""The detectors of transformers on a CUDA device; skipped where there is none.

A bare machine is enough, without ROS, a build or weights: torch with CUDA, transformers, NumPy, OpenCV, PyYAML, msgspec
and pytest. In the root of the repository: `PYTHONPATH=. python3 -m pytest -rs test/gpu/test_transformers_cuda.py`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from tiny_detectors import OPEN_VOCABULARY, TINY_DETECTORS, save_tiny_detector

for module, what_for in (
    ("torch", "runs the models"),
    ("transformers", "has the models"),
    ("msgspec", "checks settings"),
):
    pytest.importorskip(module, reason=f"needs {module}, which {what_for}: pip install {module}")

import torch  # noqa: E402
import transformers  # noqa: E402

from activeo3_ros.core import Box, Frame  # noqa: E402
from activeo3_ros.core.errors import OutOfMemory  # noqa: E402
from activeo3_ros.core.optional import has_package  # noqa: E402
from activeo3_ros.detectors.device_views import DeviceViews  # noqa: E402
from activeo3_ros.detectors.transformers_detector import TransformersDetector  # noqa: E402

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)


OVERFLOWS = ("rf_detr", "dab_detr", "omdet_turbo", "d_fine", "deimv2")
"""Tiny random weights of these give numbers that half precision cannot hold."""


@pytest.fixture(autouse=True)
def whole_numbers(monkeypatch):
    """Convolutions in 32 bits: random weights make much of what the device rounds by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def images(count):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (90, 60 + 30 * (index % 2), 3), dtype=np.uint8) for index in range(count)]


@pytest.fixture
def load(tmp_path):
    def make(name, **settings):
        if not hasattr(transformers, TINY_DETECTORS[name].model):
            pytest.skip(f"transformers {transformers.__version__} has no {TINY_DETECTORS[name].model}")
        if name == "owlv2" and not (has_package("scipy") or has_package("torchvision")):
            pytest.skip("needs torchvision or scipy, with which OWLv2 fits images: pip install scipy")
        if not (tmp_path / "config.json").is_file():
            save_tiny_detector(name, tmp_path)
        names = {"names": ["car", "person"]} if name in OPEN_VOCABULARY else {}
        return TransformersDetector(str(tmp_path), **names, **settings)

    return make


@pytest.mark.parametrize("name", TINY_DETECTORS)
def test_a_cuda_device_finds_what_the_cpu_finds(load, name):
    on_cpu, on_cuda = load(name, device="cpu"), load(name)
    assert on_cuda.device.type == "cuda" and on_cuda.batch_size > 1
    for here, there in zip(on_cpu.detect(images(8), 0.2), on_cuda.detect(images(8), 0.2), strict=True):
        assert len(there.scores) == pytest.approx(len(here.scores), abs=2)
        np.testing.assert_allclose(here.scores[:5], there.scores[:5], atol=0.05)
        assert (here.masks is None) == (there.masks is None)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", [name for name in TINY_DETECTORS if name not in OVERFLOWS])
def test_low_precision_gives_numbers_inside_the_image(load, name, precision):
    for image, found in zip(images(8), load(name, precision=precision).detect(images(8), 0.01), strict=True):
        assert np.isfinite(found.scores).all() and found.scores.dtype == np.float32
        assert (found.boxes[:, :2] + found.boxes[:, 2:] <= np.array(image.shape[1::-1]) + 1e-6).all()


@pytest.mark.parametrize("name", ["rt_detr", "grounding_dino", "omdet_turbo"])
def test_several_threads_may_use_a_cuda_device_at_once(load, name):
    detector = load(name)
    expected = detector.detect(images(6), 0.2)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: detector.detect(images(6), 0.2), range(12)):
            for each, alone in zip(found, expected, strict=True):
                np.testing.assert_allclose(each.scores, alone.scores, atol=0.02)


def test_too_little_memory_fails_one_call_alone(load):
    detector = load("rt_detr", batch_size=256)
    huge = torch.zeros(1, 3, 64, 96).expand(200_000, -1, -1, -1)
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        with pytest.raises(OutOfMemory, match="cuda is out of memory for RTDetr"):
            detector.detect_tensors(huge, [(96, 64)] * len(huge), 0.5)
        assert len(detector.detect(images(4), 0.5)) == 4
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("name", ["rt_detr", "d_fine"])
def test_views_give_by_recorded_graphs_what_the_model_gives(load, name):
    detector = load(name, device="cuda", batch_size=4)
    random = np.random.default_rng(1)
    frame = Frame(cv2.resize(random.integers(0, 256, (24, 32, 3), dtype=np.uint8), (640, 480)))
    views = [frame.view(Box(50.0 * n, 30.0 * n, 320, 240), (64, 48), n) for n in range(7)]
    seen = detector.detect_views(views, 0.0)
    size = detector.input_size.width, detector.input_size.height
    pixels = DeviceViews(detector.device, detector.dtype, size, detector.scale, detector.mean, detector.std)
    plain = detector.detect_tensors(pixels.batch(views), [view.size for view in views], 0.0)
    for one, other in zip(seen, plain, strict=True):
        assert len(one.scores) == len(other.scores) > 0
        np.testing.assert_allclose(one.scores, other.scores, atol=0.05)
