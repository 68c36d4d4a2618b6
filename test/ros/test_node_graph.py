"""The node in the ROS graph: topics with their quality of service, and exactly the names that the policy grants."""

from __future__ import annotations

import os
import signal
import time
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
from activeo3_ros.msg import PerceptionResult
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from node_fixtures.client import RELIABLE, Client, image
from node_fixtures.fakes import FINE, RAISES, picture
from node_fixtures.processes import NodeProcess
from rcl_interfaces.srv import ListParameters
from rclpy.action.graph import get_action_server_names_and_types_by_node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import Marker, MarkerArray
from waiting import wait_for

from activeo3_ros.assets.resources import config_directory
from activeo3_ros.node import qos
from activeo3_ros.node.transports import PROFILES, TRANSPORTS

NON_BLOCKING = "LARGE_DATA?non_blocking=true"
LOCALHOST = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
BEST_EFFORT, RELIABLE_POLICY = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE


@pytest.fixture(scope="module")
def client():
    with NodeProcess(autostart=True, diagnostics_period=0.1) as node, Client() as client:
        client.process = node
        client.connect()
        yield client


def resolve(name: str) -> str:
    """A name in the policy as the graph has it."""
    return name.replace("~", "/activeo3", 1) if name.startswith("~") else "/" + name.lstrip("/")


def test_the_policy_grants_just_what_the_node_creates(client):
    profile = ElementTree.parse(config_directory() / "sros2" / "activeo3.policy.xml").find(".//profile")
    granted = {
        key: {resolve(entry.text) for entry in profile.findall(f"{kind}[@{access}='ALLOW']/*")}
        for key, kind, access in (
            ("published", "topics", "publish"),
            ("subscribed", "topics", "subscribe"),
            ("served", "services", "reply"),
            ("actions", "actions", "execute"),
        )
    }
    node = client.node
    created = {
        "published": node.get_publisher_names_and_types_by_node("activeo3", "/"),
        "subscribed": node.get_subscriber_names_and_types_by_node("activeo3", "/"),
        "served": node.get_service_names_and_types_by_node("activeo3", "/"),
        "actions": get_action_server_names_and_types_by_node(node, "activeo3", "/"),
    }
    created = {key: {name for name, _ in entries if "/_action/" not in name} for key, entries in created.items()}
    # Only where the packages of their messages are installed.
    optional = {
        f"/activeo3/camera/{name}" for name in ("detections_2d", "vision_info", "label_info", "rois", "annotations")
    } | {"/bond"}
    granted["published"] -= optional - created["published"]
    assert created == granted
    assert not node.get_client_names_and_types_by_node("activeo3", "/")


@pytest.mark.parametrize(
    ("topic", "reliability", "durability"),
    [
        ("/activeo3/camera/result", RELIABLE_POLICY, DurabilityPolicy.VOLATILE),
        ("/activeo3/camera/detections", RELIABLE_POLICY, DurabilityPolicy.VOLATILE),
        ("/activeo3/camera/annotated/compressed", RELIABLE_POLICY, DurabilityPolicy.VOLATILE),
        ("/diagnostics", RELIABLE_POLICY, DurabilityPolicy.TRANSIENT_LOCAL),
    ],
)
def test_what_is_published_is_reliable(client, topic, reliability, durability):
    (info,) = client.node.get_publishers_info_by_topic(topic)
    assert (info.qos_profile.reliability, info.qos_profile.durability) == (reliability, durability)


def test_images_are_asked_for_as_their_publishers_offer_them_and_camera_info_as_best_effort(client):
    """test_node_arrival.py has publishers that come and go."""

    def asked_for(topic: str) -> list[ReliabilityPolicy]:
        return [info.qos_profile.reliability for info in client.node.get_subscriptions_info_by_topic(topic)]

    wait_for(lambda: asked_for("/camera/image_raw") == [RELIABLE_POLICY])
    assert asked_for("/camera/camera_info") == [BEST_EFFORT]


def test_a_camera_that_publishes_as_sensors_do_is_heard(client):
    publisher = client.node.create_publisher(Image, "/camera/image_raw", qos_profile_sensor_data)
    wait_for(publisher.get_subscription_count)
    before = len(client.results)
    wait_for(lambda: publisher.publish(image(picture())) or len(client.results) > before)
    client.destroy(publisher)


def test_a_subscriber_that_cannot_hear_the_node_is_named_in_a_warning(client):
    wish = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    deaf = client.node.create_subscription(PerceptionResult, "/activeo3/camera/result", print, wish)
    wait_for(
        lambda: (
            "/client_of_activeo3 asks for /activeo3/camera/result as reliable, transient_local" in client.process.text
        )
    )
    assert "/activeo3 publishes it as reliable, volatile" in client.process.text
    client.destroy(deaf)


def test_a_picture_is_drawn_only_for_subscribers_and_shows_a_failure(client):
    pictures = client.collect(CompressedImage, "camera/annotated/compressed")

    seconds = iter(range(10, 1000))

    def drawn(grey: int) -> CompressedImage:
        sent = []

        def published() -> list[CompressedImage]:
            result = client.result_of(picture(grey, 240, 320), stamp=Time(sec=next(seconds)))
            sent.append(result.header.stamp)
            # Those of other frames may still be on their way.
            return [each for each in pictures if each.header.stamp in sent]

        return wait_for(published)[0]

    messages = drawn(FINE), drawn(RAISES)
    fine, failed = (cv2.imdecode(np.frombuffer(each.data, np.uint8), cv2.IMREAD_COLOR) for each in messages)
    assert fine.shape == failed.shape == (240, 320, 3)
    assert len(np.unique(fine)) > 3
    assert messages[0].header.frame_id == "optical"
    # The banner of a failure is red.
    assert (failed[..., 2].astype(int) - failed[..., 0] > 60).any()


def test_markers_are_where_the_camera_sees_the_boxes(client):
    markers = client.collect(MarkerArray, "camera/markers")
    infos = client.node.create_publisher(CameraInfo, "/camera/camera_info", RELIABLE)
    wait_for(infos.get_subscription_count)
    info = CameraInfo(width=80, height=60)
    info.k = [100.0, 0.0, 39.5, 0.0, 100.0, 29.5, 0.0, 0.0, 1.0]  # the centre of the picture, counted in pixel centres

    def seen():
        infos.publish(info)
        client.result_of(picture(FINE, 60, 80))
        return [marker for array in markers for marker in array.markers if marker.ns == "detections"]

    outline = next(marker for marker in wait_for(seen) if marker.type == Marker.LINE_STRIP)
    # The whole frame, 80 x 60 pixels around the centre, at 10 m and 100 pixels focal length.
    corners = {(round(point.x, 3), round(point.y, 3), round(point.z, 3)) for point in outline.points}
    assert corners == {(-4.0, -3.0, 10.0), (4.0, -3.0, 10.0), (4.0, 3.0, 10.0), (-4.0, 3.0, 10.0)}
    assert outline.header.frame_id == "optical"


def test_compressed_images_are_perceived_and_a_cut_off_one_fails():
    cameras = {"node_name": "compressed", "cameras": ["packed"], "transport": "compressed"}
    with NodeProcess(autostart=True, **cameras), Client(("packed",), "compressed") as client:
        publisher = client.node.create_publisher(CompressedImage, "/packed/image_raw/compressed", RELIABLE)
        wait_for(publisher.get_subscription_count, 30)
        wait_for(client._is_active, 30)
        data = cv2.imencode(".png", picture(FINE, 60, 80))[1].tobytes()
        for payload, status, says in ((data, 0, ""), (data[:-40], 2, "cut off"), (b"", 2, "must be JPEG or PNG")):
            before = len(client.results)

            def answered(payload=payload, status=status, says=says, before=before):
                publisher.publish(CompressedImage(format="png", data=payload))
                # Results of the payload before may still be on their way.
                results = client.results[before:]
                return [result for result in results if result.status == status and says in result.status_message]

            wait_for(answered, what=f"a result that says {says!r}")


def test_quality_of_service_can_be_overridden_and_an_incompatible_camera_is_named():
    override = {"qos_overrides./strict/image_raw.subscription.reliability": "reliable"}
    with (
        NodeProcess(node_name="strict_node", cameras=["strict"], autostart=True, **override) as node,
        Client(("strict",), "strict_node") as client,
    ):
        client.connect()
        (info,) = client.node.get_subscriptions_info_by_topic("/strict/image_raw")
        assert info.qos_profile.reliability == RELIABLE_POLICY
        client.node.create_publisher(Image, "/strict/image_raw", qos_profile_sensor_data)
        wait_for(lambda: "/client_of_strict_node publishes /strict/image_raw as best_effort" in node.text)
        assert "/strict_node asks for reliable" in node.text
        wait_for(lambda: "/client_of_strict_node publishes it as best_effort" in client.status("strict")[1])
        level, message, values = client.status("strict")
        assert level == DiagnosticStatus.WARN[0]
        assert "this node asks for reliable, volatile: no message will arrive. Change one side" in message
        assert "nobody" not in message
        assert "as best_effort" in values["publishers_not_heard"]


@pytest.mark.parametrize(
    ("transport", "topic", "kind", "remedy"),
    [
        (
            "raw",
            "image_raw",
            CompressedImage,
            "transport:=compressed and remap /odd/image_raw/compressed:=/odd/image_raw",
        ),
        (
            "compressed",
            "image_raw/compressed",
            Image,
            "transport:=raw and remap /odd/image_raw:=/odd/image_raw/compressed",
        ),
        ("raw", "image_raw", CameraInfo, "as sensor_msgs/msg/CameraInfo, which this node does not read there but"),
    ],
    ids=["compressed on raw", "raw on compressed", "no image"],
)
def test_a_publisher_of_another_type_is_told_apart_from_images_lost_on_the_way(transport, topic, kind, remedy):
    cameras = {"node_name": "puzzled", "cameras": ["odd"], "transport": transport}
    with NodeProcess(autostart=True, diagnostics_period=0.1, **cameras) as node, Client((), "puzzled") as client:
        wait_for(client._is_active, 30)
        client.node.create_publisher(kind, f"/odd/{topic}", RELIABLE)
        wait_for(lambda: remedy in client.status("odd")[1])
        assert f"/client_of_puzzled publishes it as sensor_msgs/msg/{kind.__name__}" in client.status("odd")[1]
        wait_for(lambda: remedy in node.text, what="the warning in the log")
        assert "lost on the way" not in node.text


def test_where_nobody_publishes_a_camera_the_topics_with_images_are_named():
    with (
        NodeProcess(node_name="seeking", cameras=["front"], autostart=True, diagnostics_period=0.1),
        Client((), "seeking") as client,
    ):
        wait_for(client._is_active, 30)
        client.node.create_publisher(Image, "/front/image_rect", RELIABLE)
        wait_for(lambda: "nobody is known to publish it; images are on /front/image_rect" in client.status("front")[1])


@pytest.mark.parametrize(
    ("use_sim_time", "says"),
    [
        (False, "days behind this node's clock; if a bag is played, play it with --clock and set use_sim_time:=true"),
        (True, "ahead of this node's clock; use_sim_time is true and nothing has come on /clock"),
    ],
)
def test_stamps_of_another_clock_are_told_and_give_no_age(use_sim_time, says):
    """As a bag that is played without --clock: its stamps are years old."""
    with (
        NodeProcess(
            node_name="dated", cameras=["old"], autostart=True, diagnostics_period=0.1, use_sim_time=use_sim_time
        ) as node,
        Client(("old",), "dated") as client,
    ):
        client.connect()
        result = client.result_of(picture(), "old", Time(sec=1_700_000_000))
        assert result.status == PerceptionResult.STATUS_COMPLETE
        level, message, _ = wait_for(lambda: says in (status := client.status("old"))[1] and status)
        assert level == DiagnosticStatus.WARN[0]
        assert message.startswith("stamps are ")
        # A result is on its way a little before its latencies are noted.
        wait_for(lambda: client.status()[2].get("age_at_publish_ms") == "unknown")
        wait_for(lambda: f"/old/image_raw: {message}"[:40] in node.text)
        client.result_of(picture(), "old", Time(sec=1_700_000_001))
        time.sleep(0.5)
        assert node.text.count("/old/image_raw: stamps are") == 1


def test_a_camera_that_is_published_and_not_heard_is_named_once_until_it_is_heard():
    cameras = ["mute", "absent"]
    with (
        NodeProcess(node_name="listening", cameras=cameras, autostart=True, diagnostics_period=0.1) as node,
        Client(("mute",), "listening") as client,
    ):
        client.connect()
        says = "/client_of_listening publishes /mute/image_raw, but nothing has come for 3 s"
        wait_for(lambda: says in node.text)
        assert client.status("mute")[0] == client.status("absent")[0] == DiagnosticStatus.WARN[0]
        assert client.status("mute")[1].endswith("yet; /client_of_listening publishes it")
        assert "yet; nobody is known to publish it" in client.status("absent")[1]
        assert "/mute/image_raw" not in client.status("absent")[1], "another camera of this node"
        assert "absent/image_raw, but nothing" not in node.text
        client.result_of(picture(), "mute", client.node.get_clock().now().to_msg())
        wait_for(lambda: client.status("mute")[0] == DiagnosticStatus.OK[0])
        wait_for(lambda: node.text.count("publishes /mute/image_raw, but nothing has come") == 2)
        time.sleep(1.0)
        assert node.text.count("publishes /mute/image_raw, but nothing has come") == 2


def test_frames_that_were_overwritten_before_they_were_received_are_counted():
    with (
        NodeProcess(node_name="busy", cameras=["front"], autostart=True, diagnostics_period=0.1) as node,
        Client(("front",), "busy") as client,
    ):
        client.connect()
        assert client.status("front")[2]["lost_before_receipt"] == "unknown"
        client.result_of(picture(), "front")
        node.process.send_signal(signal.SIGSTOP)
        for _ in range(50):
            client.publish(picture(), "front")
        time.sleep(0.2)
        node.process.send_signal(signal.SIGCONT)

        client.result_of(picture(), "front")
        # The newest diagnostics may be older than the first frame.
        values = wait_for(lambda: adds_up(v := client.status("front")[2], 52) and v)
        assert int(values["lost_before_receipt"]) > 10, "the queue holds one"


def adds_up(values: dict[str, str], sent: int) -> bool:
    lost = values["lost_before_receipt"]
    return lost != "unknown" and int(values["received"]) + int(lost) == sent


def test_every_topic_has_parameters_that_override_its_quality_of_service(client):
    answer = client.call(ListParameters, "list_parameters", ListParameters.Request(prefixes=["qos_overrides"]))
    offered = set(answer.result.names)
    topics = {
        "publisher": client.node.get_publisher_names_and_types_by_node("activeo3", "/"),
        "subscription": client.node.get_subscriber_names_and_types_by_node("activeo3", "/"),
    }
    not_ours = {"/rosout", "/parameter_events", "/activeo3/transition_event"}  # the client library makes them
    for kind, entries in topics.items():
        names = {name for name, _ in entries if "/_action/" not in name} - not_ours
        assert len(names) > 1
        for name in names:
            policies = {"history", "depth", "reliability", "durability"}
            assert {f"qos_overrides.{name}.{kind}.{policy}" for policy in policies} <= offered


@pytest.mark.parametrize(
    ("environment", "profile", "middleware", "says"),
    [
        ({}, qos.IMAGES, "rmw_fastrtps_cpp", ""),
        ({PROFILES[0]: "transports.xml"}, qos.IMAGES, "rmw_fastrtps_cpp", ""),
        ({TRANSPORTS: "LARGE_DATA"}, qos.IMAGES, "rmw_fastrtps_cpp", "may never find each other"),
        ({TRANSPORTS: NON_BLOCKING}, qos.IMAGES, "rmw_fastrtps_cpp", "shared_memory.xml"),
        ({TRANSPORTS: "LARGE_DATA", PROFILES[0]: "transports.xml"}, qos.IMAGES, "rmw_fastrtps_cpp", ""),
        ({TRANSPORTS: "LARGE_DATA"}, qos.IMAGES, "rmw_cyclonedds_cpp", ""),
        ({TRANSPORTS: "UDPv4"}, qos.IMAGES, "rmw_fastrtps_cpp", ""),
        ({TRANSPORTS: NON_BLOCKING, **LOCALHOST}, qos.IMAGES, "rmw_fastrtps_cpp", "LARGE_DATA off"),
        ({TRANSPORTS: NON_BLOCKING, **LOCALHOST}, qos.RESULTS, "rmw_fastrtps_cpp", ""),
    ],
)
def test_transports_that_will_not_do_are_warned_of(environment, profile, middleware, says):
    warning = qos.warning_of_transports(profile, environment, middleware)
    assert says in warning
    assert bool(warning) == bool(says)


@pytest.mark.parametrize(
    ("reliability", "chosen_by_publishers", "middleware", "receive_buffer", "first"),
    [
        (BEST_EFFORT, False, "rmw_fastrtps_cpp", 2**30, "do not set qos_overrides./a.subscription.reliability"),
        (BEST_EFFORT, True, "rmw_fastrtps_cpp", 2**30, "let its publishers offer reliable"),
        (RELIABLE_POLICY, True, "rmw_fastrtps_cpp", 212_992, "sysctl -w net.core.rmem_max=33554432 (now 212992)"),
        (RELIABLE_POLICY, True, "rmw_fastrtps_cpp", 2**30, "start the publisher with FASTDDS_DEFAULT_PROFILES_FILE="),
        (RELIABLE_POLICY, True, "rmw_cyclonedds_cpp", 212_992, "publish it compressed"),
    ],
)
def test_what_to_set_where_images_are_lost(reliability, chosen_by_publishers, middleware, receive_buffer, first):
    profile = QoSProfile(depth=5, reliability=reliability)
    remedies = qos.remedies_for_losses("/a", profile, chosen_by_publishers, {}, middleware, receive_buffer)
    assert remedies[0].startswith(first)
    assert remedies[-1].startswith("publish it compressed")


def test_transports_that_the_discovery_range_switches_off_are_warned_of():
    environment = {
        **os.environ,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA",
    }
    override = {"qos_overrides./camera/image_raw.subscription.reliability": "reliable"}
    says = "LOCALHOST switches FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA off"
    for parameters, warned in (({}, True), (override, False), ({"transport": "compressed"}, False)):
        with NodeProcess(node_name="warned", autostart=True, environment=environment, **parameters) as node:
            wait_for(lambda node=node: "is ready after" in node.text, 30)
            assert node.text.count(says) == int(warned), node.text
