"""Hierarchical alternating least squares with several sweeps over H for each visit of A."""

from dataclasses import dataclass

from pipeline import basis
from pipeline.kernels import Matrix, cold_start, hals
from pipeline.one_pass import BlockMatrix
from pipeline.solvers.state import State

COLD_SWEEPS = 40
WARM_SWEEPS = 8


@dataclass(frozen=True)
class HALS:
    """Exact passes: a pass costs a read of A, a sweep over H does not, so each pass makes eight of them."""

    def step(self, A: BlockMatrix, state: State) -> State:
        """Sweep over H in the pass, then over W on its sums."""
        H, sums = A.visit(state.W, state.H, improve)
        W, inner = basis.improve(state.W, sums, sweeps)
        return State(W=W, H=H, loss=basis.squared_error(A.norm_squared, W, sums, inner))


def improve(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    """Sweeps over a block of H, more of them where it starts from nothing."""
    if H is None:
        return hals(WtW, WtA, cold_start(WtW, WtA), COLD_SWEEPS)
    return sweeps(WtW, WtA, H)


def sweeps(G: Matrix, C: Matrix, X: Matrix) -> Matrix:
    """Sweeps over a block of either factor that has a value."""
    return hals(G, C, X, WARM_SWEEPS)
