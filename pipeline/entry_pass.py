"""One pass over A for objectives that are sums over entries: the divergence, or squares of which some are missing.

The task of a partition improves its part of H, block by block, and returns what moves W, with the objective of exactly
the W it was given and the H it made. Of a block there are only A itself and panels of W H at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import entries
from pipeline.basis import Basis, EntrySums
from pipeline.blocks import like, read_ahead
from pipeline.config import FROBENIUS, KULLBACK_LEIBLER
from pipeline.entries import Block, Piece, Weigh, times_W
from pipeline.kernels import Matrix, cold_start, gram, multiplied
from pipeline.one_pass import accumulate
from pipeline.panels import aligned, back_project, one_blas_thread, sweep
from pipeline.penalties import NONE, Weights, by_column
from pipeline.sparse import lists_entries
from pipeline.sparse_blocks import SparseBlock

TERMS = {FROBENIUS: (entries.squared, entries.power), KULLBACK_LEIBLER: (entries.divergence, entries.entropy)}
"""Of the objective, and of what it is measured against."""
LIFTED = np.float32(1e-3)
"""Share of the mean of a column of H that a cold start has at least: updates would keep zeros."""


@dataclass(frozen=True, kw_only=True)
class EntryVisit:
    """The task."""

    scale: float
    """What stored values are multiplied with."""
    loss: str = FROBENIUS
    masked: bool = True
    """Whether entries may be missing; without, sums of the divergence are shorter."""
    fills: bool = False
    """For squares: W H stands for what is missing, and HALS takes the place of multiplicative updates."""
    updates: int = 1
    """Of H."""
    cold_updates: int = 1
    """Of H where it starts from nothing."""
    penalty: Weights = NONE
    """On H, for each entry of a column."""

    def __call__(self, A: Iterable[Block], H: Iterable[Matrix] | None, W: Basis) -> tuple[list[Matrix], EntrySums]:
        """Visit the blocks of a partition in order."""
        one_blas_thread()
        W = Basis(aligned(W.W), W.WtW)
        improved: list[Matrix] = []
        total: EntrySums | None = None
        for A_j, H_j in like(read_ahead(A), H):
            H_new = improve(A_j, W, None if H_j is None else aligned(H_j), self)
            sums = summed(A_j, W.W, H_new, self)
            total = sums if total is None else accumulate(total, sums)
            improved.append(H_new)
        if total is None:
            raise ValueError("a partition has no blocks")
        return improved, total.kept()


def improve(A: Block, W: Basis, H: Matrix | None, how: EntryVisit) -> Matrix:
    """Return a better H (d, c) for a block; a cold one has no zeros, which multiplicative updates would keep."""
    updates = how.cold_updates if H is None else how.updates
    if how.fills:
        return _filled(A, W, H, updates, how)
    if H is None:
        few = isinstance(A, SparseBlock) and not A.zeros
        H = _level(A, W.W, how.scale) if few else _least_squares(A, W, how.scale)
    return _multiplied(A, W.W, H, updates, how)


def _least_squares(A: Block, W: Basis, scale: float) -> Matrix:
    """H (d, c) of least squares, as if what is missing were like the rest; with what is cut off lifted above zero."""
    nothing = np.zeros((W.W.shape[1], A.shape[1]), np.float32)
    share = np.maximum(A.column_counts, 1).astype(np.float32) / np.float32(A.shape[0])
    H = cold_start(W.WtW.astype(np.float32), times_W(A, W.W, nothing, scale, entries.values) / share)
    return np.maximum(H, LIFTED * H.mean(axis=0))


def _level(A: Block, W: Matrix, scale: float) -> Matrix:
    """H (d, c) whose rows are equal: each column of W H has the sum that the present entries of A have."""
    # So few entries do not determine H: least squares would be wild.
    nothing = np.zeros((W.shape[1], A.shape[1]), np.float32)
    sums = np.zeros((2, A.shape[1]))
    for piece in A.pieces(W, nothing, scale):
        all_of_W = np.broadcast_to(W[piece.rows].sum(axis=1, keepdims=True), (len(W[piece.rows]), 1))
        sums[0] += np.asarray(piece.spread(piece.a.copy()).sum(axis=0, dtype=np.float64)).ravel()
        sums[1] += np.asarray(piece.spread(np.ones_like(piece.a)).T @ all_of_W).ravel()
    level = np.divide(sums[0], sums[1], out=np.zeros(A.shape[1]), where=sums[1] > 0)
    return np.broadcast_to(level, nothing.shape).astype(np.float32)


def _multiplied(A: Block, W: Matrix, H: Matrix, updates: int, how: EntryVisit) -> Matrix:
    """Multiplicative updates of Lee & Seung, over the entries that are present."""
    l1, l2 = by_column(how.penalty, A.column_counts)

    def times(weigh: Weigh, H: Matrix) -> Matrix:
        return times_W(A, W, H, how.scale, weigh)

    squares = how.loss == FROBENIUS
    if squares:
        steady = times(entries.values, H)
    else:
        steady = times(entries.ones, H) if how.masked else W.sum(axis=0, dtype=np.float64).astype(np.float32)[:, None]
    for _ in range(updates):
        up, down = (steady, times(entries.model, H)) if squares else (times(entries.ratio, H), steady)
        H = multiplied(H, up, down + l1 + l2 * H)
    return H


def _filled(A: Block, W: Basis, H: Matrix | None, updates: int, how: EntryVisit) -> Matrix:
    """Sweeps of HALS with W H in place of what is missing, which never raise the error of what is present.

    A penalty of columns that have fewer entries than others is less: what is missing of it is filled likewise.
    """
    l1, l2 = by_column(how.penalty, A.column_counts)
    most = np.float32(l2.max())
    G = W.WtW.astype(np.float32)
    G_penalised = G + most * np.eye(len(G), dtype=np.float32)
    if H is None:
        H = _least_squares(A, W, how.scale)
    for _ in range(updates):
        WtR = times_W(A, W.W, H, how.scale, entries.residual)
        H = sweep(G_penalised, WtR + G @ H - l1 + (most - l2) * H, H, SWEEPS)
    return H


SWEEPS = 4
"""Of HALS, each time that what is missing is filled."""


def summed(A: Block, W: Matrix, H: Matrix, how: EntryVisit) -> EntrySums:
    """What a block adds to the sums of a pass."""
    m, d = W.shape
    squares = how.loss == FROBENIUS
    up = entries.residual if how.fills else entries.values if squares else entries.ratio
    down = None if how.fills or not (squares or how.masked) else entries.model if squares else entries.ones
    AHt = np.empty((m, d), np.float32)
    MHt = np.empty((m, d), np.float32) if down else H.sum(axis=1, dtype=np.float64)[np.newaxis]
    row_sums, told = np.zeros((m, 1)), np.zeros(2)
    held_out = np.zeros(2)
    for piece in A.pieces(W, H, how.scale):
        AHt[piece.rows] = _times_Ht(piece.spread(up(piece.a, piece.x)), H)
        if down:
            MHt[piece.rows] = _times_Ht(piece.spread(down(piece.a, piece.x)), H)
        told += [piece.total(term(piece.a, piece.x)) for term in TERMS[how.loss]]
        if A.zeros:
            told[0] += _unlisted(W, H, piece)
        held_out += piece.held_out()
        if not squares:
            row_sums[piece.rows, 0] = np.asarray(piece.spread(piece.a.copy()).sum(axis=1, dtype=np.float64)).ravel()
    return EntrySums(
        AHt=AHt,
        HHt=gram(H),
        MHt=MHt,
        row_counts=A.row_counts.copy(),  # which is added to, while the block may stay
        row_sums=row_sums,
        loss=float(told[0]),
        power=float(told[1]),
        penalty_H=_penalty(H, A.column_counts, how),
        held_out=held_out,
    )


def _times_Ht(S: Any, H: Matrix) -> Matrix:
    """S Hᵀ, (rows, d)."""
    return back_project(S, H, 1.0) if lists_entries(S) else S @ H.T


def _unlisted(W: Matrix, H: Matrix, piece: Piece) -> float:
    """Sum of W H where A is zero and not listed, which is what the divergence is there."""
    return float(W.sum(axis=0, dtype=np.float64) @ H.sum(axis=1, dtype=np.float64)) - piece.total(piece.x)


def _penalty(H: Matrix, of_columns: NDArray[np.float64], how: EntryVisit) -> float:
    if how.penalty == NONE:
        return 0.0
    l1, l2 = by_column(how.penalty, of_columns)
    half: Any = np.sum(l1 * H + l2 / 2 * np.square(H), dtype=np.float64)
    return float(2 * half if how.loss == FROBENIUS else half)
