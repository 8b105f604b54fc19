"""How strong the noise of images is, from the images alone.

References
----------
Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81(3), 1994: the median of the finest
diagonal wavelet coefficients, here Haar's, is of noise, since few of them are of what the images show.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.sample import read_sample_as
from data_prep.store import StoredMatrix
from pipeline.kernels import Matrix
from pipeline.noise import coloured

IMAGES, VALUES = 1_000, 2**24
"""Of the stored sample, so many images are looked at, and fewer of large ones: so many values, or one image."""
TO_SIGMA = 0.6744897501960817
"""Median of |x| where x is standard normal."""


def noise_level(matrix: StoredMatrix) -> float | None:
    """Standard deviation of noise that is independent from pixel to pixel, where 1 is the largest pixel value.

    None where no four neighbours have a colour that is not zero: there noise cannot be told.
    """
    shape = matrix.attributes["image_shape"]
    count = max(1, min(IMAGES, VALUES // matrix.shape[0]))
    found = np.concatenate(read_sample_as(matrix, count, lambda block: _diagonals(block, shape)))
    return float(np.median(np.abs(found))) / TO_SIGMA * matrix.scale if len(found) else None


def _diagonals(block: NDArray[np.uint8], shape: tuple[int, int, int]) -> Matrix:
    """Diagonal Haar coefficients of 2 × 2 neighbours of one channel, for columns (m, c); those of colours alone."""
    known = _corners(coloured(block, shape[2]).reshape(*shape, -1))
    a, b, c, d = _corners(block.astype(np.float32).reshape(*shape, -1))
    found: Matrix = (a - b - c + d) / 2
    return found[np.logical_and.reduce(known)]


def _corners(images: NDArray[Any]) -> list[NDArray[Any]]:
    """Four views of images (h, w, …), of the neighbours at each place."""
    return [images[:-1, :-1], images[:-1, 1:], images[1:, :-1], images[1:, 1:]]
