"""From the bytes of a file to one image; the only place where Pillow decodes."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Mode = Literal["L", "RGB", "RGBA"]
MAX_PIXELS = 80_000_000
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "GIF", "JPEG2000", "TGA", "TIFF", "WEBP")
"""Decoders that see untrusted bytes; Pillow has many more, of which some run other programs."""
MODES: dict[str, Mode] = {
    "1": "L",
    "L": "L",
    "LA": "RGBA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
"""Modes of 8 bits or less that can be decoded, and what each becomes by default."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an image becomes numbers. Written to the store, so that an append can compare."""

    mode: Mode | None = None
    """`L` gray, `RGB`, or `RGBA` with transparency; None takes what the first image has."""
    scale: float | None = None
    """Factor of both sides; the result is rounded down."""
    size: tuple[int, int] | None = None
    """(height, width) to resize to, in place of a scale."""

    def __post_init__(self) -> None:
        """Refuse what no image can be decoded to, with a ValueError."""
        if self.scale is not None and self.size is not None:
            raise ValueError("both a scale and a size are given; give one of --scale and --size")
        if self.scale is not None and not 0 < self.scale <= 16:
            raise ValueError(f"scale is {self.scale}, but must be above 0 and at most 16")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size is {self.size[0]}x{self.size[1]}, but both sides must be 1 or more")
        if self.size is not None and self.size[0] * self.size[1] > MAX_PIXELS:
            raise ValueError(f"size is {self.size[0]}x{self.size[1]}, more than {MAX_PIXELS} pixels in all")


def stored_decoding(attributes: Mapping[str, Any]) -> Decoding:
    """Return how the images of a store were decoded, from its attributes."""
    prep = attributes["prep"]
    return Decoding(mode=attributes["mode"], scale=prep["scale"], size=prep["size"] and tuple(prep["size"]))


def decode(raw: bytes, how: Decoding) -> NDArray[np.uint8]:
    """Decode, turn as EXIF says, convert to the mode, then resize with Pillow's BILINEAR.

    Where transparency is dropped, the image is laid on black: its hidden colours stay hidden.

    Parameters
    ----------
    raw
        The file's bytes.
    how
        Mode and size; without a mode, what the image itself has.

    Returns
    -------
    NDArray
        (height, width, channels), uint8.

    Raises
    ------
    Exception
        Pillow raises far more kinds than it documents for files that are broken on purpose or by accident.
    """
    with _open(raw) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"it has {opened.width} × {opened.height} pixels, more than {MAX_PIXELS} in all")
        own_mode(opened)
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        image = _convert(opened, how.mode or own_mode(opened))
        size = _target_size(image, how)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def own_mode(image: Image.Image) -> Mode:
    """Return the mode an image has by itself, among those A can have."""
    if image.mode not in MODES:
        raise ValueError(f"its mode is {image.mode}, but 8 bits a channel are needed")
    return "RGBA" if "transparency" in image.info else MODES[image.mode]


def mode_of(raw: bytes) -> Mode:
    """Return the mode a file's image has by itself, reading its header only."""
    with _open(raw) as image:
        return own_mode(image)


def _open(raw: bytes) -> Image.Image:
    """Read the header; Pillow's own message would name an object in memory in place of the file."""
    try:
        return Image.open(io.BytesIO(raw), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError("it holds no image of a known format, or a damaged one") from error


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    if mode != "RGBA" and own_mode(image) == "RGBA":
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _target_size(image: Image.Image, how: Decoding) -> tuple[int, int]:
    """(width, height) after resizing; a scale is exact in decimals, so 0.29 of 100 is 29."""
    if how.size is not None:
        return how.size[1], how.size[0]
    if how.scale is None:
        return image.size
    factor = Fraction(str(how.scale))
    width, height = (int(factor * side) for side in image.size)
    if min(width, height) < 1:
        raise ValueError(f"it has {image.width} × {image.height} pixels, and nothing is left of that at this scale")
    return width, height
