"""Objectives that are sums over entries: the Kullback–Leibler divergence, and squares where entries are missing.

An iteration improves W from the sums of the last visit, and then H in a visit, which also tells the objective of
exactly this W and this H. The first one has no sums: it makes H alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.basis import Basis, EntrySums, basis_of, by_pixels
from pipeline.config import FROBENIUS
from pipeline.entry_pass import EntryVisit
from pipeline.kernels import Matrix, multiplied
from pipeline.one_pass import BlockMatrix
from pipeline.panels import sweep
from pipeline.penalties import NONE, Weights, by_column
from pipeline.solvers.state import State

LEAST_LEFT, LEFT_OF_COUNTS = 0.1, 0.7
"""Share of an entry of W that extrapolation leaves: multiplicative updates do not bring it back from near zero. Counts
that are nearly all zero end 1 % higher with the former; where few entries are present, the latter lets W run away."""
W_SWEEPS = 8


@dataclass(frozen=True, kw_only=True)
class Entrywise:
    """Multiplicative updates, or HALS with W H in place of what is missing.

    Where it extrapolates W, an iteration that raises the objective is not taken: the next one starts from the factors
    there were, without extrapolation, and then the objective cannot rise. So that of what is kept never does, but for
    rounding, and for squares of a penalised factor in updates of the divergence.

    References
    ----------
    Lee & Seung, "Algorithms for non-negative matrix factorization", NIPS 2000; Gillis & Glineur, "Accelerated
    multiplicative updates and hierarchical ALS algorithms for nonnegative matrix factorization", Neural Computation
    24(4), 2012; Hien, Leplat & Gillis, "Block majorization minimization with extrapolation and application to
    β-divergence NMF", SIAM J. Math. Data Sci., 2025.
    """

    visit: EntryVisit
    extrapolates: bool
    least_left: float = LEAST_LEFT
    penalty: Weights = NONE
    """On W, for each entry of a row."""
    idle: int = 0
    """Columns that hold no image: where nothing else is missing, they count for no row."""

    def step(self, A: BlockMatrix, state: State) -> State:
        """Make an iteration, or find that it is not to be taken."""
        improved = state.W if state.sums is None else self.improved(state.W, _entry_sums(state))
        W = self._ahead(improved, state) if self.extrapolates and state.sums is not None else improved
        H, sums = A.run(self.visit, W, state.H)
        if not self.visit.masked:
            sums = sums._replace(row_counts=sums.row_counts - self.idle)
        new, momentum = self.state(W, H, sums), state.momentum
        if momentum.W_before is not None and new.loss > state.loss:
            return replace(state, momentum=momentum.after_a_loss())
        moving = self.extrapolates and state.sums is not None
        return replace(new, momentum=momentum.after_a_gain(improved.W, None) if moving else momentum)

    def state(self, W: Basis, H: Sequence[Any], sums: EntrySums) -> State:
        """Say how good factors are, given the sums of the visit that made H."""
        penalty = sums.penalty_H + self._penalty(W, sums.row_counts)
        return State(
            W=W,
            H=H,
            loss=max(sums.loss, 0.0) + penalty,  # terms of the divergence nearly cancel once the fit is good
            penalty=penalty,
            from_residual=True,
            relative_error=relative_error(sums, self.visit.loss),
            holdout_error=holdout_error(sums),
            sums=sums.kept(),
        )

    def improved(self, old: Basis, sums: EntrySums) -> Basis:
        """Return a better W, given the sums of a visit.

        Rows of which no entry is present become the mean of the others, so that W H is of use there, too.
        """
        W = np.empty_like(old.W)
        update = self._filled if self.visit.fills else self._multiplied

        def of_block(pixels: slice) -> None:
            W[pixels] = update(old.W, sums, pixels)

        by_pixels(of_block, len(W))
        seen = sums.row_counts[:, 0] > 0
        if not seen.all() and seen.any():
            W[~seen] = W[seen].mean(axis=0, dtype=np.float64)
        return basis_of(W)

    def _multiplied(self, W: Matrix, sums: EntrySums, pixels: slice) -> Matrix:
        l1, l2 = by_column(self.penalty, sums.row_counts[pixels])
        down = sums.MHt if len(sums.MHt) == 1 and len(W) > 1 else sums.MHt[pixels]
        return multiplied(W[pixels], sums.AHt[pixels], down + l1 + l2 * W[pixels])

    def _filled(self, W: Matrix, sums: EntrySums, pixels: slice) -> Matrix:
        HHt = sums.HHt.astype(np.float32)
        l1, l2 = by_column(self.penalty, sums.row_counts)
        most, old = np.float32(l2.max()), W[pixels]
        C = sums.AHt[pixels] + old @ HHt - l1[pixels] + (most - l2[pixels]) * old
        G = HHt + most * np.eye(len(HHt), dtype=np.float32)
        return sweep(G, np.ascontiguousarray(C.T, np.float32), np.ascontiguousarray(old.T), W_SWEEPS).T

    def _ahead(self, improved: Basis, state: State) -> Basis:
        """W + β (W − W_before), which stays above zero."""
        momentum = state.momentum
        if momentum.W_before is None:
            return improved
        W: Matrix = improved.W + np.float32(momentum.beta) * (improved.W - momentum.W_before)
        return basis_of(np.maximum(W, 0 if self.visit.fills else np.float32(self.least_left) * improved.W))

    def _penalty(self, W: Basis, row_counts: NDArray[np.float64]) -> float:
        if self.penalty == NONE:
            return 0.0
        l1, l2 = by_column(self.penalty, row_counts)

        def of_block(pixels: slice) -> float:
            part = W.W[pixels]
            return float(np.sum(l1[pixels] * part + l2[pixels] / 2 * np.square(part), dtype=np.float64))

        return (2 if self.visit.loss == FROBENIUS else 1) * sum(by_pixels(of_block, len(W.W)))


def relative_error(sums: EntrySums, loss: str) -> float:
    """‖A − W H‖ / ‖A‖ over the entries that are present; for the divergence its share of that which row means leave.

    The latter is D(A ‖ W H) / D(A ‖ a 1ᵀ), with a (m, 1) the means of the rows.
    """
    if loss == FROBENIUS:
        return float(np.sqrt(sums.loss / sums.power)) if sums.power else 0.0
    mean = np.divide(sums.row_sums, sums.row_counts, out=np.ones_like(sums.row_sums), where=sums.row_sums > 0)
    of_means = sums.power - float(np.vdot(sums.row_sums, np.log(mean)))
    return max(sums.loss, 0.0) / of_means if of_means > 0 else 0.0


def holdout_error(sums: EntrySums) -> float | None:
    """Root of the mean squared error of entries that are held out; None where none are."""
    squares, count = sums.held_out
    return float(np.sqrt(squares / count)) if count else None


def _entry_sums(state: State) -> EntrySums:
    assert isinstance(state.sums, EntrySums)  # what `step` put there
    return state.sums
