"""How fast a run is, told from its record, and how much is left at that pace, at most: it may settle sooner."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.config import NMFConfig
from pipeline.loop import trailing
from pipeline.record import BEFORE, EXACT, Iteration

RECENT = 10
"""Iterations that the pace is told from."""


class Pace(NamedTuple):
    """How long things take; None where that is not known, or not known yet."""

    iteration_s: float | None = None
    pass_s: float | None = None
    """None where iterations are on a sketch, and so no visits of A."""


class Left(NamedTuple):
    """How much is left at most; None where that is not known yet."""

    seconds: float | None = None
    bound: str | None = None
    """What it follows from: `passes`, `iterations` of a small problem and the passes after them, or `max_time`."""


def pace_of(
    iterations: Sequence[Iteration], phase: str, before: Iteration = BEFORE, recent: int | None = RECENT
) -> Pace:
    """Tell the pace of a phase that is the last one.

    Parameters
    ----------
    iterations
        Of one run.
    phase
        What it iterates on now.
    before
        The last iteration before that run.
    recent
        So many of its last iterations are asked; None: all.
    """
    own = trailing(iterations, phase)
    if not own or (len(own) == len(iterations) == 1 and phase.startswith("sketch")):  # the first one made the sketch
        return Pace()
    count = min(recent or len(own), len(own) - 1)
    since = own[-1 - count] if count else iterations[-2] if len(iterations) > 1 else before
    seconds, passes = own[-1].seconds - since.seconds, own[-1].passes - since.passes
    return Pace(seconds / max(1, count), seconds / passes if passes > 0 else None)


def left_of(iterations: Sequence[Iteration], pace: Pace, passes: float, small_iterations: int | None) -> Left:
    """Bound what is left after an iteration, at this pace.

    Parameters
    ----------
    iterations
        The whole record.
    pace
        Of the phase.
    passes
        That may still be made.
    small_iterations
        On the small problem that may still be made; None where that is over.
    """
    if pace.pass_s is not None:
        return Left(passes * pace.pass_s, "passes")
    first = iterations[0]
    if first.passes == 0 or (small_iterations is not None and pace.iteration_s is None):
        return Left()
    of_passes = passes * first.seconds / first.passes  # those that made the sketch: no other was made yet
    if small_iterations is None:
        return Left(of_passes, "passes")
    return Left(small_iterations * (pace.iteration_s or 0.0) + of_passes, "iterations")


def within(left: Left, since_s: float, allowed_s: float | None) -> Left:
    """What is left some time after the last iteration, of no more than is allowed."""
    seconds = None if left.seconds is None else max(0.0, left.seconds - since_s)
    if allowed_s is not None and (seconds is None or allowed_s < seconds):
        return Left(max(0.0, allowed_s), "max_time")
    return Left(seconds, left.bound)


def most_iterations(phase: str, done: int, passes: float, config: NMFConfig) -> int:
    """Iterations of a phase at most, of which some are done and so many passes may still be made."""
    return min(config.max_iter, done + math.ceil(passes)) if phase == EXACT else config.max_iter


def small_iterations(phase: str, done: int, config: NMFConfig) -> int | None:
    """Iterations on the small problem that may still be made, in this start and in later ones; None where it is over.

    Later starts say which they are: `sketch 2`.
    """
    if phase == EXACT:
        return None
    later = max(0, config.restarts - int(phase.partition(" ")[2] or 1))
    return config.max_iter - done + later * config.max_iter
