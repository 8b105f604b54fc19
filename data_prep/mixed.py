"""Samples mixed from four Gaussians: data whose true factors are known, and are the only ones.

They are the only ones because of zeros, without which other shapes and amounts would have the same product. A third of
the samples hold one Gaussian alone, and a basis has to make those too, by adding alone; so each of its shapes is a
Gaussian, or one from which something of another was taken off. And next to nothing can be taken off: somewhere
between 0 and 1 each Gaussian is below a hundredth of any other, and less than nothing is not allowed. So whatever
reaches a loss of zero has found the shapes below, up to their order, their scale, and that hundredth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_POINTS = 512
MEANS, DEVIATIONS = (0.215, 0.39, 0.565, 0.78), (0.07, 0.085, 0.065, 0.095)
"""Neighbours overlap: the cosine of two is up to 0.28."""
PRESENT = 0.4
"""Share of the samples in which each Gaussian is."""


@dataclass(frozen=True)
class Mixture:
    """Samples and what they were made of: A = shapes @ amounts."""

    A: NDArray[np.float32]
    """(N_POINTS, n), a column a sample."""
    shapes: NDArray[np.float64]
    """(N_POINTS, 4), each with a maximum of 1: the true W."""
    amounts: NDArray[np.float64]
    """(4, n), 0..1, most of them zero: the true H."""


def points() -> NDArray[np.float64]:
    """Where the shapes are known, (N_POINTS,), from 0 to 1."""
    return np.linspace(0, 1, N_POINTS)


def mix_gaussians(n: int, seed: int) -> Mixture:
    """Mix n samples; the shapes are the same for all seeds."""
    rng = np.random.default_rng(seed)
    shapes = np.exp(-(((points()[:, None] - MEANS) / DEVIATIONS) ** 2) / 2)
    amounts = rng.random((len(MEANS), n)) * (rng.random((len(MEANS), n)) < PRESENT)
    return Mixture((shapes @ amounts).astype(np.float32), shapes, amounts)
