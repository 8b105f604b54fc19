"""Hierarchical alternating least squares with several sweeps over H for each visit of A."""

import threading
from dataclasses import dataclass

from pipeline import basis
from pipeline.kernels import Matrix, cold_start, hals
from pipeline.one_pass import BlockMatrix
from pipeline.solvers.state import State

COLD_SWEEPS = 40
WARM_SWEEPS = 8

# A sweep is many operations on short rows, each of which lets go of the interpreter. Two threads that sweep at once
# spend their time handing it over, and both take longer than one after the other (50 against 24 ms, d = 99, two blocks
# of 1,024 images). Products of other threads run meanwhile.
_sweeping = threading.Lock()


@dataclass(frozen=True)
class HALS:
    """Exact passes: a pass costs a read of A, a sweep over H does not, so each pass makes eight of them."""

    def step(self, A: BlockMatrix, state: State) -> State:
        """Sweep over H in the pass, then over W on its sums."""
        H, sums = A.visit(state.W, state.H, improve, residual=state.fits_well(A.norm_squared))
        W, inner = basis.improve(state.W, sums, improve_W)
        return State(W=W, H=H, loss=basis.squared_error(A.norm_squared, state.W, W, sums, inner))


def improve(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    """Sweeps over a block of H, more of them where it starts from nothing."""
    if H is None:
        return _sweep(WtW, WtA, cold_start(WtW, WtA), COLD_SWEEPS)
    return _sweep(WtW, WtA, H, WARM_SWEEPS)


def improve_W(HHt: Matrix, HAt: Matrix, Wt: Matrix) -> Matrix:
    """Sweeps over a block of Wᵀ."""
    return _sweep(HHt, HAt, Wt, WARM_SWEEPS)


def _sweep(G: Matrix, C: Matrix, X: Matrix, sweeps: int) -> Matrix:
    with _sweeping:
        return hals(G, C, X, sweeps)
