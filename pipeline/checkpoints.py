"""Checkpoints: the state of a run that is under way, as a revision that the same command continues from."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from pipeline.factors import Factors
from pipeline.solvers.state import State

AT_MOST = 0.02
"""Share of the time that may go into checkpoints; dear ones are written less often than asked for."""
PHASE_S = 5.0
"""The end of a phase is a checkpoint too, where it comes so long after the last one."""


class Every(NamedTuple):
    """How often: after so many seconds, or after so many iterations."""

    seconds: float = 300.0
    iterations: int | None = None
    """Takes the place of the seconds."""


class Checkpoints:
    """Decides when it is time, and knows the last one."""

    def __init__(self, write: Callable[[State], Factors], every: Every) -> None:
        self._write, self._every = write, every
        self._since = time.monotonic()
        self._cost_s = 0.0
        self._iterations = 0
        self.last: Factors | None = None

    def __call__(self, state: State, *, phase_ends: bool = False) -> None:
        """Write a checkpoint after this iteration if it is time for one."""
        self._iterations += 1
        if self._every.iterations is not None:
            due = self._iterations >= self._every.iterations
        else:
            due = time.monotonic() - self._since >= max(self._every.seconds, self._cost_s / AT_MOST)
        if due:
            self.write(state)
        elif phase_ends:
            self.end_phase(state)

    def end_phase(self, state: State) -> None:
        """Write a checkpoint where a phase ends that took long."""
        if time.monotonic() - self._since >= PHASE_S:
            self.write(state)

    def write(self, state: State) -> None:
        """Write a checkpoint now, unless there is nothing that a run could go on from."""
        if not math.isfinite(state.loss):
            return
        began = time.monotonic()
        self.last = self._write(state)
        self._since, self._iterations = time.monotonic(), 0
        self._cost_s = self._since - began
