"""One picture whose pixels are known, as the message of every encoding. Needs no ROS."""

from __future__ import annotations

import types

import cv2
import numpy as np

# Blue, green, red and grey quarters, in areas large enough for Bayer patterns and shared colours.
BGR = np.zeros((16, 24, 3), np.uint8)
BGR[:8, :12], BGR[:8, 12:], BGR[8:, :12], BGR[8:, 12:] = (200, 20, 30), (10, 180, 40), (15, 25, 190), (90, 90, 90)


def message(pixels: np.ndarray, encoding: str, padding: int = 0, bigendian: bool = False) -> types.SimpleNamespace:
    """An image message whose rows are padded by so many bytes of 0xAB."""
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if bigendian else "<"))
    rows = np.ascontiguousarray(stored).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    return types.SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(bigendian),
        step=rows.shape[1],
        data=rows.tobytes(),
    )


def bayer(bgr: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with this pattern of colours over its first two by two pixels sees."""
    mosaic = np.empty(bgr.shape[:2], bgr.dtype)
    for index, colour in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = bgr[row::2, column::2, "bgr".index(colour)]
    return mosaic


def yuv422(bgr: np.ndarray, order: str) -> np.ndarray:
    """Two bytes a pixel, in the order of the letters: y0, u, y1, v."""
    yuv = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV).astype(np.float32)
    # OpenCV's own YUV is full range, 4:2:2 video is not.
    y = (yuv[..., 0] / 255 * 219 + 16).round()
    u = ((yuv[..., 1] - 128) / 0.436 * 0.5 * 224 / 255 + 128).round().clip(0, 255)
    v = ((yuv[..., 2] - 128) / 0.615 * 0.5 * 224 / 255 + 128).round().clip(0, 255)
    packed = np.empty((*bgr.shape[:2], 2), np.uint8)
    at = order.index("y")
    packed[..., at] = y
    packed[:, 0::2, 1 - at] = u[:, 0::2]
    packed[:, 1::2, 1 - at] = v[:, 0::2]
    return packed


def stored_as(encoding: str) -> np.ndarray:
    """The known picture's pixels as this encoding stores them."""
    wide = BGR.astype(np.uint16) * 257 if encoding.endswith("16") else BGR
    if encoding.startswith("bayer"):
        return bayer(wide, encoding[len("bayer_") : len("bayer_") + 4])
    if encoding in ("uyvy", "yuv422"):
        return yuv422(BGR, "uyvy")
    if encoding in ("yuyv", "yuv422_yuy2"):
        return yuv422(BGR, "yuyv")
    if encoding.startswith("mono") or encoding == "8UC1":
        return wide[..., 1]
    order = {"r": "rgb", "b": "bgr", "8": "bgr"}[encoding[0]]
    pixels = wide[..., ["bgr".index(colour) for colour in order]]
    if "a" in encoding or encoding == "8UC4":
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 7)], axis=2)
    return pixels
