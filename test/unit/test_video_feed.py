"""A camera's video between subscription and scheduler: every packet that came is settled once, whatever happens."""

from __future__ import annotations

import logging
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_fixtures.fakes import FakePreset
from packet_fixtures import START_NS, STEP_NS, shown, stream
from waiting import wait_for

from activeo3_ros.bags.messages import serialize_video
from activeo3_ros.codecs import video_packets
from activeo3_ros.codecs.video_packets import PACKET_TYPE, VIDEO_TYPE, picture_to_bgr
from activeo3_ros.core import Frame
from activeo3_ros.node import video_feed
from activeo3_ros.node.frame_counters import FrameCounters, FrameDisposition
from activeo3_ros.node.jobs import DecodedFrame, FrameOutcome, RejectedFrame, Settings
from activeo3_ros.node.scheduler import Scheduler
from activeo3_ros.node.video_feed import VideoFeed, VideoPicture

MESSAGES = [serialize_video(packet, VIDEO_TYPE) for packet in stream("h264")]


class Sink:
    """Stands for the scheduler: takes pictures and counts."""

    def __init__(self, is_open: bool = True) -> None:
        self.is_open, self.received = is_open, 0
        self.pictures: list[VideoPicture] = []
        self.discarded: Counter[FrameDisposition] = Counter()

    def receive(self, camera: str) -> bool:
        self.received += self.is_open
        return self.is_open

    def enqueue_received(self, camera: str, data: VideoPicture, arrived: float, is_counted: bool) -> None:
        assert (camera, is_counted) == ("front", self.is_open)
        self.pictures.append(data)

    def discard(self, camera: str, disposition: FrameDisposition) -> None:
        self.discarded[disposition] += 1

    @property
    def ended(self) -> int:
        return len(self.pictures) + self.discarded.total()


class Missing:
    """Stands for the counter of messages that were never received."""

    count: int | None = None

    def __call__(self) -> int | None:
        return self.count


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def missing() -> Missing:
    return Missing()


@pytest.fixture
def feed(sink, missing):
    feed = VideoFeed("front", VIDEO_TYPE, sink, lambda: 1_000_000, missing)
    yield feed
    feed.close()


def test_pictures_come_in_the_order_of_arrival_with_their_packets(feed, sink):
    for message in MESSAGES:
        feed.put("front", message)
    wait_for(lambda: sink.ended == len(MESSAGES))
    assert [each.packet for each in sink.pictures] == list(stream("h264"))
    expected = shown(stream("h264"))
    assert all(np.array_equal(picture_to_bgr(each.picture), expected[each.packet.stamp_ns]) for each in sink.pictures)
    assert (sink.received, feed.fault) == (len(MESSAGES), "")


def test_a_loss_that_the_transport_tells_is_waited_out(feed, sink, missing, caplog):
    caplog.set_level(logging.WARNING)
    missing.count = 0
    for number, message in enumerate(MESSAGES[:16]):
        missing.count += number in (3, 5)
        feed.put("front", message)
    wait_for(lambda: sink.ended == 16)
    assert [(each.packet.stamp_ns - START_NS) // STEP_NS for each in sink.pictures] == [0, 1, 2, *range(8, 16)]
    assert sink.discarded == {FrameDisposition.UNDECODED: 5}
    assert [record.message for record in caplog.records] == [
        "front: a video packet was not decoded: waits for a key frame: packets were lost; further ones are counted"
    ]


def test_what_is_no_packet_is_rejected_and_the_stream_goes_on_at_a_key_frame(feed, sink):
    for message in [*MESSAGES[:2], b"garbage", *MESSAGES[2:9], MESSAGES[9][:-30]]:
        feed.put("front", message)
    wait_for(lambda: sink.ended == 11)
    rejected = [each for each in sink.pictures if each.picture is None]
    assert len(rejected) == 2 and "is not a whole foxglove_msgs/msg/CompressedVideo" in rejected[0].error
    assert rejected[0].packet is None
    assert sink.discarded == {FrameDisposition.UNDECODED: 6}
    assert feed.fault == rejected[1].error


def test_where_the_decoder_cannot_keep_up_it_goes_on_at_the_next_key_frame(sink, missing, monkeypatch):
    monkeypatch.setattr(video_feed, "MOST_WAITING", 6)
    going, decode = threading.Event(), video_packets.VideoDecoder.decode

    def slow(self, *arguments):
        going.wait(10)
        return decode(self, *arguments)

    monkeypatch.setattr(video_packets.VideoDecoder, "decode", slow)
    feed = VideoFeed("front", VIDEO_TYPE, sink, lambda: 1_000_000, missing)
    feed.put("front", MESSAGES[0])
    wait_for(lambda: not feed._waiting)
    for message in MESSAGES[1:20]:
        feed.put("front", message)
        assert len(feed._waiting) <= 6
    going.set()
    wait_for(lambda: sink.ended == 20)
    feed.close()
    assert sink.discarded[FrameDisposition.UNDECODED] == 20 - len(sink.pictures)
    expected = shown(stream("h264"))
    assert all(np.array_equal(picture_to_bgr(each.picture), expected[each.packet.stamp_ns]) for each in sink.pictures)


def test_the_end_counts_what_was_held_back_as_stale_and_takes_nothing_more(sink, missing):
    messages = [serialize_video(packet, PACKET_TYPE) for packet in stream("h264 with B-frames", numbered=True)]
    feed = VideoFeed("front", PACKET_TYPE, sink, lambda: 1_000_000, missing)
    for message in messages[:20]:
        feed.put("front", message)
    wait_for(lambda: not feed._waiting and len(sink.pictures) > 12)
    feed.close()
    assert sink.ended == sink.received == 20
    assert sink.discarded[FrameDisposition.STALE] >= 1
    feed.put("front", messages[20])
    assert sink.received == 20


def test_while_the_gate_is_closed_it_decodes_and_counts_nothing(missing):
    sink = Sink(is_open=False)
    feed = VideoFeed("front", VIDEO_TYPE, sink, lambda: 1_000_000, missing)
    for message in MESSAGES[2:12]:
        feed.put("front", message)
    wait_for(lambda: len(sink.pictures) == 4)
    feed.close()
    assert (sink.received, sink.discarded.total()) == (0, 0)


def test_a_decoder_that_breaks_costs_its_packet_and_the_thread_lives(sink, missing, monkeypatch, caplog):
    decode, broken = video_packets.VideoDecoder.decode, []

    def breaks_once(self, *arguments):
        if len(sink.pictures) == 3 and not broken:
            broken.append(True)
            raise RuntimeError("no memory for a picture")
        return decode(self, *arguments)

    monkeypatch.setattr(video_packets.VideoDecoder, "decode", breaks_once)
    feed = VideoFeed("front", VIDEO_TYPE, sink, lambda: 1_000_000, missing)
    for message in MESSAGES[:10]:
        feed.put("front", message)
        wait_for(lambda: not feed._waiting)
    wait_for(lambda: sink.ended == 10)
    feed.close()
    assert sink.pictures[3].error == "RuntimeError: no memory for a picture"
    assert sink.discarded == {FrameDisposition.UNDECODED: 4}
    assert len(sink.pictures) == 6


class PictureDecoder:
    """Makes frames of pictures, and rejects packets."""

    def decode(self, camera: str, data: VideoPicture) -> DecodedFrame:
        if data.picture is None:
            raise RejectedFrame(data.error)
        return DecodedFrame(Frame(picture_to_bgr(data.picture), data.packet.stamp_ns, camera=camera), None)


class Stamps:
    """Keeps the stamps of what is published."""

    def __init__(self) -> None:
        self.published: list[int] = []

    def publish(self, outcome: FrameOutcome) -> None:
        self.published.append(outcome.frame.stamp_ns)


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(["h264", "h264 with B-frames"]),
    st.sets(st.integers(0, 23), max_size=4),
    st.sets(st.integers(0, 23), max_size=2),
    st.sets(st.integers(0, 23), max_size=2),
)
def test_every_packet_that_came_is_accounted_for_whatever_is_lost_and_whenever_the_gate_closes(
    name, lost, garbage, toggles
):
    counters, published = FrameCounters(["front"]), Stamps()
    scheduler = Scheduler(
        counters,
        ["front"],
        load=FakePreset().build,
        decoder=PictureDecoder(),
        publisher=published,
        now_ns=lambda: 0,
        settings=Settings(),
    )
    assert scheduler.wait_loaded(10)
    scheduler.open_gate()
    feed, sent, is_open = VideoFeed("front", VIDEO_TYPE, scheduler, lambda: 1_000_000, lambda: None), 0, True
    for number, packet in enumerate(stream(name)):
        if number in toggles:
            is_open = not is_open
            (scheduler.open_gate if is_open else scheduler.close_gate)()
        if number not in lost:
            feed.put("front", b"garbage" if number in garbage else serialize_video(packet, VIDEO_TYPE))
            sent += is_open
    wait_for(lambda: not feed._waiting)
    feed.close()
    wait_for(lambda: not counters.counts("front").pending)
    scheduler.stop(1.0, "the test is over")
    counts = counters.counts("front")
    assert counts.add_up and counts.received == sent
    assert published.published == sorted(published.published)
    assert counts.processed == len(published.published)
