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

"""Downloads the weights of large models; only `activeo3 prefetch` calls it.

From a hub, by its own client (ModelScope's, or Hugging Face's for what is not there), which resumes what it fetches; or
from a directory or a plain web server that holds the files and their `SHA256SUMS` (as `sha256sum * > SHA256SUMS` writes
it), for robots and fleets that reach no hub. `config.json` comes last: a model with one is whole.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.optional import has_package, require_package
from .cache import AssetError, sha256_of
from .weights import TINY_PREFIX, local_model, model_directory

CHECKSUMS = "SHA256SUMS"
WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
"""Files fetched from a hub: no code, and no weights in formats that can hold code."""
HUBS = {"modelscope": ("ModelScope", "model_id"), "huggingface_hub": ("Hugging Face", "repo_id")}
"""By the package that is a hub's client, in the order of requests: the name of the hub, and the client's keyword for a
model's name."""
TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20

Say = Callable[[str], None]


def fetch_model(model: str, source: str = "", say: Say = lambda what: None) -> Path:
    """Fetch a model that is not there yet; an interrupted fetch is continued.

    Args:
        model: A directory, which is only checked, or a hub id.
        source: "" for a hub, else a directory or an http(s) URL with the files and their `SHA256SUMS`.
        say: Told each step.

    Returns:
        The directory of the model.

    Raises:
        AssetError: The model cannot be had or is not whole.
    """
    given = Path(model).expanduser()
    if given.is_dir():
        return checked(given)
    if model.startswith(TINY_PREFIX):
        return local_model(model)  # never from a hub, where anybody may take the name
    target = model_directory(model)
    if (target / "config.json").is_file():
        return checked(target)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise AssetError(f"{model!r} is neither a directory nor a hub id such as zzzmmz/ACTIVE-o3")
    staging = target.with_name(target.name + ".part")
    staging.mkdir(parents=True, exist_ok=True)
    if source:
        _from_source(source, staging, say)
    else:
        _from_hub(model, staging, say)
    checked(staging)
    if target.exists():
        shutil.rmtree(target)
    staging.rename(target)
    return target


def checked(directory: Path) -> Path:
    """Check that a directory holds a configuration and every file of weights that its index names.

    Returns:
        The directory.

    Raises:
        AssetError: A file is missing; the message names the first.
    """
    if not (directory / "config.json").is_file():
        raise AssetError(f"{directory} holds no model: it has no config.json")
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise AssetError(f"{index}: not a readable index of weights: {error}") from error
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (directory / name).is_file():
            raise AssetError(f"{directory} is not whole: {name} is missing; run: activeo3 prefetch again")
    return directory


def _from_hub(model: str, target: Path, say: Say) -> None:
    """Fetch from the first hub that has the model, of those whose client is installed."""
    clients = {package: hub for package, hub in HUBS.items() if has_package(package)}
    if not clients:
        raise AssetError(
            f"no client of a hub is installed to get {model}; run: pip install modelscope, or give --source with a "
            "directory or an address that holds its files"
        )
    refused: list[str] = []
    for package, (hub, id_name) in clients.items():
        say(f"downloading {model} from {hub}")
        try:
            require_package(package, f"to get {model}").snapshot_download(
                **{id_name: model}, local_dir=str(target), allow_patterns=WANTED
            )
        except Exception as error:  # the clients have no common class of error
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            refused.append(f"{hub} did not give {model} ({reason})")
            # The next hub is asked only for a model that this one does not have: a name may be somebody else's there.
            if not _is_unknown(error):
                break
        else:
            if package == "huggingface_hub":
                _check_against_hub(target)
            return
    raise AssetError(
        f"{'; '.join(refused)}; check the name and the network and run activeo3 prefetch again, which goes on where it "
        "stopped; ACTIVE-o3 itself is on ModelScope: pip install modelscope"
    )


def _is_unknown(error: Exception) -> bool:
    """Whether a hub says that it knows no such model."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 404 or "[404]" in str(error)


def _check_against_hub(directory: Path) -> None:
    """Compare files of weights with the SHA-256 that Hugging Face keeps for them; its client compares lengths alone.

    ModelScope's client compares sums itself. Raises AssetError for a file that differs, which is not kept.
    """
    notes = directory / ".cache" / "huggingface" / "download"
    for note in sorted(notes.rglob("*.safetensors.metadata")):
        _, expected, *_ = [*note.read_text(encoding="utf-8").split(), "", ""]
        name = note.relative_to(notes).with_suffix("")
        if not re.fullmatch(r"[0-9a-f]{64}", expected) or not (directory / name).is_file():
            continue
        found = sha256_of(directory / name)
        if found != expected:
            (directory / name).unlink()
            note.unlink()
            raise AssetError(f"{name} has the sha256 {found[:12]}…, expected {expected[:12]}…; it was not kept")


def _from_source(source: str, target: Path, say: Say) -> None:
    """Copy the files that `SHA256SUMS` of a source lists; whole files are kept, broken-off ones continued."""
    place = _Source(source)
    with closing(place.open(CHECKSUMS, 0)[0]) as listing:  # some hundred bytes a file
        wanted = dict(_listed(listing.read(CHUNK_BYTES).decode("utf-8", "replace"), source))
    ordered = sorted(wanted, key=lambda name: (name == "config.json", name))
    for number, name in enumerate(ordered, start=1):
        path = target / name
        if path.is_file() and sha256_of(path) == wanted[name]:
            continue
        say(f"fetching {name} ({number} of {len(ordered)})")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        try:
            _fetch_file(place, name, partial)
        except (OSError, urllib.error.URLError) as error:
            raise AssetError(
                f"{source}: {name} broke off ({error}); run activeo3 prefetch again, which goes on from there"
            ) from error
        found = sha256_of(partial)
        if found != wanted[name]:
            partial.unlink()
            raise AssetError(
                f"{source}: {name} has the sha256 {found[:12]}…, expected {wanted[name][:12]}…; it was not kept"
            )
        partial.replace(path)


def _fetch_file(place: _Source, name: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.is_file() else 0
    stream, resumed, length = place.open(name, have)
    with closing(stream), partial.open("ab" if resumed else "wb") as out:
        shutil.copyfileobj(stream, out, CHUNK_BYTES)
        total = out.tell()
    if length is not None and total != length:
        raise OSError(f"{total} of {length} bytes came")


def _listed(text: str, source: str) -> Iterator[tuple[str, str]]:
    """The file names and checksums of a `SHA256SUMS`."""
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line.strip())
        if match is None:
            raise AssetError(f"{source}/{CHECKSUMS}: not a list of checksums: {line[:80]!r}")
        name = PurePosixPath(match[2])
        if name.is_absolute() or ".." in name.parts:
            raise AssetError(f"{source}/{CHECKSUMS}: names a file outside of the model: {match[2]!r}")
        if any(name.match(pattern) for pattern in WANTED):
            yield str(name), match[1]


class _Source:
    """A directory or a web server with files."""

    def __init__(self, source: str) -> None:
        self._source = source.rstrip("/")
        self._remote = source.startswith(("http://", "https://"))

    def open(self, name: str, start: int) -> tuple[Any, bool, int | None]:
        """A stream of a file from a position on; whether it begins there rather than at 0; the length of the whole."""
        if not self._remote:
            path = Path(self._source).expanduser() / name
            try:
                file = path.open("rb")
            except OSError as error:
                raise AssetError(f"{path} cannot be read: {error.strerror}") from error
            size = path.stat().st_size
            start = start if start <= size else 0
            file.seek(start)
            return file, start > 0, size
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(f"{self._source}/{name}", headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing follows the part on disk, which is then not a part of this file
                return self.open(name, 0)
            raise AssetError(f"{self._source}/{name}: HTTP {error.code}") from error
        except (OSError, ValueError) as error:
            raise AssetError(f"{self._source}/{name} cannot be reached: {error}") from error
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        return response, resumed, (int(length) + (start if resumed else 0)) if length else None
