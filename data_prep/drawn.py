"""Faces drawn from parts that vary independently: data whose true factors are known.

An image is a sum of parts, one variant of each group (face shape, eyes, brows, mouth, hair, shading, and sometimes
glasses), each with a brightness of its own. So A = parts × amounts, up to the rounding to 8 bits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 48, 40
Drawing = NDArray[np.float64]
"""(HEIGHT, WIDTH), 0..1."""


@dataclass(frozen=True)
class DrawnFaces:
    """Images and what they were made of."""

    images: NDArray[np.uint8]
    """(n, HEIGHT, WIDTH)."""
    parts: NDArray[np.float64]
    """(HEIGHT × WIDTH, number of parts), 0..1: the true W."""
    amounts: NDArray[np.float64]
    """(number of parts, n): the true H."""


def draw_faces(n: int, seed: int) -> DrawnFaces:
    """Draw n faces; images / 255 is parts @ amounts to half a gray level, since no pixel is over-exposed."""
    rng = np.random.default_rng(seed)
    groups = _groups()
    columns: list[NDArray[np.float64]] = []
    amounts: list[NDArray[np.float64]] = []
    for name, variants in groups.items():
        chosen = rng.integers(0, len(variants), n)
        brightness = rng.uniform(0.35, 1.0, n)
        if name == "glasses":
            brightness *= rng.random(n) < 0.3
        for k, part in enumerate(variants):
            columns.append(part.ravel())
            amounts.append(np.where(chosen == k, brightness, 0))
    parts, weights = np.stack(columns, axis=1), np.stack(amounts)
    parts /= max(1.0, float((parts @ weights).max()))
    images = np.rint(255 * (parts @ weights)).astype(np.uint8)
    return DrawnFaces(images.T.reshape(n, HEIGHT, WIDTH), parts, weights)


def save_faces(faces: DrawnFaces, folder: Path) -> None:
    """Write each image as a PNG file, face00000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, pixels in enumerate(faces.images):
        Image.fromarray(pixels).save(folder / f"face{k:05d}.png")


def _groups() -> dict[str, list[Drawing]]:
    """The parts, by group; features lie in holes of the skin, so that each can be told from it."""
    eye_holes = _pair(20, 9, 5, 3.2)
    mouth_hole = _ellipse(36, 20, 3.6, 8)
    brow_holes = _pair(13.5, 9, 6, 2)
    holes = np.clip(eye_holes + mouth_hole + brow_holes, 0, 1)
    shapes = [_ellipse(26, 20, 20, 15.5), _ellipse(26, 20, 21, 13), _ellipse(27, 20, 18, 17)]
    skin = [0.55 * shape * (1 - holes) for shape in shapes]
    light = np.clip(np.linspace(1.2, -0.6, WIDTH), 0, 1) * shapes[0] * (1 - holes)
    return {
        "face": skin,
        "eyes": [eye_holes * _pair(20, 9, 1.9, 1.9, shift) for shift in (-2, 2)] + [eye_holes * _pair(20, 9, 4.5, 0.9)],
        "brows": [_pair(row, 9, 5, 0.9) for row in (12.4, 14.6)],
        "mouth": [_curve(bend) * mouth_hole for bend in (-2.2, 2.2)] + [mouth_hole * _ellipse(36, 20, 2.5, 3.5)],
        "hair": [_hair(9, 0), _hair(6, 30), _hair(3, 44)],
        "shading": [0.4 * light, 0.4 * light[:, ::-1]],
        "glasses": [np.clip(_pair(20, 9, 7, 5.2) - _pair(20, 9, 5.8, 4.1), 0, 1) * (1 - eye_holes)],
    }


def _ellipse(row: float, column: float, tall: float, wide: float) -> Drawing:
    """A filled ellipse with an edge about a pixel soft."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot((rows - row) / tall, (columns - column) / wide)
    return np.clip((1 - radius) * min(tall, wide) + 0.5, 0, 1)


def _pair(row: float, apart: float, wide: float, tall: float, shift: float = 0) -> Drawing:
    """Two ellipses left and right of the middle; a shift moves both the same way."""
    left, right = 20 - apart + shift, 20 + apart + shift
    return np.clip(_ellipse(row, left, tall, wide) + _ellipse(row, right, tall, wide), 0, 1)


def _curve(bend: float) -> Drawing:
    """A mouth: a line bent up or down."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    line = 36 - bend / 2 + bend * ((columns - 20) / 7) ** 2
    return np.clip(1.6 - np.abs(rows - line), 0, 1) * (np.abs(columns - 20) < 7.5)


def _hair(fringe: float, length: float) -> Drawing:
    """Hair around the head: from the top down to `fringe` on the forehead, and to `length` at the sides."""
    rows, _ = np.mgrid[:HEIGHT, :WIDTH]
    head, face = _ellipse(22, 20, 23, 19.5), _ellipse(27, 20, 18.5, 17.5)
    top = head * (rows < fringe)
    sides = head * (1 - face) * (rows < length)
    return 0.8 * np.clip(top + sides, 0, 1)
