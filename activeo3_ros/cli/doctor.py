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

"""`activeo3 doctor`: report which presets this machine can run, what is missing, and the command that brings it."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .. import __version__, plugins, presets
from ..assets import packages as assets
from ..assets.cache import CACHE_VARIABLE, cache_directory
from ..assets.onnx_session import disable_telemetry
from ..assets.weights import TINY_PREFIX, local_model, model_of
from ..codecs.video import PACKAGE as VIDEO_PACKAGE
from ..core import PerceptionError
from ..core.optional import installed_version, require_package
from ..node.transports import TRANSPORTS, carries_images, left_segments, profile_for_images
from ..vlm.backends.remote_engine import API_KEY_VARIABLE
from ..vlm.imported_prompts import IMPORT, load_imported
from .checks import SOURCE_ROS
from .checks import Check as Check
from .doctor_robot import robot_checks
from .main import SUCCESS

PYTHONS = ((3, 10), (3, 14))
"""The oldest and the newest Python that is tried."""
LEAST_DISK_GB = 1.0
MAX_LEFT_MB = 100.0
"""Shared memory that killed processes left behind, from which on it is worth telling."""
PIP_GPU = "pip install '.[gpu]'"
MAKE_TINY = "make setup EXTRAS=mllm"
"""Brings PyTorch for a CPU into a source tree, the only place that has activeo3-tiny's weights."""
PIP_REMOTE = "pip install '.[remote]'"
SERVER_S = 3.0
"""Seconds that a model server has for the list of its models."""


@dataclass(frozen=True)
class PresetCheck:
    """Whether a preset can run; reasons and commands in `because` if not."""

    name: str
    description: str
    ok: bool
    because: tuple[str, ...] = ()


NEEDED_BY_TYPE: dict[str, tuple[str, ...]] = {
    "embedded": ("onnxruntime", "rapidocr"),
    "onnx": ("onnxruntime",),
    "transformers": ("torch", "transformers"),
}
"""Checks that a component of a preset needs, by its type (see `presets.COMPONENT_TYPES`)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--robot", action="store_true", help="also check an installation beside a distribution's ROS 2")


def run(args: argparse.Namespace) -> int:
    """Check everything and print it; something missing is no failure of this command."""
    groups = {title: check() for title, check in GROUPS.items()}
    if args.robot:
        groups["robot"] = robot_checks()
    checks = {check.name: check for group in groups.values() for check in group}
    preset_checks = [check_preset(name, checks) for name in presets.preset_names()]
    if args.json:
        print(json.dumps(_as_dict(groups, preset_checks), indent=2))
    else:
        print(_as_text(groups, preset_checks))
    return SUCCESS


def check_preset(name: str, checks: dict[str, Check]) -> PresetCheck:
    """Check whether a preset can run.

    Args:
        name: Of the preset.
        checks: The checks of this machine, by name.
    """
    try:
        preset = presets.load_preset(name)
    except PerceptionError as error:
        return PresetCheck(name, "", False, (str(error),))
    components = [preset.sensing, preset.task, *([preset.segmenter] if preset.segmenter else [])]
    needed = dict.fromkeys(check for part in components for check in NEEDED_BY_TYPE.get(part.type, ()))
    missing = [checks[check] for check in needed] + [_asset(asset) for asset in assets.NEEDED_BY.get(name, ())]
    models = dict.fromkeys(model for part in components if (model := model_of(part.settings)))
    if models:
        on_cpu = all(model.startswith(TINY_PREFIX) for model in models)
        packages = [checks["torch"], checks["transformers"]]
        missing += [replace(check, fix=MAKE_TINY) if on_cpu and check.fix else check for check in packages]
        missing += [_large_model(model, name) for model in models]
    missing += [_server(url, model) for url, model in dict.fromkeys(filter(None, map(_remote_engine, components)))]
    because = tuple(f"{check.name}: {check.found}{_command(check)}" for check in missing if not check.ok)
    return PresetCheck(name, preset.description, not because, because)


def _command(check: Check) -> str:
    return f"; run: {check.fix}" if check.fix else ""


def _large_model(model: str, preset: str) -> Check:
    """Whether the weights of a large model are on this machine."""
    try:
        return Check(model, True, str(local_model(model)), preset)
    except PerceptionError as error:
        found, can_be_fetched, _ = str(error).partition("; run: ")
        return Check(model, False, found, preset, f"activeo3 prefetch {preset}" if can_be_fetched else "")


def _remote_engine(part: presets.Component) -> tuple[str, str] | None:
    """The url of the server that a component asks, and the model's name there; None where it asks none."""
    engine = part.settings.get("engine")
    if not isinstance(engine, Mapping) or engine.get("type") != "remote":
        return None
    return str(engine.get("url", "")), str(engine.get("model", ""))


def _server(url: str, model: str) -> Check:
    """Whether a model server answers and has the model.

    Args:
        url: Of the API, such as "http://localhost:8000/v1".
        model: Its name there.
    """
    name, needed_for = f"server {url}", "presets with a model behind HTTP"
    start = f"vllm serve {shlex.quote(model)} (docs/how-to/serve-a-model.md)"
    try:
        httpx = require_package("httpx", "to ask a model server", "activeo3_ros[remote]")
    except PerceptionError:
        return Check(name, False, "cannot be asked without httpx", needed_for, PIP_REMOTE)
    key = os.environ.get(API_KEY_VARIABLE)
    try:
        with httpx.Client(trust_env=False, timeout=SERVER_S) as client:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            answer = client.get(f"{url.rstrip('/')}/models", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Check(name, False, f"does not answer: {_first_line(error)}", needed_for, start)
    if answer.status_code in (401, 403):
        return Check(name, False, f"HTTP {answer.status_code}", needed_for, f"export {API_KEY_VARIABLE}=KEY")
    try:
        served = [str(entry["id"]) for entry in answer.json()["data"]]
    except (ValueError, LookupError, TypeError):
        found = f"HTTP {answer.status_code} instead of the list of its models"
        return Check(name, False, found, needed_for, start)
    if model not in served:
        return Check(name, False, f"serves {', '.join(served) or 'nothing'}, and not {model}", needed_for, start)
    return Check(name, True, f"serves {model}", needed_for)


def _machine() -> list[Check]:
    version = sys.version_info[:2]
    python = Check(
        "Python",
        PYTHONS[0] <= version <= PYTHONS[1],
        f"{platform.python_version()} at {sys.executable}",
        "everything",
        "" if PYTHONS[0] <= version <= PYTHONS[1] else f"make setup PYTHON=python{PYTHONS[1][0]}.{PYTHONS[1][1]}",
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cache = cache_directory()
    return [
        python,
        Check("processor", True, f"{cores} cores, {platform.machine()}", "everything"),
        Check("memory", True, _memory(), "everything"),
        _disk("disk for models", cache, f"export {CACHE_VARIABLE}=DIRECTORY with more room"),
        _disk("disk here", Path.cwd(), "free some space here"),
    ]


def _ros() -> list[Check]:
    return [
        _package("rclpy", "the node, the demo", SOURCE_ROS, load=True, version=os.environ.get("ROS_DISTRO", "")),
        _package("activeo3_ros.msg", "the node, the demo", "make setup; " + SOURCE_ROS, load=True, version="built"),
        _middleware(),
        _shared_memory(),
        _package("lifecycle_msgs", "the node", SOURCE_ROS),
        _package("cv_bridge", "examples", "apt install ros-$ROS_DISTRO-cv-bridge", optional=True),
        _package("bond", "Nav2's lifecycle manager", "apt install ros-$ROS_DISTRO-bond", optional=True),
        _package("vision_msgs", "the topic detections_2d", "apt install ros-$ROS_DISTRO-vision-msgs", optional=True),
        _package(
            "ffmpeg_image_transport_msgs",
            "transport ffmpeg",
            "apt install ros-$ROS_DISTRO-ffmpeg-image-transport-msgs",
            optional=True,
        ),
        _package("foxglove_msgs", "transport foxglove", "apt install ros-$ROS_DISTRO-foxglove-msgs", optional=True),
    ]


def _middleware() -> Check:
    """The DDS that carries the frames; Fast DDS needs a setting for frames of megabytes."""
    needed_for = "frames of megabytes without loss"
    if importlib.util.find_spec("rclpy") is None:
        return Check("middleware", False, "rclpy is missing", needed_for, SOURCE_ROS)
    try:
        name = str(importlib.import_module("rclpy.utilities").get_rmw_implementation_identifier())
    except Exception as error:
        return Check("middleware", False, _first_line(error), needed_for, "unset RMW_IMPLEMENTATION")
    transports = os.environ.get(TRANSPORTS, "")
    if "fastrtps" not in name or carries_images(os.environ):
        return Check("middleware", True, f"{name} {transports}".strip(), needed_for)
    found = f"{name} with {TRANSPORTS}={transports or '(not set)'}"
    variable, profile = profile_for_images(os.environ)
    return Check("middleware", False, found, needed_for, f"export {variable}={shlex.quote(profile)}")


def _shared_memory() -> Check:
    """Segments that killed processes left in /dev/shm, through which images travel on one machine."""
    left = left_segments()
    megabytes = sum(left.values()) / 1e6
    found = f"killed processes left {megabytes:.0f} MB in {len(left)} segments" if left else "nothing is left over"
    fix = "" if megabytes < MAX_LEFT_MB else "fastdds shm clean"
    return Check("clean shared memory", not fix, found, "room for frames of megabytes", fix, optional=True)


def _cpu_packages() -> list[Check]:
    disable_telemetry()  # onnxruntime is imported
    return [
        _package("numpy", "everything", "pip install numpy", load=True),
        _package("msgspec", "everything", "pip install msgspec"),
        _opencv(),
        _package("PIL", "pictures in files, drawing", "pip install pillow", distribution="pillow"),
        _package("simplejpeg", "JPEG, in files and messages", "pip install simplejpeg"),
        _package("onnxruntime", "the embedded preset", "pip install onnxruntime", load=True),
        _package("onnx", "activeo3 prefetch", "pip install onnx"),
        _package("rapidocr", "reading text", "pip install 'rapidocr==3.10.*'"),
        _package("rosbags", "bags", "pip install rosbags"),
        _package("av", "videos, video topics", f"pip install '{VIDEO_PACKAGE}'", optional=True),
        _package("mcap", "bags", "pip install mcap"),
        _package("httpx", "presets with a model behind HTTP", PIP_REMOTE, optional=True),
    ]


def _gpu_packages() -> list[Check]:
    models, speed = "presets with an MLLM on a GPU", "more speed on a GPU"
    return [
        _package("torch", models, PIP_GPU, optional=True),
        _cuda(models),
        _package("transformers", models, PIP_GPU, optional=True),
        _package("qwen_vl_utils", models, PIP_GPU, distribution="qwen-vl-utils", optional=True),
        _package("modelscope", "activeo3 prefetch active_o3", "pip install modelscope", optional=True),
        _package("flash_attn", speed, "pip install '.[flash]'", distribution="flash-attn", optional=True),
        _package("vllm", speed, "pip install '.[vllm]'", optional=True),
        _engine(models),
    ]


def _engine(needed_for: str) -> Check:
    """The engine that `type: auto` takes here, and why."""
    from ..vlm.engine_registry import choose

    name, reason = choose()
    return Check("engine", True, f"{name}: {reason}", needed_for, optional=True)


def _assets() -> list[Check]:
    return [*(_asset(asset) for asset in assets.NEEDED_BY["demo"]), _released_prompts()]


def _released_prompts() -> Check:
    """Whether the words that the published weights were trained with are here."""
    name, needed_for = "released prompts", "ACTIVE-o3's published weights, which were trained with these words"
    try:
        found = load_imported()
    except PerceptionError as error:
        return Check(name, False, str(error).partition("; run: ")[0], needed_for, f"{IMPORT} --force", optional=True)
    if found is None:
        return Check(name, False, "not imported, so presets use our own words", needed_for, IMPORT, optional=True)
    return Check(name, True, f"{found.describe()} from {found.script}", needed_for, optional=True)


def _plug_ins() -> list[Check]:
    """The components that other installed packages register, each imported once."""
    return [_plug_in(plugin) for kind in plugins.GROUPS for plugin in plugins.plugins(kind)]


def _plug_in(plugin: plugins.Plugin) -> Check:
    name = f"{plugin.kind} {plugin.name}"
    found, needed_for = f"{plugin.path} of {plugin.package} {plugin.version}", "presets that name it"
    if plugin.name in presets.COMPONENT_TYPES[plugin.kind]:
        fix = "another name in the entry points of that package"
        return Check(name, False, f"{found}: {plugin.name!r} is a name of activeo3_ros itself", needed_for, fix, True)
    try:
        plugins.find_plugin(plugin.kind, plugin.name)
        plugin.load()
    except PerceptionError as error:
        return Check(name, False, str(error), needed_for, optional=True)
    return Check(name, True, found, needed_for)


GROUPS: dict[str, Callable[[], list[Check]]] = {
    "machine": _machine,
    "ROS 2": _ros,
    "Python packages": _cpu_packages,
    "GPU": _gpu_packages,
    "models and pictures": _assets,
    "plug-ins": _plug_ins,
}


def _package(
    module: str,
    needed_for: str,
    fix: str,
    load: bool = False,
    distribution: str = "",
    version: str = "",
    optional: bool = False,
) -> Check:
    """Whether a package is there. load: also whether it can be imported, which for some takes long."""
    try:
        there = importlib.util.find_spec(module) is not None
        if there and load:
            importlib.import_module(module)
    except Exception as error:
        return Check(module, False, f"cannot be imported: {_first_line(error)}", needed_for, fix, optional)
    if not there:
        return Check(module, False, "not installed", needed_for, fix, optional)
    found = version or installed_version(distribution or module) or "there"
    return Check(module, True, found, needed_for, optional=optional)


def _opencv() -> Check:
    needed_for, fix = "everything", "pip install 'opencv-python-headless<5'"
    try:
        import cv2
    except Exception as error:
        return Check("opencv", False, f"cannot be imported: {_first_line(error)}", needed_for, fix)
    old_enough = int(cv2.__version__.split(".")[0]) < 5
    return Check("opencv", old_enough, cv2.__version__, needed_for, "" if old_enough else fix)


def _cuda(needed_for: str) -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("cuda", False, "not known without torch", needed_for, PIP_GPU, optional=True)
    try:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            return Check(
                "cuda", False, "torch finds no CUDA device", needed_for, "nvidia-smi (shows what the driver sees)"
            )
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 1e9
        found = f"{', '.join(names)}, {gigabytes:.0f} GB, CUDA {torch.version.cuda}"
        return Check("cuda", True, found, needed_for, optional=True)
    except Exception as error:
        return Check("cuda", False, f"torch fails: {_first_line(error)}", needed_for, PIP_GPU, optional=True)


def _asset(asset: assets.Asset) -> Check:
    """Whether an asset is there and its checksum right."""
    name = asset.name if isinstance(asset, assets.ConvertedModel) else Path(asset.member).name
    try:
        path = assets.require(asset)
    except PerceptionError as error:
        found, _, fix = str(error).partition("; run: ")
        return Check(name, False, found, "embedded, demo", fix or "activeo3 prefetch demo")
    return Check(name, True, f"{path} (checksum right)", "embedded, demo")


def _disk(name: str, directory: Path, fix: str) -> Check:
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    enough = free >= LEAST_DISK_GB
    return Check(name, enough, f"{free:.1f} GB free at {directory}", "models, bags", "" if enough else fix)


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    except (ValueError, OSError):
        return "unknown"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _as_dict(groups: dict[str, list[Check]], preset_checks: list[PresetCheck]) -> dict[str, object]:
    return {
        "version": __version__,
        "checks": {title: [_entry(check) for check in checks] for title, checks in groups.items()},
        "presets": [asdict(check) for check in preset_checks],
    }


def _entry(check: Check) -> dict[str, object]:
    """A check in JSON, whose keys are those of version 0.1."""
    entry = asdict(check)
    entry["mend"] = entry.pop("fix")
    return entry


def _as_text(groups: dict[str, list[Check]], preset_checks: list[PresetCheck]) -> str:
    lines = [f"activeo3 {__version__}"]
    for title, checks in groups.items():
        lines += ["", title if checks else f"{title}: none"]
        for check in checks:
            word = "ok" if check.ok else "absent" if check.optional else "MISSING"
            lines.append(f"  {word:7}  {check.name}: {check.found}")
            if not check.ok:
                lines.append(f"           for {check.needed_for}{_command(check)}")
    lines += ["", "presets"]
    for preset in preset_checks:
        lines.append(f"  {'can run   ' if preset.ok else 'cannot run'}  {preset.name}: {preset.description}")
        lines += [f"              because of {reason}" for reason in preset.because]
    return "\n".join(lines)
