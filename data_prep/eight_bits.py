"""Images of more than 8 bits, of floats, or in LAB, as images of 8 bits a channel."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow reads 16 bits into 32 where it has no better mode for them."""


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits a channel: 16 bits are scaled, floats by `_of_floats`, LAB becomes sRGB."""
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_to_srgb())  # type: ignore[return-value]  # None if in place only
    if image.mode not in (*SIXTEEN_BITS, "F"):
        return image
    values = np.asarray(image)
    gray = Image.fromarray(_of_floats(values) if image.mode == "F" else _of_sixteen_bits(values))
    key = image.info.get("transparency")
    if isinstance(key, int):  # the gray that is transparent
        gray = Image.merge("LA", (gray, Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))))
    return gray


def from_array(values: NDArray[Any]) -> Image.Image:
    """Return an array (height, width) or (height, width, 1 to 4 channels) as an image of 8 bits a channel."""
    if values.dtype.kind == "b":
        eight = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype == np.uint8:
        eight = values
    else:
        eight = _of_floats(values) if values.dtype.kind == "f" else _of_sixteen_bits(values)
    return Image.fromarray(np.ascontiguousarray(eight[..., 0] if eight.shape[2:] == (1,) else eight))


def _of_sixteen_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 0 to 65535 to 0 to 255, rounded."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"its values are {low} to {high}, but must be 0 to 65535")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _of_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 0 to 1 to 0 to 255, rounded; an image with larger values is one of 0 to 255 already."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # also where one is NaN
        raise ValueError(f"its values are {low:g} to {high:g}, but must be 0 to 1, or 0 to 255")
    return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)


@cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
