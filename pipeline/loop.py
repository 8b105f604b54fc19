"""The one loop: step until there is a reason to stop."""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

from pipeline.config import NMFConfig
from pipeline.one_pass import BlockMatrix
from pipeline.solvers.state import Solver, State

WINDOW = 3


class Stop(StrEnum):
    """Why a factorization ended, in words fit for the user."""

    CONVERGED = "The loss stopped falling."
    TARGET_ERROR = "The target error was reached."
    EXACT = "W H equals A to rounding."
    MAX_ITER = "max_iter iterations were done before the loss settled; raise --max-iter or --tol."
    NONFINITE = "The loss became NaN or infinite; the matrix or the given start holds values that are not finite."


def solve(
    A: BlockMatrix,
    solver: Solver,
    state: State,
    should_stop: Callable[[Sequence[float]], Stop | None],
    on_iteration: Callable[[State], Sequence[float]],
) -> tuple[State, Stop]:
    """Step until `should_stop`.

    Parameters
    ----------
    A
        The matrix, or whatever offers the same visit.
    solver
        Makes the steps.
    state
        Where to begin.
    should_stop
        Judges the losses of all iterations so far, those of earlier runs included.
    on_iteration
        Is told each new state, keeps the record, and returns the losses so far.

    Returns
    -------
    State, Stop
        The last state, and why it is the last.
    """
    while True:
        state = solver.step(A, state)
        reason = should_stop(on_iteration(state))
        if reason is not None:
            return state, reason


def stop_reason(losses: Sequence[float], norm_squared: float, config: NMFConfig) -> Stop | None:
    """Judge the losses ‖A − W H‖² so far: the reason to stop, or None to go on."""
    if not losses:
        return None
    last = losses[-1]
    tests = {
        Stop.NONFINITE: not math.isfinite(last),
        Stop.EXACT: last == 0,
        Stop.TARGET_ERROR: config.target_error is not None and last <= config.target_error**2 * norm_squared,
        Stop.CONVERGED: config.tol > 0 and len(losses) > WINDOW and losses[-1 - WINDOW] - last < config.tol * last,
        Stop.MAX_ITER: len(losses) >= config.max_iter,
    }
    return next((reason for reason, holds in tests.items() if holds), None)
