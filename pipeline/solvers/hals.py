"""Hierarchical alternating least squares with several sweeps over H for each visit of A."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.kernels import Matrix, cold_start, hals, squared_error
from pipeline.one_pass import BlockMatrix
from pipeline.solvers.state import State

COLD_SWEEPS = 40
WARM_SWEEPS = 8


@dataclass(frozen=True)
class HALS:
    """Exact passes: a pass costs a read of A, a sweep over H does not, so each pass makes eight of them."""

    def step(self, A: BlockMatrix, state: State) -> State:
        """Sweep over H in the pass, then over W on its sums."""
        H, sums = A.visit(state.Wt, state.H, improve)
        Wt = hals(sums.HHt.astype(np.float32), sums.HAt.astype(np.float32), state.Wt, WARM_SWEEPS)
        return replace(state, Wt=Wt, H=H, loss=squared_error(A.norm_squared, Wt, sums.HAt, sums.HHt))


def improve(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    """Sweeps over a block of H, more of them where it starts from nothing."""
    if H is None:
        return hals(WtW, WtA, cold_start(WtW, WtA), COLD_SWEEPS)
    return hals(WtW, WtA, H, WARM_SWEEPS)
