"""The node and a robot as two processes: frames go in over DDS, typed results come out."""

from __future__ import annotations

import math

import pytest
from activeo3_ros.msg import DetectionArray, GroundingBoxArray, InstanceMaskArray, PerceptionResult, ZoomRegionArray
from builtin_interfaces.msg import Time
from node_fixtures.client import Client
from node_fixtures.fakes import EMPTY, picture
from node_fixtures.processes import NodeProcess
from waiting import wait_for

from activeo3_ros.codecs import rle as masks


@pytest.fixture(scope="module")
def client():
    with NodeProcess(autostart=True, query="the thing", masks=True, memory=False), Client() as client:
        client.connect()
        yield client


def test_a_frame_gives_one_result_with_the_header_of_its_image(client):
    result = client.result_of(picture(height=60, width=80), stamp=Time(sec=123, nanosec=456))
    assert (result.header.stamp, result.header.frame_id) == (Time(sec=123, nanosec=456), "optical")
    assert (result.camera, result.image_width, result.image_height) == ("camera", 80, 60)
    assert result.status == PerceptionResult.STATUS_COMPLETE
    assert result.query == "the thing"
    assert result.answer == "102"


def test_regions_and_findings_are_in_the_pixels_of_the_source_image(client):
    result = client.result_of(picture(height=60, width=80))
    assert [(r.index, r.box.x, r.box.y, r.box.width, r.box.height) for r in result.regions] == [
        (0, 0, 0, 40, 60),
        (1, 40, 0, 40, 60),
    ]
    for found in result.detections:
        assert 0 <= found.box.x < found.box.x + found.box.width <= 80


def test_a_score_that_the_model_does_not_give_is_nan(client):
    result = client.result_of(picture())
    assert math.isnan(result.detections[0].score)
    assert math.isnan(result.regions[1].score)


def test_an_empty_frame_gives_a_complete_result_with_nothing_in_it(client):
    result = client.result_of(picture(EMPTY))
    assert result.status == PerceptionResult.STATUS_COMPLETE
    assert not result.detections


def test_the_lists_of_a_result_are_published_on_topics_of_their_own(client):
    kinds = {
        "detections": DetectionArray,
        "groundings": GroundingBoxArray,
        "masks": InstanceMaskArray,
        "regions": ZoomRegionArray,
    }
    messages = {name: client.collect(kind, f"camera/{name}") for name, kind in kinds.items()}
    wait_for(lambda: all(client.node.count_publishers(f"/activeo3/camera/{name}") for name in kinds))
    result = None

    def published():
        nonlocal result
        result = client.result_of(picture())
        return all(messages.values())

    wait_for(published)
    for name, received in messages.items():
        # As text, for a score of NaN does not equal itself.
        assert str(getattr(received[-1], name)) == str(getattr(result, name))
        assert received[-1].header == result.header


def test_a_mask_covers_its_box_and_decodes_without_ros(client):
    result = client.result_of(picture())
    mask = result.masks[0]
    decoded = masks.decode(mask)
    assert decoded.shape == (mask.height, mask.width) == (mask.box.height, mask.box.width)
    assert decoded.all()
    assert len(mask.data) < 20


def test_what_a_frame_cost_and_how_long_each_stage_took_is_told(client):
    result = client.result_of(picture())
    stages = {timing.stage: timing.milliseconds for timing in result.timings}
    assert {"queue", "decode", "view", "sense", "examine", "merge", "total"} <= set(stages)
    assert result.views == 4
    assert result.pixels > 0
