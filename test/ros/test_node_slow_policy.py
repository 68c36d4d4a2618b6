"""A slow policy beside fast frames: every frame has a result, with the regions of the policy's last look."""

from __future__ import annotations

import pytest
from activeo3_ros.msg import PerceptionResult
from builtin_interfaces.msg import Time
from node_fixtures.client import Client
from node_fixtures.processes import NodeProcess
from textured_picture import picture

STEP_MS = 100
MAX_FRAMES = 400
RELIABLE = {"qos_overrides./camera/image_raw.subscription.reliability": "reliable"}
"""No image of 0.9 MB is lost on its way."""


@pytest.fixture(scope="module")
def results():
    """Those of a 640 x 480 camera at 10 Hz, by its stamps, until a policy of 1 Hz has changed the regions three times.

    Each frame is sent when the one before has its result: how fast the machine is changes only their number.
    """
    parameters = {"preset": "fake,policy_s=1", "autostart": True, "background_sensing": True, **RELIABLE}
    with NodeProcess(**parameters) as node, Client() as client:
        client.connect()
        pixels, results = picture()[:480, :640], []
        for number in range(1, MAX_FRAMES):
            stamp = Time(sec=number * STEP_MS // 1000, nanosec=number * STEP_MS % 1000 * 10**6)
            results.append(client.result_of(pixels, stamp=stamp))
            if len(changes(results)) == 3:
                break
        counts = client.status("camera")[2]
    assert node.process.returncode == 0
    return results, counts


def changes(results):
    """The numbers of the results with regions of another look than those before."""
    looks = [
        (round(number * STEP_MS - result.regions_age_ms) if result.regions else None)
        for number, result in enumerate(results)
    ]
    return [number for number in range(1, len(looks)) if looks[number] != looks[number - 1]]


def test_every_frame_has_a_whole_result(results):
    results, counts = results
    assert len(changes(results)) == 3
    assert {result.status for result in results} == {PerceptionResult.STATUS_COMPLETE}
    assert all(result.detections for result in results)
    assert int(counts["received"]) == int(counts["processed"]) + int(counts["pending"])
    assert counts["objects_forgotten"] == "0"


def test_regions_say_how_old_they_are(results):
    results, _ = results
    first, second, third = changes(results)
    assert all(not result.regions for result in results[:first]), "no look was done yet"
    assert all(result.regions_age_ms >= STEP_MS for result in results[first:])
    ages = [result.regions_age_ms for result in results[first:second]]
    assert ages == pytest.approx([ages[0] + STEP_MS * number for number in range(len(ages))])
    halves = [{region.label for region in results[number].regions} for number in (first, second, third)]
    assert halves[0] == halves[2] != halves[1]


def test_ids_are_stable_across_changes_of_the_regions(results):
    results, _ = results
    whole = {found.track_id for found in results[0].detections}
    assert whole and all(whole <= {found.track_id for found in result.detections} for result in results)
