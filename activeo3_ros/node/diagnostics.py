# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Builds the statuses of `/diagnostics`: one for the node and one for each camera.

OK: frames are perceived. WARN: results come, with faults. ERROR: no usable result comes. STALE: no frame is perceived,
because the node is not active or a model is still loading.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from ..core import ActivePerception
from .camera_input import Publishers
from .frame_counters import Counts, Distribution, clocks_agree, counts_from_start

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)

SILENT_S = 3.0
"""Seconds without an image after which a camera is reported."""


LEAST_LOST, LEAST_SHARE_LOST = 5, 0.02
"""Lost images, and share of those that were sent, from which on the log tells of them."""


class NodeClock(Enum):
    """The clock of the node. The value: what to do where stamps are of another one."""

    SYSTEM = "if a bag is played, play it with --clock and set use_sim_time:=true; else set the clocks of both machines"
    SIMULATED = "use_sim_time is true: let what publishes the images follow /clock too, or set use_sim_time:=false"
    NOT_STARTED = "use_sim_time is true and nothing has come on /clock: play the bag with --clock, or set it to false"


@dataclass(frozen=True)
class NodeReport:
    """The values behind the node's status.

    Attributes:
        state: Label of the lifecycle state.
        enabled: Whether `~/enable` lets frames in.
        loading_s: Seconds since models began to load, 0 while none do.
        error: Why models could not be loaded, "" if they could.
        facts: Further keys and values: preset, models, device, query, memory.
        counts: Frames of all cameras since the node started.
        before: The counts at the last report, `seconds` ago.
        seconds: Time since the last report.
        latencies: Milliseconds of each stage.
        hung_threads: Sets of models that hang and still hold their memory.
        last_error: Why the last frame or transition failed.
    """

    state: str
    enabled: bool
    loading_s: float
    error: str
    facts: Mapping[str, str]
    counts: Counts
    before: Counts
    seconds: float
    latencies: Mapping[str, Distribution]
    hung_threads: int
    last_error: str


@dataclass(frozen=True)
class CameraReport:
    """The values behind a camera's status.

    Attributes:
        camera: Name of the camera.
        topic: Full name of its image topic.
        working: Whether the node is active and enabled.
        counts: Its frames since the node started.
        before: The counts at the last report, `seconds` ago.
        seconds: Time since the last report.
        quality_of_service: Reliability and durability that the subscription asks for.
        lost_before_receipt: Messages that were sent and never received, None where that is unknown.
        lost_in_transport: Those of them that the middleware reported.
        publishers: The nodes that publish its images.
        silent_s: Seconds since its newest message, NaN before the first.
        stamp_s: Its newest stamp, seconds, NaN without one.
        now_s: The node's clock, seconds.
        clock: The clock that stamps are compared with.
        calibration_error: Why its camera_info does not fit its images, "" if it does or was not needed.
        calibration_changes: How often its camera_info has changed.
        forgotten: Objects that were forgotten because more were remembered than a scene can hold.
        depth_topic: Full name of its depth topic, "" where the node does not subscribe to depth.
        depth_fault: Why the newest tracks have no positions, "" if they have or were not needed.
        video_fault: Why the newest packet of its video was not decoded, "" if it was.
        lost_meanwhile: Those of `lost_before_receipt` since the last report.
        loss_remedy: What to set against such losses.
    """

    camera: str
    topic: str
    working: bool
    counts: Counts
    before: Counts
    seconds: float
    quality_of_service: str
    lost_before_receipt: int | None
    lost_in_transport: int
    publishers: Publishers
    silent_s: float
    stamp_s: float
    now_s: float
    clock: NodeClock
    calibration_error: str = ""
    calibration_changes: int = 0
    forgotten: int = 0
    depth_topic: str = ""
    depth_fault: str = ""
    video_fault: str = ""
    lost_meanwhile: int = 0
    loss_remedy: str = ""

    @property
    def age_s(self) -> float:
        """Age of its newest stamp in seconds, negative if that is ahead; NaN where it is unknown."""
        return math.nan if counts_from_start(self.stamp_s, self.now_s) else self.now_s - self.stamp_s


def node_status(name: str, hardware_id: str, report: NodeReport) -> DiagnosticStatus:
    """Build the status of the node: its models, query, counts and latencies.

    Args:
        name: Full name of the node without the leading slash.
        hardware_id: Identifies the machine.
        report: The values.
    """
    level, message = _node_level(report)
    values = {
        "state": report.state,
        "enabled": str(report.enabled).lower(),
        **report.facts,
        **_counts(report.counts),
        "processed_hz": _rate(report.counts.processed - report.before.processed, report.seconds),
        **({"age_at_publish_ms": "unknown"} if report.latencies else {}),
        **{f"{stage}_ms": _distribution(values) for stage, values in report.latencies.items()},
        "hung_threads": str(report.hung_threads),
        "last_error": report.last_error,
    }
    return _status(name, hardware_id, level, message, values)


def camera_status(name: str, hardware_id: str, report: CameraReport) -> DiagnosticStatus:
    """Build the status of one camera: its images, counts and rates.

    Args:
        name: Full name of the node without the leading slash.
        hardware_id: Identifies the machine.
        report: The values.
    """
    level, message = _camera_level(report)
    received = report.counts.received - report.before.received
    values = {
        "topic": report.topic,
        **_counts(report.counts),
        "received_hz": _rate(received, report.seconds),
        "processed_hz": _rate(report.counts.processed - report.before.processed, report.seconds),
        "quality_of_service": report.quality_of_service,
        "lost_before_receipt": "unknown" if report.lost_before_receipt is None else str(report.lost_before_receipt),
        "lost_in_transport": str(report.lost_in_transport),
        "publishers": ", ".join(report.publishers.heard),
        "publishers_not_heard": "; ".join(report.publishers.unheard),
        "silent_s": _number(report.silent_s),
        "stamp_age_s": _number(report.age_s),
        "calibration_error": report.calibration_error,
        "calibration_changes": str(report.calibration_changes),
        "objects_forgotten": str(report.forgotten),
        "depth_topic": report.depth_topic,
        "depth_fault": report.depth_fault,
        "video_fault": report.video_fault,
    }
    return _status(f"{name}: {report.camera}", hardware_id, level, message, values)


def camera_line(report: CameraReport) -> str:
    """One line for the log: how many images of a camera came, how they ended, and its state as in /diagnostics.

    Args:
        report: The values; `before` and `seconds` are those since the last line.
    """
    counts = report.counts
    ended = ("processed", "replaced", "stale", "failed", "rejected", "undecoded", "pending")
    parts = [f"{getattr(counts, name)} {name}" for name in ended if getattr(counts, name)]
    lost = report.lost_before_receipt
    parts += [f"{lost} more lost before receipt"] if lost else []
    detail = f" ({', '.join(parts)})" if parts else ""
    return f"{report.camera}: {counts.received} images came{detail}; {_camera_level(report)[1]}"


def model_facts(perception: ActivePerception) -> dict[str, str]:
    """The models by role and their devices: the `device` that a model, or its `engine`, names, else the CPU."""
    models: dict[str, object] = {"sensing": perception.sensing, "task": perception.task}
    if perception.segmenter is not None:
        models["segmenter"] = perception.segmenter
    facts = {role: _description(model) for role, model in models.items()}
    devices = list(dict.fromkeys(_device(model) for model in models.values()))
    facts["device"] = ", ".join(devices)
    torch = sys.modules.get("torch")
    on_gpu = [device for device in devices if device.startswith("cuda")]
    if torch is not None and on_gpu:
        facts["device_memory_mb"] = f"{sum(torch.cuda.memory_allocated(device) for device in on_gpu) / 2**20:.0f}"
    return facts


def _description(model: object) -> str:
    engine, label = getattr(model, "engine", None), getattr(model, "label", "")
    words = f", words: {model.words}" if hasattr(model, "words") else ""
    about = f": {engine.describe()}{words}" if engine is not None else f": {label}" if label else ""
    return type(model).__name__ + about


def _device(model: object) -> str:
    inner = getattr(model, "engine", None) or getattr(model, "detector", None)
    return str(getattr(model, "device", None) or getattr(inner, "device", "cpu"))


def resident_memory_mb() -> float:
    """Memory of this process that is in use now, in MiB."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _node_level(report: NodeReport) -> tuple[bytes, str]:
    if report.loading_s > 0:
        return (WARN if report.state == "active" else STALE), f"loading models for {report.loading_s:.0f} s"
    if report.error:
        return ERROR, report.error
    if report.state != "active":
        return STALE, f"{report.state}: nothing is looked at"
    if not report.enabled:
        return STALE, "disabled by ~/enable: nothing is looked at"
    done, failed = (
        _steps(report.counts, report.before, "processed"),
        _steps(report.counts, report.before, "failed"),
    )
    if failed and not done:
        return ERROR, f"every frame fails: {report.last_error}"
    if failed or report.hung_threads:
        return (
            WARN,
            f"{failed} frames failed: {report.last_error}" if failed else "a model hung and was loaded again",
        )
    return OK, f"{_rate(done, report.seconds)} frames a second"


def _camera_level(report: CameraReport) -> tuple[bytes, str]:
    if not report.working:
        return STALE, "not looked at"
    if math.isnan(report.silent_s):
        return WARN, f"nothing has come on {report.topic} yet{_silent_publishers(report)}"
    if report.silent_s > SILENT_S:
        return WARN, f"nothing has come on {report.topic} for {report.silent_s:.1f} s{_silent_publishers(report)}"
    done = _steps(report.counts, report.before, "processed")
    rejected, failed = (
        _steps(report.counts, report.before, "rejected"),
        _steps(report.counts, report.before, "failed"),
    )
    stale = _steps(report.counts, report.before, "stale")
    if rejected or failed:
        return (WARN if done else ERROR), f"{rejected} frames rejected, {failed} failed; see last_error of the node"
    if undecoded := _steps(report.counts, report.before, "undecoded"):
        fault = report.video_fault or "packets before them were lost"
        return (WARN if done else ERROR), f"{undecoded} packets of the video not decoded: {fault}"
    if stale:
        cause = clock_warning(report) or "do the clocks agree?"
        return (WARN if done else ERROR), f"{stale} frames older than max_frame_age; {cause}"
    from_start = counts_from_start(report.stamp_s, report.now_s)  # as long as this driver runs: told once, by the log
    if not from_start and (warning := clock_warning(report)):
        return WARN, warning
    if report.lost_meanwhile:
        return WARN, f"{report.lost_meanwhile} frames lost before receipt; {report.loss_remedy}"
    if report.calibration_error:
        return WARN, f"no markers or bearings: {report.calibration_error}"
    if report.depth_fault:
        return WARN, f"no positions: {report.depth_fault}"
    told = "; stamps count from a machine's start" if from_start else ""
    return OK, f"{_rate(done, report.seconds)} frames a second{told}"


def _silent_publishers(report: CameraReport) -> str:
    heard, unheard, elsewhere = report.publishers.heard, report.publishers.unheard, report.publishers.elsewhere
    told = [f"{', '.join(heard)} publishes it"] if heard else []
    told += unheard
    if not told:
        told = ["nobody is known to publish it", *([f"images are on {', '.join(elsewhere)}"] if elsewhere else [])]
    return "".join(f"; {sentence}" for sentence in told)


def clock_warning(report: CameraReport) -> str:
    """Say that a camera's stamps are of another clock than the node's, and what to do; "" where they are not."""
    if counts_from_start(report.stamp_s, report.now_s):
        return (
            f"stamps count from a machine's start, {_duration(report.stamp_s)} ago: their age is unknown, and "
            "max_frame_age would refuse all; let the driver stamp with the system's time"
        )
    if math.isnan(report.age_s) or clocks_agree(report.age_s):
        return ""
    apart = f"{_duration(abs(report.age_s))} {'ahead of' if report.age_s < 0 else 'behind'} this node's clock"
    return f"stamps are {apart}; {report.clock.value}"


def loss_warning(report: CameraReport) -> str:
    """Say how many images of a camera were lost on their way and what to set; "" for a few."""
    lost = report.lost_before_receipt or 0
    sent = report.counts.received + lost
    if lost < LEAST_LOST or lost < LEAST_SHARE_LOST * sent:
        return ""
    return (
        f"{lost} of {sent} frames of {report.topic} were lost before this node received them; the middleware reports "
        f"{report.lost_in_transport} of them, the others were overwritten in the publisher's or this node's queue. "
        f"They are read as {report.quality_of_service}. Try in this order: {report.loss_remedy} "
        "(docs/how-to/transports.md)"
    )


def _duration(seconds: float) -> str:
    """Seconds in a unit that people can read."""
    for unit, length, limit in (("s", 1, 600), ("min", 60, 7200), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _steps(now: Counts, before: Counts, name: str) -> int:
    return int(getattr(now, name) - getattr(before, name))


def _counts(counts: Counts) -> dict[str, str]:
    return {field.name: str(getattr(counts, field.name)) for field in fields(Counts)}


def _rate(frames: int, seconds: float) -> str:
    return f"{frames / seconds:.1f}" if seconds > 0 else "0.0"


def _distribution(values: Distribution) -> str:
    return f"p50 {values.p50:.1f}, p95 {values.p95:.1f}, max {values.max:.1f}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "unknown"


def _status(name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        hardware_id=hardware_id,
        message=message[:1000],
        values=[KeyValue(key=key, value=value[:1000]) for key, value in values.items()],
    )
