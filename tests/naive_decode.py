"""What an image must become, slowly: Pillow opens it at full size, and NumPy does the rest in floating point."""

import io

import numpy as np
from PIL import Image, ImageColor

LUMA = np.array([299, 587, 114]) / 1000
TURNS = {1: 0, 6: 3, 3: 2, 8: 1}


def naive_decode(raw, mode, size, fit="stretch", background="black"):
    """(height, width, channels) of floats; of RGBA, colours are multiplied with their alpha."""
    with Image.open(io.BytesIO(raw)) as image:
        orientation = orientation_of(image)
        rgba = turned(as_rgba(image), orientation)
    alpha = rgba[..., 3:] / 255
    if mode == "RGBA":
        return fitted(np.concatenate([rgba[..., :3] * alpha, rgba[..., 3:]], axis=2), size, fit, np.zeros(4))
    below = np.array(ImageColor.getrgb(background), float)
    rgb = rgba[..., :3] * alpha + below * (1 - alpha)
    if mode == "L":
        rgb, below = (rgb @ LUMA)[..., np.newaxis], np.array([below @ LUMA])
    return fitted(rgb, size, fit, below)


def orientation_of(image):
    """From the bytes of EXIF that a JPEG has; the other files of the tests have none."""
    exif = image.info.get("exif", b"") if image.format == "JPEG" else b""
    at = max(exif.find(b"\x12\x01\x03\x00"), exif.find(b"\x01\x12\x00\x03"))
    little = exif.find(b"\x12\x01\x03\x00") >= 0
    value = exif[at + 8 : at + 10] if at >= 0 else b"\x00\x01"
    found = int.from_bytes(value, "little" if little else "big")
    return found if 1 <= found <= 8 else 1


def turned(pixels, orientation):
    if orientation in (2, 4, 5, 7):
        flipped = pixels[:, ::-1]
        return np.rot90(flipped, {2: 0, 4: 2, 5: 1, 7: 3}[orientation])
    return np.rot90(pixels, TURNS[orientation])


def as_rgba(image):
    """(height, width, 4) of floats, 0 to 255, of any mode that a file of the tests has."""
    key = image.info.get("transparency")
    image.load()
    mode, values = image.mode, np.asarray(image).astype(float)
    if mode == "P":
        palette = np.array(image.getpalette("RGBA" if image.palette.mode == "RGBA" else "RGB"), float)
        colours = palette.reshape(-1, 4 if image.palette.mode == "RGBA" else 3)
        colours = np.concatenate([colours[:, :3], np.full((len(colours), 1), 255.0)], axis=1)
        alphas = {key: 0} if isinstance(key, int) else dict(enumerate(key or b""))
        for k, alpha in alphas.items():
            colours[k, 3] = alpha
        return colours[values.astype(int)]
    gray = {"1": values * 255, "L": values, "I;16": values / 257, "I": values / 257, "F": values}.get(mode)
    if gray is not None:
        alpha = np.where(values == key, 0, 255) if isinstance(key, int) else np.full(values.shape, 255)
        return np.stack([gray, gray, gray, alpha], axis=2)
    if mode == "LA":
        return values[..., [0, 0, 0, 1]]
    if mode == "RGBA":
        return values
    opaque = np.full((*values.shape[:2], 1), 255.0)
    if mode == "CMYK":
        values = (255 - values[..., :3]) * (255 - values[..., 3:]) / 255
    if mode == "LAB":
        values = lab_to_srgb(np.asarray(image))
    return np.concatenate([values, opaque], axis=2)


def lab_to_srgb(values):
    """CIE 1976 L*a*b* of D50 to sRGB (IEC 61966-2-1), by way of XYZ and Bradford's matrix."""
    signed = values.view(np.int8).astype(float)
    L, a, b = values[..., 0] / 2.55, signed[..., 1], signed[..., 2]
    fy = (L + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    to_rgb = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = np.clip(xyz @ to_rgb.T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def fitted(pixels, size, fit, border):
    (height, width), (wanted_height, wanted_width) = pixels.shape[:2], size
    if fit == "crop":
        part = min(height / wanted_height, width / wanted_width)
        tall, wide = part * wanted_height, part * wanted_width
        top, left = (height - tall) / 2, (width - wide) / 2
        return resized(pixels, size, (top, top + tall), (left, left + wide))
    if fit == "pad":
        part = max(height / wanted_height, width / wanted_width)
        inner = round(height / part), round(width / part)
        whole = np.broadcast_to(border, (*size, len(border))).copy()
        top, left = round((wanted_height - inner[0]) / 2), round((wanted_width - inner[1]) / 2)
        whole[top : top + inner[0], left : left + inner[1]] = resized(pixels, inner, (0, height), (0, width))
        return whole
    return resized(pixels, size, (0, height), (0, width))


def resized(pixels, size, rows, columns):
    down, across = weights(pixels.shape[0], size[0], *rows), weights(pixels.shape[1], size[1], *columns)
    return np.einsum("ip,pqc,jq->ijc", down, pixels, across, optimize=True)


def weights(n, wanted, first, last):
    """Triangle filter, as wide as what falls into one pixel of the result, (wanted, n)."""
    step = (last - first) / wanted
    centres = first + (np.arange(wanted) + 0.5) * step
    found = np.maximum(0, 1 - np.abs(np.arange(n) + 0.5 - centres[:, np.newaxis]) / max(step, 1))
    return found / found.sum(axis=1, keepdims=True)
