"""Extrapolated hierarchical alternating least squares, with several sweeps over H for each visit of A."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipeline import basis
from pipeline.basis import Sums
from pipeline.kernels import Matrix, cold_start
from pipeline.one_pass import Also
from pipeline.panels import sweep
from pipeline.penalties import NONE, Weights, penalised
from pipeline.solvers.state import Matrixlike, State

COLD_SWEEPS = 16
"""From least squares with the negative entries cut off to within 0.001 % of the best loss, for a W that is settled."""
WARM_SWEEPS, LISTED_SWEEPS = 8, 2
"""Where a visit is dear, and where it is not, since blocks list what is not zero."""


@dataclass(frozen=True)
class HALS:
    """Sweeps over H in the visit, then over W on its sums, from a point beyond where the last iteration came to.

    An iteration that would raise the loss is not taken: the next one starts from the factors there were, without
    extrapolation, and then the loss cannot rise. So the loss of what is kept never does, but for rounding.

    References
    ----------
    Ang & Gillis, "Accelerating nonnegative matrix factorization algorithms using
    extrapolation", Neural Computation 31(2), 2019.
    """

    sweeps: int = WARM_SWEEPS
    """Where a visit is dear, many: a visit of A costs a read, a sweep does not."""
    extrapolates_H: bool = False
    """Needs half as many iterations again without, but H of two iterations in memory."""
    penalty_W: Weights = NONE
    penalty_H: Weights = NONE

    def step(self, A: Matrixlike, state: State) -> State:
        """Make an iteration, or find that it is not to be taken."""
        start, momentum = state.momentum.ahead(state.W), state.momentum
        residual = state.fits_well(A.norm_squared)
        also = Also(
            residual=residual,
            gradient=not self.extrapolates_H,  # that of a small problem is nobody's
            ahead=None if momentum.H_before is None else (momentum.H_before, momentum.beta),
            penalty=self.penalty_H,
        )
        H, sums = A.visit(start, state.H, partial(improve, sweeps=self.sweeps, penalty=self.penalty_H), also)
        W, inner = basis.improve(start, sums, partial(improve_W, sweeps=self.sweeps, penalty=self.penalty_W))
        penalty = basis.penalty_of(self.penalty_W, W, self.penalty_H, sums)
        loss = basis.squared_error(A.norm_squared, start, W, sums, inner) + penalty
        comparable = residual == state.from_residual and momentum.W_before is not None
        if comparable and loss > state.loss:  # without extrapolation it can rise by rounding only
            return replace(state, momentum=momentum.after_a_loss())
        warm = state.H[0] is not None
        taken = State(
            W=W,
            H=H,
            loss=loss,
            penalty=penalty,
            from_residual=residual,
            projected_gradient=basis.projected_gradient(W, sums, self.penalty_W),
            momentum=momentum.after_a_gain(state.W.W, state.H if self.extrapolates_H else None) if warm else momentum,
            sums=None if self.extrapolates_H else sums.kept(),
        )
        return self._revived(A, taken, sums)

    def _revived(self, A: Matrixlike, state: State, sums: Sums) -> State:
        """Let components that no image uses start again from what is missed of the worst-fitted images."""
        dead: Any = np.flatnonzero(sums.HHt.diagonal() == 0)
        if not len(dead) or state.loss == 0 or state.momentum.revivals == 0:
            return state
        missed = A.worst_fitted(state.W, state.H, len(dead))
        columns = state.W.W.copy()
        for k, image in zip(dead, missed, strict=False):
            columns[:, k] = np.maximum(image, 0)
        W = basis.basis_of(columns)
        penalty = basis.penalty_of(self.penalty_W, W, self.penalty_H, sums)
        loss = state.loss - state.penalty + penalty  # H is zero there: W H is what it was
        return replace(state, W=W, loss=loss, penalty=penalty, momentum=state.momentum.after_a_revival())


def improve(WtW: Matrix, WtA: Matrix, H: Matrix | None, sweeps: int = WARM_SWEEPS, penalty: Weights = NONE) -> Matrix:
    """Sweeps over a block of H, more of them where it starts from nothing."""
    G, C = penalised(WtW, WtA, penalty)
    if H is None:
        return sweep(G, C, cold_start(G, C), COLD_SWEEPS)
    return sweep(G, C, H, sweeps)


def improve_W(HHt: Matrix, HAt: Matrix, Wt: Matrix, sweeps: int = WARM_SWEEPS, penalty: Weights = NONE) -> Matrix:
    """Sweeps over a block of Wᵀ."""
    return sweep(*penalised(HHt, HAt, penalty), np.maximum(Wt, 0), sweeps)
