"""Views that are cut and resized by torch, here on the CPU: the same pixels as `View.image`, to a grey level."""

from __future__ import annotations

import gc
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import require_torch

require_torch()

import torch  # noqa: E402

from activeo3_ros.core import Box, Frame  # noqa: E402
from activeo3_ros.detectors.device_views import DeviceViews, InputBatches  # noqa: E402
from activeo3_ros.vlm.dynamic_batching import CallBatcher  # noqa: E402


def device_views(size=(64, 48)):
    return DeviceViews(torch.device("cpu"), torch.float32, size, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def photograph(width, height, seed=0):
    """Noise of several scales: edges as photographs have them."""
    generator = np.random.default_rng(seed)
    layers = [
        cv2.resize(generator.integers(0, 256, (max(1, height // k), max(1, width // k), 3), np.uint8), (width, height))
        for k in (1, 4, 16)
    ]
    return Frame(np.mean(layers, axis=0).astype(np.uint8))


FRAME = photograph(320, 181)


@settings(max_examples=150, deadline=None)
@given(st.floats(0, 300), st.floats(0, 160), st.floats(8, 320), st.floats(8, 181), st.floats(0.06, 4))
def test_a_view_has_the_pixels_that_the_cpu_gives_it(x, y, width, height, zoom):
    window = Box(x, y, width, height).clipped(320, 181)
    view = FRAME.view(window, (max(1, round(window.width * zoom)), max(1, round(window.height * zoom))))
    pixels = device_views().pixels(view).permute(1, 2, 0).numpy()[:, :, ::-1]
    difference = np.abs(pixels - view.image.astype(np.float32))
    assert difference.max() <= 1


def test_the_input_is_the_view_stretched_scaled_and_normalised():
    view = FRAME.view(Box(10, 20, 128, 96), (64, 48))
    [batch] = device_views().batch([view])
    rgb = view.image[:, :, ::-1].astype(np.float32) / 255
    expected = (rgb - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert np.abs(batch.permute(1, 2, 0).numpy() - expected).max() < 1.1 / 255 / 0.22


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 300), st.floats(0, 160), st.floats(8, 320), st.floats(8, 181), st.floats(0.1, 4))
def test_a_view_of_another_aspect_is_stretched_as_its_pixels_would_be(x, y, width, height, zoom):
    window = Box(x, y, width, height).clipped(320, 181)
    view = FRAME.view(window, (max(1, round(window.width * zoom)), max(1, round(window.height * zoom))))
    plain = DeviceViews(torch.device("cpu"), torch.float32, (64, 48), 1.0, (0, 0, 0), (1, 1, 1))
    [given] = plain.batch([view])
    pixels = torch.from_numpy(view.image[:, :, ::-1].copy()).permute(2, 0, 1).float()
    expected = torch.nn.functional.interpolate(pixels[None], (48, 64), mode="bilinear", antialias=True)[0]
    assert (given - expected.round().clamp(0, 255)).abs().max() <= 1


def test_a_frame_is_uploaded_once_and_let_go_with_the_frame():
    views = device_views()
    frame = photograph(64, 48)
    assert views.upload(frame) is views.upload(frame)
    assert len(views._frames) == 1
    del frame
    gc.collect()
    assert len(views._frames) == 0


def test_a_buffer_that_is_used_again_is_another_frame():
    """A driver may write each picture into the same memory."""
    buffer, views = np.zeros((48, 64, 3), np.uint8), device_views()
    first = Frame(buffer)
    assert views.upload(first).max() == 0
    buffer[:] = 200
    assert views.upload(Frame(buffer)).min() == 200


def test_a_view_for_the_device_is_never_resampled_on_the_cpu():
    view = FRAME.view(FRAME.window, (64, 48))
    device_views().batch([view])
    assert "image" not in vars(view)


def test_views_of_several_threads_go_through_the_model_together_and_come_back_to_their_own():
    sizes, entered, go_on = [], threading.Event(), threading.Event()

    def model(batch):
        sizes.append(len(batch))
        entered.set()
        go_on.wait(10)
        return batch.mean(dim=(1, 2, 3))[:, None, None].expand(-1, 1, 7)

    views, batcher = device_views(), CallBatcher(InputBatches(model))
    frames = [Frame(np.full((48, 64, 3), grey, np.uint8)) for grey in (10, 90, 170, 250)]
    found = {}

    def look(index):
        [rows] = batcher.generate(list(views.batch([frames[index].view(frames[index].window, (64, 48))])))
        found[index] = float(rows[0, 0])

    threads = [threading.Thread(target=look, args=(index,)) for index in range(4)]
    threads[0].start()
    assert entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(batcher._waiting) < 3:
        pass
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert sizes == [1, 3]
    assert found[0] < found[1] < found[2] < found[3]


@pytest.mark.parametrize("size", [(64, 48), (30, 70)])
def test_a_batch_mixes_views_of_any_frames_and_sizes(size):
    views = [FRAME.view(FRAME.window, (100, 57)), photograph(40, 30).view(Box(3, 4, 20, 10), (80, 40))]
    assert device_views(size).batch(views).shape == (2, 3, size[1], size[0])
