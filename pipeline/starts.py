"""Where W and H start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.sample import read_sample
from data_prep.store import StoredMatrix
from pipeline.basis import basis_of
from pipeline.blocks import StoredBlocks
from pipeline.config import NMFConfig
from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.solvers.state import State

OVERSAMPLING = 10
SAMPLE_PER_COMPONENT = 20
ROUNDING = 1e-6
"""Share of the largest singular value, in float32, below which one is rounding and its vectors mean nothing."""


@dataclass(frozen=True)
class Given:
    """Factors to start from: W (m, d) and H (d, n)."""

    W: Matrix
    H: Matrix


def continued(previous: Factors, parts: Sequence[range]) -> State:
    """Start where a stored factorization ended; its H is read by the tasks of the first pass."""
    W = np.ascontiguousarray(previous.W.compute(scheduler="synchronous"))
    loss = previous.iterations[-1].loss
    return State(W=basis_of(W), H=[StoredBlocks(previous.path, "H", part) for part in parts], loss=loss)


def given(start: Given, matrix: StoredMatrix, parts: Sequence[range]) -> State:
    """Start from factors in memory."""
    H = [[start.H[:, columns].astype(np.float32) for columns in matrix.columns(part)] for part in parts]
    return State(W=basis_of(np.ascontiguousarray(start.W, np.float32)), H=H)


def cold(matrix: StoredMatrix, config: NMFConfig, parts: Sequence[range]) -> State:
    """Start as `init` says; H is solved for at the first visit, but for random multiplicative updates."""
    d, seed = config.n_components, config.seed
    H: list[RandomBlocks | None] = [None] * len(parts)
    if config.init == "nndsvd":
        W = nndsvd(_sample(matrix, SAMPLE_PER_COMPONENT * d), d, seed)
        return State(W=basis_of(fill_zeros(W) if config.solver == "mu" else revive(W, seed)), H=H)
    if config.solver == "mu":
        widths = [[columns.stop - columns.start for columns in matrix.columns(part)] for part in parts]
        H = [RandomBlocks(seed, d, w, part.start) for w, part in zip(widths, parts, strict=True)]
    return State(W=basis_of(uniform(seed, 0, (matrix.shape[0], d))), H=H)


@dataclass(frozen=True)
class RandomBlocks:
    """Uniform random blocks of H, each (d, c): the same numbers for a block whatever partition holds it."""

    seed: int
    d: int
    widths: Sequence[int]
    first: int
    """Number of the first block."""

    def __iter__(self) -> Iterator[Matrix]:
        for k, width in enumerate(self.widths, self.first):
            yield uniform(self.seed, k + 1, (self.d, width))


def uniform(seed: int, stream: int, shape: tuple[int, int]) -> Matrix:
    """Uniform random numbers in (0, 1]; zero is left out, since a multiplicative update never leaves it."""
    return 1 - np.random.default_rng([seed, stream]).random(shape, dtype=np.float32)


def nndsvd(sample: Matrix, d: int, seed: int) -> Matrix:
    """W (m, d) from the singular vectors of a sample of columns of A.

    Of each pair of singular vectors the positive or the negative parts are taken, whichever carry more. The vectors
    come from a randomized range finder with one power iteration; a rank above the sample's leaves columns of zeros.

    Parameters
    ----------
    sample
        Columns of A, (m, k).
    d
        Rank.
    seed
        Of the range finder.

    References
    ----------
    Boutsidis & Gallopoulos, "SVD based initialization: A head start for nonnegative
    matrix factorization", Pattern Recognition 41, 2008. Halko, Martinsson & Tropp, "Finding structure with
    randomness", SIAM Review 53, 2011.
    """
    U, s, Vt = _truncated_svd(sample, d, seed)
    W = np.zeros((len(sample), d), np.float32)
    for k in np.flatnonzero(s > ROUNDING * s[0]):
        u, v = U[:, k], Vt[k]
        sides = [(np.maximum(sign * u, 0), np.maximum(sign * v, 0)) for sign in (1, -1)]
        u, v = max(sides, key=lambda side: float(np.linalg.norm(side[0]) * np.linalg.norm(side[1])))
        norm = float(np.linalg.norm(u))
        if norm > 0:
            W[:, k] = u * np.sqrt(s[k] * np.linalg.norm(v) / norm)
    return W


def fill_zeros(W: Matrix) -> Matrix:
    """Replace zeros by the mean (NNDSVDa), for updates that never leave zero."""
    return np.where(W == 0, max(W.mean(), np.finfo(np.float32).tiny), W).astype(np.float32)


def revive(W: Matrix, seed: int) -> Matrix:
    """Give components without any pixel (the sample had no more singular vectors) random ones."""
    dead = ~W.any(axis=0)
    W[:, dead] = uniform(seed, 0, W.shape)[:, dead] * (W.mean() or 1)
    return W


def _sample(matrix: StoredMatrix, k: int) -> Matrix:
    """First columns of the stored sample, at most k, as scaled float32 (m, ≤ k)."""
    return read_sample(matrix, k) * np.float32(matrix.scale)


def _truncated_svd(S: Matrix, d: int, seed: int) -> tuple[Matrix, NDArray[np.float32], Matrix]:
    """Leading singular triplets of S (m, k): U (m, d), s (d,), Vᵀ (d, k), fewer where min(m, k) is below d."""
    width = min(d + OVERSAMPLING, *S.shape)
    test = np.random.default_rng([seed, 0]).standard_normal((S.shape[1], width), dtype=np.float32)
    Q, _ = np.linalg.qr(S @ test)
    Q, _ = np.linalg.qr(S @ (S.T @ Q))
    U, s, Vt = np.linalg.svd(Q.T @ S, full_matrices=False)
    return (Q @ U)[:, :d], s[:d], Vt[:d]
