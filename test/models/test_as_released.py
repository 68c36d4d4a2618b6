"""`as_released`: the calls of the released script, token for token.

What the script does is written here once more, from its description and without our code: Pillow and the models' own
processor prepare the pictures, a Jinja template the chat.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from demo_scripts import BOXES, REGIONS, SYSTEM, write_script
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import load_tokenizer, require_torch

require_torch()

from PIL import Image  # noqa: E402

from activeo3_ros.core import ActivePerception, Budget, Frame, InvalidInput, Query, Status  # noqa: E402
from activeo3_ros.policies.mllm import MllmSensing  # noqa: E402
from activeo3_ros.presets import load_preset  # noqa: E402
from activeo3_ros.vlm import imported_prompts  # noqa: E402
from activeo3_ros.vlm.as_released import MAX_PIXELS, MAX_TOKENS, PixelLimits, crop_box, crop_size, view_size  # noqa: E402
from activeo3_ros.vlm.backends.preprocessing import image_in_cells, prompt_ids  # noqa: E402
from activeo3_ros.vlm.engine import Reply  # noqa: E402
from activeo3_ros.vlm.families import IMAGE_TOKEN, QWEN2_5_VL, QWEN3_VL  # noqa: E402
from activeo3_ros.vlm.imported_prompts import import_script, save_imported  # noqa: E402
from activeo3_ros.vlm.task import MllmTask  # noqa: E402

BUDGET = Budget(max_regions=3, view_pixels=MAX_PIXELS, crop_pixels=MAX_PIXELS, max_tokens=MAX_TOKENS)
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if 'image' in part %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
PICTURES = [
    ((1600, 1024), "What is the colour of the woman's bag?"),
    ((1080, 1300), "Is the dog left or right of the bin?"),
    ((1024, 1024), "What does the sign say?\n(A) stop\n(B) yield\nAnswer with the letter of the right option."),
    ((1152, 1100), "Wie viele Autos stehen dort?"),
    ((1777, 1033), "What costs $5 here?"),
    ((1920, 1080), "Is it a ${target} or {object}?"),
    ((640, 480), "Where is the red car?"),
    ((333, 777), "Who holds the umbrella?"),
    ((1400, 1000), "这里有什么\uff1f"),
    ((1023, 1025), "How many people wait?"),
]
"""Width and height, and the question; some are enlarged first."""
SHARES = [(0.11, 0.23, 0.31, 0.52), (0.503, 0.4, 0.997, 0.9), (0.0, 0.0, 0.07, 0.05)]
"""Corners of the regions that the model chooses, of the picture."""


@pytest.fixture(autouse=True)
def released(tmp_path, monkeypatch):
    """A script of the tests' own takes the place of the released one."""
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))
    found = import_script(write_script(tmp_path))
    monkeypatch.setattr(imported_prompts, "RELEASED", found.sha256)
    save_imported(found)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=12_845_056)


class RecordingEngine:
    """Makes the input ids of each request as the engines do, and writes the answers that it is given."""

    def __init__(self, tokenizer, *answers, family=QWEN2_5_VL):
        self.family, self.tokenizer, self.answers = family, tokenizer, list(answers)
        self.ids: list[list[int]] = []
        self.requests = []

    def generate(self, requests):
        return [self._reply(request) for request in requests]

    def _reply(self, request):
        image = image_in_cells(request.image, self.family)
        cells = image.shape[0] // 28 * (image.shape[1] // 28)
        image_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.ids.append(prompt_ids(self.tokenizer, request.prompt, self.family, [cells], image_id))
        self.requests.append(request)
        return Reply(self.answers.pop(0), (), (image.shape[1], image.shape[0]))

    def describe(self):
        return "recording"

    def close(self):
        pass


def input_ids(tokenizer, processor, picture, parts):
    """The script's way to input ids: template, processor, one image token for each two by two patches."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": parts}]
    text = tokenizer.apply_chat_template(messages, chat_template=CHAT, tokenize=False)
    [grid] = processor(images=[picture], return_tensors="np")["image_grid_thw"]
    text = text.replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // 4))
    return tokenizer([text])["input_ids"][0], (int(grid[2]) * 14, int(grid[1]) * 14)


def at_least_1024(picture):
    """The picture that the script works on."""
    if picture.size[0] >= 1024 and picture.size[1] >= 1024:
        return picture
    factor = 1024 / min(picture.size)
    picture = picture.resize((int(picture.size[0] * factor), int(picture.size[1] * factor)), Image.LANCZOS)
    return saved_again(picture)


def saved_again(picture):
    """The picture as its file holds it."""
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return Image.open(file)


def at_least_900_cells(crop):
    """The crop as the tools of the models hand it to the processor."""
    high, wide = (max(28, round(side / 28) * 28) for side in (crop.size[1], crop.size[0]))
    if high * wide < 900 * 28 * 28:
        factor = math.sqrt(900 * 28 * 28 / (crop.size[0] * crop.size[1]))
        high, wide = (math.ceil(side * factor / 28) * 28 for side in (crop.size[1], crop.size[0]))
    return crop.resize((wide, high))


def boxes_in(size):
    return [[round(share * side) for share, side in zip(box, (*size, *size), strict=True)] for box in SHARES]


def script_calls(tokenizer, processor, picture, question):
    """The input ids of all calls for one picture, and the boxes that the model chooses on the way."""
    picture = at_least_1024(picture)
    parts = [{"text": REGIONS.replace("{question}", question)}, {"image": ""}]
    first, seen = input_ids(tokenizer, processor, picture, parts)
    calls = [first]
    wide, high = picture.size
    for corners in np.array(boxes_in(seen)).astype(np.float32):
        corners[0::2], corners[1::2] = corners[0::2] / float(seen[0]), corners[1::2] / float(seen[1])
        x1, y1, x2, y2 = (int(c * side) for c, side in zip(corners, (wide, high, wide, high), strict=True))
        crop = saved_again(picture.crop((x1, y1, min(x2, wide), min(y2, high))))
        parts = [{"image": "", "min_pixels": 900 * 28 * 28}, {"text": question}]
        calls.append(input_ids(tokenizer, processor, at_least_900_cells(crop), parts)[0])
    return calls, boxes_in(seen)


def components(engine, **settings):
    sensing = MllmSensing(engine, **{"reasoning": "full", "words": "imported", "as_released": True, **settings})
    return sensing, MllmTask(engine, words="imported", as_released=True)


@pytest.mark.parametrize(("size", "question"), PICTURES)
def test_the_same_input_ids_as_the_script(tokenizer, processor, size, question):
    pixels = np.random.default_rng(size).integers(0, 255, (size[1] // 16, size[0] // 16, 3), np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.BILINEAR)
    expected, boxes = script_calls(tokenizer, processor, picture, question)

    answer = json.dumps([{"bbox_2d": box, "label": "place"} for box in boxes])
    engine = RecordingEngine(tokenizer, f"<think>So.</think>\n<answer>\n{answer}\n</answer>", *["red"] * 3)
    sensing, task = components(engine)
    query = Query(question)
    frame = Frame(np.ascontiguousarray(np.asarray(at_least_1024(picture))[:, :, ::-1]))
    result = ActivePerception(sensing, task, BUDGET, examine_view=False).perceive(frame, query)
    assert result.status is Status.COMPLETE, result.status_message
    assert len(engine.ids) == len(expected) == 4
    for own, theirs in zip(engine.ids, expected, strict=True):
        assert own == theirs
    assert {request.max_new_tokens for request in engine.requests} == {1300}
    assert all((r.prompt.stop, r.prompt.prefix, r.prompt.regex) == ((), "", "") for r in engine.requests)


def test_an_object_is_asked_for_as_the_script_does(tokenizer, processor):
    picture = Image.new("RGB", (500, 300))
    parts = [{"image": ""}, {"text": BOXES.replace("{object}", "animal")}]
    expected, _ = input_ids(tokenizer, processor, at_least_900_cells(picture), parts)
    engine = RecordingEngine(tokenizer, "[]")
    task = MllmTask(engine, words="imported", as_released=True)
    frame = Frame(np.zeros((300, 500, 3), np.uint8))
    task.examine([frame.view(frame.window, task.view_size(500, 300, MAX_PIXELS))], Query(classes=("animal",)), BUDGET)
    assert engine.ids == [expected]


@given(
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    size=st.tuples(*[st.integers(1024, 5000)] * 2),
)
def test_a_crop_is_whole_pixels_of_the_frame_whatever_the_model_writes(corners, size):
    seen = view_size(*size, MAX_PIXELS)
    written = [share * side for share, side in zip(corners, (*seen, *seen), strict=True)]
    box = crop_box(tuple(written), seen, size)
    if box is None:
        return
    window = box.snapped(*size)
    assert (box.x - window.x, box.y - window.y) == (0.25, 0.25)
    assert (window.right - box.right, window.bottom - box.bottom) == (0.25, 0.25)
    expected = [share * side for share, side in zip(corners, (*size, *size), strict=True)]
    found = (window.x, window.y, window.right, window.bottom)
    assert all(own - 1.01 <= pixel <= own + 0.01 for pixel, own in zip(found, expected, strict=True))


@pytest.mark.parametrize("size", [(1024, 1024), (3840, 2160), (4608, 3456), (8000, 6000), (1100, 7777)])
def test_the_size_of_a_view_is_the_processors(size):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    high, wide = smart_resize(size[1], size[0], 28, 56 * 56, 12_845_056)
    assert view_size(*size, MAX_PIXELS) == (wide, high)


def test_the_limits_of_the_checkpoints_own_processor_hold(tmp_path):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}', encoding="utf-8")
    edges = {"size": {"shortest_edge": 3136, "longest_edge": 1_003_520}}
    for values in ({"min_pixels": 3136, "max_pixels": 1_003_520}, edges):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
        limits = PixelLimits.of({"engine": {"type": "transformers", "model": str(tmp_path)}})
        assert limits == PixelLimits(3136, 1_003_520)
    high, wide = smart_resize(1080, 1920, 28, 3136, 1_003_520)
    assert view_size(1920, 1080, MAX_PIXELS, limits) == (wide, high)
    assert crop_size(1920, 1080, MAX_PIXELS, limits) == (wide, high)
    assert PixelLimits.of({"engine": {"type": "remote", "model": "policy"}}) == PixelLimits(3136, 12_845_056)


def test_the_repetition_penalty_of_the_checkpoint_holds(tmp_path):
    """The script gives none, so that the one of generation_config.json holds; the same with our engine."""
    from tiny_models import build_tiny_model

    from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine
    from activeo3_ros.vlm.engine import Prompt, Request

    engine = TransformersEngine(str(build_tiny_model(tmp_path / "model")), device="cpu")
    request = Request(np.zeros((56, 56, 3), np.uint8), Prompt("What is it?"), 24)

    def written():
        return [token.id for token in engine.generate([request])[0].tokens]

    plain = written()
    assert len(set(plain)) < len(plain), "random weights repeat themselves"
    engine.model.generation_config.repetition_penalty = 1e6
    assert len(set(penalized := written())) == len(penalized)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"reasoning": "none"}, "as_released thinks aloud as the script does: set reasoning: full instead of none"),
        (
            {"words": "own"},
            "as_released needs the words of the released script, and these are own; run: activeo3 prompts",
        ),
        (
            {"engine": RecordingEngine(None, family=QWEN3_VL)},
            "the script is made for qwen2_5_vl, this model is qwen3_vl",
        ),
        ({"reasoning": "short", "as_released": False}, "the imported words ask for no short one"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, reason):
    given = {"engine": RecordingEngine(None), "reasoning": "full", "words": "imported", "as_released": True, **settings}
    with pytest.raises(InvalidInput, match=reason):
        MllmSensing(**given)


def test_a_changed_script_is_not_as_released(tmp_path, monkeypatch):
    monkeypatch.setattr(imported_prompts, "RELEASED", "another")
    with pytest.raises(InvalidInput, match=r"these are imported \w+ \(not as released\) for questions"):
        MllmSensing(RecordingEngine(None), reasoning="full", words="imported", as_released=True)


def test_what_the_script_would_not_do_fails_the_frame_with_the_reason(tokenizer):
    sensing, task = components(RecordingEngine(tokenizer))
    loop = ActivePerception(sensing, task, BUDGET, examine_view=False)
    large, small = Frame(np.zeros((1080, 1920, 3), np.uint8)), Frame(np.zeros((480, 640, 3), np.uint8))
    targets = loop.perceive(large, Query(classes=("car",)))
    assert targets.status is Status.FAILED and "the released script asks questions alone" in targets.status_message
    question = Query("What is it?")
    assert "640 x 480 px to 1024 px a side" in loop.perceive(small, question).status_message
    for name, value in (("view_pixels", 2_000_000), ("max_tokens", 512)):
        told = loop.perceive(large, question, replace(BUDGET, **{name: value})).status_message
        assert f"set {name}: " in told
    with pytest.raises(InvalidInput, match="set crop_pixels: 12845056"):
        crop_size(2000, 1000, 705_600)


def test_the_preset_uses_imported_words_and_says_so_in_its_facts_and_to_the_node():
    from activeo3_ros.node.diagnostics import model_facts

    preset = load_preset("active_o3")
    used = preset.sensing.facts[1]["words"]
    assert used.startswith("imported ") and preset.task.facts[1]["words"] == used
    engine = RecordingEngine(None)
    sensing = MllmSensing(**{**preset.sensing.settings, "engine": engine})
    task = MllmTask(**{**preset.task.settings, "engine": engine})
    facts = model_facts(ActivePerception(sensing, task))
    assert facts["sensing"] == f"MllmSensing: recording, words: {used} for questions, own for targets"
    assert facts["task"] == f"MllmTask: recording, words: {used}"


def test_without_an_import_the_preset_is_what_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "empty"))
    preset = load_preset("active_o3")
    assert "words" not in preset.sensing.facts[1]
    assert MllmSensing(**{**preset.sensing.settings, "engine": RecordingEngine(None)}).words == "own"


def test_doctor_recommends_the_import(monkeypatch, tmp_path):
    from activeo3_ros.cli import doctor

    assert doctor._released_prompts().ok
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "empty"))
    check = doctor._released_prompts()
    assert (check.ok, check.optional, check.fix) == (False, True, "activeo3 prompts import FILE")
