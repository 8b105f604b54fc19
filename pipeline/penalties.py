"""Penalties on the factors, with scikit-learn's meaning.

To half of ‖A − W H‖², or to the divergence, each entry x of a factor adds l1 x + l2 x² / 2 for every entry of A that
depends on it. With X = Aᵀ scikit-learn's W is our Hᵀ: so an entry of H counts as often as its column of A has entries,
and takes `alpha_W`; one of W as often as its row has entries, and takes `alpha_H`. Where nothing is missing these are
scikit-learn's n_features = m and n_samples = n; where something is, it is the penalty of Zhou et al., "Large-scale
parallel collaborative filtering for the Netflix Prize", AAIM 2008.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import NMFConfig
from pipeline.kernels import Matrix


class Weights(NamedTuple):
    """Of a penalty on one factor."""

    l1: float = 0.0
    l2: float = 0.0

    def times(self, count: float) -> "Weights":
        """Weights of an entry that counts so often."""
        return Weights(self.l1 * count, self.l2 * count)


NONE = Weights()


def of_H(config: NMFConfig) -> Weights:
    """Penalty on H, for each entry of a column of A."""
    return _weights(config.alpha_W, config.l1_ratio)


def of_W(config: NMFConfig) -> Weights:
    """Penalty on W, for each entry of a row of A."""
    return _weights(config.alpha_W if config.alpha_H is None else config.alpha_H, config.l1_ratio)


def any_in(config: NMFConfig) -> bool:
    """Whether there is a penalty at all."""
    return any(weights != NONE for weights in (of_H(config), of_W(config)))


def _weights(alpha: float, l1_ratio: float) -> Weights:
    return Weights(alpha * l1_ratio, alpha * (1 - l1_ratio))


def penalised(G: Matrix, C: Matrix, weights: Weights) -> tuple[Matrix, Matrix]:
    """G and C of the problem with a penalty: that of half of ‖A − W H‖²."""
    if weights == NONE:
        return G, C
    return G + np.float32(weights.l2) * np.eye(len(G), dtype=np.float32), C - np.float32(weights.l1)


def by_column(weights: Weights, counts: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """Weights of entries that count as often as is said, in the shape of the counts."""
    return (weights.l1 * counts).astype(np.float32), (weights.l2 * counts).astype(np.float32)
