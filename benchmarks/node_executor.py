"""CPU and latency of the node with its executor and each of rclpy's, at three 1080p cameras of 10 Hz.

    python benchmarks/node_executor.py [--seconds 20] [--json FILE]

The node is the real one in a process of its own, with a preset that finds nothing in no time, so that what is measured
is executor, queue, decoding and publishing. The cameras are ordinary drivers (`benchmarks/node_soak.py`). For each:

- CPU: seconds of processor time of the node's process for each second;
- results of the frames that were sent in the meantime, and their age, from the stamp to the result that was received;
- how long `get_state` takes, asked twice a second;
- how long it takes while `configure` loads a model for 5 s: an executor of one thread cannot answer before it ends.

`events` is left out where the distribution has no `rclpy.experimental.EventsExecutor`. A case in which no results come
ends as `hung`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from activeo3_ros.core import ActivePerception, Budget, Findings, Proposal, Query
from activeo3_ros.node.transports import PROFILES, TRANSPORTS, largest_receive_buffer, own_domain, settings_for_node

EXECUTORS = ("quiet", "multi_threaded", "single_threaded", "events")
CAMERAS = ("front", "left", "right")
LOADING_S = 5.0
WARM_UP_S = 5.0
LONGEST_START_S = 60.0
"""Seconds besides those that are measured, after which a case counts as hung."""
DRIVER = Path(__file__).parent / "node_soak.py"
TICKS = os.sysconf("SC_CLK_TCK")


class Nothing:
    """Policy and task in one: no regions, nothing found."""

    batch_size = 1

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        return 64, 36

    def propose(self, view: Any, query: Query, budget: Budget) -> Proposal:
        return Proposal(())

    def examine(self, views: Any, query: Query, budget: Budget) -> list[Findings]:
        return [Findings() for _ in views]

    def answer(self, query: Query, findings: Any, groundings: Any) -> str | None:
        return None


@dataclasses.dataclass
class EmptyPreset:
    """A preset that finds nothing, after so many seconds of loading."""

    load_s: float
    budget: Budget = dataclasses.field(default_factory=lambda: Budget(max_regions=0))
    query: Query = dataclasses.field(default_factory=Query)

    def build(self) -> ActivePerception:
        time.sleep(self.load_s)
        return ActivePerception(Nothing(), Nothing(), self.budget)


def main() -> int:
    """Measure each executor or, started by itself, be the node."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=list(EXECUTORS))
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--node", choices=EXECUTORS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        return be_the_node(options.node)
    for name in (TRANSPORTS, *PROFILES):
        os.environ.pop(name, None)
    figures: dict[str, Any] = {}
    for name in options.executors:
        if name == "events" and events_executor() is None:
            print("this distribution has no EventsExecutor", file=sys.stderr)
            continue
        os.environ["ROS_DOMAIN_ID"] = str(own_domain())
        code = f"import node_executor; node_executor.observe({name!r}, {options.seconds})"
        observing = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=DRIVER.parent,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = observing.communicate(timeout=options.seconds + LONGEST_START_S)
            figures[name] = json.loads(said.splitlines()[-1])
        except subprocess.TimeoutExpired:
            os.killpg(observing.pid, signal.SIGKILL)  # itself, the node and the cameras
            observing.communicate()
            figures[name] = {"hung": True}
        print(json.dumps({name: figures[name]}), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"seconds": options.seconds, **figures}, indent=1) + "\n", encoding="utf-8")
    return 0


def events_executor() -> Any:
    """The EventsExecutor of rclpy, None where there is none."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return None
    return EventsExecutor


def be_the_node(name: str) -> int:
    """The node with an executor, until SIGTERM; it waits to be configured."""
    os.environ.update(settings_for_node(os.environ, largest_receive_buffer()))
    import rclpy
    from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
    from rclpy.parameter import Parameter
    from rclpy.signals import SignalHandlerOptions

    from activeo3_ros.node.executor import QuietExecutor
    from activeo3_ros.node.perception_node import EXECUTOR_THREADS, SWITCH_INTERVAL_S, PerceptionNode

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    node = PerceptionNode(
        lambda preset, trusted: EmptyPreset(LOADING_S),
        parameter_overrides=[Parameter("cameras", value=list(CAMERAS))],
    )
    if name == "events":
        executor = events_executor()()
    elif name == "single_threaded":
        executor = SingleThreadedExecutor()
    elif name == "quiet":
        executor = QuietExecutor(EXECUTOR_THREADS)
    else:
        executor = MultiThreadedExecutor(EXECUTOR_THREADS)
    executor.add_node(node)
    threading.Thread(target=executor.spin, daemon=True).start()
    stop.wait()
    os._exit(0)


def observe(name: str, seconds: float) -> None:
    """Start node and cameras, listen, and print the figures of one executor."""
    import rclpy
    from activeo3_ros.msg import PerceptionResult
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    rclpy.init()
    listener = rclpy.create_node("listener")
    ages_ms: list[float] = []

    def on_result(result: PerceptionResult) -> None:
        stamp = result.header.stamp
        ages_ms.append(time.time() * 1e3 - stamp.sec * 1e3 - stamp.nanosec / 1e6)

    for camera in CAMERAS:
        listener.create_subscription(PerceptionResult, f"/activeo3/{camera}/result", on_result, 50)
    change_state: Any = listener.create_client(ChangeState, "/activeo3/change_state")
    get_state: Any = listener.create_client(GetState, "/activeo3/get_state")

    def call(client: Any, request: Any) -> float:
        """Milliseconds until the answer."""
        began = time.perf_counter()
        rclpy.spin_until_future_complete(listener, client.call_async(request), timeout_sec=LOADING_S + 30.0)
        return (time.perf_counter() - began) * 1e3

    command = [sys.executable, str(DRIVER.with_name("node_executor.py")), "--node", name]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL)]
    try:
        change_state.wait_for_service(30.0)
        get_state.wait_for_service(30.0)
        configuring = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        configured = change_state.call_async(configuring)
        time.sleep(1.0)
        while_loading_ms = call(get_state, GetState.Request())
        rclpy.spin_until_future_complete(listener, configured, timeout_sec=LOADING_S + 30.0)
        call(change_state, ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE)))
        driver = [sys.executable, str(DRIVER), "--ordinary-drivers", "--camera"]
        processes += [subprocess.Popen([*driver, camera], stdout=subprocess.DEVNULL) for camera in CAMERAS]
        while len(ages_ms) < 3 * len(CAMERAS):
            rclpy.spin_once(listener, timeout_sec=0.1)
        end = time.monotonic() + WARM_UP_S
        while time.monotonic() < end:
            rclpy.spin_once(listener, timeout_sec=0.1)
        ages_ms.clear()
        began, cpu = time.monotonic(), cpu_seconds(processes[0].pid)
        get_state_ms, due = [], began
        while time.monotonic() - began < seconds:
            rclpy.spin_once(listener, timeout_sec=0.05)
            if time.monotonic() > due:
                due += 0.5
                get_state_ms.append(call(get_state, GetState.Request()))
        elapsed = time.monotonic() - began
        used = cpu_seconds(processes[0].pid) - cpu
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)
    print(
        json.dumps(
            {
                "cpu": round(used / elapsed, 3),
                "results_hz": round(len(ages_ms) / elapsed, 1),
                "age_ms": percentiles(ages_ms),
                "get_state_ms": percentiles(get_state_ms),
                "get_state_while_loading_ms": round(while_loading_ms, 1),
            }
        ),
        flush=True,
    )
    os._exit(0)


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def percentiles(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(values or [float("nan")], [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1)}


if __name__ == "__main__":
    sys.exit(main())
