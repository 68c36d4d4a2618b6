"""`activeo3 serve`: the detector of a preset for several processes, here the real embedded model."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from waiting import wait_for

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import NEEDED_BY, require

SERVED = """\
sensing: {{type: detector_proposals}}
task: {{type: served, socket: {socket}}}
budget: {{max_regions: 2}}
query: {{classes: [car, truck, bus]}}
"""


@pytest.fixture(scope="module")
def motorway() -> Path:
    """A real picture with tiny cars; skips where the embedded preset cannot run."""
    try:
        return [require(asset) for asset in NEEDED_BY["demo"]][-2]
    except AssetError as error:
        pytest.skip(str(error))


def activeo3(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["activeo3", *map(str, arguments)], capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def server(motorway, tmp_path):
    """A running server, and the preset that asks it."""
    path, preset = tmp_path / "socket", tmp_path / "served.yaml"
    preset.write_text(SERVED.format(socket=path))
    command = ["activeo3", "serve", "embedded", "--socket", str(path), "--log-period", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(path.is_socket, 60, "the socket of the server")
    yield process, path, preset
    process.kill()
    process.wait()


def test_a_preset_that_asks_it_gives_what_the_embedded_preset_gives(server, motorway):
    process, path, preset = server
    own = ("--classes", "car,truck,bus", "--max-regions", "2", "--json")
    served, direct = (activeo3("perceive", motorway, "--preset", name, *own) for name in (preset, "embedded"))
    assert served.returncode == 0, served.stderr
    assert "no calibration" not in served.stderr  # that of the detector which is served
    [one], [other] = map(json.loads, served.stdout.splitlines()), map(json.loads, direct.stdout.splitlines())
    assert len(one["detections"]) > 10
    assert one["detections"] == other["detections"] and one["regions"] == other["regions"]
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0 and not path.exists()
    assert f"serving embedded (80 classes) at {path}" in out and f"task: {{type: served, socket: {path}}}" in out
    assert "views a second" in error


def test_a_socket_that_cannot_be_is_told_before_a_model_is_loaded(tmp_path):
    preset = tmp_path / "slow.yaml"
    preset.write_text("sensing: {type: grid}\ntask: {type: onnx, model: is_not_there.onnx}\n")
    finished = activeo3("serve", preset, "--socket", tmp_path / "no_such_folder" / "socket")
    assert finished.returncode == 2
    [line] = finished.stderr.splitlines()
    assert "cannot open the socket" in line and "No such file or directory" in line


def test_without_a_server_it_is_one_line(motorway, tmp_path):
    preset = tmp_path / "served.yaml"
    preset.write_text(SERVED.format(socket=tmp_path / "socket"))
    finished = activeo3("perceive", motorway, "--preset", preset)
    assert finished.returncode == 2
    [line] = finished.stderr.splitlines()
    assert "no detector is served at" in line and "activeo3 serve PRESET --socket" in line


@pytest.mark.parametrize(
    ("preset", "told"),
    [
        ("tiny", "is no detector, which alone is served"),
        ("nobody", "nobody"),
        ("served.yaml", "asks a served detector"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path, preset, told):
    (tmp_path / "served.yaml").write_text(SERVED.format(socket=tmp_path / "socket"))
    given = tmp_path / preset if preset.endswith(".yaml") else preset
    finished = activeo3("serve", given, "--socket", tmp_path / "socket")
    assert finished.returncode == 2
    assert told in finished.stderr.splitlines()[-1]
