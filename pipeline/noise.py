"""Noise that is added on purpose, so that it is known what of it a factorization removes."""

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import Matrix
from pipeline.panels import panels

ALPHA = 4
"""Channels of an image whose last one is its opacity."""


def with_noise(
    A_j: NDArray[np.uint8], columns: NDArray[np.int64], sigma: float, seed: int, channels: int
) -> NDArray[np.uint8]:
    """Images with Gaussian noise on their colours, but where these are zero; opacity stays as it is.

    An image has the same noise whatever others are beside it, and σ only scales it. What leaves the range of pixels is
    cut off, as a camera would.

    Parameters
    ----------
    A_j
        Images (m, c), a column each.
    columns
        Their numbers (c,), which with the seed say what their noise is.
    sigma
        Standard deviation, where 1 is the largest pixel value.
    seed
        Of the noise.
    channels
        Of the images: 4 where the last one is the opacity.
    """
    noisy = np.empty_like(A_j)
    for k, column in enumerate(columns.tolist()):
        noise = np.random.default_rng([seed, column]).standard_normal(len(A_j), np.float32)
        noise[~coloured(A_j[:, k], channels)] = 0
        noisy[:, k] = to_pixels(A_j[:, k] * np.float32(1 / 255) + np.float32(sigma) * noise)
    return noisy


def coloured(values: NDArray[np.uint8], channels: int) -> NDArray[np.bool_]:
    """Which values of columns (m, …) are of a colour and not zero: those that noise is added to."""
    found: NDArray[np.bool_] = values != 0
    if channels == ALPHA:
        found.reshape(-1, ALPHA, *values.shape[1:])[:, -1] = False
    return found


def seen(values: NDArray[np.uint8], channels: int) -> NDArray[np.bool_]:
    """Which values of columns (m, …) are of a colour of what is not transparent."""
    if channels != ALPHA:
        return np.ones(values.shape, np.bool_)
    pixels = values.reshape(-1, ALPHA, *values.shape[1:])
    found = np.repeat(pixels[:, -1:] != 0, ALPHA, axis=1)
    found[:, -1] = False
    return found.reshape(values.shape)


def restored(noisy: NDArray[np.uint8], W: Matrix, H: Matrix, channels: int) -> NDArray[np.uint8]:
    """W H as images (m, c): opacity is that of the noisy ones, and so are the colours of what cannot be seen."""
    clean = np.empty_like(noisy)
    for rows in panels(noisy):
        clean[rows] = to_pixels(W[rows] @ H)
    if channels == ALPHA:
        pixels, before = (one.reshape(-1, ALPHA, one.shape[1]) for one in (clean, noisy))
        pixels[:, -1] = before[:, -1]
        np.copyto(pixels, before, where=(before[:, -1] == 0)[:, None])
    return clean


def to_pixels(values: Matrix) -> NDArray[np.uint8]:
    """Values as they are stored, from 0 to 255: what lies beyond 0..1 is cut off."""
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
