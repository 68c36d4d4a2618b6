"""A detector in a process of its own: boxes, errors and frames are those of the detector itself."""

from __future__ import annotations

import itertools
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from activeo3_ros.core import ActivePerception, Box, Budget, Frame, InvalidInput, Query, Status
from activeo3_ros.core.errors import ComponentError, EngineError, OutOfMemory
from activeo3_ros.core.frame import InputSize
from activeo3_ros.core.results import DetectedBoxes
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.detectors.served_detector import ServedDetector
from activeo3_ros.detectors.serving import Connection, DetectorServer, Failure, Look, Memory, shared_block
from activeo3_ros.policies.detector_proposals import DetectorProposals

NAMES = ("dark", "light")


class GreyDetector:
    """A real detector of the simplest kind: one box over the image, its class and score by the mean grey level."""

    names = NAMES
    input_size = InputSize(64, 64)
    concurrent = True
    batch_size = 4
    masks = False

    def detect(self, images, threshold):
        found = []
        for image in images:
            height, width = image.shape[:2]
            grey = float(image.mean()) / 255
            if grey > 0.99:
                raise OutOfMemory("white images do not fit")
            masks = np.arange(height * width).reshape(1, height, width) % 3 == 0 if self.masks else None
            boxes = np.array([[0, 0, width, height]], float)
            found.append(DetectedBoxes(boxes, np.array([grey], np.float32), np.array([int(grey > 0.5)]), masks))
        return found


@pytest.fixture
def serve(tmp_path):
    """Serves a detector at a socket until the test ends."""
    servers = []

    def start(detector, facts="x"):
        server = DetectorServer(detector, "grey", facts, tmp_path / "socket")
        threading.Thread(target=server.serve, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


def frame(grey, width=90, height=60):
    return Frame(np.full((height, width, 3), grey, np.uint8))


def test_a_client_is_told_what_the_detector_is(serve):
    server = serve(GreyDetector())
    client = ServedDetector(server.path)
    assert (client.names, client.input_size, client.batch_size) == (NAMES, InputSize(64, 64), 4)
    assert client.label == "grey" and client.concurrent
    assert client.identity == ServedDetector(server.path).identity


def test_the_boxes_are_those_of_the_detector_bit_by_bit(serve):
    client = ServedDetector(serve(GreyDetector()).path)
    noise = Frame(np.random.default_rng(0).integers(0, 200, (181, 320, 3), np.uint8))
    views = [noise.view(Box(10.0 * n, 5.0 * n, 100, 80), (50 + n, 40)) for n in range(5)]
    for here, there in zip(
        GreyDetector().detect([view.image for view in views], 0.1), client.detect_views(views, 0.1), strict=True
    ):
        np.testing.assert_array_equal(here.boxes, there.boxes)
        np.testing.assert_array_equal(here.scores, there.scores)
        np.testing.assert_array_equal(here.class_ids, there.class_ids)


def test_masks_come_too(serve):
    detector = GreyDetector()
    detector.masks = True
    client = ServedDetector(serve(detector).path)
    image = frame(60, 37, 23).image
    np.testing.assert_array_equal(client.detect([image], 0.1)[0].masks, detector.detect([image], 0.1)[0].masks)


def test_views_of_several_frames_keep_their_order(serve):
    client = ServedDetector(serve(GreyDetector()).path)
    frames = [frame(grey, 40 + grey, 50) for grey in (10, 200, 100)]
    views = [each.view(each.window, (each.width, each.height)) for each in (*frames, *reversed(frames))]
    greys = [found.scores[0] * 255 for found in client.detect_views(views, 0.0)]
    assert np.round(greys).astype(int).tolist() == [10, 200, 100, 100, 200, 10]


def test_a_frame_is_written_to_the_shared_memory_once_and_never_mixed_with_another(serve):
    """Frames of several sizes, each looked at twice with others between: memory is used again."""
    client = ServedDetector(serve(GreyDetector()).path)
    frames = [frame(grey, 30 + 10 * grey, 400 + grey) for grey in range(1, 90, 8)]
    for first, second in itertools.pairwise(frames):
        for each in (first, second, first):
            [found] = client.detect_views([each.view(each.window, (40, 40))], 0.0)
            assert round(float(found.scores[0]) * 255) == each.image[0, 0, 0]
    assert len(client._session()._blocks) <= 6


def test_many_threads_ask_at_once_and_get_their_own(serve):
    server = serve(GreyDetector())
    client = ServedDetector(server.path)

    def ask(grey):
        return round(float(client.detect([frame(grey).image], 0.0)[0].scores[0]) * 255)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(1, 121))) == list(range(1, 121))
    assert server.views_answered == 120


def test_a_loop_around_it_finds_what_one_around_the_detector_finds(serve):
    budget = Budget(max_regions=2, view_pixels=64 * 64, crop_pixels=64 * 64)
    picture = Frame(np.random.default_rng(1).integers(0, 255, (200, 300, 3), np.uint8))
    found = []
    for detector in (GreyDetector(), ServedDetector(serve(GreyDetector()).path)):
        task = DetectorTask(detector, label="grey")
        result = ActivePerception(DetectorProposals(task=task), task, budget).perceive(picture, Query(classes=NAMES))
        assert result.status == Status.COMPLETE, result.status_message
        found.append((result.detections, result.regions))
    assert found[0] == found[1]


def test_an_error_of_the_detector_is_that_error_here(serve):
    client = ServedDetector(serve(GreyDetector()).path)
    with pytest.raises(OutOfMemory, match="white images do not fit"):
        client.detect([frame(255).image], 0.1)
    assert len(client.detect([frame(20).image], 0.0)) == 1


@pytest.mark.parametrize("answer", [None, [], [DetectedBoxes(None, None, None)]])
def test_a_detector_that_gives_no_answer_fails_the_frame_alone(serve, answer):
    """Forces what a real detector does not do."""
    detector = GreyDetector()
    detector.detect = lambda images, threshold: answer
    task = DetectorTask(ServedDetector(serve(detector).path), label="grey")
    view, target = frame(20).view(frame(20).window, (60, 40)), task.resolve(Query(classes=("dark",)))
    with pytest.raises((ComponentError, EngineError)):
        task.detect([view], 0.1, target)


def test_a_server_that_went_away_is_told_and_a_new_one_is_used(serve):
    server = serve(GreyDetector())
    client = ServedDetector(server.path)
    server.close()
    for _ in range(2):
        with pytest.raises(EngineError, match=r"activeo3 serve"):
            client.detect([frame(20).image], 0.1)
    serve(GreyDetector())
    assert len(client.detect([frame(20).image], 0.0)) == 1


def test_another_detector_than_before_is_refused(serve):
    server = serve(GreyDetector())
    client = ServedDetector(server.path)
    server.close()
    serve(GreyDetector(), facts="other weights")
    with pytest.raises(EngineError, match="is gone"):
        client.detect([frame(20).image], 0.1)
    with pytest.raises(EngineError, match="another detector than before"):
        client.detect([frame(20).image], 0.1)


def test_a_silent_server_fails_the_frame_in_time(serve):
    """Forces a detector that hangs."""
    detector, go_on = GreyDetector(), threading.Event()
    detector.detect = lambda images, threshold: go_on.wait(20)
    client = ServedDetector(serve(detector).path, timeout_s=0.2)
    with pytest.raises(EngineError, match=r"gave no answer within 0\.2 s"):
        client.detect([frame(20).image], 0.1)
    go_on.set()


def test_nothing_at_the_socket_is_one_line(tmp_path):
    with pytest.raises(EngineError, match=r"no detector is served at .*; start one: activeo3 serve PRESET --socket"):
        ServedDetector(tmp_path / "nobody")


def test_the_socket_is_for_this_user_alone_and_goes_with_the_server(serve):
    server = serve(GreyDetector())
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    server.close()
    assert not server.path.exists()


def test_two_servers_at_one_socket_are_refused_and_a_stale_one_is_replaced(serve, tmp_path):
    server = serve(GreyDetector())
    with pytest.raises(InvalidInput, match="another detector is served"):
        DetectorServer(GreyDetector(), "grey", "x", server.path)
    server.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(server.path))  # and nobody took it away
    assert ServedDetector(serve(GreyDetector()).path).names == NAMES


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="cannot open the socket"):
        DetectorServer(GreyDetector(), "grey", "x", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def connected(server):
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.connect(str(server.path))
    connection = Connection(raw)
    connection.receive()
    return raw, connection


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\0\0\0\3abc", b"\0\0\0\1\xc0", b""])
def test_garbage_ends_that_connection_and_no_other(serve, sent):
    server = serve(GreyDetector())
    client = ServedDetector(server.path)
    raw, _ = connected(server)
    raw.sendall(sent)
    raw.shutdown(socket.SHUT_WR)
    while raw.recv(4096):
        pass
    raw.close()
    assert len(client.detect([frame(20).image], 0.0)) == 1


@pytest.mark.parametrize(
    "look",
    [
        Look(0, 1, 64, 64, ((0, 0, 64, 64, 32, 32),), 0.1),  # larger than the block
        Look(1, 1, 8, 8, ((0, 0, 8, 8, 8, 8),), 0.1),  # no such block
        Look(0, 1, 8, 8, ((4, 0, 8, 8, 8, 8),), 0.1),  # beyond the frame
        Look(0, 1, 8, 8, ((0, 0, 8, 8, 0, 8),), 0.1),
        Look(0, 1, 8, 0, (), 0.1),
    ],
)
def test_what_cannot_be_looked_at_is_refused(serve, look):
    _, connection = connected(serve(GreyDetector()))
    with shared_block(1000) as (descriptor, _):
        connection.send(Memory(1000), descriptor)
    connection.send(look)
    answer, _ = connection.receive()
    assert isinstance(answer, Failure) and answer.kind == "InvalidInput"
    connection.close()


def test_memory_that_may_shrink_is_refused(serve, tmp_path):
    """Reading it after it shrank would end the server."""
    _, connection = connected(serve(GreyDetector()))
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    with file.open("rb") as opened:
        connection.send(Memory(1000), opened.fileno())
    answer, _ = connection.receive()
    assert isinstance(answer, Failure)
    connection.close()
