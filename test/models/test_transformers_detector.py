"""The detectors of transformers, on tiny models of random weights, against the library's own post-processing."""

from __future__ import annotations

import functools
import importlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_detectors import (
    BERT_WORDS,
    EDGES,
    FIXED_CLASSES,
    NAMES,
    OPEN_VOCABULARY,
    TINY_DETECTORS,
    WITH_MASKS,
    save_tiny_detector,
)
from tiny_models import require_torch

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.core import ActivePerception, Frame, Query, Status
from activeo3_ros.core.errors import EngineError, InvalidInput, OutOfMemory, UnsupportedQuery
from activeo3_ros.core.geometry import non_maximum_suppression, to_corners
from activeo3_ros.core.interfaces import OpenVocabularyDetector
from activeo3_ros.core.optional import MissingPackageError, has_package

require_torch()

import torch  # noqa: E402
from transformers import BertTokenizer  # noqa: E402

from activeo3_ros.detectors.detector_task import DetectorTask  # noqa: E402
from activeo3_ros.detectors.transformers_detector import TransformersDetector  # noqa: E402
from activeo3_ros.detectors.transformers_prompts import token_prompts  # noqa: E402
from activeo3_ros.policies.fixed import FullFrame  # noqa: E402
from activeo3_ros.presets import load_preset  # noqa: E402

THRESHOLD = 0.4
REAL_NAMES = [name for name in NAMES.values() if name != "N/A"]
WORDS = ("car", "traffic light", "person")


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    """Gives the directory of a tiny detector by its name; each is made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = save_tiny_detector(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def load(directory, **settings):
    return TransformersDetector(str(directory), **{"device": "cpu", "batch_size": 20, **settings})


shared = functools.cache(load)
"""For tests that change nothing in a detector."""


def random_images(count, seed=0):
    """Noise of 40 odd sizes, coarse and fine."""
    random = np.random.default_rng(seed)
    sizes = random.integers(20, 150, (40, 2))
    images = []
    for index in range(count):
        height, width = (int(side) for side in sizes[index % 40])
        cell = int(random.integers(1, 16))
        coarse = random.integers(0, 256, (height // cell + 1, width // cell + 1, 3), dtype=np.uint8)
        images.append(np.ascontiguousarray(coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]))
    return images


def detect_with_outputs(detector, images):
    """What a detector finds in each image, and the outputs that its model gave for that one."""
    detect, seen, of_found = detector.detect_tensors, [], {}

    def recorded(*arguments):
        found = detect(*arguments)
        for index, each in enumerate(found):
            of_found[id(each)] = _of_one(seen[-1], index)
        return found

    detector.detect_tensors = recorded
    hook = detector.model.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    found = detector.detect(images, THRESHOLD)
    hook.remove()
    detector.detect_tensors = detect
    return found, [of_found[id(each)] for each in found]


def _of_one(outputs, index):
    """The outputs for one image of a batch, as for a batch of one."""
    names = ("logits", "pred_boxes", "pred_masks", "decoder_class_logits", "decoder_coord_logits", "input_ids")
    return SimpleNamespace(**{name: outputs[name][index : index + 1] for name in names if name in outputs})


def assert_same(found, boxes, scores, labels, size):
    """Compare with the library's boxes: those inside the image, best score first, of classes that have a name."""
    assert (np.diff(found.scores) <= 0).all() and (found.boxes[:, 2:] > 0).all()
    ours = np.column_stack([to_corners(found.boxes), found.class_ids, found.scores])
    theirs = np.column_stack([np.clip(boxes, 0, np.tile(size, 2)), labels, scores])[labels >= 0]
    for some, others in ((ours, theirs), (theirs, ours)):
        # Whether a box of a thousandth of a pixel is one is left to the rounding of float32.
        some = some[((some[:, 2:4] - some[:, :2]) > 1e-3).all(1)]
        is_there = (np.abs(some[:, None] - others[None]).max(2) < 0.01).any(1)
        assert is_there.all(), f"in one alone: {some[~is_there]}"


def image_processor(name):
    """The class of the library whose post-processing a model's own processor has."""
    import transformers

    # That of RF-DETR needs torchvision; it takes all pairs of query and class, as this one does.
    processor = "RTDetrImageProcessor" if name.startswith("rf_detr") else TINY_DETECTORS[name].processor
    return getattr(transformers, f"{processor}Pil")()


@pytest.mark.parametrize("name", FIXED_CLASSES)
def test_boxes_equal_the_librarys_own_post_processing(tiny_directory, name):
    detector = shared(tiny_directory(name))
    images = random_images(200)
    found, outputs = detect_with_outputs(detector, images)
    index_of = np.array([REAL_NAMES.index(each) if each in REAL_NAMES else -1 for each in NAMES.values()])
    for image, detected, output in zip(images, found, outputs, strict=True):
        (theirs,) = image_processor(name).post_process_object_detection(output, THRESHOLD, [image.shape[:2]])
        boxes, scores, labels = (theirs[key].numpy() for key in ("boxes", "scores", "labels"))
        assert_same(detected, boxes, scores, index_of[labels], image.shape[1::-1])
    counts = {len(each.scores) for each in found}
    assert len(counts) > 1 and max(counts) > 0, "scores on both sides of the threshold"
    assert list(detector.names) == REAL_NAMES


@pytest.mark.parametrize("name", FIXED_CLASSES)
def test_boxes_equal_those_of_the_library_from_the_image_file_on(tiny_directory, name):
    import transformers

    if name == "rf_detr" and not has_package("torchvision"):
        pytest.skip("torchvision is not installed, without which transformers has no processor of RF-DETR")
    directory = tiny_directory(name)
    processor = transformers.AutoImageProcessor.from_pretrained(directory)
    model = transformers.AutoModelForObjectDetection.from_pretrained(directory).eval()
    index_of = np.array([REAL_NAMES.index(each) if each in REAL_NAMES else -1 for each in NAMES.values()])
    images = random_images(5, seed=1)
    for image, detected in zip(images, shared(directory, batch_size=1).detect(images, THRESHOLD), strict=True):
        inputs = processor(images=image[:, :, ::-1].copy(), return_tensors="pt", input_data_format="channels_last")
        inputs = {key: inputs[key] for key in inputs if key != "pixel_mask" or name != "yolos"}
        with torch.inference_mode():
            outputs = model(**inputs)
        (theirs,) = processor.post_process_object_detection(outputs, THRESHOLD, [image.shape[:2]])
        boxes, scores, labels = (theirs[key].numpy() for key in ("boxes", "scores", "labels"))
        assert_same(detected, boxes, scores, index_of[labels], image.shape[1::-1])


@pytest.mark.parametrize("name", ["owlvit", "owlv2"])
def test_owl_boxes_equal_the_librarys_own_post_processing(tiny_directory, name, monkeypatch):
    detector = load_open(tiny_directory(name), monkeypatch)
    sizes = [image.shape[1::-1] for image in random_images(200)]
    pixels = torch.randn(200, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = []
    hook = detector.model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    found = detector.detect_tensors(pixels, sizes, THRESHOLD)
    hook.remove()
    library = image_processor(name).post_process_object_detection(outputs[0], THRESHOLD, [size[::-1] for size in sizes])
    for size, detected, theirs in zip(sizes, found, library, strict=True):
        assert_same(detected, theirs["boxes"].numpy(), theirs["scores"].numpy(), theirs["labels"].numpy(), size)
    assert len({len(each.scores) for each in found}) > 1


@pytest.mark.parametrize("name", ["owlvit", "owlv2"])
def test_owl_boxes_equal_those_of_the_library_from_the_image_file_on(tiny_directory, name):
    import transformers

    if name == "owlv2" and not has_package("scipy"):
        pytest.skip("scipy is not installed, without which transformers fits no image for OWLv2")
    directory = tiny_directory(name)
    processor, tokenizer = (
        getattr(transformers, auto).from_pretrained(directory) for auto in ("AutoImageProcessor", "AutoTokenizer")
    )
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(directory).eval()
    text = tokenizer(list(WORDS), padding="max_length", max_length=16, return_tensors="pt")
    images = random_images(20, seed=1)
    for image, detected in zip(images, shared(directory, names=WORDS).detect(images, THRESHOLD), strict=True):
        with torch.inference_mode():
            outputs = model(**text, **processor(images=image[:, :, ::-1].copy(), return_tensors="pt"))
        (theirs,) = processor.post_process_object_detection(outputs, THRESHOLD, [image.shape[:2]])
        assert_same(detected, *(theirs[key].numpy() for key in ("boxes", "scores", "labels")), image.shape[1::-1])


def load_open(directory, monkeypatch):
    """An open-vocabulary detector for WORDS; OWLv2 also without scipy, which it needs only to fit images."""
    if "owlv2" in str(directory) and not has_package("scipy"):
        monkeypatch.setitem(sys.modules, "scipy", SimpleNamespace())
        monkeypatch.setattr(TransformersDetector, "_preprocess", lambda self, image: {})
    return load(directory, names=WORDS)


def test_omdet_boxes_equal_the_librarys_own_post_processing(tiny_directory, monkeypatch):
    library = importlib.import_module("transformers.models.omdet_turbo.processing_omdet_turbo")

    def batched_nms(boxes, scores, labels, iou):
        """torchvision's, which is not installed everywhere."""
        xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).numpy() + labels.numpy()[:, None] * [
            1e4,
            0,
            0,
            0,
        ]
        return torch.as_tensor(non_maximum_suppression(xywh, scores.numpy(), iou))

    monkeypatch.setattr(library, "batched_nms", batched_nms, raising=False)
    detector = shared(tiny_directory("omdet_turbo"), names=WORDS)
    images = random_images(200)
    found, outputs = detect_with_outputs(detector, images)
    for image, detected, output in zip(images, found, outputs, strict=True):
        scores, labels = library.compute_score(output.decoder_class_logits)
        boxes, scores, labels = library._post_process_boxes_for_image(
            output.decoder_coord_logits[0], scores[0], labels, len(WORDS), image.shape[:2], THRESHOLD, 0.5
        )
        assert_same(detected, boxes.numpy(), scores.numpy(), labels.numpy(), image.shape[1::-1])
    assert len({len(each.scores) for each in found}) > 1


@pytest.mark.parametrize("name", ["grounding_dino", "mm_grounding_dino"])
def test_grounding_dino_boxes_equal_the_librarys_where_the_best_token_is_one_of_a_name(tiny_directory, name):
    """The library counts the tokens between names too, and gives texts for boxes rather than classes."""
    import transformers

    directory = tiny_directory(name)
    processor = transformers.GroundingDinoProcessor.from_pretrained(directory)
    detector = shared(directory, names=WORDS)
    images = random_images(200)
    found, outputs = detect_with_outputs(detector, images)
    of_token = np.full(256, -1)
    of_token[[1, 3, 4, 6]] = [0, 1, 1, 2]  # [CLS] car . traffic light . person . [SEP]
    compared = 0
    for image, detected, output in zip(images, found, outputs, strict=True):
        (theirs,) = processor.post_process_grounded_object_detection(
            output, detector._prompts[0].encoded["input_ids"], THRESHOLD, THRESHOLD, [image.shape[:2]]
        )
        probabilities = output.logits[0].sigmoid()
        best = probabilities.max(-1)
        labels = of_token[best.indices[best.values > THRESHOLD].numpy()]
        mine = {tuple(row.round(1)) for row in np.column_stack([to_corners(detected.boxes), detected.class_ids])}
        corners = np.clip(theirs["boxes"].numpy(), 0, np.tile(image.shape[1::-1], 2)).astype(np.float64)
        for row, label in zip(corners, labels, strict=True):
            if label >= 0 and (row[2:] > row[:2]).all():
                assert any(np.allclose(one, [*row, label], atol=0.11) for one in mine)
                compared += 1
    assert compared > 50


@pytest.mark.parametrize("name", WITH_MASKS)
def test_masks_belong_to_their_boxes_and_cover_the_image(tiny_directory, name):
    detector = shared(tiny_directory(name))
    images = random_images(20)
    found, outputs = detect_with_outputs(detector, images)
    assert sum(len(each.scores) for each in found) > 10
    for image, detected, output in zip(images, found, outputs, strict=True):
        height, width = image.shape[:2]
        assert detected.masks.shape == (len(detected.scores), height, width) and detected.masks.dtype == bool
        logits = torch.nn.functional.interpolate(output.pred_masks, (height, width), mode="bilinear")[0]
        for box, mask in zip(to_corners(detected.boxes), detected.masks, strict=True):
            relative = output.pred_boxes[0]
            corners = torch.cat([relative[:, :2] - relative[:, 2:] / 2, relative[:, :2] + relative[:, 2:] / 2], 1)
            away = (corners.numpy() * np.tile([width, height], 2)).clip(0, np.tile([width, height], 2)) - box
            queries = np.flatnonzero(np.abs(away).max(1) < 0.02)
            assert any(np.array_equal(mask, (logits[query] > 0).numpy()) for query in queries)


@pytest.mark.parametrize("name", WITH_MASKS)
def test_masks_become_those_of_a_result(tiny_directory, name):
    task = DetectorTask(shared(tiny_directory(name)), threshold=0.1)
    frame = Frame(np.random.default_rng(1).integers(0, 256, (150, 230, 3), dtype=np.uint8))
    view = frame.view(frame.window, task.view_size(frame.width, frame.height, 10**6))
    [detected] = task.detect([view], 0.05, task.resolve(Query()))
    result = ActivePerception(FullFrame(), task).perceive(frame, Query(masks=True))
    assert result.masks
    resized = [cv2.resize(mask.astype(np.uint8), (frame.width, frame.height)) > 0 for mask in detected.masks]
    for mask in result.masks:
        assert mask.box == result.detections[mask.detection].box.snapped(frame.width, frame.height)
        assert max((whole[mask.box.slices()] == mask.mask).mean() for whole in resized) > 0.9


def test_rf_detr_masks_equal_the_librarys_binary_maps(tiny_directory):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    from transformers import RfDetrImageProcessor

    detector = shared(tiny_directory("rf_detr_masks"))
    images = random_images(20)
    for image, detected, output in zip(images, *detect_with_outputs(detector, images), strict=True):
        (theirs,) = RfDetrImageProcessor().post_process_instance_segmentation(
            output, THRESHOLD, target_sizes=[image.shape[:2]], return_binary_maps=True
        )
        assert {mask.tobytes() for mask in detected.masks} <= {
            mask.tobytes() for mask in theirs["segmentation"].numpy()
        }


@pytest.mark.parametrize("name", ["rt_detr", "detr", "yolos", "grounding_dino", "omdet_turbo"])
def test_an_image_is_answered_alike_alone_and_among_others(tiny_directory, name):
    detector = shared(tiny_directory(name), batch_size=3, **({"names": WORDS} if name in OPEN_VOCABULARY else {}))
    images = random_images(7) + [random_images(1)[0]] * 2
    together = detector.detect(images, THRESHOLD)
    for image, detected in zip(images, together, strict=True):
        (alone,) = detector.detect([image], THRESHOLD)
        np.testing.assert_allclose(detected.scores, alone.scores, atol=1e-4)
        if len(np.unique(alone.scores.round(4))) == len(alone.scores):
            np.testing.assert_allclose(detected.boxes, alone.boxes, atol=0.05)
    assert detector.detect([], THRESHOLD) == []


@pytest.mark.parametrize("name", ["rt_detr", "detr", "grounding_dino", "omdet_turbo"])
def test_several_threads_may_detect_at_once(tiny_directory, name):
    detector = shared(tiny_directory(name), **({"names": WORDS} if name in OPEN_VOCABULARY else {}))
    images = random_images(12)
    expected = [detector.detect([image], THRESHOLD)[0] for image in images]
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        if name not in OPEN_VOCABULARY:
            return [detector.detect([image], THRESHOLD)[0] for image in images]
        found = []
        for number, image in enumerate(images):
            detector.for_names([*WORDS, f"car {'light ' * (number % 3)}"])  # other threads ask for other names
            found.append(detector.for_names(WORDS).detect([image], THRESHOLD)[0])
        return found

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            for each, alone in zip(found, expected, strict=True):
                np.testing.assert_allclose(each.scores, alone.scores, atol=1e-5)
    assert detector.concurrent


class Overlaps:
    """Calls a function and counts how many threads were in it at once."""

    def __init__(self, function):
        self.function, self.inside, self.most = function, 0, 0

    def __call__(self, *arguments, **settings):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.005)
        try:
            return self.function(*arguments, **settings)
        finally:
            self.inside -= 1


def test_what_serves_one_thread_is_called_by_one_at_a_time(tiny_directory):
    """A tokenizer, and the cache for texts in OmDet-Turbo."""
    detector = load(tiny_directory("omdet_turbo"))
    detector._writer._write_prompts = texts = Overlaps(detector._writer._write_prompts)
    detector.model.forward = forward = Overlaps(detector.model.forward)
    image = random_images(1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: detector.for_names(["car", "x" * number]).detect(image, THRESHOLD), range(1, 9)))
    assert (texts.most, forward.most) == (1, 1)


def test_the_input_size_is_that_of_the_image_processor(tiny_directory):
    stretched = shared(tiny_directory("rt_detr")).input_size
    assert (stretched.width, stretched.height, stretched.keeps_aspect) == (96, 64, False)
    edges = shared(tiny_directory("detr")).input_size
    assert edges.keeps_aspect and (edges.width, edges.height) == (EDGES["longest_edge"], EDGES["shortest_edge"])


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"feature_extractor_type": "DetrFeatureExtractor", "size": 80, "max_size": 133}, (133, 80)),  # as in 2021
        ({"image_processor_type": "DetrImageProcessor", "size": {"max_height": 48, "max_width": 64}}, (64, 48)),
        ({"image_processor_type": "RTDetrImageProcessorFast", "size": {"height": 64, "width": 32}}, (32, 64)),
    ],
)
def test_image_processors_are_read_as_hubs_have_them(tiny_directory, tmp_path, changes, size):
    directory = copy_with_processor(tiny_directory("detr"), tmp_path)
    (directory / "preprocessor_config.json").write_text(json.dumps(changes), encoding="utf-8")
    detector = load(directory)
    assert (detector.input_size.width, detector.input_size.height) == size
    assert len(detector.detect(random_images(3), 0.1)) == 3


def test_an_image_processor_that_refuses_every_image_is_told_when_the_model_is_loaded(tiny_directory, tmp_path):
    with pytest.raises(InvalidInput, match="DetrForObjectDetection refuses an image of 64 x 64 px: Size must contain"):
        load(copy_with_processor(tiny_directory("detr"), tmp_path, size={"longest_edge": 80}))


def test_a_model_in_several_files_beside_others_is_loaded(tiny_directory, tmp_path):
    from transformers import RTDetrForObjectDetection

    directory = copy_with_processor(tiny_directory("rt_detr"), tmp_path)
    whole = directory / "model.safetensors"
    RTDetrForObjectDetection.from_pretrained(directory).save_pretrained(directory, max_shard_size="50KB")
    whole.unlink()
    for name in ("README.md", ".gitattributes", "pytorch_model.bin", "training_args.bin"):
        (directory / name).write_bytes(b"not read")
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    image = random_images(1)
    np.testing.assert_array_equal(
        load(directory).detect(image, 0.1)[0].boxes, load(tiny_directory("rt_detr")).detect(image, 0.1)[0].boxes
    )
    next(directory.glob("model-*.safetensors")).unlink()
    assert "cannot be loaded" in refused(directory, EngineError)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920), (500, 500), (300, 40), (99, 131)])
def test_a_view_for_detr_has_the_size_that_its_processor_gives_it(tiny_directory, width, height):
    detector = shared(tiny_directory("detr"))
    view = detector.input_size.view_size(width, height, 10**7)
    prepared = detector._preprocess(np.zeros((height, width, 3), np.uint8))["pixel_values"].shape
    assert view == pytest.approx(prepared[:1:-1], abs=1)


def test_normalisation_is_given_as_numbers(tiny_directory):
    for name in ("detr", "rt_detr", "rf_detr", "yolos"):
        detector = shared(tiny_directory(name))
        grey = np.full((64, 96, 3), (10, 100, 200), np.uint8)  # blue, green, red
        pixels = detector._preprocess(grey)["pixel_values"][0, :, 30, 30].numpy()
        expected = (np.array([200, 100, 10]) * detector.scale - detector.mean) / detector.std
        np.testing.assert_allclose(pixels, expected, atol=1e-4)


def test_padding_to_a_fixed_size_moves_no_box_of_a_model_that_sees_masks(tiny_directory, tmp_path):
    """Whether its boxes are shares of the image or of the padded input, nothing tells: so it is not padded."""
    padded = copy_with_processor(tiny_directory("detr"), tmp_path, pad_size={"height": 120, "width": 120}, do_pad=True)
    image = random_images(1)[0]
    plain, same = (load(each).detect([image], 0.1)[0] for each in (tiny_directory("detr"), padded))
    np.testing.assert_array_equal(plain.boxes, same.boxes)


def test_boxes_of_a_model_that_sees_padding_as_image_are_shares_of_the_padded_input(tiny_directory, tmp_path):
    padded = copy_with_processor(
        tiny_directory("rt_detr_v2"), tmp_path, do_pad=True, pad_size={"height": 96, "width": 96},
        size={"max_height": 96, "max_width": 96},
    )  # fmt: skip
    detector = load(padded)
    assert (detector.input_size.width, detector.input_size.keeps_aspect) == (96, True)
    images = [np.ascontiguousarray(each[:20].repeat(3, 0).repeat(6, 1)[:, :120]) for each in random_images(20)]
    found, outputs = detect_with_outputs(detector, images)
    assert sum(len(each.scores) for each in found) > 10
    index_of = np.array([0, 1, -1, 2])
    for detected, output in zip(found, outputs, strict=True):  # 120 x 60 px, padded to 120 x 120
        (theirs,) = image_processor("rt_detr").post_process_object_detection(output, THRESHOLD, [(120, 120)])
        boxes, scores, labels = (theirs[key].numpy() for key in ("boxes", "scores", "labels"))
        assert_same(detected, boxes, scores, index_of[labels], (120, 60))


def copy_with_processor(source, target, **changes):
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    path = target / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
    return target


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (1, 40), (37, 3)])
def test_an_image_of_a_few_pixels_is_one_too(tiny_directory, size):
    for name in ("rt_detr", "rf_detr", "owlvit"):
        detector = shared(tiny_directory(name))
        (found,) = detector.detect([np.full((*size, 3), 90, np.uint8)], 0.01)
        assert len(found.scores) and (found.boxes[:, 2:] > 0).all()
        assert (to_corners(found.boxes) <= np.tile(size[::-1], 2) + 1e-9).all() and (found.boxes >= 0).all()


def test_bad_images_are_refused(tiny_directory):
    detector = shared(tiny_directory("detr"))
    with pytest.raises(InvalidInput, match="one entry for each of the 2 images, got 1"):
        detector.detect_tensors(torch.zeros(2, 3, 64, 64), [(9, 9)], 0.5)
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "road.jpg"):
        with pytest.raises(InvalidInput):
            detector.detect([bad], 0.5)
    with pytest.raises(InvalidInput, match=r"refuses an image of 3000 x 1 px"):
        detector.detect([np.zeros((1, 3000, 3), np.uint8)], 0.5)


def test_names_overrule_those_of_the_configuration(tiny_directory):
    directory = tiny_directory("rt_detr")
    detector = load(directory, names=["Pkw", "Person", "Bus", "Ampel"])
    plain = load(directory)
    image = random_images(8)[7]
    (ours,), (theirs,) = detector.detect([image], 0.1), plain.detect([image], 0.1)
    assert [n for n in (detector.names[i] for i in ours.class_ids) if n != "Bus"] == [
        {"car": "Pkw", "person": "Person", "traffic light": "Ampel"}[plain.names[i]] for i in theirs.class_ids
    ]
    for names in (["car"], ["a"] * 5):
        with pytest.raises(InvalidInput, match=f"the model has 4 classes, but {len(names)} names are given"):
            load(directory, names=names)
    with pytest.raises(InvalidInput, match="names no classes"):
        load(directory, names=["N/A"] * 4)


def test_names_may_stand_in_a_file(tiny_directory, tmp_path):
    (tmp_path / "names.txt").write_text("Pkw\nPerson\nBus\nAmpel\n", encoding="utf-8")
    (tmp_path / "data.yaml").write_text("names: {0: crane, 1: cone}", encoding="utf-8")
    assert load(tiny_directory("rt_detr"), names=str(tmp_path / "names.txt")).names == ("Pkw", "Person", "Bus", "Ampel")
    assert load(tiny_directory("owlvit"), names=str(tmp_path / "data.yaml")).names == ("crane", "cone")


def test_class_ids_that_a_configuration_leaves_out_are_refused(broken):
    """transformers counts the names: with one left out, the last class would have none."""
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"id2label": {0: "car", 1: "person", 2: "bus", 4: "cone"}}))
    assert "leaves out class ids" in refused(broken, InvalidInput)
    assert load(broken, names=["car", "person", "bus", "cone"]).names[3] == "cone"


def test_only_open_vocabulary_models_take_other_names(tiny_directory):
    assert not isinstance(shared(tiny_directory("rt_detr")), OpenVocabularyDetector)
    detector = shared(tiny_directory("grounding_dino"))
    assert isinstance(detector, OpenVocabularyDetector) and "car" in detector.names
    other = detector.for_names(["motorbike"])
    assert other.names == ("motorbike",) and other.model is detector.model and "car" in detector.names
    assert isinstance(other.for_names(["sign"]), OpenVocabularyDetector)
    with pytest.raises(InvalidInput, match="at least one name"):
        detector.for_names([])


@pytest.mark.parametrize("name", OPEN_VOCABULARY)
def test_names_that_the_text_encoder_cannot_hold_are_refused(tiny_directory, name, monkeypatch):
    detector = load_open(tiny_directory(name), monkeypatch)
    for bad in ("car " * 300, "", "  "):
        with pytest.raises(UnsupportedQuery, match=r"this model reads names of 1 to \d+ tokens"):
            detector.for_names(["car", bad])


words = st.lists(
    st.sampled_from(["car", "traffic", "light", "motorbike", "zebra", "Sign.", "what?"]), min_size=1, max_size=9
)


@settings(max_examples=50, deadline=None)
@given(st.lists(words.map(" ".join), min_size=1, max_size=120))
def test_each_name_has_its_own_tokens_in_one_text(names):
    """Whatever is asked: each name once, in order, in texts that the text encoder reads whole."""
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(BERT_WORDS)}, model_max_length=512)
    prompts = token_prompts(tokenizer, SimpleNamespace(max_text_len=256), names, "cpu")
    assert [name for prompt in prompts for name in prompt.names] == names
    assert [prompt.first_class for prompt in prompts] == list(np.cumsum([0, *(len(p.names) for p in prompts[:-1])]))
    for prompt in prompts:
        ids = prompt.encoded["input_ids"][0]
        assert len(ids) <= 256 and prompt.encoded["token_type_ids"].shape == prompt.encoded["input_ids"].shape
        for name, tokens in zip(prompt.names, prompt.tokens, strict=True):
            own = tokenizer(name.lower().replace(".", " ").replace("?", " "), add_special_tokens=False)["input_ids"]
            assert ids[tokens].tolist()[: len(own)] == own and set(ids[tokens].tolist()) == set(own)


def test_a_class_is_the_same_whatever_is_asked_beside_it(tiny_directory):
    """OWL scores each name by itself, so the order of the names changes the class ids alone."""
    detector = shared(tiny_directory("owlvit"))
    image = random_images(1)
    (one,), (two,) = (detector.for_names(names).detect(image, 0.3) for names in (("car", "sign"), ("sign", "car")))
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)
    np.testing.assert_array_equal(one.class_ids, 1 - two.class_ids)


def test_scores_that_are_no_numbers_fail_rather_than_show_an_empty_road(tiny_directory):
    detector = load(tiny_directory("rt_detr"))
    with torch.no_grad():
        for name, parameter in detector.model.named_parameters():
            if "class_embed" in name:
                parameter.fill_(float("nan"))
    with pytest.raises(EngineError, match="RTDetrForObjectDetection gave scores that are no numbers"):
        detector.detect(random_images(1), 0.5)


class Failing:
    """A forward pass that raises."""

    def __init__(self, error):
        self.error = error

    def __call__(self, **inputs):
        raise self.error


def test_too_little_memory_is_said_so_and_the_detector_can_be_asked_again(tiny_directory):
    detector = load(tiny_directory("rt_detr"))
    forward = detector.model.forward

    for error, message in (
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
            "cpu is out of memory for RTDetr",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 20 GiB\nmore"), "memory is short for RTDetr"),
    ):
        detector.model.forward = Failing(error)
        with pytest.raises(OutOfMemory, match=message):
            detector.detect(random_images(1), 0.5)
    detector.model.forward = Failing(IndexError("index 7 is out of range\nmore"))
    with pytest.raises(EngineError, match=r"RTDetr.* failed: index 7 is out of range$"):
        detector.detect(random_images(1), 0.5)
    detector.model.forward = forward
    assert len(detector.detect(random_images(1), 0.5)) == 1


@pytest.fixture
def broken(tiny_directory, tmp_path):
    """A copy of a whole model, to break."""
    return copy_with_processor(tiny_directory("rt_detr"), tmp_path)


def refused(directory, error, **settings):
    """The message with which a directory is refused, which has one line."""
    with pytest.raises(error) as caught:
        load(directory, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_directory_without_a_model_is_refused(broken):
    assert "neither a directory nor" in refused("somebody/model", AssetError)
    (broken / "config.json").rename(broken / "other.json")
    assert "holds no model: it has no config.json" in refused(broken, AssetError)
    (broken / "config.json").write_text("{")
    assert "not a readable configuration" in refused(broken, AssetError)


@pytest.mark.parametrize(("kind", "architecture"), [("vit", "ViTForImageClassification"), ("bert", "BertModel")])
def test_what_is_no_detector_is_refused(broken, kind, architecture):
    (broken / "config.json").write_text(json.dumps({"model_type": kind, "architectures": [architecture]}))
    message = refused(broken, InvalidInput)
    assert f"holds a {architecture}, which is no detector known here" in message and "rt_detr" in message


def test_missing_weights_are_refused(broken):
    (broken / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refused(broken, AssetError)
    torch.save({}, broken / "pytorch_model.bin")
    assert "pytorch_model.bin alone, a format that can hold code" in refused(broken, AssetError)


def test_weights_of_another_model_are_refused_rather_than_filled_with_random_numbers(broken, tiny_directory):
    weights = (tiny_directory("detr") / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights)
    assert "its weights are not those of a RTDetrForObjectDetection" in refused(broken, EngineError)
    (broken / "model.safetensors").write_bytes(weights[:1000])
    assert "cannot be loaded" in refused(broken, EngineError)


def test_a_missing_image_processor_is_refused(broken):
    (broken / "preprocessor_config.json").unlink()
    assert "cannot be loaded" in refused(broken, EngineError)


def test_weights_that_do_not_fit_into_the_device_are_told(broken, monkeypatch):
    import transformers

    failing = Failing(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))
    monkeypatch.setattr(transformers.AutoModelForObjectDetection, "from_pretrained", lambda *_, **__: failing())
    assert "the weights do not fit into the memory of the device" in refused(broken, OutOfMemory)


def test_code_in_a_directory_is_never_run(broken):
    config = json.loads((broken / "config.json").read_text())
    module = {"AutoConfig": "evil.Config", "AutoModelForObjectDetection": "evil.Model"}
    (broken / "evil.py").write_text("raise SystemExit('ran')")
    (broken / "config.json").write_text(json.dumps(config | {"auto_map": module}))
    assert load(broken).names  # transformers has this model itself
    (broken / "config.json").write_text(json.dumps(config | {"auto_map": module, "model_type": "evil"}))
    assert "no detector known here" in refused(broken, InvalidInput)


def test_a_missing_package_is_named(broken, monkeypatch):
    for name in ("torch", "transformers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            assert f"{name} is needed to run a transformers model" in refused(broken, MissingPackageError)


@pytest.mark.skipif(has_package("timm"), reason="timm is installed")
def test_a_backbone_of_a_package_that_is_missing_names_it(tiny_directory, tmp_path):
    directory = copy_with_processor(tiny_directory("detr"), tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config = {key: value for key, value in config.items() if key != "backbone_config"}
    backbone = {"use_timm_backbone": True, "backbone": "resnet50", "use_pretrained_backbone": False}
    (directory / "config.json").write_text(json.dumps(config | backbone))
    told = refused(directory, MissingPackageError)
    assert told.endswith("was not found in your environment; run: pip install timm")


def test_owlv2_names_the_package_that_it_fits_images_with(tiny_directory, monkeypatch):
    if has_package("torchvision"):
        pytest.skip("torchvision fits them")
    monkeypatch.setitem(sys.modules, "scipy", None)
    told = refused(tiny_directory("owlv2"), MissingPackageError)
    assert "scipy is needed to run a transformers model that fits images as OWLv2 does" in told
    assert told.endswith("run: pip install 'scipy'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(broken):
    with pytest.raises(EngineError, match="sees no CUDA device"):
        TransformersDetector(str(broken), device="cuda")
    assert "precision fp16 needs a CUDA device" in refused(broken, InvalidInput, precision="fp16")


@pytest.mark.parametrize("name", ["dab_detr", "omdet_turbo"])
def test_low_precision_is_refused_where_the_library_fails_in_it(tiny_directory, name):
    assert "in fp32 alone" in refused(tiny_directory(name), InvalidInput, precision="bf16")


@pytest.mark.parametrize("name", [name for name in TINY_DETECTORS if name not in ("dab_detr", "omdet_turbo")])
def test_models_run_in_bf16(tiny_directory, name, monkeypatch):
    """As on a CUDA device: here on the CPU, where nobody would want it."""
    detector = load_open(tiny_directory(name), monkeypatch) if name in OPEN_VOCABULARY else load(tiny_directory(name))
    detector.model, detector.dtype = detector.model.to(torch.bfloat16), torch.bfloat16
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = detector.detect_tensors(pixels, [(100, 50)] * 2, -1.0)
    assert all(np.isfinite(each.scores).all() and each.scores.dtype == np.float32 for each in rows)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"precision": "int8"}, {"names": "car"}, {"model": 3}])
def test_settings_out_of_range_are_refused(broken, wrong):
    with pytest.raises(InvalidInput):
        TransformersDetector(**{"model": str(broken), "device": "cpu", **wrong})


@pytest.mark.parametrize(
    ("name", "query", "labels"),
    [
        ("rt_detr", {"classes": ["traffic light"]}, {"traffic light"}),
        ("rt_detr", {}, set(REAL_NAMES)),
        ("omdet_turbo", {"classes": ["crane", "traffic cone"]}, {"crane", "traffic cone"}),
        ("grounding_dino", {"text": "A motorbike."}, {"a motorbike"}),
    ],
)
def test_a_preset_finds_what_its_query_names(tiny_directory, tmp_path, name, query, labels):
    """The same detector chooses the regions and examines them."""
    preset = {
        "sensing": {"type": "detector_proposals"},
        "task": {"type": "transformers", "model": str(tiny_directory(name)), "device": "cpu", "threshold": 0.05},
        "budget": {"max_regions": 2},
        "query": query,
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(preset), encoding="utf-8")
    loaded = load_preset(str(path))
    frame = Frame(np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8))
    result = loaded.build().perceive(frame, loaded.query)
    assert result.status is Status.COMPLETE, result.status_message
    assert result.detections and {each.label for each in result.detections} <= labels
    for box in (each.box for each in result.detections):
        assert box.x >= 0 and box.y >= 0 and box.right <= 640 + 1e-6 and box.bottom <= 360 + 1e-6
