"""From the bytes of a file to one image; the only place where Pillow decodes."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from data_prep.eight_bits import from_array, to_eight_bits

Mode = Literal["L", "RGB", "RGBA"]
Fit = Literal["stretch", "crop", "pad"]
MAX_PIXELS = 80_000_000
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "GIF", "JPEG2000", "TGA", "TIFF", "WEBP")
"""Decoders that see untrusted bytes; Pillow has many more, of which some run other programs."""
MODES: dict[str, Mode] = {
    **{mode: "L" for mode in ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")},
    **{mode: "RGB" for mode in ("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")},
    **{mode: "RGBA" for mode in ("LA", "La", "PA", "RGBA", "RGBa")},
}
"""Modes that can be decoded, and what each becomes by default."""
JPEGS = ("JPEG", "MPO")
DRAFT_GAP = 4
"""A JPEG is decoded at 1/8, 1/4 or 1/2 of its size where so many times the wanted size is left: at most 3 of 255
levels off, on photographs."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an image becomes numbers. Written to the store, so that an append can compare."""

    mode: Mode | None = None
    """`L` gray, `RGB`, or `RGBA` with transparency; None takes what the first image has."""
    scale: float | None = None
    """Factor of both sides; the result is rounded down."""
    size: tuple[int, int] | None = None
    """(height, width) to resize to, in place of a scale."""
    fit: Fit = "stretch"
    """What becomes of an image whose sides have another ratio than the size: stretched, its middle cut out, or all of
    it with a border."""
    background: str | None = None
    """Colour below transparent pixels, and of a border, as CSS names it; black unless given."""

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
        if self.fit != "stretch" and self.size is None:
            raise ValueError(f"fit is {self.fit}, but there is no size to fit; give --size")
        if self.background is not None:
            _check_colour(self.background, self.mode)


def _check_colour(background: str, mode: Mode | None) -> None:
    try:
        colour = ImageColor.getrgb(background)
    except ValueError as error:
        raise ValueError(f"background is {background!r}, but must be a colour such as white or #ff8800") from error
    if len(colour) != 3:
        raise ValueError(f"background is {background!r}, but must not be transparent itself")
    if mode == "RGBA":
        raise ValueError("a background is given, but mode RGBA keeps what is transparent; leave one of them out")


class Facts(NamedTuple):
    """What a file says of its image."""

    format: str = ""
    mode: str = ""
    """Pillow's name of it."""
    height: int = 0
    width: int = 0


class Decoded(NamedTuple):
    """An image as numbers."""

    pixels: NDArray[np.uint8]
    """(height, width, channels)."""
    orientation: int
    """Of EXIF, which was undone: 1 where there was nothing to undo."""


def stored_decoding(attributes: Mapping[str, Any]) -> Decoding:
    """Return how the images of a store were decoded, from its attributes."""
    prep = attributes["prep"]
    return Decoding(
        mode=attributes["mode"],
        scale=prep["scale"],
        size=prep["size"] and tuple(prep["size"]),
        fit=prep["fit"],
        background=prep["background"],
    )


def opened(raw: bytes | NDArray[Any]) -> Image.Image:
    """Read the header of an image, which is not decoded yet; an array is taken as it is.

    Raises
    ------
    Exception
        Pillow raises far more kinds than it documents for files that are broken on purpose or by accident.
    """
    if not isinstance(raw, bytes):
        return from_array(raw)
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
    except UnidentifiedImageError as error:  # Pillow's own message would name an object in memory
        raise ValueError("it holds no image of a known format, or a damaged one") from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {image.width} × {image.height} pixels, more than {MAX_PIXELS} in all")
    return image


def facts_of(image: Image.Image) -> Facts:
    """Return what is known of an image before it is decoded."""
    return Facts(image.format or "array", image.mode, image.height, image.width)


def own_mode(image: Image.Image, background: str | None = None) -> Mode:
    """Return the mode an image has by itself, among those A can have; nothing is transparent on a background."""
    if image.mode not in MODES:
        raise ValueError(f"its mode is {image.mode}, which cannot be mapped to 8 bits a channel")
    mode: Mode = "RGBA" if "transparency" in image.info else MODES[image.mode]
    return "RGB" if mode == "RGBA" and background is not None else mode


def decode(image: Image.Image, how: Decoding) -> Decoded:
    """Decode, turn as EXIF says, convert to the mode, then resize with Pillow's BILINEAR.

    Of an animated or multi-page image, that is the first one. Where transparency is dropped, it is laid on the
    background, so its hidden colours stay hidden. A gray image comes from a JPEG's own luma, and a large JPEG is
    decoded at a part of its size where no more than 3 levels hang on it.

    Parameters
    ----------
    image
        As `opened` returns it; what is wrong with it shows here.
    how
        Mode and size; without a mode, what the image itself has.

    Raises
    ------
    Exception
        As above.
    """
    own = own_mode(image, how.background)
    size, orientation = image.size, 0
    if image.format in JPEGS:
        orientation = _orientation(image)
        _draft(image, how.mode or own, _target_size(size, how, orientation))
    image.load()  # once: a second time, Pillow takes a damaged PNG for whole
    orientation = orientation or _orientation(image)  # of other formats it may stand behind the pixels
    image = image.transpose(TURNS[orientation]) if orientation in TURNS else image
    image = _convert(image, how.mode or own, how.background)
    image = _resized(image, how, _target_size(size, how, orientation))
    pixels = np.asarray(image)
    return Decoded(pixels.reshape(*pixels.shape[:2], -1), orientation)


def _orientation(image: Image.Image) -> int:
    """Orientation that EXIF or XMP says; 1, upright, where there is none or they are damaged."""
    if image.format in JPEGS and image.info.keys().isdisjoint(("exif", "xmp")):
        return 1  # asking takes a tenth of what decoding a small one does
    try:
        found = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as many kinds as for pixels, which are whole nevertheless
        return 1
    return found if found in TURNS else 1


def _draft(image: Image.Image, mode: Mode, target: tuple[int, int]) -> None:
    """Have a JPEG decoded to gray, and to a part of its size, where that is as good."""
    (width, height), (wanted_width, wanted_height) = image.size, target
    part = next(
        s
        for s in (8, 4, 2, 1)
        if s == 1
        or (
            width % s == height % s == 0  # else a border of the image would be off by a part of a pixel
            and width // s >= DRAFT_GAP * wanted_width
            and height // s >= DRAFT_GAP * wanted_height
        )
    )
    image.draft("L" if mode == "L" else None, (width // part, height // part))


def _convert(image: Image.Image, mode: Mode, background: str | None) -> Image.Image:
    image = to_eight_bits(image)
    if mode != "RGBA" and own_mode(image) == "RGBA":
        below = Image.new("RGBA", image.size, background or "black")
        image = Image.alpha_composite(below, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Image.Image, how: Decoding, target: tuple[int, int]) -> Image.Image:
    if how.fit == "crop":
        return ImageOps.fit(image, target, Image.Resampling.BILINEAR)
    if how.fit == "pad":
        border = "#00000000" if image.mode == "RGBA" else how.background or "black"
        return ImageOps.pad(image, target, Image.Resampling.BILINEAR, ImageColor.getcolor(border, image.mode))
    return image if image.size == target else image.resize(target, Image.Resampling.BILINEAR)


@lru_cache(maxsize=1024)  # exact arithmetic takes its time, and most images have one of few sizes
def _target_size(size: tuple[int, int], how: Decoding, orientation: int = 1) -> tuple[int, int]:
    """(width, height) after resizing; a scale is exact in decimals, so 0.29 of 100 is 29."""
    if how.size is not None:
        return how.size[1], how.size[0]
    width, height = size[::-1] if orientation > 4 else size
    if how.scale is None:
        return width, height
    factor = Fraction(str(how.scale))
    wanted = int(factor * width), int(factor * height)
    if min(wanted) < 1:
        raise ValueError(f"it has {width} × {height} pixels, and nothing is left of that at this scale")
    return wanted
