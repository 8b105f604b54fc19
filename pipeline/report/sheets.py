"""Pictures of a factorization: a sheet of basis images, and the panel image | basis | weights | W H."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep import store
from data_prep.sample import read_columns
from pipeline.factors import Factors

Picture = NDArray[np.uint8]
"""(height, width, 4), RGBA."""

GAP = 2
PAPER = (255, 255, 255, 255)
SHEET_PIXELS, PANEL_PIXELS, MATCH_PIXELS = 1200, 480, 96
CHECKS = (204, 255)
"""Gray levels of the board that shows through where an image is transparent."""


def basis_sheet(factors: Factors) -> Image.Image:
    """Every basis image, each stretched to its own maximum, in order of components."""
    W = np.asarray(factors.W.compute())
    return Image.fromarray(grid(_basis(W, image_shape(factors)), SHEET_PIXELS))


def panel(factors: Factors, columns: Sequence[int]) -> Image.Image:
    """For each of some columns: the image, the basis, its weights as gray squares in the same order, and W H.

    A weight is drawn for the basis image as it is shown, stretched to its maximum, and against the image's largest.
    """
    shape, W = image_shape(factors), factors.read("W")
    A, H = _columns(factors, columns), np.asarray(factors.H[:, list(columns)].compute())
    basis, shown = grid(_basis(W, shape), PANEL_PIXELS), shown_weights(W, H)
    rows = []
    for k in range(len(columns)):
        parts = [to_picture(A[:, k], shape), basis, weights_grid(shown[:, k], shape), to_picture(W @ H[:, k], shape)]
        rows.append(_beside([_enlarge(part, len(basis)) for part in parts]))
    return Image.fromarray(np.concatenate([_framed(row, 3 * GAP) for row in rows]))


def shown_weights(W: NDArray[np.float32], H: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights (d, k) for the basis images as they are shown, each stretched to its maximum, and the largest as 1."""
    shown = H * W.max(axis=0)[:, None]
    return shown / np.maximum(shown.max(axis=0, initial=0), np.finfo(np.float32).tiny)


def weights_grid(weights: NDArray[np.float32], shape: tuple[int, ...]) -> Picture:
    """Lay weights (d,) out as gray squares of the shape of a basis image, in the places that these have."""
    return grid([_gray(np.full(shape[:2], weight)) for weight in weights], PANEL_PIXELS)


def reconstruction_sheet(factors: Factors, shown: Mapping[str, NDArray[np.int64]]) -> Image.Image:
    """Some kinds of columns, a row a kind: each image with what W H makes of it to the right."""
    shape, W, rows = image_shape(factors), factors.read("W"), []
    for columns in shown.values():
        A, H = _columns(factors, columns.tolist()), np.asarray(factors.H[:, columns].compute())
        both = [to_picture(values, shape) for pair in zip(A.T, (W @ H).T, strict=True) for values in pair]
        rows.append(_beside([_enlarge(picture, max(shape[0], MATCH_PIXELS)) for picture in both]))
    return Image.fromarray(np.concatenate(rows))


def match_sheet(factors: Factors, rows: Sequence[tuple[NDArray[np.uint8], Sequence[int]]]) -> Image.Image:
    """For each of some images, a column (m,) as stored: itself, and stored images that are like it."""
    shape = image_shape(factors)
    width = 1 + max(len(alike) for _, alike in rows)
    drawn = []
    for column, alike in rows:
        found = _columns(factors, alike) if alike else np.zeros((len(column), 0), np.float32)
        pictures = [to_picture(values, shape) for values in (column / 255, *found.T)]
        pictures += [np.full_like(pictures[0], 255)] * (width - len(pictures))
        height = max(len(pictures[0]), MATCH_PIXELS)
        drawn.append(np.concatenate([_beside([_enlarge(picture, height)]) for picture in pictures], axis=1))
    return Image.fromarray(np.concatenate(drawn))


def noise_sheet(shape: tuple[int, int, int], rows: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """A row for each of some lots of images, (m, k) as stored: the same ones, with noise, and without it again."""
    height = max(shape[0], MATCH_PIXELS)
    drawn = [_beside([_enlarge(to_picture(a, shape), height) for a in (columns / 255).T]) for columns in rows]
    return Image.fromarray(np.concatenate(drawn))


def image_shape(factors: Factors) -> tuple[int, int, int]:
    """(height, width, channels) of the images; BadInput where the matrix does not hold images."""
    path = factors.home
    shape = store.open_matrix(path).attributes.get("image_shape")
    if shape is None:
        raise store.BadInput(f"{path} does not hold images, so there is nothing to draw")
    height, width, channels = shape
    return height, width, channels


def to_picture(column: NDArray[np.floating], shape: tuple[int, int, int]) -> Picture:
    """Draw a column of values in 0..1 as RGBA; transparent pixels show a checkerboard."""
    pixels = np.clip(column.reshape(shape), 0, 1)
    if shape[2] == 1:
        return _gray(pixels[..., 0])
    if shape[2] == 3:
        return _opaque(pixels)
    board = (np.indices(shape[:2]) // 2).sum(axis=0) % 2
    under = np.take(np.array(CHECKS) / 255, board)[..., None]
    alpha = pixels[..., 3:]
    return _opaque(pixels[..., :3] * alpha + under * (1 - alpha))


def basis_picture(w: NDArray[np.float32], shape: tuple[int, int, int]) -> Picture:
    """Draw a basis image (m,), stretched to its maximum.

    One that adds colours where others have the opacity would not be seen: it is as opaque as it has colour.
    """
    stretched = (w / max(w.max(), np.finfo(np.float32).tiny)).reshape(shape)
    if shape[2] == 4:
        stretched[..., 3] = stretched.max(axis=2)
    return to_picture(stretched, shape)


def _basis(W: NDArray[np.float32], shape: tuple[int, int, int]) -> list[Picture]:
    return [basis_picture(w, shape) for w in W.T]


def _columns(factors: Factors, columns: Sequence[int]) -> NDArray[np.float32]:
    matrix = store.open_matrix(factors.home)
    found = read_columns(matrix.path, np.array(columns))
    return np.stack([found[int(j)] for j in columns], axis=1).astype(np.float32) * np.float32(matrix.scale)


def _gray(pixels: NDArray[np.floating]) -> Picture:
    return _opaque(np.repeat(pixels[..., None], 3, axis=2))


def _opaque(colours: NDArray[np.floating]) -> Picture:
    bytes_ = np.rint(255 * colours).astype(np.uint8)
    return np.concatenate([bytes_, np.full((*bytes_.shape[:2], 1), 255, np.uint8)], axis=2)


def grid(pictures: Sequence[Picture], pixels: int) -> Picture:
    """Lay pictures of one size out as a sheet about as wide as high, enlarged as long as it stays within `pixels`.

    They may have any number of channels, and the sheet has as many.
    """
    height, width, channels = pictures[0].shape
    across = max(1, round(np.sqrt(len(pictures) * height / width)))
    down = -(-len(pictures) // across)
    factor = max(1, pixels // max(across * (width + GAP), down * (height + GAP)))
    tall, wide = factor * height + GAP, factor * width + GAP
    sheet = np.full((down * tall + GAP, across * wide + GAP, channels), PAPER[:channels], np.uint8)
    for k, picture in enumerate(pictures):
        top, left = GAP + k // across * tall, GAP + k % across * wide
        sheet[top : top + tall - GAP, left : left + wide - GAP] = picture.repeat(factor, 0).repeat(factor, 1)
    return sheet


def _enlarge(picture: Picture, height: int) -> Picture:
    """Repeat pixels up to a height, and fill the rest with paper."""
    factor = max(1, height // len(picture))
    big = picture.repeat(factor, 0).repeat(factor, 1)
    above = (height - len(big)) // 2
    full = np.full((height, big.shape[1], 4), PAPER, np.uint8)
    full[above : above + len(big)] = big
    return full


def _beside(pictures: Sequence[Picture]) -> Picture:
    return np.concatenate([_framed(picture, 3 * GAP) for picture in pictures], axis=1)


def _framed(picture: Picture, margin: int) -> Picture:
    height, width, _ = picture.shape
    framed = np.full((height + 2 * margin, width + 2 * margin, 4), PAPER, np.uint8)
    framed[margin : margin + height, margin : margin + width] = picture
    return framed


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG."""
    picture.save(path, format="PNG", optimize=True)
