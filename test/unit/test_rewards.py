"""Every reward term against values worked out by hand, and its properties for any input."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from activeo3_ros.core import Budget, InvalidInput
from activeo3_ros.training import rewards
from activeo3_ros.training.config import load_config
from activeo3_ros.training.rewards import RewardSettings, RewardWeights
from activeo3_ros.training.rows import Row
from activeo3_ros.training.scoring import Scorer
from activeo3_ros.vlm.families import QWEN2_5_VL

# A picture of 560 x 560 px that the policy sees as it is, with two targets: 56 x 56 at (56, 56) and 28 x 28 at (420,
# 420).
ROW = Row("any", 560, 560, ("car",), ((56.0, 56.0, 56.0, 56.0), (420.0, 420.0, 28.0, 28.0)), ("car", "car"))


def answer(*corners: tuple[int, int, int, int], think: str = "<think>why</think>") -> str:
    items = ", ".join(f'{{"bbox_2d": [{a}, {b}, {c}, {d}], "label": "car"}}' for a, b, c, d in corners)
    return f"{think}<answer>[{items}]</answer>"


# Areas: a square of side s px has (s + 1)^2 / 313600 of the picture; 1 % are 3136 px = 56^2, 50 % are 156800 px.
# Purity needs 0.1 of a region's pixels to be target's: 3136 of the first, 784 of the second target.
RESPONSES = [
    # text; format, overlap, area, coverage, total
    ("one region, the first target exactly", answer((56, 56, 112, 112)), (1, 1, 1, 1, 4)),
    ("twice as wide: purity 3136 / 12544 = 0.25", answer((56, 56, 168, 168)), (1, 1, 1, 1, 4)),
    ("four times as wide: purity 3136 / 50176 = 0.0625", answer((56, 56, 280, 280)), (1, 1, 1, 0, 3)),
    (
        "both targets, the second at purity 784 / 3136 = 0.25",
        answer((56, 56, 112, 112), (406, 406, 462, 462)),
        (1, 1, 1, 1, 4),
    ),
    ("one of two regions on a target", answer((56, 56, 112, 112), (200, 200, 260, 260)), (1, 1, 1, 0.5, 3.5)),
    ("one of three", answer((56, 56, 112, 112), (200, 200, 260, 260), (300, 0, 360, 60)), (1, 1, 1, 1 / 3, 3 + 1 / 3)),
    ("no target in any", answer((200, 200, 260, 260)), (1, 1, 1, 0, 3)),
    ("side 55: (55 + 1)^2 = 3136 px are exactly 1 %", answer((56, 56, 111, 111)), (1, 1, 1, 1, 4)),
    ("side 54: 3025 px are too few", answer((56, 56, 110, 110)), (1, 1, 0, 1, 3)),
    ("559 x 279: 560 * 280 px are exactly 50 %, purity 0.025", answer((0, 0, 559, 279)), (1, 1, 1, 0, 3)),
    ("560 x 280 is just too much", answer((0, 0, 560, 280)), (1, 1, 0, 0, 2)),
    (
        "the same region twice is one region, as for the loop",
        answer((56, 56, 112, 112), (56, 56, 112, 112)),
        (1, 1, 1, 1, 4),
    ),
    ("nearly the same region twice", answer((56, 56, 112, 112), (57, 56, 113, 112)), (1, 0, 1, 1, 3)),
    ("shifted by half: IoU 1/3 is above 0.3", answer((0, 0, 112, 112), (56, 0, 168, 112)), (1, 0, 1, 1, 3)),
    ("shifted by 60 of 100: IoU 40 / 160 = 0.25", answer((200, 0, 300, 100), (260, 0, 360, 100)), (1, 1, 1, 0, 3)),
    ("no reasoning", answer((56, 56, 112, 112), think=""), (0, 1, 1, 1, 3)),
    ("reasoning not closed", answer((56, 56, 112, 112), think="<think>why"), (0, 1, 1, 1, 3)),
    ("JSON cut off; the box in it still counts", answer((56, 56, 112, 112))[: -len("}]</answer>")], (0, 1, 1, 1, 3)),
    ("an empty list", "<think>nothing</think><answer>[]</answer>", (0, 0, 0, 0, 0)),
    ("words only", "I would look at the top left.", (0, 0, 0, 0, 0)),
    (
        "four regions where three are allowed; coverage is that of the first three",
        answer((56, 56, 112, 112), (200, 200, 260, 260), (300, 0, 360, 60), (406, 406, 462, 462)),
        (0, 1, 1, 1 / 3, 2 + 1 / 3),
    ),
]


@pytest.mark.parametrize(("why", "text", "expected"), RESPONSES, ids=[why for why, _, _ in RESPONSES])
def test_a_response_gets_the_reward_worked_out_by_hand(why: str, text: str, expected: tuple[float, ...]) -> None:
    scorer = Scorer(RewardSettings(min_purity=0.1), QWEN2_5_VL, Budget(view_pixels=560 * 560))
    [scored] = scorer.score([text], [ROW])
    terms = scored.reward.terms
    assert (terms["format"], terms["overlap"], terms["area"]) == expected[:3]
    assert terms["coverage"] == pytest.approx(expected[3])
    assert scored.reward.total == pytest.approx(expected[4])


def test_regions_are_rewarded_in_pixels_of_the_picture() -> None:
    """The same scene at twice the size of the view: the region lies on the same target."""
    large = Row("any", 1120, 1120, ("car",), ((112.0, 112.0, 112.0, 112.0),), ("car",))
    scorer = Scorer(RewardSettings(), QWEN2_5_VL, Budget(view_pixels=560 * 560))
    [scored] = scorer.score([answer((56, 56, 112, 112))], [large])
    assert scored.regions.tolist() == [[112, 112, 112, 112]]
    assert scored.reward.terms["coverage"] == 1


def test_matched_coverage_counts_targets() -> None:
    targets = [(0, 0, 10, 10), (50, 50, 10, 10)]
    assert rewards.matched_coverage([(0, 0, 10, 20)], targets, 0.5) == 0.5
    assert rewards.matched_coverage([(0, 0, 10, 21)], targets, 0.5) == 0
    assert rewards.matched_coverage([(0, 0, 10, 10), (50, 50, 10, 10)], targets, 0.9) == 1


def test_merged_coverage_compares_areas() -> None:
    mask = rewards.mask_of([(0, 0, 10, 10)], 40, 40)
    half = [(0, 0, 10, 5), (0, 0, 5, 5)]  # the second lies in the first: 50 of 100 px
    assert rewards.merged_coverage(half, mask, "iou") == 0.5
    assert rewards.merged_coverage(half, mask, "dice") == pytest.approx(2 * 50 / 150)


def test_without_targets_an_empty_choice_is_right() -> None:
    nothing = np.zeros((20, 20), bool)
    assert rewards.purity_coverage([], nothing, 0.1) == rewards.matched_coverage([], [], 0.5) == 1
    assert (
        rewards.purity_coverage([(0, 0, 5, 5)], nothing, 0.1) == rewards.matched_coverage([(0, 0, 5, 5)], [], 0.5) == 0
    )
    assert rewards.detection_term([], [], [], [], []) == 2
    assert rewards.detection_term([(0, 0, 5, 5)], [0.9], ["car"], [], []) == 0


DETECTIONS = [
    # boxes with scores; AP + AR against one target at (0, 0, 10, 10) and one at (50, 50, 10, 10)
    ("both found", [(0, 0, 10, 10, 0.9), (50, 50, 10, 10, 0.8)], 1 + 1),
    ("one found: precision 1 up to recall 0.5, at 51 of 101 recalls", [(0, 0, 10, 10, 0.9)], 51 / 101 + 0.5),
    ("IoU 10 * 5 / 100 = 0.5 counts", [(0, 0, 10, 5, 0.9)], 51 / 101 + 0.5),
    ("below it does not", [(0, 0, 10, 4.9, 0.9)], 0),
    (
        "a false alarm that ranks first halves the precision",
        [(20, 20, 5, 5, 0.9), (0, 0, 10, 10, 0.8)],
        0.5 * 51 / 101 + 0.5,
    ),
    ("one that ranks last costs nothing", [(0, 0, 10, 10, 0.8), (20, 20, 5, 5, 0.1)], 51 / 101 + 0.5),
    ("a target counts once", [(0, 0, 10, 10, 0.9), (0, 0, 10, 10, 0.8)], 51 / 101 + 0.5),
    ("without scores the order given ranks", [(20, 20, 5, 5, np.nan), (0, 0, 10, 10, np.nan)], 0.5 * 51 / 101 + 0.5),
]


@pytest.mark.parametrize(("why", "found", "expected"), DETECTIONS, ids=[why for why, _, _ in DETECTIONS])
def test_the_detection_term_is_what_coco_computes(why: str, found: list[tuple[float, ...]], expected: float) -> None:
    boxes, scores = [each[:4] for each in found], [each[4] for each in found]
    targets = [(0, 0, 10, 10), (50, 50, 10, 10)]
    got = rewards.detection_term(boxes, scores, ["car"] * len(found), targets, ["car", "car"])
    assert got == pytest.approx(expected)


def test_the_detection_term_averages_classes_that_have_targets() -> None:
    got = rewards.detection_term([(0, 0, 10, 10)], [0.9], ["car"], [(0, 0, 10, 10), (5, 5, 9, 9)], ["car", "person"])
    assert got == pytest.approx((2 + 0) / 2)


def test_the_detection_term_equals_faster_coco_eval() -> None:
    coco = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    rng = np.random.default_rng(0)
    for _ in range(15):
        targets = np.concatenate([rng.uniform(0, 60, (4, 2)), rng.uniform(5, 30, (4, 2))], axis=1).round(1)
        found = (
            np.concatenate([targets + rng.normal(0, 2, (4, 4)), np.abs(rng.uniform(5, 30, (3, 4)))]).clip(1).round(1)
        )
        scores = rng.permutation(7) / 10
        truth = coco.COCO(
            {
                "images": [{"id": 1, "width": 100, "height": 100}],
                "categories": [{"id": 1, "name": "car"}],
                "annotations": [
                    {
                        "id": i + 1,
                        "image_id": 1,
                        "category_id": 1,
                        "bbox": box.tolist(),
                        "area": float(box[2] * box[3]),
                        "iscrowd": 0,
                    }
                    for i, box in enumerate(targets)
                ],
            }
        )
        results = truth.loadRes(
            [
                {"image_id": 1, "category_id": 1, "bbox": b.tolist(), "score": float(s)}
                for b, s in zip(found, scores, strict=False)
            ]
        )
        evaluation = coco.COCOeval_faster(truth, results, "bbox", print_function=lambda *_: None)
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
        ap = evaluation.eval["precision"][0, :, 0, 0, 2].mean()
        ar = evaluation.eval["recall"][0, 0, 0, 2]
        got = rewards.detection_term(found, scores, ["car"] * 7, targets, ["car"] * 4)
        assert got == pytest.approx(ap + ar, abs=1e-9)


def test_the_segmentation_term_is_iou() -> None:
    a, b = rewards.mask_of([(0, 0, 4, 4)], 10, 10), rewards.mask_of([(2, 0, 4, 4)], 10, 10)
    assert rewards.segmentation_term(a, b) == pytest.approx(8 / 24)
    assert rewards.segmentation_term(a & b & ~a, b & ~b) == 1
    with pytest.raises(InvalidInput, match="cannot be compared"):
        rewards.segmentation_term(a, b[:5])


def test_weights_scale_the_terms() -> None:
    terms = {"format": 1.0, "overlap": 0.0, "area": 1.0, "coverage": 0.5, "task": 1.5}
    assert rewards.combine(terms, RewardWeights()).total == 4.0
    assert rewards.combine(terms, RewardWeights(format=0, task=2)).total == 4.5


def test_each_look_costs_its_share_where_that_is_wanted() -> None:
    region = (0, 0, 10, 10)
    assert [rewards.looks_term([region] * count, 4) for count in (0, 1, 4, 5)] == [1, 0.75, 0, 0]
    terms = {"coverage": 0.5, "looks": 0.75}
    assert rewards.combine(terms, RewardWeights()).total == 0.5
    assert rewards.combine(terms, RewardWeights(looks=2)).total == 2.0


NO_TARGETS = Row("any", 560, 560, ("car",), (), ())
EMPTY, ONE = "<think>no car</think><answer>[]</answer>", answer((56, 56, 168, 168))


@pytest.mark.parametrize(
    ("why", "weight", "row", "text", "total"),
    [
        ("as in the paper any region pays more than the right answer", 0.0, NO_TARGETS, EMPTY, 1),
        ("as in the paper any region pays more than the right answer", 0.0, NO_TARGETS, ONE, 3),
        ("the right answer has the form terms, coverage and this one", 0.5, NO_TARGETS, EMPTY, 4.5),
        ("a region where nothing is", 0.5, NO_TARGETS, ONE, 3),
        ("no region where there are targets", 0.5, ROW, EMPTY, 0),
        ("a picture with targets is judged as ever", 0.5, ROW, ONE, 4),
        ("an answer that cannot be read says nothing of regions", 0.5, NO_TARGETS, "I see no car.", 1),
    ],
)
def test_a_picture_without_targets_needs_no_region(why: str, weight: float, row: Row, text: str, total: float) -> None:
    settings = RewardSettings(weights=RewardWeights(negatives=weight))
    [scored] = Scorer(settings, QWEN2_5_VL, Budget(view_pixels=560 * 560)).score([text], [row])
    assert scored.reward.total == total, why
    assert ("negatives" in scored.reward.terms) == bool(weight)


def test_the_terms_that_the_paper_has_not_are_off_in_its_configuration() -> None:
    paper = load_config(Path(__file__).parents[2] / "config" / "training" / "paper.yaml")
    weights = paper.reward.weights
    assert (weights.looks, weights.negatives) == (0, 0)


@pytest.mark.parametrize(
    "wrong", [{"min_purity": 1.5}, {"coverage": "all"}, {"min_area": 0.6}, {"max_pair_iou": "0.3"}]
)
def test_settings_outside_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        RewardSettings(**wrong)  # type: ignore[arg-type]


boxes = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(0, 60, width=16))


@settings(deadline=None)
@given(boxes, boxes, st.sampled_from(rewards.COVERAGES), st.floats(0, 1))
def test_terms_are_bounded_and_do_not_depend_on_order(regions, targets, variant, threshold) -> None:
    settings = RewardSettings(coverage=variant, min_purity=threshold, min_match_iou=threshold)
    mask = rewards.mask_of(targets, 64, 64)

    def terms(r, t):
        return (
            rewards.overlap_term(r, 0.3),
            rewards.area_term(r, 64, 64, 0.01, 0.5),
            rewards.coverage_term(r, t, mask, settings),
        )

    got = terms(regions, targets)
    assert all(0 <= value <= 1 for value in got)
    assert terms(regions[::-1], targets[::-1]) == pytest.approx(got)


@settings(deadline=None)
@given(boxes, boxes, st.floats(0.05, 1))
def test_more_regions_never_match_fewer_targets(regions, targets, threshold) -> None:
    for fewer in range(len(regions)):
        if len(targets) and fewer:
            few = rewards.matched_coverage(regions[:fewer], targets, threshold)
            assert few <= rewards.matched_coverage(regions, targets, threshold)


@settings(deadline=None)
@given(boxes, boxes)
def test_the_detection_term_is_bounded_and_removing_a_miss_never_lowers_it(found, targets) -> None:
    found, targets = found[(found[:, 2:] > 0).all(axis=1)], targets[(targets[:, 2:] > 0).all(axis=1)]
    scores = [1 - index / 10 for index in range(len(found))]

    def value(keep):
        return rewards.detection_term(
            found[keep], [scores[i] for i in keep], ["a"] * len(keep), targets, ["a"] * len(targets)
        )

    everything = list(range(len(found)))
    total = value(everything)
    assert 0 <= total <= 2
    if len(targets):
        hits = rewards.match(found, scores, targets, 0.5)
        for miss in np.flatnonzero(hits < 0):
            assert value([i for i in everything if i != miss]) >= total - 1e-12


def test_the_order_of_equal_answers_does_not_matter() -> None:
    scorer = Scorer(RewardSettings(), QWEN2_5_VL, Budget(view_pixels=560 * 560))
    corners = [(56, 56, 112, 112), (200, 200, 260, 260), (300, 0, 360, 60)]
    totals = {scorer.score([answer(*order)], [ROW])[0].reward.total for order in itertools.permutations(corners)}
    assert len({round(total, 9) for total in totals}) == 1
