"""How soon the node answers while a model loads and while frames are perceived.

    python benchmarks/node_responsiveness.py [--preset embedded] [--calls 100]

Asks `get_state` and `get_parameters` in turn, from another process, and notes when `/diagnostics` comes, while the node
is idle, while two fakes load for 10 s (one sleeps, as a model read from a slow disk does; one computes in Python and
never lets go of the interpreter, which is the worst that a library can do), while the preset loads, and while it looks
at 1080p frames at 10 Hz, also when a query makes it load one model more. Exits 1 where the 99th percentile of
`get_state` is above 50 ms while a fake loads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activeo3_ros.node.transports import own_domain, settings_for_images

TARGET_MS = 50.0
LOADING_S = 10.0
DIAGNOSTICS_S = 0.1
READING_QUERY = "read the sign"
NODE_NAME = "responsiveness"
CAMERA = "front"
FAKES = {"a fake that sleeps loads": "fake_sleeps", "a fake that computes loads": "fake_computes"}


def main() -> int:
    """Measure all cases or, started by itself, be the node."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--node", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node is not None:
        return be_the_node(options.node)
    os.environ["ROS_DOMAIN_ID"] = str(own_domain())
    os.environ.update(settings_for_images(os.environ))
    figures = measure(options.preset, options.calls)
    print(json.dumps({"target_ms": TARGET_MS, "calls": options.calls, **figures}, indent=2))
    late = [case for case in FAKES if figures[case]["get_state_ms"]["p99"] > TARGET_MS]
    for case in late:
        print(f"while {case}, get_state took longer than {TARGET_MS:g} ms", file=sys.stderr)
    return 1 if late else 0


# The node


class FakeSlowPreset:
    """The embedded preset's settings, with models that take `LOADING_S` to load and are never used."""

    def __init__(self, computes: bool) -> None:
        from activeo3_ros.presets import load_preset

        self._computes = computes
        preset = load_preset("full_frame")
        self.budget, self.query = preset.budget, preset.query

    def build(self) -> Any:
        """Take the time, then fail."""
        end = time.monotonic() + LOADING_S
        while time.monotonic() < end:
            if self._computes:
                sum(number * number for number in range(1000))
            else:
                time.sleep(0.1)
        raise RuntimeError("a fake has no models")


def be_the_node(arguments: list[str]) -> int:
    """The node as it ships, but with two presets more."""
    from activeo3_ros.node.perception_node import main as run
    from activeo3_ros.presets import load_preset

    def load(name: str) -> Any:
        return FakeSlowPreset(name == "fake_computes") if name in FAKES.values() else load_preset(name)

    return run(["perception_node", *arguments], load)


@contextlib.contextmanager
def process(*command: str) -> Iterator[None]:
    """A process that runs meanwhile."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen([sys.executable, *command], stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()


# The client


@dataclass
class Answers:
    """How long answers took and how far apart diagnostics came, in seconds."""

    get_state: list[float] = field(default_factory=list)
    get_parameters: list[float] = field(default_factory=list)
    diagnostics: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, dict[str, float]]:
        return {
            f"{name}_ms": {
                "p50": round(float(np.percentile(values, 50)) * 1e3, 1),
                "p99": round(float(np.percentile(values, 99)) * 1e3, 1),
                "max": round(max(values) * 1e3, 1),
            }
            for name, values in vars(self).items()
            if values
        }


class Asker:
    """A client in one thread, so that no time is lost between threads of its own."""

    def __init__(self) -> None:
        import rclpy
        from activeo3_ros.msg import PerceptionResult
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import ChangeState, GetState
        from rcl_interfaces.srv import GetParameters, SetParameters
        from rclpy.executors import SingleThreadedExecutor

        rclpy.init()
        self.node = rclpy.create_node("asker")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.answers = Answers()
        self.results = 0
        self._heard = 0.0
        self._services = {
            name: self.node.create_client(kind, f"/{NODE_NAME}/{name}")
            for name, kind in (
                ("get_state", GetState),
                ("change_state", ChangeState),
                ("get_parameters", GetParameters),
                ("set_parameters", SetParameters),
            )
        }
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 1)
        self.node.create_subscription(PerceptionResult, f"/{NODE_NAME}/{CAMERA}/result", self._on_result, 1)
        for service in self._services.values():
            if not service.wait_for_service(60):
                sys.exit("node_responsiveness: the node did not start")

    def call(self, service: str, **fields: Any) -> Any:
        """The answer of a service, waited for."""
        return self.wait(self.begin(service, **fields))

    def begin(self, service: str, **fields: Any) -> Any:
        """The future of the answer of a service."""
        client = self._services[service]
        return client.call_async(client.srv_type.Request(**fields))

    def wait(self, future: Any) -> Any:
        self._executor.spin_until_future_complete(future, 60)
        return future.result()

    def pass_time(self, seconds: float) -> None:
        """Serve callbacks."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(left)

    def ask(self, calls: int, spacing_s: float, until: Any = None) -> None:
        """Ask both services up to so many times each, until something has ended."""
        self._heard = 0.0
        for _ in range(calls):
            if until is not None and until.done():
                return
            for service, fields in (("get_state", {}), ("get_parameters", {"names": ["preset", "max_regions"]})):
                start = time.perf_counter()
                self.call(service, **fields)
                getattr(self.answers, service).append(time.perf_counter() - start)
            self.pass_time(spacing_s)

    def transition(self, label: str) -> Any:
        """The future of a lifecycle transition."""
        from lifecycle_msgs.msg import Transition

        ids = {"configure": 1, "cleanup": 2, "activate": 3, "deactivate": 4}
        return self.begin("change_state", transition=Transition(id=ids[label]))

    def set(self, name: str, value: str) -> None:
        """Set a parameter."""
        from rclpy.parameter import Parameter

        (result,) = self.call("set_parameters", parameters=[Parameter(name, value=value).to_parameter_msg()]).results
        if not result.successful:
            sys.exit(f"node_responsiveness: {result.reason}")

    def _on_diagnostics(self, _: Any) -> None:
        now = time.perf_counter()
        if self._heard:
            self.answers.diagnostics.append(now - self._heard)
        self._heard = now

    def _on_result(self, _: Any) -> None:
        self.results += 1


def measure(preset: str, calls: int) -> dict[str, Any]:
    """The figures of each case."""
    figures: dict[str, Any] = {}
    spacing_s = 0.8 * LOADING_S / calls
    node = [__file__, "--node", "--ros-args", "-r", f"__node:={NODE_NAME}", "-p", f"cameras:=[{CAMERA}]"]
    with process(*node, "-p", f"diagnostics_period:={DIAGNOSTICS_S}"):
        asker = Asker()

        def case(name: str) -> None:
            figures[name] = asker.answers.figures()
            asker.answers = Answers()
            print(name, figures[name], file=sys.stderr, flush=True)

        asker.pass_time(1.0)
        asker.ask(calls, spacing_s)
        case("nothing happens")
        for name, fake in FAKES.items():
            asker.set("preset", fake)
            loading = asker.transition("configure")
            asker.ask(calls, spacing_s, until=loading)
            case(name)
            asker.wait(loading)
        asker.set("preset", preset)
        # Over and over: one load is shorter than a hundred calls.
        while len(asker.answers.get_state) < calls:
            loading = asker.transition("configure")
            asker.ask(calls, 0.0, until=loading)
            if not asker.wait(loading).success:
                sys.exit(f"node_responsiveness: the preset {preset} cannot be loaded; run: activeo3 prefetch {preset}")
            if len(asker.answers.get_state) < calls:
                asker.wait(asker.transition("cleanup"))
        case(f"{preset} loads")
        asker.wait(asker.transition("activate"))
        with process(str(Path(__file__).with_name("node_soak.py")), "--camera", CAMERA):
            while not asker.results:
                asker.pass_time(0.5)
            asker.ask(calls, spacing_s)
            case(f"{preset} looks at frames")
            start = time.perf_counter()
            asker.set("query", READING_QUERY)
            answered_ms = round((time.perf_counter() - start) * 1e3, 1)
            asker.ask(calls // 5, 0.0)
            case(f"{preset} looks at frames and loads what a query needs")
            figures[f"{preset} looks at frames and loads what a query needs"]["set_parameters_ms"] = answered_ms
    return figures


if __name__ == "__main__":
    sys.exit(main())
