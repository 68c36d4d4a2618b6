"""Training where to look: the teacher, composed scenes, the head, and the command."""

import argparse
import errno
import functools
import hashlib
import json
import operator
import os
import re
import signal
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from proposals_pictures import SquareDetector, picture
from video_fixtures import steady_times, write_video

from activeo3_ros.assets.resources import config_directory
from activeo3_ros.cli.argument_types import part
from activeo3_ros.cli.main import main
from activeo3_ros.core import ActivePerception, Budget, Frame, InvalidInput, Query, Status
from activeo3_ros.core.calibration import DEFAULT
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.policies.detector_proposals import DetectorProposals
from activeo3_ros.policies.gain_maps import GainHead, LearnedProposals
from activeo3_ros.presets import load_preset
from activeo3_ros.training.proposals import CHECKPOINT, HEAD, REGIONS, Judgement, ProposalsTrainer, TrainingSettings
from activeo3_ros.training.proposals_scenes import FRAME_SIZES, Composer
from activeo3_ros.training.proposals_split import split
from activeo3_ros.training.proposals_teacher import LookCache, Teacher, read_record

pytest.importorskip("matplotlib")
THREE = REGIONS.index(3)
BUDGET = Budget(max_regions=3, view_pixels=128 * 128, crop_pixels=128 * 128)
SCORE = operator.attrgetter("score")
BRIEF = TrainingSettings(steps=6, batch=2, validation_scenes=4, validate_every=3)


def task():
    return DetectorTask(SquareDetector(), label="squares")


def teacher():
    return Teacher(SquareDetector(), "squares", 0.3, DEFAULT)


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    cache = LookCache(tmp_path_factory.mktemp("looks"), ["squares"], 10**9)
    return [cache.look(teacher(), picture(seed)) for seed in range(14)]


def trainer(looked, settings):
    return ProposalsTrainer(task(), BUDGET, Query(), looked[:10], looked[10:], settings)


def weights(path):
    model = onnx.load(path)
    del model.metadata_props[:]
    return hashlib.sha256(model.SerializeToString()).hexdigest()


def test_the_teacher_finds_each_square_and_the_magnification_that_it_takes(looked):
    whole = min(range(len(looked[0].scales)), key=lambda level: abs(looked[0].scales[level] - 128 / 640))
    assert looked[0].found[:, whole].max(initial=0) == 0
    assert 3 <= len(looked[0].boxes) <= 9  # some touch each other
    assert looked[0].found[:, -1].mean() > 0.7
    assert looked[0].weight.max() > 0.9


def test_labels_are_believed_instead_of_the_detector():
    boxes = np.array([[100.0, 100.0, 30.0, 30.0]])
    record = teacher().look(picture(0), (boxes, np.zeros(1, np.intp)))
    assert record.boxes.tolist() == boxes.tolist()
    assert record.weight.tolist() == [1.0]


def test_what_was_looked_at_is_not_looked_at_again(tmp_path):
    cache = LookCache(tmp_path, ["squares"], 10**9)
    first, again = teacher(), teacher()
    record = cache.look(first, picture(0))
    kept = cache.look(again, picture(0))
    assert first.images > 50
    assert again.images == 0
    assert np.array_equal(kept.picture, record.picture)
    assert np.array_equal(kept.found, record.found)
    [file] = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:-100])
    assert read_record(file) is None
    assert np.array_equal(cache.look(again, picture(0)).found, record.found)


def test_the_cache_keeps_to_its_size(tmp_path):
    size = 3 * 10**5
    cache = LookCache(tmp_path, ["squares"], size)
    for seed in range(4):
        cache.look(teacher(), picture(seed))
    assert 0 < sum(file.stat().st_size for file in tmp_path.iterdir()) <= size


def test_pictures_that_are_held_out_are_the_last_ones_with_a_gap_before_them():
    learned, judged = split(list(range(100)))
    assert (learned[0], learned[-1], judged[0], judged[-1]) == (0, 74, 80, 99)


def test_training_finds_more_in_pictures_that_it_never_saw(looked, tmp_path):
    learning = trainer(
        looked,
        TrainingSettings(steps=150, batch=4, mosaics=0.0, judged_mosaics=0.0, validation_scenes=24, validate_every=50),
    )
    outcome = learning.train(tmp_path, lambda done: None)
    untrained = outcome.history[0].gain[THREE]
    # Blue squares draw detector proposals, which cannot know better; the head learns what zooming there gives.
    assert outcome.best.gain[THREE] >= 1.5 * untrained
    assert outcome.best.gain[THREE] >= 1.2 * outcome.baseline[THREE]
    found = dict.fromkeys(("learned", "proposals"), 0)
    policies = {
        "learned": LearnedProposals(str(outcome.head), min_gain=0.01, task=task()),
        "proposals": DetectorProposals(task=task()),
    }
    for name, policy in policies.items():
        loop = ActivePerception(policy, task())
        for seed in range(100, 106):
            result = loop.perceive(Frame(picture(seed)), Query(classes=("square",)), replace(BUDGET, max_regions=1))
            assert result.status_message == ""
            found[name] += len(result.detections)
    assert found["learned"] >= 2 * found["proposals"]


def test_one_seed_twice_and_killed_and_resumed_give_the_same_weights(looked, tmp_path):
    class Killed(Exception):
        pass

    def kill_at_five(done):
        if done == 5:
            raise Killed

    whole, again, killed = (tmp_path / name for name in ("whole", "again", "killed"))
    for directory in (whole, again, killed):
        directory.mkdir()
    trainer(looked, BRIEF).train(whole, lambda done: None)
    trainer(looked, BRIEF).train(again, lambda done: None)
    with pytest.raises(Killed):
        trainer(looked, BRIEF).train(killed, kill_at_five)
    assert not (killed / HEAD).exists()
    trainer(looked, BRIEF).train(killed, lambda done: None)
    assert weights(whole / HEAD) == weights(again / HEAD) == weights(killed / HEAD)
    other = TrainingSettings(**{**vars(BRIEF), "seed": 1})
    with pytest.raises(InvalidInput, match="is of other settings, pictures or another detector"):
        trainer(looked, other).train(killed, lambda done: None)


def test_the_second_stage_is_kept_only_for_more_than_chance(looked):
    judge = trainer(looked, replace(BRIEF, stage2_steps=6))

    def is_kept(more):
        before, after = (Judgement(step, 0.0, 0.0, (gain,)) for step, gain in ((6, 1.0), (9, 1.0 + np.mean(more))))
        return judge._is_better(after, np.ones(len(more)) + more, {"judgement": before, "scores": np.ones(len(more))})

    assert is_kept(np.array([0.1, 0.2, 0.1, 0.2]))
    assert not is_kept(np.array([0.9, -0.5, 0.4, -0.6])), "more in the mean, and as much less in other scenes"
    assert not is_kept(np.array([-0.1, -0.2, -0.1, -0.2]))


def test_the_second_stage_goes_on_from_the_first_and_is_the_same_where_it_was_killed_and_resumed(looked, tmp_path):
    class Killed(Exception):
        pass

    def kill_at(step):
        def kill(done):
            if done == step:
                raise Killed

        return kill

    both = replace(BRIEF, stage2_steps=6)
    for name, kills in (("whole", ()), ("killed", (7, 10))):  # at its first batch, and after a checkpoint of its own
        (tmp_path / name).mkdir()
        for step in kills:
            with pytest.raises(Killed):
                trainer(looked, both).train(tmp_path / name, kill_at(step))
        outcome = trainer(looked, both).train(tmp_path / name, lambda done: None)
    assert [each.step for each in outcome.history] == [0, 3, 6, 9, 12]
    assert outcome.stages == (max(outcome.history[:3], key=SCORE), max(outcome.history[3:], key=SCORE))
    assert outcome.best.step == outcome.stages[outcome.kept_stage2].step
    whole, killed = (safetensors.torch.load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())
    assert any(
        not torch.equal(value, whole[f"net.{name[6:]}"]) for name, value in whole.items() if name[:6] == "start."
    )


def test_the_file_gives_what_the_network_gives(looked, tmp_path):
    learning = trainer(looked, BRIEF)
    outcome = learning.train(tmp_path, lambda done: None)
    head = GainHead(outcome.head, 1)
    assert sum(p.numel() for p in learning.net.parameters()) < 2e6
    assert outcome.head.stat().st_size < 5e6
    for scene, maps, _ in learning.rates(learning.scenes):
        from_file = head.maps(scene.image, scene.detected, list(scene.asked), 2)
        assert from_file.rates == pytest.approx(maps.rates, rel=0.02, abs=1e-5)


def test_pictures_without_any_object_are_refused():
    plain = teacher().look(np.full((480, 640, 3), 120, np.uint8))
    with pytest.raises(InvalidInput, match="found no object in any of 5 training pictures"):
        ProposalsTrainer(task(), BUDGET, Query(), [plain] * 5, [plain], BRIEF)


@pytest.fixture
def preset(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "squares.yaml"
    path.write_text(
        "sensing: {type: detector_proposals}\ntask: {type: 'proposals_pictures:SquareDetector'}\n"
        "budget: {view_pixels: 16384, crop_pixels: 16384}\n"
    )
    return path


def write_pictures(directory, count, first=0):
    directory.mkdir()
    for number in range(count):
        cv2.imwrite(str(directory / f"{number}.png"), picture(first + number))
    return directory


def test_the_command_ends_with_a_report_and_the_lines_that_switch_a_preset(preset, tmp_path, capsys):
    images, out = write_pictures(tmp_path / "pictures", 8), tmp_path / "out"
    (images / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    command = ["train", "proposals", "--preset", str(preset), "--images", str(images), "--out", str(out)]
    command += ["--max-pictures", "8"]
    assert main([*command, "--steps", "2"]) == 0
    printed = capsys.readouterr()
    assert "damaged.png" in printed.err
    lines = printed.out.partition("in a preset file:\n")[2]
    assert lines == f"sensing:\n  type: gain_maps\n  model: {out / HEAD}\n"
    report = (out / "report.html").read_text()
    assert "detector proposals" in report and "<svg" in report and "data:image/jpeg;base64," in report
    task_line = "task: {type: 'proposals_pictures:SquareDetector'}\n"
    (tmp_path / "new.yaml").write_text(lines + task_line)
    assert main(["perceive", str(images / "0.png"), "--preset", str(tmp_path / "new.yaml")]) == 0
    assert main([*command, "--steps", "2"]) == 2
    assert "would be overwritten" in capsys.readouterr().err


def labelled(directory, count, first):
    """Pictures with COCO labels of some of their red squares."""
    write_pictures(directory, count, first)
    annotations = []
    for number in range(count):
        [found] = SquareDetector().detect([picture(first + number)], 0.3)
        for box in found.boxes[:3].tolist():
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box})
    images = [{"id": n, "file_name": f"{n}.png", "width": 640, "height": 480} for n in range(count)]
    truth = directory.with_suffix(".json")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    truth.write_text(json.dumps(content))
    return [str(truth), str(directory)]


def gains_in(printed):
    """What windows from the teacher's own maps find."""
    [row] = [line for line in printed.splitlines()[:4] if line.startswith("windows from the teacher")]
    return [float(cell) for cell in row.split()[-3:]]


def test_labelled_and_unlabelled_material_is_learned_from_at_once_and_by_as_many_threads_as_one_likes(
    preset, tmp_path, capsys
):
    folder = write_pictures(tmp_path / "more", 5, 20)
    sources = ["--annotations", *labelled(tmp_path / "labelled", 5, 0)]
    sources += ["--images", str(folder), "--videos", str(write_video(tmp_path / "v.mp4", steady_times(20)))]
    command = ["train", "proposals", "--preset", str(preset), *sources, "--max-pictures", "5", "--steps", "2"]
    for jobs in ("1", "3"):
        assert main([*command, "--out", str(tmp_path / jobs), "--jobs", jobs]) == 0
    assert weights(tmp_path / "1" / HEAD) == weights(tmp_path / "3" / HEAD)
    material = GainHead(tmp_path / "1" / HEAD, 1).description.about["material"]
    assert [line.partition(":")[0] for line in material[:3]] == [
        "v.mp4",
        "pictures of labelled.json, labelled",
        f"pictures of {folder}",
    ]
    with_labels, without = capsys.readouterr().out, [*command, "--out", str(tmp_path / "none"), "--ignore-labels"]
    assert main(without) == 0
    # Two of five squares have no label: less can be found.
    assert gains_in(capsys.readouterr().out)[1] > gains_in(with_labels)[1]


def test_a_scene_is_asked_only_for_classes_whose_objects_are_known_in_it(looked):
    known = [replace(each, classes=(0,)) for each in looked[:5]] + [replace(each, is_frame=True) for each in looked[5:]]
    composer = Composer(task(), known, BUDGET, Query(), 1.0, 0.0, 0.03)
    scenes = [composer.scene((0, number)) for number in range(12)]
    assert {0, 1} in [set(scene.asked) for scene in scenes]
    for scene in scenes:
        is_mosaic = scene.frame_size != (640, 480) and scene.frame_size in FRAME_SIZES
        assert set(scene.asked) <= {0} or not is_mosaic  # only pictures without their own classes are frames here


def test_a_disk_that_is_full_at_any_time_is_told_in_one_line_and_the_same_command_goes_on(
    preset, tmp_path, capsys, monkeypatch
):
    images, out = write_pictures(tmp_path / "pictures", 6), tmp_path / "out"
    command = ["train", "proposals", "--preset", str(preset), "--images", str(images), "--out", str(out)]
    command += ["--max-pictures", "6", "--steps", "1"]

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    for written in ("teacher", "", "net", "report"):  # a look, the checkpoint, the head, the report
        with monkeypatch.context() as patch:
            patch.setattr(f"activeo3_ros.training.proposals{written and '_'}{written}.write_atomically", full)
            assert main(command) == 2
        error = capsys.readouterr().err
        assert "No space left on device; free some space, give the command again" in error.splitlines()[-1]
        assert not (out / "report.html").exists()
    assert main(command) == 0
    assert GainHead(out / HEAD, 1).description.detector == "proposals_pictures:SquareDetector"
    assert main(command) == 2  # now it is whole
    assert "would be overwritten" in capsys.readouterr().err


def test_pictures_in_which_the_detector_finds_nothing_are_told_in_one_line(preset, tmp_path, capsys):
    video = write_video(tmp_path / "empty.mp4", steady_times(8))
    command = ["train", "proposals", "--preset", str(preset), "--videos", str(video), "--out", str(tmp_path / "out")]
    assert main([*command, "--max-pictures", "8", "--steps", "1"]) == 2
    [told] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("activeo3")]
    assert "the teacher found no object in any of 6 training pictures: there is nothing to learn" in told
    assert not (tmp_path / "out" / HEAD).exists()


def test_a_checkpoint_that_is_damaged_is_told_and_left_alone(looked, tmp_path):
    trainer(looked, BRIEF).train(tmp_path, lambda done: None)
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[:1000])
    with pytest.raises(InvalidInput, match="is no checkpoint of this training; remove it or give another --out"):
        trainer(looked, BRIEF).train(tmp_path, lambda done: None)
    assert (tmp_path / CHECKPOINT).read_bytes() == content[:1000]


def test_sigterm_ends_it_in_one_line_and_the_same_command_gives_the_head_that_it_would_have_given(
    preset, tmp_path, capsys, monkeypatch
):
    often = functools.partial(TrainingSettings, batch=2, validate_every=2)
    monkeypatch.setattr("activeo3_ros.training.proposals.TrainingSettings", often)
    images = write_pictures(tmp_path / "pictures", 6)
    command = ["train", "proposals", "--preset", str(preset), "--images", str(images), "--max-pictures", "6"]
    command += ["--steps", "6", "--jobs", "2"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    step = ProposalsTrainer._step

    def terminated(self, number, scenes):
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, scenes)

    killed = [*command, "--out", str(tmp_path / "killed")]
    with monkeypatch.context() as patch:
        patch.setattr(ProposalsTrainer, "_step", terminated)
        assert main(killed) == 130
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("activeo3")]
    assert told == ["activeo3: interrupted; the same command goes on from the last looks and the last checkpoint"]
    assert sorted(file.name for file in (tmp_path / "killed").iterdir()) == [CHECKPOINT]
    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(ProposalsTrainer, "_step", lambda *given: (steps.append(given[1]), step(*given))[1])
        assert main(killed) == 0
    assert steps == [4, 5]
    assert weights(tmp_path / "whole" / HEAD) == weights(tmp_path / "killed" / HEAD)


def test_the_minutes_that_one_gives_are_kept_by_fewer_pictures_and_batches(preset, tmp_path, capsys, monkeypatch):
    """The clock of this test moves by what the detector is asked, and by nothing else."""
    now, look_s, detect = [0.0], 0.01, SquareDetector.detect

    def counted(self, images, threshold):
        now[0] += look_s * len(images)
        return detect(self, images, threshold)

    monkeypatch.setattr("proposals_pictures.SquareDetector.detect", counted)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    images = write_pictures(tmp_path / "pictures", 24)
    command = ["train", "proposals", "--preset", str(preset), "--images", str(images), "--out", str(tmp_path / "out")]
    minutes = 0.4
    assert main([*command, "--minutes", str(minutes)]) == 0
    assert 0.5 * minutes <= now[0] / 60 <= minutes
    told = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("about "))
    assert re.fullmatch(r"about 1 min; for the same head again, give --max-pictures \d+ --steps \d+", told)
    # The plan stands beside the head: what goes on is not timed again, and is what began.
    now[0] = 0.0
    assert main([*command, "--minutes", str(minutes), "--force"]) == 0
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to learn from: give --bag, --videos, --images or --annotations"),
        (["--topic", "/camera"], "--topic chooses a topic of a --bag"),
        (["--images", "ONE"], "1 picture is too few to learn from some and judge by others; give at least 5"),
        (["--videos", "missing.mp4"], "missing.mp4"),
        (["--bag", "missing.mcap"], "missing.mcap"),
        (["--annotations", "truth.json", "pictures"], "truth.json"),
    ],
)
def test_bad_input_is_told_in_one_line(preset, tmp_path, capsys, options, message):
    one = write_pictures(tmp_path / "one", 1)
    given = [str(one) if each == "ONE" else each for each in options]
    assert main(["train", "proposals", "--preset", str(preset), "--out", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0.9:0.1", "0.5", "0:2", "a:b", "nan:1"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"such as 0:0\.75"):
        part(text)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    path = tmp_path_factory.mktemp("shipped") / "learned.yaml"
    path.write_text("sensing: {type: gain_maps}\ntask: {type: embedded}\n")
    return load_preset(str(path))


SKY = np.linspace((230, 200, 170), (240, 235, 230), 720)[:, None]
"""Blue above, pale below."""
NIGHT = np.random.default_rng(0).normal(12, 6, (720, 1280, 3))
NOTHING = {"black": 0, "grey": 114, "white": 255, "a clear sky": SKY, "a sensor's noise in the dark": NIGHT}


@pytest.mark.parametrize("what", NOTHING)
def test_the_head_that_ships_finds_nothing_worth_a_look_where_nothing_is(shipped, what):
    pixels = np.broadcast_to(np.clip(NOTHING[what], 0, 255), (720, 1280, 3)).astype(np.uint8)
    result = shipped.build().perceive(Frame(pixels), shipped.query)
    assert result.status is Status.COMPLETE
    assert result.regions == ()


def test_the_head_that_ships_is_of_the_embedded_detector_and_small(shipped):
    assert shipped.build().sensing.head.description.detector == "embedded"
    assert (config_directory() / "gain_maps" / "embedded.onnx").stat().st_size < 5e6


def test_the_head_that_ships_is_refused_for_another_detector(preset, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("sensing: {type: gain_maps}\ntask: {type: 'proposals_pictures:SquareDetector'}\n")
    with pytest.raises(InvalidInput, match="was trained for the detector 'embedded', not 'proposals_pictures"):
        load_preset(str(path)).build()


def test_it_chooses_for_a_task_model_that_has_another_detector(preset, tmp_path, monkeypatch):
    monkeypatch.delenv("ACTIVEO3_CACHE")
    path = tmp_path / "before.yaml"
    path.write_text(
        "sensing: {type: gain_maps, detector: {type: embedded}}\ntask: {type: 'proposals_pictures:SquareDetector'}\n"
    )
    perception = load_preset(str(path)).build()
    result = perception.perceive(Frame(picture(0)), Query(classes=("square",)))
    assert result.status is Status.COMPLETE
    assert "the regions were chosen for all classes of embedded" in result.status_message
