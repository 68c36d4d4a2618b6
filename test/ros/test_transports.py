"""The transports that are set or recommended for raw images: frames of 6 MB get through them at best effort."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from loading import BENCHMARKS, load_script

from activeo3_ros.node.transports import (
    BEFORE_FAST_DDS_3,
    OWN_DOMAINS,
    RECEIVE_BUFFER_TO_SET,
    carries_images,
    is_chosen,
    largest_receive_buffer,
    left_segments,
    own_domain,
    profile_for_images,
    settings_for_images,
    settings_for_node,
)

STARTUP = BENCHMARKS / "transport_startup.py"
PROFILE = Path(profile_for_images({})[1])
FRAME = 1920 * 1080 * 3


LARGE_DATA = "large_data_wide" if os.environ.get("ROS_DISTRO") in BEFORE_FAST_DDS_3 else "large_data_non_blocking"
"""As docs/how-to/transports.md says: before Fast DDS 3.2 with a larger segment."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", [LARGE_DATA, "shared_memory"])
def test_a_1080p_camera_that_starts_with_its_listener_is_heard_at_best_effort(way, tmp_path):
    """The default transports lose nearly all of these frames. `benchmarks/transport_startup.py` counts many starts."""
    if "fastrtps" not in pytest.importorskip("rclpy").get_rmw_implementation_identifier():
        pytest.skip("these are Fast DDS's transports")
    record = tmp_path / "record.json"
    options = ["--starts", "1", "--cameras", "1", "--ways", way, "--reliability", "best_effort", "--json", str(record)]
    subprocess.run([sys.executable, str(STARTUP), *options], env=os.environ, cwd="/", timeout=100, check=True)
    (camera,) = json.loads(record.read_text(encoding="utf-8"))[0]["starts"][0]
    assert camera["first_s"] is not None, camera
    sent = camera["numbers"][-1] - camera["numbers"][0] + 1
    assert len(camera["numbers"]) > sent / 2, camera


def test_the_profile_holds_several_frames_and_keeps_udp_for_discovery_and_other_machines():
    tree = ElementTree.parse(PROFILE)
    name = "{http://www.eprosima.com}"
    transports = {
        transport.findtext(f"{name}type"): transport for transport in tree.iter(f"{name}transport_descriptor")
    }
    assert set(transports) == {"SHM", "UDPv4"}
    segment = int(transports["SHM"].findtext(f"{name}segment_size"))
    assert segment >= 5 * FRAME
    assert int(transports["SHM"].findtext(f"{name}port_queue_capacity")) >= segment / 65_536
    used = {entry.text for entry in tree.findall(f".//{name}userTransports/{name}transport_id")}
    assert used == {transport.findtext(f"{name}transport_id") for transport in transports.values()}


@pytest.mark.parametrize(
    ("environment", "chosen", "carries"),
    [
        ({}, False, False),
        ({"FASTDDS_BUILTIN_TRANSPORTS": ""}, False, False),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, True, False),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, True, True),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA?non_blocking=true"}, True, True),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE)}, True, True),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE)}, True, True),
    ],
)
def test_what_counts_as_chosen(environment, chosen, carries):
    assert (is_chosen(environment), carries_images(environment)) == (chosen, carries)
    assert bool(settings_for_images(environment)) != chosen
    assert carries_images({**environment, **settings_for_images(environment)}) == (carries or not chosen)


@pytest.mark.parametrize(
    ("environment", "receive_buffer", "variable"),
    [
        ({"ROS_DISTRO": "kilted"}, 4 * 2**20, "FASTDDS_DEFAULT_PROFILES_FILE"),
        ({"ROS_DISTRO": "jazzy"}, 2**30, "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ({"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}, 2**30, "FASTDDS_DEFAULT_PROFILES_FILE"),
        ({}, 212_992, ""),  # Linux's default: pieces would be lost there
        ({}, 0, ""),  # unknown
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, 2**30, ""),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, 2**30, ""),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "own.xml"}, 2**30, ""),
    ],
)
def test_the_node_takes_a_large_receive_buffer_where_it_can_and_nothing_else_is_chosen(
    environment, receive_buffer, variable
):
    settings = settings_for_node(environment, receive_buffer)
    assert list(settings) == ([variable] if variable else [])
    for profile in settings.values():
        name = "{http://www.eprosima.com}"
        (transport,) = ElementTree.parse(profile).iter(f"{name}transport_descriptor")
        assert transport.findtext(f"{name}type") == "UDPv4"
        assert int(transport.findtext(f"{name}receiveBufferSize")) == RECEIVE_BUFFER_TO_SET


def test_a_receive_buffer_that_is_not_told_is_unknown(tmp_path):
    (tmp_path / "rmem_max").write_text("212992\n", encoding="ascii")
    assert largest_receive_buffer(tmp_path / "rmem_max") == 212_992
    assert largest_receive_buffer(tmp_path / "absent") == 0


def test_shared_memory_of_a_killed_process_is_told_from_that_of_a_living_one(tmp_path):
    """The lock beside a segment is held by its process as long as that lives; the files outlive it."""
    for name in ("fastdds_0123456789abcdef", "fastdds_port7411"):
        (tmp_path / name).write_bytes(bytes(8192))
        (tmp_path / f"{name}_el").touch()
    hold = (
        f"import fcntl; lock = open({str(tmp_path / 'fastdds_port7411_el')!r}, 'w'); fcntl.flock(lock, fcntl.LOCK_EX)"
    )
    command = [sys.executable, "-c", f"{hold}; print('held', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert left_segments(tmp_path) == {tmp_path / "fastdds_0123456789abcdef": 8192}
        process.kill()
    assert set(left_segments(tmp_path)) == {tmp_path / "fastdds_0123456789abcdef", tmp_path / "fastdds_port7411"}
    assert left_segments(tmp_path / "nothing") == {}


def test_a_domain_of_our_own_is_one_that_no_process_uses(monkeypatch):
    rclpy = pytest.importorskip("rclpy")
    domain, others = own_domain(), {own_domain() for _ in range(20)}
    assert {domain, *others} <= set(OWN_DOMAINS)
    monkeypatch.setattr("activeo3_ros.node.transports.OWN_DOMAINS", sorted({domain, *others}))
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("here", context=context)
    try:
        assert domain not in {own_domain() for _ in range(200)}
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert domain in {own_domain() for _ in range(1000)}


@pytest.mark.parametrize(
    ("benchmark", "measures"), [("node_overhead", "measure"), ("node_responsiveness", "measure"), ("node_soak", "soak")]
)
def test_a_benchmark_leaves_the_domain_of_its_shell(benchmark, measures, monkeypatch):
    class Measured(Exception):
        pass

    def measure(*_):
        raise Measured(os.environ["ROS_DOMAIN_ID"])

    script = load_script(BENCHMARKS / f"{benchmark}.py")
    monkeypatch.setattr(os, "environ", {**os.environ, "ROS_DOMAIN_ID": "7"})
    monkeypatch.setattr(sys, "argv", [benchmark])
    monkeypatch.setattr(script, measures, measure)
    with pytest.raises(Measured) as measured:
        script.main()
    assert int(str(measured.value)) in OWN_DOMAINS
