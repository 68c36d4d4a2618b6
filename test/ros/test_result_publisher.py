"""Results on the topics of a camera: the result always, every other topic only for its subscribers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from activeo3_ros.msg import PerceptionResult
from node_fixtures.fakes import picture
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from waiting import wait_for

from activeo3_ros.core import Box, Detection, Frame, Grounding, InstanceMask, Query, Region, Result, Status
from activeo3_ros.node import overlays, qos, result_publisher
from activeo3_ros.node.camera_input import CameraInput
from activeo3_ros.node.jobs import FrameOutcome
from activeo3_ros.node.message_library import RCLPY
from activeo3_ros.node.result_publisher import ARRAYS, ResultPublisher

BOX = Box(1.0, 2.0, 30.0, 40.0)
HEADER = Header(frame_id="optical")


def outcome(status: Status = Status.COMPLETE) -> FrameOutcome:
    """A frame with one record in each list."""
    mask = InstanceMask("car", 0.5, BOX, np.ones((40, 30), bool))
    result = Result(
        80,
        60,
        Query("the car"),
        status,
        regions=(Region(BOX, "car", 0.5, 2.0),),
        detections=(Detection("car", 0.5, BOX),),
        groundings=(Grounding("the car", 0.5, BOX),),
        masks=(mask,),
    )
    return FrameOutcome("front", HEADER, result, Frame(picture(), camera="front"))


class Bench:
    """A publisher in a node, what it built, and subscriptions in another node of this process."""

    def __init__(self, node: Node, listener: Node) -> None:
        camera = CameraInput(node, "front", "raw", MutuallyExclusiveCallbackGroup())
        self.publisher = ResultPublisher(node, [camera], lambda: 10.0)
        self.listener = listener
        self.built: Counter[str] = Counter()
        self._executor = SingleThreadedExecutor(context=listener.context)
        self._executor.add_node(listener)

    def subscribe(self, kind: type, name: str) -> list:
        """Messages of a topic from now on; returns once the publisher knows of the subscriber."""
        received: list = []
        self.listener.create_subscription(kind, f"/publishing/front/{name}", received.append, qos.RESULTS)
        topics = self.publisher._topics["front"]
        publisher = {"result": topics._result, "annotated/compressed": topics._annotated, **topics._arrays}[name]
        wait_for(publisher.get_subscription_count)
        return received

    def receive(self, received: list, number: int = 1) -> list:
        wait_for(lambda: self._executor.spin_once(timeout_sec=0.1) or len(received) >= number)
        return received


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = [Node(name, context=context, use_global_arguments=False) for name in ("publishing", "listening")]
    bench = Bench(*nodes)
    build, draw = result_publisher.array_message, overlays.annotated

    def array_message(name, *rest):
        bench.built[name] += 1
        return build(name, *rest)

    def annotated(*arguments):
        bench.built["annotated"] += 1
        return draw(*arguments)

    monkeypatch.setattr(result_publisher, "array_message", array_message)
    monkeypatch.setattr(overlays, "annotated", annotated)
    try:
        yield bench
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.shutdown(context=context)


def test_without_a_subscriber_only_the_result_is_built(bench):
    results = bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome())
    (result,) = bench.receive(results)
    assert [len(getattr(result, name)) for name in ARRAYS] == [1, 1, 1, 1]
    assert not bench.built


@pytest.mark.parametrize("name", ARRAYS)
def test_a_list_with_a_subscriber_is_published_as_it_stands_in_the_result(bench, name):
    lists, results = bench.subscribe(ARRAYS[name], name), bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome())
    (message,), (result,) = bench.receive(lists), bench.receive(results)
    assert str(getattr(message, name)) == str(getattr(result, name))  # as text, for NaN does not equal itself
    assert message.header == result.header == HEADER
    assert bench.built == {name: 1}, "the other lists have no subscriber"


@pytest.mark.parametrize("name", ARRAYS)
def test_the_records_of_a_list_are_those_of_the_result_and_not_made_again(bench, name):
    result = bench.publisher.message(outcome())
    (record,), (original,) = getattr(result_publisher.array_message(name, result, RCLPY), name), getattr(result, name)
    assert record is original


def test_a_late_subscriber_gets_the_lists_of_later_frames(bench):
    results = bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome())
    bench.receive(results)
    late = bench.subscribe(ARRAYS["detections"], "detections")
    bench.publisher.publish(outcome())
    bench.receive(results, 2)
    assert len(bench.receive(late)) == 1
    assert bench.built == {"detections": 1}


def test_a_frame_that_failed_has_a_result_and_no_lists(bench):
    lists, results = bench.subscribe(ARRAYS["detections"], "detections"), bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome(Status.FAILED))
    assert bench.receive(results)[0].status == PerceptionResult.STATUS_FAILED
    bench.publisher.publish(outcome())
    assert len(bench.receive(lists)) == 1, "an empty list must not be mistaken for an empty road"
    assert bench.built == {"detections": 1}


def test_a_picture_that_cannot_be_drawn_takes_nothing_of_the_result_back(bench, monkeypatch):
    results = bench.subscribe(PerceptionResult, "result")
    bench.subscribe(CompressedImage, "annotated/compressed")
    monkeypatch.setattr(overlays, "annotated", lambda *_: 1 / 0)
    bench.publisher.publish(outcome())
    assert bench.receive(results)[0].status == PerceptionResult.STATUS_COMPLETE
