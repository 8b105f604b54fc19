"""Multiplicative updates to the letter: H ← H ∘ WᵀA / WᵀWH, then W ← W ∘ AHᵀ / WHHᵀ."""

from dataclasses import dataclass

import numpy as np

from pipeline import basis
from pipeline.kernels import Matrix, cold_start, mu
from pipeline.one_pass import Also
from pipeline.solvers.state import Matrixlike, State


@dataclass(frozen=True)
class MU:
    """Lee & Seung (2001): one pass an iteration, and a loss that never rises."""

    def step(self, A: Matrixlike, state: State) -> State:
        """Update H in the pass, then W from its sums."""
        residual = state.fits_well(A.norm_squared)
        H, sums = A.visit(state.W, state.H, improve, Also(residual=residual, gradient=True))
        W, inner = basis.improve(state.W, sums, mu)
        return State(
            W=W,
            H=H,
            loss=basis.squared_error(A.norm_squared, state.W, W, sums, inner),
            from_residual=residual,
            projected_gradient=basis.projected_gradient(W, sums),
            sums=sums.kept(),
        )


def improve(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    """One multiplicative update of a block of H; a cold start is kept off zero, where updates would stay."""
    if H is None:
        H = cold_start(WtW, WtA)
        H = np.maximum(H, max(float(H.mean()) / 10, 1e-6))
    return mu(WtW, WtA, H)
