"""Multiplicative updates to the letter: H ← H ∘ WᵀA / WᵀWH, then W ← W ∘ AHᵀ / WHHᵀ."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.kernels import Matrix, cold_start, mu, squared_error
from pipeline.one_pass import BlockMatrix
from pipeline.solvers.state import State


@dataclass(frozen=True)
class MU:
    """Lee & Seung (2001): one pass an iteration, and a loss that never rises."""

    def step(self, A: BlockMatrix, state: State) -> State:
        """Update H in the pass, then W from its sums."""
        H, sums = A.visit(state.Wt, state.H, improve)
        Wt = mu(sums.HHt.astype(np.float32), sums.HAt.astype(np.float32), state.Wt)
        return replace(state, Wt=Wt, H=H, loss=squared_error(A.norm_squared, Wt, sums.HAt, sums.HHt))


def improve(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    """One multiplicative update of a block of H; a cold start is kept off zero, where updates would stay."""
    if H is None:
        H = cold_start(WtW, WtA)
        H = np.maximum(H, max(float(H.mean()) / 10, 1e-6))
    return mu(WtW, WtA, H)
