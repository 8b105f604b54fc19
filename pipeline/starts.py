"""Where W and H start."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.sample import read_sample_mask, sample_columns, sample_size
from data_prep.store import StoredMatrix
from pipeline.basis import basis_of
from pipeline.blocks import StoredBlocks
from pipeline.config import NMFConfig
from pipeline.entries import PRESENT
from pipeline.factors import Factors
from pipeline.kept_sums import read_sums
from pipeline.kernels import Matrix, cold_start, hals
from pipeline.objective import few_nonzero, is_entrywise, is_masked, which
from pipeline.opening import sampled
from pipeline.plan import RefusedPlan
from pipeline.range_finder import Range, find_range
from pipeline.record import Iteration
from pipeline.solvers.state import Momentum, State

OVERSAMPLING = 10
SAMPLE_PER_COMPONENT = 20
CORRECTIONS = 10
REFINEMENTS = 100
FLOOR, FLOOR_OF_COUNTS = 1e-3, 1.0
"""Of the mean of a column of W: least squares leave zeros, which multiplicative updates would keep. Where nearly all is
zero, W of squares is not near that of the divergence, and what is small in it would get lost early."""
NOTHING = 1e-5
"""Share of the longest column of W below which one is made of rounding alone."""
ROUNDING = 1e-6
"""Share of the largest singular value, in float32, below which one is rounding and its vectors mean nothing."""


@dataclass(frozen=True)
class Given:
    """Factors to start from: W (m, d) and H (d, n)."""

    W: Matrix
    H: Matrix | None = None
    """Solved for at the first visit where it is not given."""
    before: Sequence[Iteration] = ()
    """What led to W on a small problem: the passes over A are those that follow it."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What is recorded of that small problem."""


def continued(previous: Factors, parts: Sequence[range]) -> State:
    """Start where a stored factorization ended; its H is read by the tasks of the first pass."""
    return State(
        W=basis_of(previous.read("W")),
        H=[StoredBlocks(previous.path, "H", part) for part in parts],
        loss=previous.iterations[-1].loss,
        from_residual=previous.attributes["momentum"]["from_residual"],
        momentum=continued_momentum(previous),
        penalty=previous.attributes.get("penalty", 0.0),
        sums=read_sums(previous),
    )


def continued_momentum(previous: Factors) -> Momentum:
    """How far the next iteration was to go beyond W."""
    last = previous.attributes["momentum"]
    W_before = previous.read("W_before") if last["moving"] else None
    return Momentum(W_before=W_before, beta=last["beta"], limit=last["limit"], revivals=last["revivals"])


def check(start: Given, d: int, matrix: StoredMatrix) -> None:
    """Raise RefusedPlan where factors to start from have other shapes, or values that W and H cannot have."""
    m, n = matrix.shape
    W, H = start.W, start.H
    if W.shape != (m, d) or (H is not None and H.shape != (d, n)):
        of_H = "" if H is None else f" and H {H.shape}"
        raise RefusedPlan(f"the start has W {W.shape}{of_H}, but must have {(m, d)} and {(d, n)}")
    if not all(np.isfinite(X).all() and (X >= 0).all() for X in (W, H) if X is not None):
        raise RefusedPlan("the start has negative, NaN or infinite values, but W and H must be finite and 0 or more")


def given(start: Given, matrix: StoredMatrix, parts: Sequence[range]) -> State:
    """Start from factors in memory."""
    W, given = basis_of(np.ascontiguousarray(start.W, np.float32)), start.H
    if given is None:
        return State(W=W, H=[None] * len(parts))
    return State(W=W, H=[[given[:, columns].astype(np.float32) for columns in matrix.columns(part)] for part in parts])


def cold(
    matrix: StoredMatrix,
    config: NMFConfig,
    parts: Sequence[range],
    visited: Callable[[int], None] = lambda columns: None,
) -> State:
    """Start as `init` says; H is solved for at the first visit, but for random multiplicative updates.

    `visited` is told how many columns of the sample were visited, each of them twice.
    """
    d, seed = config.n_components, config.seed
    H: list[RandomBlocks | None] = [None] * len(parts)
    if config.init == "random" and config.solver == "mu":
        widths = [[columns.stop - columns.start for columns in matrix.columns(part)] for part in parts]
        H = [RandomBlocks(seed, d, w, part.start) for w, part in zip(widths, parts, strict=True)]
    found = range_of_sample(matrix, config, visited)
    W = basis_images(config, found, matrix.shape[0])
    counts = few_nonzero(config, matrix)
    if found is not None and is_entrywise(config, matrix) and not counts:
        W = refined(found, W)
    if config.solver == "amu":
        W = np.maximum(W, (FLOOR_OF_COUNTS if counts else FLOOR) * W.mean(axis=0))
    return State(W=basis_of(fill_zeros(W) if config.solver == "mu" else W), H=H)


def range_of_sample(matrix: StoredMatrix, config: NMFConfig, visited: Callable[[int], None]) -> Range | None:
    """Singular vectors of the stored sample, where the start is made of them and the passes allow to visit it."""
    k = columns_of_sample(matrix, config)
    if k == 0:
        return None
    sample, scale = sampled(matrix, config, k), matrix.scale
    visited(sample.shape[1])
    if is_masked(config, matrix):
        sample, scale = _filled(sample, matrix, config), 1.0
    rank = min(config.n_components * (2 if is_entrywise(config, matrix) else 1) + OVERSAMPLING, *sample.shape)
    return find_range(sample, rank, config.seed, scale) if rank else None


def _filled(sample: NDArray[Any], matrix: StoredMatrix, config: NMFConfig) -> Matrix:
    """Columns of the sample (m, k), scaled, with the mean of its row in place of an entry that is missing."""
    n, k = matrix.shape[1], sample.shape[1]
    columns = sample_columns(store.read_array(matrix.path, "ok", n), sample_size(len(sample), matrix.dtype.itemsize))
    mask = read_sample_mask(matrix, k) if matrix.n_present is not None else None
    what = which(config, matrix).what(sample, mask, columns[:k])
    values, present = sample * np.float32(matrix.scale), np.equal(what, PRESENT)
    sums, counts = values.sum(axis=1, keepdims=True, where=present), present.sum(axis=1, keepdims=True)
    return np.where(present, values, sums / np.maximum(counts, 1)).astype(np.float32)


def columns_of_sample(matrix: StoredMatrix, config: NMFConfig) -> int:
    """How many columns of the sample a start is made of; each is visited twice."""
    affordable = math.inf if config.max_passes is None else (config.max_passes - 1) * matrix.shape[1] / 2
    k = int(min(SAMPLE_PER_COMPONENT * config.n_components, matrix.n_ok, affordable))
    return 0 if config.init == "random" or k < config.n_components else k


def basis_images(config: NMFConfig, found: Range | None, m: int) -> Matrix:
    """W (m, d) as `init` says, from singular vectors of A or a sample of it; random where there are none."""
    d, seed = config.n_components, config.seed
    if config.init == "random" or found is None or not found.s[0] > 0:
        return uniform(seed, 0, (m, d))
    W = nnsvd_lrc(found, d) if config.init == "nnsvd_lrc" else nndsvd(found, d)
    if config.init == "nndsvda":
        return fill_zeros(W)
    if config.init == "nndsvdar":
        return np.where(W == 0, uniform(seed, 0, W.shape) * (W.mean() / 100), W).astype(np.float32)
    return revive(W, seed)


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


def nndsvd(found: Range, d: int) -> Matrix:
    """W (m, d) from singular vectors: of each pair the positive or the negative parts, whichever carry more.

    Singular vectors that are rounding leave columns of zeros.

    References
    ----------
    Boutsidis & Gallopoulos, "SVD based initialization: A head start for nonnegative
    matrix factorization", Pattern Recognition 41, 2008.
    """
    W = np.zeros((len(found.U), d), np.float32)
    for k in range(_rank(found, d)):
        u, v = found.U[:, k], found.Vt[k]
        sides = [(np.maximum(sign * u, 0), np.maximum(sign * v, 0)) for sign in (1, -1)]
        u, v = max(sides, key=lambda side: float(np.linalg.norm(side[0]) * np.linalg.norm(side[1])))
        norm = float(np.linalg.norm(u))
        if norm > 0:
            W[:, k] = u * np.sqrt(found.s[k] * np.linalg.norm(v) / norm)
    return W


def nnsvd_lrc(found: Range, d: int) -> Matrix:
    """W (m, d) from half as many singular vectors, the positive and the negative parts of each, then corrected.

    The correction are a few iterations of HALS on the product of those singular vectors, which are cheap.

    References
    ----------
    Atif, Qazi & Gillis, "Improved SVD-based initialization for nonnegative matrix
    factorization using low-rank correction", Pattern Recognition Letters 122, 2019.
    """
    p = _rank(found, d // 2 + 1)
    root = np.sqrt(found.s[:p])
    Y: Matrix = (found.U[:, :p] * root).astype(np.float32)
    Z: Matrix = (found.Vt[:p] * root[:, None]).astype(np.float32)
    Wt: Matrix = np.zeros((d, len(Y)), np.float32)
    H: Matrix = np.zeros((d, Z.shape[1]), np.float32)
    Wt[0], H[0] = np.abs(Y[:, 0]), np.abs(Z[0])
    for k in range(1, min(d, 2 * p - 1)):
        sign, pair = (1 if k % 2 else -1), (k + 1) // 2
        Wt[k], H[k] = np.maximum(sign * Y[:, pair], 0), np.maximum(sign * Z[pair], 0)
    for _ in range(CORRECTIONS):
        H = hals(Wt @ Wt.T, np.matmul(Wt @ Y, Z), H, 1)
        Wt = hals(H @ H.T, np.matmul(H @ Z.T, Y.T), Wt, 1)
    return np.ascontiguousarray(Wt.T)


def refined(found: Range, W: Matrix) -> Matrix:
    """Go on from W (m, d) by HALS on the product of the singular vectors of a sample, which costs no visit."""
    Y, Z = (found.U * found.s).astype(np.float32), found.Vt
    Wt = np.ascontiguousarray(W.T)
    H = cold_start(W.T @ W, np.matmul(Wt @ Y, Z))
    for _ in range(REFINEMENTS):
        H = hals(Wt @ Wt.T, np.matmul(Wt @ Y, Z), H, 2)
        Wt = hals(H @ H.T, np.matmul(H @ Z.T, Y.T), Wt, 2)
    return np.ascontiguousarray(Wt.T)


def _rank(found: Range, most: int) -> int:
    """How many of the leading singular vectors mean something."""
    return min(most, int((found.s > ROUNDING * found.s[0]).sum()))


def fill_zeros(W: Matrix) -> Matrix:
    """Replace zeros by the mean (NNDSVDa), for updates that never leave zero."""
    return np.where(W == 0, max(W.mean(), np.finfo(np.float32).tiny), W).astype(np.float32)


def revive(W: Matrix, seed: int) -> Matrix:
    """Give components without any pixel random ones: there were no more singular vectors, or of one sign only."""
    norms = np.linalg.norm(W, axis=0)
    dead = norms <= NOTHING * norms.max()
    W[:, dead] = uniform(seed, 0, W.shape)[:, dead] * (W.mean() or 1)
    return W
