"""The one loop: step until there is a reason to stop."""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

from pipeline.config import NMFConfig
from pipeline.record import EXACT, NEW, Iteration
from pipeline.sketching import MAX_PASSES
from pipeline.solvers.state import Solver, State

M = TypeVar("M")

WINDOW, SMALL_WINDOW = 3, 10
"""Iterations over which the fall of the loss is judged, at the same rate: on A, and where they cost little."""
ALONE = 2
"""How much less of it ends iterations on columns as they are: no error of a sketch makes more of them idle."""
LITTLE = 20
"""Times tol: a pass after the sketch that lowers the loss by less of it was worth little."""
POLISH_TIME = 0.3
"""Share of the time that is left for what follows the small problem."""


class Stop(StrEnum):
    """Why a factorization ended, in words fit for the user."""

    CONVERGED = "The loss stopped falling."
    TARGET_ERROR = "The target error was reached."
    EXACT = "W H equals A to rounding."
    POLISHED = "A few passes over A polished the solution; --polish or --max-passes make more."
    MAX_PASSES = "No further pass was allowed; raise --max-passes."
    MAX_TIME = "The time was over; raise --max-time."
    EXTENDED = "New columns were taken in, and the others not visited; --refresh full visits all."
    MAX_ITER = "max_iter iterations were done before the loss settled; raise --max-iter or --tol."
    NONFINITE = "The loss became NaN or infinite; the matrix or the given start holds values that are not finite."


def solve(
    A: M,
    solver: Solver[M],
    state: State,
    should_stop: Callable[[Sequence[Iteration]], Stop | None],
    on_iteration: Callable[[State], Sequence[Iteration]],
) -> tuple[State, Stop]:
    """Step until `should_stop`.

    Parameters
    ----------
    A
        The matrix, or a sketch of it: whatever offers the same visit.
    solver
        Makes the steps.
    state
        Where to begin.
    should_stop
        Judges all iterations so far, those of earlier runs included.
    on_iteration
        Is told each new state, and returns the record with it.

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


def stop_reason(iterations: Sequence[Iteration], config: NMFConfig) -> Stop | None:
    """Judge the iterations so far: the reason to stop, or None to go on; those before the passes over A never are."""
    exact = trailing(iterations, EXACT)
    if not exact:
        return None
    losses, last = [iteration.loss for iteration in exact], exact[-1]
    before = iterations[: -len(exact)]
    tests = {
        **_reached(last, config),
        Stop.CONVERGED: _settled(losses, WINDOW, config.tol),
        Stop.MAX_PASSES: config.max_passes is not None and last.passes + 1 > config.max_passes,
        Stop.MAX_TIME: config.max_time is not None and last.seconds >= config.max_time,
        Stop.POLISHED: bool(before) and before[-1].phase != NEW and _polished(before, exact, config),
        Stop.MAX_ITER: len(losses) >= config.max_iter,
    }
    return next((reason for reason, holds in tests.items() if holds), None)


def small_stop_reason(iterations: Sequence[Iteration], config: NMFConfig, passes_each: float) -> Stop | None:
    """Judge the iterations of one start on the small problem; something is left of passes and time for A itself."""
    if not iterations:
        return None
    losses, last = [iteration.loss for iteration in iterations], iterations[-1]
    tests = {
        **_reached(last, config),
        Stop.CONVERGED: _settled(
            losses, SMALL_WINDOW, config.tol * SMALL_WINDOW / WINDOW / (ALONE if passes_each else 1)
        ),
        Stop.MAX_PASSES: config.max_passes is not None and last.passes + passes_each + 1 > config.max_passes,
        Stop.MAX_TIME: config.max_time is not None and last.seconds >= (1 - POLISH_TIME) * config.max_time,
        Stop.MAX_ITER: len(losses) >= config.max_iter,
    }
    return next((reason for reason, holds in tests.items() if holds), None)


def small_is_over(iterations: Sequence[Iteration], config: NMFConfig, passes_each: float) -> bool:
    """Whether the iterations that preceded the passes over A were enough for what is asked for now."""
    before = iterations[: len(iterations) - len(trailing(iterations, EXACT))]
    if not before:
        return True
    own = trailing(before, before[-1].phase)
    return small_stop_reason(own, config, passes_each) is not None


def trailing(iterations: Sequence[Iteration], phase: str) -> Sequence[Iteration]:
    """Return the last iterations, as far back as they are of a phase."""
    first = len(iterations)
    while first and iterations[first - 1].phase == phase:
        first -= 1
    return iterations[first:]


def _reached(last: Iteration, config: NMFConfig) -> dict[Stop, bool]:
    target = config.target_error
    return {
        Stop.NONFINITE: not math.isfinite(last.loss),
        Stop.EXACT: last.loss == 0,
        Stop.TARGET_ERROR: target is not None and last.relative_error <= target,
    }


def _settled(losses: Sequence[float], window: int, share: float) -> bool:
    """Whether so many iterations lowered the loss by less than a share of it."""
    return share > 0 and len(losses) > window and losses[-1 - window] - losses[-1] < share * losses[-1]


def _polished(before: Sequence[Iteration], exact: Sequence[Iteration], config: NMFConfig) -> bool:
    """Whether the passes that follow the small problem are enough: as many as asked for, or while they gain.

    They are to be few in all where the iterations before were no visits of A.
    """
    if config.polish is not None:
        return len(exact) >= config.polish
    losses = [iteration.loss for iteration in exact]
    few = before[-1].phase.startswith("sketch") and config.max_passes is None
    return _settled(losses, 1, LITTLE * config.tol) or (few and exact[-1].passes + 1 > MAX_PASSES)
