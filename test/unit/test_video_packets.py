"""Packets of video topics: whole pictures with the stamps of their packets, or the reason why there is none."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packet_fixtures import FRAME_ID, GROUP, IN_ORDER, START_NS, STEP_NS, STREAMS, picture, shown, stream

from activeo3_ros.codecs.video_headers import header_reader
from activeo3_ros.codecs.video_packets import DecodedPacket, VideoDecoder, VideoPacket, codec_of, picture_to_bgr
from activeo3_ros.core import InvalidInput
from activeo3_ros.core.optional import MissingPackageError

COUNT = 24


def decode(
    packets: Sequence[VideoPacket], lost: Collection[int] = (), is_told: bool = False, usual_step_ns: int = STEP_NS
) -> list[DecodedPacket]:
    """Decode a stream without its packets of some numbers. is_told: whether the decoder hears of the loss."""
    decoder, ended = VideoDecoder(lambda: 1_000_000, usual_step_ns), []
    for number, packet in enumerate(packets):
        if number not in lost:
            ended += decoder.decode(packet, lost_before=is_told and number - 1 in lost)
    return ended + decoder.finish()


def check_whole_or_left_out(packets: Sequence[VideoPacket], ended: Sequence[DecodedPacket], lost: Collection[int]):
    """Each packet that came ended once, and each picture is that of the undisturbed stream."""
    came = [packet for number, packet in enumerate(packets) if number not in lost]
    assert sorted(each.packet.stamp_ns for each in ended) == sorted(packet.stamp_ns for packet in came)
    whole = shown(packets)
    for each in ended:
        assert (each.picture is None) == bool(each.error)
        if each.picture is not None:
            assert np.array_equal(picture_to_bgr(each.picture), whole[each.packet.stamp_ns])


@pytest.mark.parametrize("name", STREAMS)
def test_every_packet_of_an_undisturbed_stream_is_the_picture_of_its_stamp(name):
    packets = stream(name)
    ended = decode(packets)
    check_whole_or_left_out(packets, ended, ())
    assert [each.packet.stamp_ns for each in ended] == [START_NS + n * STEP_NS for n in range(COUNT)]
    assert {each.packet.frame_id for each in ended} == {FRAME_ID}
    for number, each in enumerate(ended):  # and it is the picture that was taken then, not a neighbour
        errors = [np.abs(picture_to_bgr(each.picture) - picture(near).astype(float)).mean() for near in range(COUNT)]
        assert np.argmin(errors) == number


@pytest.mark.parametrize("numbered", [False, True], ids=["stamps", "numbers"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_packet_lost_at_any_place_costs_pictures_and_never_changes_one(name, numbered):
    packets = stream(name, numbered=numbered)
    for place in range(COUNT):
        ended = decode(packets, {place})
        check_whole_or_left_out(packets, ended, {place})
        left_out = [each for each in ended if each.picture is None]
        assert len(left_out) < 2 * GROUP
        assert not any(each.is_rejected for each in left_out)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(IN_ORDER), st.booleans(), st.sets(st.integers(0, COUNT - 1)))
def test_no_loss_changes_a_picture_of_a_stream_without_b_frames(name, numbered, lost):
    packets = stream(name, numbered=numbered)
    check_whole_or_left_out(packets, decode(packets, lost), lost)


@pytest.mark.parametrize("name", STREAMS)
def test_a_group_that_is_lost_right_after_the_first_key_frame_shows_in_the_numbers(name):
    packets, lost = stream(name, numbered=True), range(1, 1 + GROUP)
    check_whole_or_left_out(packets, decode(packets, lost, usual_step_ns=0), lost)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(STREAMS)), st.sets(st.integers(0, COUNT - 1)))
def test_no_loss_that_is_told_changes_a_picture_of_any_stream(name, lost):
    packets = stream(name)
    check_whole_or_left_out(packets, decode(packets, lost, is_told=True, usual_step_ns=0), lost)


@pytest.mark.parametrize("usual_step_ns", [STEP_NS, 0])
@pytest.mark.parametrize("name", STREAMS)
def test_uneven_times_of_a_whole_stream_cost_nothing(name, usual_step_ns):
    """A camera whose clock shakes, and that now and then misses pictures before they are encoded."""
    random, late = np.random.default_rng(0), np.zeros(COUNT, int)
    late[14:], late[21:] = 4 * STEP_NS, 8 * STEP_NS
    shaken = [
        replace(packet, stamp_ns=packet.stamp_ns + int(late[number] + random.integers(-STEP_NS, STEP_NS) * 0.4))
        for packet in stream(name)
        for number in [(packet.stamp_ns - START_NS) // STEP_NS]
    ]
    ended = decode(shaken, usual_step_ns=usual_step_ns)
    assert [each.error for each in ended if each.error] == []
    assert len(ended) == COUNT


@pytest.mark.parametrize("name", STREAMS)
def test_a_clock_that_is_set_back_costs_nothing(name):
    packets, place = stream(name), 13
    while max(each.stamp_ns for each in packets[:place]) > min(each.stamp_ns for each in packets[place:]):
        place += 1  # between two pictures, of which none is shown before one that was sent earlier
    set_back = [replace(each, stamp_ns=each.stamp_ns - 10**10 * (n >= place)) for n, each in enumerate(packets)]
    assert [each.error for each in decode(set_back) if each.error] == []


@pytest.mark.parametrize("name", STREAMS)
def test_decoding_begins_at_a_key_frame_and_says_what_it_waits_for(name):
    packets = stream(name)[3:]
    decoder = VideoDecoder(lambda: 1_000_000)
    (first,) = decoder.decode(packets[0])
    assert first.error == "waits for a key frame: the stream begins"
    assert decoder.waits_for == "the stream begins"
    ended = [first, *(each for packet in packets[1:] for each in decoder.decode(packet)), *decoder.finish()]
    assert sum(each.picture is not None for each in ended) >= GROUP
    check_whole_or_left_out(stream(name), ended, range(3))


@pytest.mark.parametrize("name", IN_ORDER)
def test_a_picture_comes_out_with_its_own_packet_where_none_are_reordered(name):
    decoder = VideoDecoder(lambda: 1_000_000)
    for packet in stream(name):
        assert [each.packet for each in decoder.decode(packet)] == [packet]


@pytest.mark.parametrize("name", ["h264", "h265", "av1"])
def test_the_parameters_of_a_stream_may_come_once(name):
    first, *rest = stream(name)
    reader = header_reader(codec_of(first.codec))
    without = [replace(packet, data=_without_parameters(packet)) for packet in rest]
    assert any(packet.data != before.data for packet, before in zip(without, rest, strict=True))
    assert reader.read(first.data).size == (128, 96)
    check_whole_or_left_out(stream(name), decode([first, *without], {3}), {3})


def _without_parameters(packet: VideoPacket) -> bytes:
    if codec_of(packet.codec) == "av1":
        at, kept = 0, b""
        while at < len(packet.data):  # none of these units has 128 bytes or more, where their length takes two
            size = packet.data[at + 1]
            length = 2 + size if size < 128 else 3 + (size & 127) + 128 * packet.data[at + 2]
            kept += packet.data[at : at + length] if packet.data[at] >> 3 != 1 else b""
            at += length
        return kept
    parts = packet.data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    sets = (7, 8) if codec_of(packet.codec) == "h264" else (32, 33, 34)
    kinds = [part[0] & 31 if codec_of(packet.codec) == "h264" else part[0] >> 1 & 63 for part in parts]
    return b"".join(b"\0\0\1" + part for part, kind in zip(parts, kinds, strict=True) if kind not in sets)


@pytest.mark.parametrize(
    ("matrix", "is_wide", "red_weight", "blue_weight"),
    [(None, False, 0.299, 0.114), ("bt470bg", True, 0.299, 0.114), ("bt709", False, 0.2126, 0.0722)],
    ids=["no name", "BT.601, wide range", "BT.709"],
)
def test_colours_follow_the_matrix_and_the_range_that_the_stream_names(matrix, is_wide, red_weight, blue_weight):
    context = av.codec.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 64, "yuv420p", Fraction(1, 20)
    named = f":colormatrix={matrix}:fullrange={'on' if is_wide else 'off'}" if matrix else ""
    context.options = {"x264-params": f"bframes=0{named}", "crf": "1"}
    frame, values = av.VideoFrame(64, 64, "yuv420p"), (120, 90, 200)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.pts = 0
    data = b"".join(map(bytes, [*context.encode(frame), *context.encode(None)]))
    (ended,) = decode([VideoPacket(1, "", "h264", data)])
    y, u, v = (values[0] / 255, *(np.array(values[1:]) - 128) / 255) if is_wide else (
        (values[0] - 16) / 219, *(np.array(values[1:]) - 128) / 224
    )  # fmt: skip
    blue, red = y + 2 * (1 - blue_weight) * u, y + 2 * (1 - red_weight) * v
    green = (y - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    expected = 255 * np.array([blue, green, red]).clip(0, 1)
    assert np.abs(picture_to_bgr(ended.picture)[32, 32] - expected).max() <= 3


def test_stamps_that_contradict_the_order_of_the_pictures_are_not_taken_for_theirs():
    """As of a driver that stamps packets when they leave its encoder, in the order of decoding."""
    packets = [replace(each, stamp_ns=START_NS + n * STEP_NS) for n, each in enumerate(stream("h264 with B-frames"))]
    ended = decode(packets)
    assert next(each.error for each in ended if each.error) == (
        "waits for a key frame: pictures are missing: its stamp or number contradicts the order of the pictures"
    )


def test_another_size_or_codec_begins_anew_and_loses_nothing():
    parts = [
        stream("h264 with B-frames"),
        stream("h264", size=(64, 48), first=COUNT),
        stream("h265", size=(64, 48), first=2 * COUNT),
        stream("h264", first=3 * COUNT),
    ]
    ended = decode([packet for part in parts for packet in part])
    for part in parts:
        stamps = {packet.stamp_ns for packet in part}
        check_whole_or_left_out(part, [each for each in ended if each.packet.stamp_ns in stamps], ())
    assert all(each.picture is not None for each in ended)


def test_a_picture_beyond_the_limit_is_refused_before_a_decoder_is_made(monkeypatch):
    limit = [128 * 96 - 1]
    decoder = VideoDecoder(lambda: limit[0])
    monkeypatch.setattr("activeo3_ros.codecs.video_packets._open", lambda *_: pytest.fail("a decoder was made"))
    (ended,) = decoder.decode(stream("h264")[0])
    assert ended.is_rejected and "128 x 96 exceeds 12287 pixels" in ended.error
    monkeypatch.undo()
    limit[0] += 1
    assert decoder.decode(stream("h264")[0])[0].picture is not None


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (VideoPacket(1, "", "vp9", b"\1"), "unsupported video codec 'vp9'; supported are h264, h265 (hevc) and av1"),
        (VideoPacket(1, "", "", b"\1"), "unsupported video codec ''"),
        (VideoPacket(1, "", "h264", b""), "a video packet has no data"),
        (VideoPacket(1, "", "h264", b"\1\2\3\4"), "is no byte stream with start codes (Annex B)"),
        (VideoPacket(1, "", "h264", b"\0\0\1\x09\x10"), "has no picture of H.264 in it"),
        (VideoPacket(1, "", "hevc", b"\0\0\1\x46\1\x50"), "has no picture of H.265 in it"),
        (VideoPacket(1, "", "av1", b"\0\0\1\x65"), "is no sequence of AV1 units with their sizes"),
        (VideoPacket(1, "", "av1", b"\x12\0\x0a\x0b\0"), "is cut off: 10 are missing"),
        (VideoPacket(1, "", "h264", b"\0\0\1\x67" + bytes(4_194_304)), "exceeds 4000000; raise max_image_pixels"),
    ],
)
def test_a_packet_that_is_none_is_rejected_in_one_line_and_the_stream_goes_on(packet, error):
    decoder = VideoDecoder(lambda: 1_000_000)
    (ended,) = decoder.decode(packet)
    assert ended.is_rejected and error in ended.error and "\n" not in ended.error
    good = [each for packet in stream("h264") for each in decoder.decode(packet)]
    assert all(each.picture is not None for each in good)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("h264;yuv420p;bgr8;bgr8", "h264"),
        ("libx264", "h264"),
        ("libopenh264;yuv420p", "h264"),
        ("libaom-av1", "av1"),
        ("h264_nvenc", "h264"),
        ("HEVC", "hevc"),
        ("hevc_vaapi;nv12;bgr8;rgb8", "hevc"),
        ("libsvtav1", "av1"),
        ("av1_nvenc", "av1"),
    ],
)
def test_codecs_go_by_the_names_of_foxglove_ffmpeg_and_its_encoders(name, codec):
    assert codec_of(name) == codec


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(STREAMS)),
    st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, 400)), max_size=2),
)
def test_damaged_packets_end_once_each_whatever_is_in_them(name, changes, cuts):
    packets = list(stream(name))
    for number, place, value in changes:
        data = bytearray(packets[number].data)
        data[place % len(data)] = value
        packets[number] = replace(packets[number], data=bytes(data))
    for number, length in cuts:
        packets[number] = replace(packets[number], data=packets[number].data[:length])
    ended = decode(packets)
    assert sorted(each.packet.stamp_ns for each in ended) == sorted(packet.stamp_ns for packet in packets)
    assert all((each.picture is None) == bool(each.error) for each in ended)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["h264", "hevc", "av1"]), st.binary(max_size=80), st.booleans())
def test_the_headers_of_any_bytes_are_read_or_refused(codec, data, has_start):
    try:
        header = header_reader(codec).read(b"\0\0\1" + data if has_start else data)
    except InvalidInput as error:
        assert str(error)
    else:
        assert min(header.size) >= 0 or header.size < (0, 0)


def test_without_pyav_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"av is needed to decode video topics .* pip install 'av>=17'"):
        VideoDecoder(lambda: 1_000_000).decode(VideoPacket(1, "", "h264", b"\0"))
