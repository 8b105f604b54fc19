"""Which stored images are like a new one: those whose weights point the same way.

A component's weight counts as much as what it puts into an image: rows of H are multiplied by the norms of W's columns,
so it does not matter how W and H share their scale. Then the cosine.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from pipeline.factors import Factors
from pipeline.kernels import Matrix


class Matches(NamedTuple):
    """The stored images that are most like each of some others."""

    columns: NDArray[np.int64]
    """(q, k), the most alike first, and of equals the first column."""
    scores: NDArray[np.float32]
    """Cosines (q, k); negative infinity where there are not so many images."""


def matches(factors: Factors, queries: Matrix, k: int) -> Matches:
    """Find the k stored images most like each of some others; exact, and a chunk of H at a time.

    Parameters
    ----------
    factors
        The factorization, with H of the stored images.
    queries
        Weights (d, q) of the others, for the same W.
    k
        How many.
    """
    lengths, n = component_norms(factors), factors.attributes["shape"][1]
    wanted, ok = _unit(queries, lengths).T, store.read_array(factors.home, "ok", n)
    best = Matches(np.zeros((queries.shape[1], 0), np.int64), np.zeros((queries.shape[1], 0), np.float32))
    for span, H in factors.chunks_of_H():
        scores = np.where(ok[span], wanted @ _unit(H, lengths), -np.inf).astype(np.float32)
        columns = np.broadcast_to(np.arange(span.start, span.stop), scores.shape)
        best = _best(np.hstack([best.columns, columns]), np.hstack([best.scores, scores]), k)
    return best


def dominant(factors: Factors) -> NDArray[np.int64]:
    """Component that puts most into each stored image, (n,); −1 where none does."""
    lengths = component_norms(factors)
    found = [np.where(H.any(axis=0), (H * lengths).argmax(axis=0), -1) for _, H in factors.chunks_of_H()]
    return np.concatenate(found).astype(np.int64)


def component_norms(factors: Factors) -> NDArray[np.float32]:
    """Norms of W's columns, (d, 1)."""
    return np.linalg.norm(factors.read("W"), axis=0)[:, np.newaxis].astype(np.float32)


def _unit(H: Matrix, lengths: NDArray[np.float32]) -> Matrix:
    """Columns of norm 1, or zero."""
    scaled: Matrix = H * lengths
    norms = np.linalg.norm(scaled, axis=0)
    return np.divide(scaled, norms, out=np.zeros_like(scaled), where=norms > 0)


def _best(columns: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Matches:
    """First k by score; a stable sort, so of equals the first column stays first."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Matches(np.take_along_axis(columns, order, axis=1), np.take_along_axis(scores, order, axis=1))
