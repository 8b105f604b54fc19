"""Multiplicative updates to the letter: H ← H ∘ WᵀA / WᵀWH, then W ← W ∘ AHᵀ / WHHᵀ."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline import basis
from pipeline.kernels import Matrix, cold_start, mu
from pipeline.one_pass import Also
from pipeline.penalties import NONE, Weights
from pipeline.solvers.state import Matrixlike, State


@dataclass(frozen=True)
class MU:
    """Lee & Seung (2001): one pass an iteration, and a loss that never rises."""

    penalty_W: Weights = NONE
    penalty_H: Weights = NONE

    def step(self, A: Matrixlike, state: State) -> State:
        """Update H in the pass, then W from its sums."""
        residual = state.fits_well(A.norm_squared)
        also = Also(residual=residual, gradient=True, penalty=self.penalty_H)
        H, sums = A.visit(state.W, state.H, partial(improve, penalty=self.penalty_H), also)
        W, inner = basis.improve(state.W, sums, partial(mu, l1=self.penalty_W.l1, l2=self.penalty_W.l2))
        penalty = basis.penalty_of(self.penalty_W, W, self.penalty_H, sums)
        return State(
            W=W,
            H=H,
            loss=basis.squared_error(A.norm_squared, state.W, W, sums, inner) + penalty,
            penalty=penalty,
            from_residual=residual,
            projected_gradient=basis.projected_gradient(W, sums, self.penalty_W),
            sums=sums.kept(),
        )


def improve(WtW: Matrix, WtA: Matrix, H: Matrix | None, penalty: Weights = NONE) -> Matrix:
    """One multiplicative update of a block of H; a cold start is kept off zero, where updates would stay."""
    if H is None:
        H = cold_start(WtW, WtA)
        H = np.maximum(H, max(float(H.mean()) / 10, 1e-6))
    return mu(WtW, WtA, H, penalty.l1, penalty.l2)
