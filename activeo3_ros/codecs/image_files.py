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

"""Image files: read into the arrays that the core takes, found in directories, written.

Whatever a file holds becomes `(h, w, 3)` uint8 BGR: grey is repeated over the channels, 16 bits are scaled to 8, a
transparent picture is laid on black, and an EXIF orientation is applied, so that boxes are in the pixels of the upright
picture as viewers show it. A picture that cannot be read to its last row is an error, never half a picture. Damage
inside shows where a format has checksums (PNG, TIFF with zlib) or the decoder stumbles; a damaged piece of BMP, PPM,
WebP or an uncompressed TIFF, and some in a JPEG, is a picture with other pixels that nobody can tell from right ones.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ..core import InvalidInput
from .jpeg import JPEG_START, decode_jpeg
from .png import PNG_START, check_png
from .tiff import check_tiff

Picture = npt.NDArray[np.uint8]

MAX_IMAGE_PIXELS = 200_000_000
"""A larger picture is refused before it is decoded: it would take more than 600 MB."""
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of the pictures that a directory is searched for; a file that is named outright may have any name."""
JPEG_QUALITY = 92
ORIENTATION = ExifTags.Base.Orientation
QUARTER_TURNS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


def find_images(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Find picture files.

    Args:
        paths: Files, or directories that are searched for pictures, without their subdirectories.

    Returns:
        The files, and one line for each path that is of no use.
    """
    found: list[Path] = []
    errors: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                errors.append(f"{path}: no picture in this directory; looked for {' '.join(SUFFIXES)}")
            found += inside
        elif not path.exists():
            errors.append(f"{path}: no such file or directory")
        else:
            found.append(path)
    return found, errors


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """The key that sorts `frame_2` before `frame_10`."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", path.name)]


def read_image(path: str | Path) -> Picture:
    """Read a picture.

    Returns:
        `(h, w, 3)` uint8 BGR, upright.

    Raises:
        InvalidInput: The file is no picture, is cut short or damaged, or has more than `MAX_IMAGE_PIXELS`.
        MissingPackageError: It is a JPEG, and simplejpeg is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is below ours, and warnings would be more than the one line that a user should see.
            warnings.simplefilter("ignore")
            Image.MAX_IMAGE_PIXELS = None
            data = Path(path).read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > MAX_IMAGE_PIXELS:
                    raise InvalidInput(
                        f"{width} x {height} is more than {MAX_IMAGE_PIXELS} pixels; make the picture smaller"
                    )
                if data.startswith(JPEG_START):
                    return _upright(decode_jpeg(data), image.getexif().get(ORIENTATION, 1))
                if data.startswith(PNG_START):
                    check_png(data)
                if isinstance(image, TiffImageFile):
                    check_tiff(data, image.tag_v2)
                image.load()
                return _to_bgr(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise InvalidInput(f"{path}: not a picture in a known format") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path}: cannot be read as a picture: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise InvalidInput(
            f"{path}: cannot be read as a picture: {' '.join(str(error).split()) or 'damaged'}"
        ) from error


def image_size(path: str | Path) -> tuple[int, int] | None:
    """Read the size of a picture without decoding it.

    Returns:
        Width and height of the upright picture in pixels, as `read_image` gives it; None if the file is no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in QUARTER_TURNS
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError):
        return None
    return (height, width) if turned else (width, height)


def write_image(path: Path, image: Picture) -> None:
    """Write a picture.

    Args:
        path: Its suffix says the format; its directory is created.
        image: `(h, w, 3)` uint8 BGR.

    Raises:
        InvalidInput: The format cannot hold the picture.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix in (".jpg", ".jpeg") else []
    done, encoded = cv2.imencode(path.suffix, image, quality)
    if not done:
        raise InvalidInput(
            f"{path}: a picture of {image.shape[1]} x {image.shape[0]} cannot be written as {path.suffix}"
        )
    path.write_bytes(encoded.tobytes())


def _upright(picture: Picture, orientation: int) -> Picture:
    """A picture turned and mirrored as its EXIF orientation, 1 to 8, says."""
    if orientation in (5, 6, 7, 8):
        picture = np.asarray(picture.transpose(1, 0, 2))
    mirrored_x, mirrored_y = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return np.ascontiguousarray(picture[:: -1 if mirrored_y else 1, :: -1 if mirrored_x else 1])


def _to_bgr(image: Image.Image) -> Picture:
    if image.mode == "I" or image.mode.startswith("I;16"):  # one channel; which of the two depends on Pillow's version
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its values, {values.min()} to {values.max()}, are not those of a 16-bit picture")
        return np.asarray(cv2.cvtColor((values >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8)
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR), np.uint8)
