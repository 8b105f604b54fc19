"""Ranks one after the other on one sketch: each starts from the one before, or from nothing where that fits better."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple

from data_prep import store
from data_prep.store import StoredMatrix
from pipeline.config import NMFConfig
from pipeline.loop import Stop, small_stop_reason, solve
from pipeline.objective import few_nonzero
from pipeline.one_sketch import OneSketch
from pipeline.opening import open_blocks
from pipeline.plan import make_plan
from pipeline.record import Iteration, Recorder
from pipeline.sketching import choose
from pipeline.small_run import SWEEPS
from pipeline.solvers.hals import HALS, LISTED_SWEEPS
from pipeline.solvers.state import Matrixlike, State

FIRST = 3
"""Iterations after which two starts of a rank are compared."""


class Cost(NamedTuple):
    """What something took so far."""

    passes: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A rank, iterated on until it gains little."""

    d: int
    on: Matrixlike
    """What its iterations were on."""
    state: State
    start: str
    """`warm`, from the rank before, or `cold`."""
    iterations: Sequence[Iteration]
    """Its own, as if it were the only rank."""
    seconds: float


class Ladder:
    """The ranks of a matrix on one sketch, made in as many visits of A as a run of the largest rank makes."""

    def __init__(
        self,
        matrix: StoredMatrix,
        configs: dict[int, NMFConfig],
        *,
        memory_nbytes: int | None = None,
        on_iteration: Callable[[int, Sequence[Iteration]], None] = lambda d, iterations: None,
    ) -> None:
        """Make the sketch; `configs` are those of each rank, in ascending order."""
        self.began = time.perf_counter()
        self.matrix, self.configs, self.on_iteration = matrix, configs, on_iteration
        largest, scratch = configs[max(configs)], matrix.path / "nmf" / "scratch"  # of which nothing is made
        choice = choose(matrix, largest)
        assert choice is not None  # there is a sample, since A is not zero, and the solver is the default one
        self.choice = choice
        two_starts = choice if choice.rank is None else replace(choice, rank=choice.rank + 2 * largest.n_components)
        plan = make_plan(matrix, largest, memory_nbytes, two_starts, choice.passes)
        self.recorder = Recorder(matrix, [], plan=plan, on_iteration=lambda iterations: None)
        self.sketch = OneSketch(matrix, largest, choice, plan)
        self.sketch.make(lambda: open_blocks(matrix, largest, plan, scratch, self.recorder.visited), self.recorder)

    def place(self) -> AbstractContextManager[None]:
        """Where iterations run, and whatever else is done with their H."""
        return self.sketch.place()

    def rungs(self) -> Iterator[Rung]:
        """Climb, a rank at a time."""
        made_in, state = self._cost(), None
        for d in self.configs:
            with self.place():
                rung = self._climb(d, state, made_in)
            state = rung.state
            yield rung

    def some(self, on: Matrixlike, state: State, count: int) -> State:
        """State after so many iterations that are not recorded."""
        for _ in range(count):
            state = self._solver().step(on, state)
        return state

    def _climb(self, d: int, smaller: State | None, made_in: Cost) -> Rung:
        before, first = self._cost(), len(self.recorder.iterations)
        on = self.sketch.of_rank(d)
        self.recorder.enter(self.choice.kind, on.norm_squared)
        state, start = self._better_start(on, d, smaller)

        def should_stop(iterations: Sequence[Iteration]) -> Stop | None:
            return small_stop_reason(iterations[first:], self.configs[d], self.choice.passes_each)

        def on_state(state: State) -> Sequence[Iteration]:
            iterations = self.recorder(state)
            self.on_iteration(d, iterations[first:])
            return iterations

        state, stop = solve(on, self._solver(), state, should_stop, on_state)
        if stop is Stop.NONFINITE:
            raise store.BadInput(f"{self.matrix.path} was not factorized: {stop}")
        own = [_alone(one, before, made_in) for one in self.recorder.iterations[first:]]
        seconds = self._cost().seconds - before.seconds
        return Rung(d=d, on=on, state=state, start=start, iterations=own, seconds=seconds)

    def _better_start(self, on: Matrixlike, d: int, smaller: State | None) -> tuple[State, str]:
        begun = {"cold": self.some(on, self.sketch.cold(d), FIRST)}
        if smaller is not None:
            begun["warm"] = self.some(on, self.sketch.grown(smaller, d), FIRST)
        start = min(begun, key=lambda name: begun[name].loss)
        return begun[start], start

    def _solver(self) -> HALS:
        sweeps = LISTED_SWEEPS if few_nonzero(self.sketch.config, self.matrix) else SWEEPS
        return HALS(sweeps=sweeps, extrapolates_H=True)

    def _cost(self) -> Cost:
        return Cost(self.recorder.passes, time.perf_counter() - self.began)


def _alone(one: Iteration, before: Cost, made_in: Cost) -> Iteration:
    """An iteration as it would be recorded if its rank were the only one."""
    passes, seconds = one.passes - before.passes + made_in.passes, one.seconds - before.seconds + made_in.seconds
    return one._replace(passes=passes, seconds=seconds)
