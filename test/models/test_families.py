"""Sizes and coordinates of the Qwen models, through their real image processors."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import require_torch

from activeo3_ros.core import Box, Frame, InvalidInput
from activeo3_ros.core.geometry import as_array, to_corners
from activeo3_ros.vlm import families as qwen
from activeo3_ros.vlm.engine import Prompt, Turn
from activeo3_ros.vlm.families import FAMILIES, QWEN2_5_VL, QWEN3_5, QWEN3_VL, Family, family_named
from activeo3_ros.vlm.prompts import load_prompt

families = pytest.mark.parametrize("family", [QWEN2_5_VL, QWEN3_VL, QWEN3_5], ids=lambda family: family.name)
"""Those with experts see and write as those without: see the test of that."""


def image_processor(family: Family):
    """The real one, with the published models' limits on pixels."""
    require_torch()
    from transformers import Qwen2VLImageProcessor

    side = family.cell_px // 2
    return Qwen2VLImageProcessor(patch_size=side, merge_size=2, min_pixels=side * side * 4, max_pixels=12_845_056)


@families
@given(
    width=st.integers(1, 8000),
    height=st.integers(1, 8000),
    max_pixels=st.integers(1024, 4_000_000),
    shorter=st.none() | st.integers(28, 2048),
)
def test_a_view_is_in_whole_cells_within_the_budget(family, width, height, max_pixels, shorter):
    wide, high = family.fit(width, height, max_pixels, shorter)
    assert wide % family.cell_px == 0 and high % family.cell_px == 0
    assert wide * high <= max(max_pixels, family.cell_px**2)
    assert max(wide, high) < 200 * min(wide, high)


def test_a_full_hd_frame_is_seen_with_the_papers_shorter_side():
    assert QWEN2_5_VL.fit(1920, 1080, 2_097_152, 1024) == (1820, 1036)
    assert QWEN2_5_VL.fit(1, 1, 840 * 840) == (840, 840)


@families
def test_a_box_comes_back_within_one_model_pixel(family):
    """1,000 random frames and windows: what the model would write for a box leads back to that box."""
    processor = image_processor(family)
    generator = np.random.default_rng(0)
    worst = 0.0
    for _ in range(1000):
        width, height = (int(side) for side in generator.integers(40, 700, 2))
        frame = Frame(np.zeros((height, width, 3), np.uint8))
        view = frame.view(frame.window, family.fit(width, height, int(generator.integers(4000, 40_000))))
        grid = processor(images=[view.image], return_tensors="np")["image_grid_thw"][0]
        input_size = int(grid[2]) * family.cell_px // 2, int(grid[1]) * family.cell_px // 2
        assert input_size == (view.width, view.height)  # the processor leaves the view as it is
        corners = np.sort(generator.uniform(0, 1, (2, 2)), axis=0) * (width, height)
        box = Box(*corners[0].tolist(), *(corners[1] - corners[0]).tolist())
        in_view = Box(*view.from_source([box.as_tuple()])[0].tolist())
        written = family.from_view(in_view, input_size, view)
        back = view.to_source(family.to_view([written], input_size, (view.width, view.height)))
        difference = np.abs(to_corners(back) - to_corners(as_array([box]))).max(axis=0)
        model_px = np.array([width, height] * 2) / np.tile(family.extent(input_size), 2)
        worst = max(worst, float((difference / model_px).max()))
    assert worst <= 0.5 + 1e-9  # rounding to whole numbers, and nothing else


@families
def test_a_square_painted_in_the_source_is_where_its_coordinates_say(family):
    """Through the real processor: the patches that changed are those that the box, in model coordinates, covers."""
    processor = image_processor(family)
    generator = np.random.default_rng(1)
    side = family.cell_px // 2
    for _ in range(20):
        frame = Frame(np.full((300, 500, 3), 90, np.uint8))
        x, y = int(generator.integers(0, 400)), int(generator.integers(0, 200))
        frame.image[y : y + 80, x : x + 80] = (0, 0, 255)
        view = frame.view(frame.window, family.fit(500, 300, 60_000))
        values = processor(images=[view.image[:, :, ::-1].copy()], return_tensors="np")
        _, rows, columns = values["image_grid_thw"][0]
        patches = np.asarray(values["pixel_values"]).reshape(rows // 2, columns // 2, 2, 2, 3, 2, side, side)
        pixels = patches[:, :, :, :, 0, 0].transpose(0, 2, 4, 1, 3, 5).reshape(rows * side, columns * side)
        ys, xs = np.nonzero(pixels > pixels.max() - 0.5 * np.ptp(pixels))
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        in_view = Box(*view.from_source([(x, y, 80, 80)])[0].tolist())
        written = np.array(family.from_view(in_view, (view.width, view.height), view))
        expected = (
            written * np.tile((view.width, view.height), 2) / np.tile(family.extent((view.width, view.height)), 2)
        )
        assert np.abs(seen - expected).max() <= 1.5  # the soft border of the resampled square


@families
def test_pixels_prepared_on_the_device_are_those_of_the_real_processor(family):
    require_torch()
    import torch

    from activeo3_ros.vlm.backends.preprocessing import PixelFormat, patches

    processor = image_processor(family)
    spec = PixelFormat(patch_px=family.cell_px // 2)
    generator = np.random.default_rng(2)
    cell = family.cell_px
    images = [generator.integers(0, 255, (cell * h, cell * w, 3), dtype=np.uint8) for h, w in ((3, 5), (8, 2), (4, 4))]
    ours, grids = patches(images, spec, torch.device("cpu"))
    theirs = processor(images=[image[:, :, ::-1].copy() for image in images], return_tensors="pt")
    assert torch.equal(grids, theirs["image_grid_thw"])
    assert torch.allclose(ours, theirs["pixel_values"], atol=1e-5)


@pytest.mark.parametrize("name", ["llava", "qwen4_exp", ""])
def test_a_model_whose_coordinates_are_unknown_is_refused_in_one_line_with_the_known_ones(name):
    with pytest.raises(InvalidInput) as caught:
        family_named(name)
    assert str(caught.value) == (
        f"unknown family {name!r}: its coordinates are not known; "
        "known are qwen2_5_vl, qwen3_vl, qwen3_vl_moe, qwen3_5, qwen3_5_moe"
    )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_family_is_one_of_transformers_and_its_cells_are_those_of_its_vision_tower(family):
    require_torch()
    from transformers import AutoConfig

    vision = AutoConfig.for_model(family.name).vision_config
    assert vision.patch_size * vision.spatial_merge_size == family.cell_px
    plain = FAMILIES[family.name.removesuffix("_moe")]
    assert (family.cell_px, family.thousandths, family.no_thoughts) == (
        plain.cell_px,
        plain.thousandths,
        plain.no_thoughts,
    )


@pytest.mark.parametrize(("reasoning", "start"), [("none", f"{QWEN3_5.no_thoughts}<answer>\n["), ("short", "<think>")])
def test_an_answer_of_qwen3_5_begins_as_its_template_has_it_and_with_the_forced_beginning(reasoning, start):
    """Without thoughts it is trained to begin with empty ones; what is forced stands behind them."""
    from tiny_models import load_tokenizer

    from activeo3_ros.vlm.backends.preprocessing import prompt_ids

    require_torch()
    tokenizer = load_tokenizer()
    prompt = load_prompt("sensing_detection").fill(reasoning, target="car", max_regions=3)
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    text = tokenizer.decode(prompt_ids(tokenizer, prompt, QWEN3_5, [6], image_id))
    assert text.endswith(f"<|im_start|>assistant\n{start}")
    assert text.count("<|image_pad|>") == 6
    before = tokenizer.decode(prompt_ids(tokenizer, prompt, QWEN3_VL, [6], image_id))
    assert before == text.replace(QWEN3_5.no_thoughts, "")


def test_a_conversation_is_what_the_models_own_template_makes_of_its_messages():
    """Through the template of the tokenizer: a call, the tool's picture, and a message without one."""
    from tiny_models import load_tokenizer

    from activeo3_ros.vlm.backends.preprocessing import request_text

    require_torch()
    picture = np.zeros((28, 28, 3), np.uint8)
    prompt = Prompt("What is it?", system="You see.", prefix="<think>")
    turns = (Turn("One.", "<tool_response>\n", picture, "\n</tool_response>"), Turn("Two.", after="No."))
    tokenizer = load_tokenizer()
    tokenizer.chat_template = qwen.CHAT_TEMPLATE
    response = [{"type": "text", "text": "<tool_response>\n"}, {"type": "image"}]
    messages = [
        {"role": "system", "content": "You see."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": [*response, {"type": "text", "text": "\n</tool_response>"}]},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "No."},
    ]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert request_text(prompt, QWEN2_5_VL, turns) == f"{expected}<think>"


@pytest.mark.parametrize("limits", [(3136, 12_845_056), (4 * 28 * 28, 2_000_000)])
def test_both_preparations_of_images_leave_our_views_as_they_are(limits, stand_in_torchvision):
    """qwen-vl-utils, which the published models come with, and transformers agree on every size that we choose."""
    qwen_vl_utils = pytest.importorskip("qwen_vl_utils.vision_process", reason="qwen-vl-utils is not installed")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    generator = np.random.default_rng(3)
    for _ in range(1000):
        width, height = (int(side) for side in generator.integers(28, 4000, 2))
        wide, high = QWEN2_5_VL.fit(width, height, int(generator.integers(4 * 784, limits[1])))
        if not limits[0] <= wide * high:
            continue
        sizes = {"factor": 28, "min_pixels": limits[0], "max_pixels": limits[1]}
        assert qwen_vl_utils.smart_resize(high, wide, **sizes) == smart_resize(high, wide, **sizes) == (high, wide)


@families
def test_a_picture_that_is_not_in_whole_cells_is_sized_as_the_models_own_tools_do(family, stand_in_torchvision):
    """By qwen-vl-utils where it imports, else by transformers: both give the same, whichever a machine has."""
    pytest.importorskip("qwen_vl_utils", reason="qwen-vl-utils is not installed")
    generator = np.random.default_rng(4)
    sizes = [tuple(int(side) for side in generator.integers(family.cell_px // 2 + 1, 3000, 2)) for _ in range(1000)]
    found = {}
    for name in ("qwen_vl_utils", "transformers"):
        qwen._smart_resize.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            if name == "transformers":
                patch.setitem(sys.modules, "qwen_vl_utils.vision_process", None)
            assert name in qwen._smart_resize().__module__
        found[name] = [qwen.whole_cell_size(*size, family) for size in sizes]
    qwen._smart_resize.cache_clear()
    assert found["qwen_vl_utils"] == found["transformers"]
    assert all(side % family.cell_px == 0 for size in found["transformers"] for side in size)
    assert qwen.whole_cell_size(3000, 2, family)[1] == family.cell_px  # too long a strip for both


@pytest.fixture
def stand_in_torchvision(monkeypatch):
    """qwen-vl-utils imports torchvision for videos, which these tests have none of, at its top."""
    import importlib.util
    from types import ModuleType, SimpleNamespace

    require_torch()
    # Before the stand-in is there: transformers would take it for the real one.
    import transformers.models.qwen2_vl.image_processing_pil_qwen2_vl  # noqa: F401

    if importlib.util.find_spec("torchvision") is not None:
        return
    module, io, transforms = (
        ModuleType("torchvision"),
        ModuleType("torchvision.io"),
        ModuleType("torchvision.transforms"),
    )
    transforms.InterpolationMode = SimpleNamespace(BICUBIC="bicubic")  # type: ignore[attr-defined]
    transforms.functional = SimpleNamespace()  # type: ignore[attr-defined]
    module.io, module.transforms, module.__version__ = io, transforms, "0"  # type: ignore[attr-defined]
    for name, stand_in in (("torchvision", module), ("torchvision.io", io), ("torchvision.transforms", transforms)):
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.delitem(sys.modules, "qwen_vl_utils", raising=False)
