"""Several ranks of one matrix: how error and cost go with d, and which d to take.

One sketch serves all. Each rank starts from the one before, or from nothing where that fits better. What is beside the
errors is of the sketch or of a part of the stored sample: A itself is visited for the sketch alone, and for those
factorizations that are kept.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from data_prep import store
from data_prep.folders import Where
from data_prep.store import StoredMatrix
from pipeline import engine, quantization, starts
from pipeline.advice import Advice, advise
from pipeline.config import NMFConfig
from pipeline.held_out import HeldOut, above_noise, part_of
from pipeline.job import factorize
from pipeline.kernels import Matrix
from pipeline.loop import Stop, small_stop_reason, solve
from pipeline.objective import Unsuitable, few_nonzero, is_entrywise, settled
from pipeline.one_sketch import OneSketch
from pipeline.opening import check_reachable, open_blocks
from pipeline.plan import Plan, make_plan
from pipeline.record import Iteration, Recorder
from pipeline.report.pairs import pairs
from pipeline.sketching import Choice, choose
from pipeline.small import ordered
from pipeline.small_run import SWEEPS
from pipeline.solvers.hals import HALS, LISTED_SWEEPS
from pipeline.solvers.state import Matrixlike, State
from pipeline.standing import where_it_stands

RESTARTS, RESTART_ITERATIONS, MOST_RESTARTED = 2, 60, 100
"""Starts that a rank is compared with, how far they go, and up to which d they cost little."""
FIRST = 3
"""Iterations after which two starts of a rank are compared."""


class Rank(NamedTuple):
    """One d."""

    d: int
    error: float
    """‖A − W H‖ / ‖A‖."""
    phase: str
    """What the error is of: `exact` is A itself, a `sketch` tells it to about 0.1 %; see `Iteration.phase`."""
    svd_bound: float
    """Of the best rank-d approximation of any signs (principal components that are not centred)."""
    k_means: float | None
    """Of vector quantization with d centres; None where scikit-learn is not installed or columns are too few."""
    holdout_error: float | None
    """Relative, on entries of a part of the sample that a fit has not seen; None where that is too small."""
    cosine: float | None
    """Mean of the cosines of components with those that other starts find, one to one; None where that costs much."""
    least_cosine: float | None
    start: str
    """`warm`, from the rank before, or `cold`."""
    n_iter: int
    seconds: float
    """Of its own iterations."""
    kept: str | None = None
    """Name of the factorization, where it was kept."""


class Cost(NamedTuple):
    """What something took so far."""

    passes: float
    seconds: float


class Swept(NamedTuple):
    """What a sweep found."""

    ranks: list[Rank]
    advice: Advice | None
    seconds: float
    passes: float
    """Visits of A, those of factorizations that were kept not included."""


@dataclass(frozen=True)
class _Found:
    """A rank while others are made."""

    rank: Rank
    W: Matrix
    iterations: Sequence[Iteration]
    told: dict[str, Any]
    """What is recorded of the sketch with a factorization that is kept."""


def sweep(
    path: Where,
    ranks: Sequence[int],
    *,
    seed: int = 0,
    keep: bool = False,
    memory_nbytes: int | None = None,
    on_iteration: Callable[[int, Sequence[Iteration]], None] = lambda d, iterations: None,
) -> Swept:
    """Find out how the error of a matrix goes with d, and which d to take; on the active Dask client, or on threads.

    Parameters
    ----------
    path
        The store.
    ranks
        Values of d.
    seed
        Of everything random.
    keep
        Whether each factorization is polished on A and written as `run` would write it, under its name `d10`; one that
        is there stays.
    memory_nbytes
        What a worker may use; a share of what it has unless given.
    on_iteration
        Called with d and its iterations so far.

    Raises
    ------
    Unsuitable
        Entries are missing, or A is zero.
    RefusedPlan
        The largest d is above min(m, n), or the memory does not do for it.
    ParametersDiffer
        A factorization of one of the names was made with other parameters or from other data.
    """
    began, matrix = time.perf_counter(), store.open_matrix(path)
    configs = _configs(matrix, sorted(set(ranks)), seed)
    if keep:
        for d, config in configs.items():
            where_it_stands(matrix, f"d{d}", config)
    check_reachable(matrix)
    engine.give_back_large_arrays()
    with threadpool_limits(limits=1, user_api="blas"):  # bits must not depend on the cores of the driver
        found, advice, passes = _found(matrix, configs, memory_nbytes, on_iteration)
    made = [_kept(matrix, one, configs[one.rank.d], memory_nbytes) if keep else one.rank for one in found]
    return Swept(made, advice, time.perf_counter() - began, passes)


def _configs(matrix: StoredMatrix, ranks: Sequence[int], seed: int) -> dict[int, NMFConfig]:
    """Settings of each rank, in ascending order."""
    configs = {d: NMFConfig(n_components=d, seed=seed) for d in ranks}
    if is_entrywise(configs[ranks[-1]], matrix):
        raise Unsuitable(
            f"a sweep is of squares over all entries, but entries of {matrix.path} are missing; compare ranks with "
            f"`nmf-batch run --holdout 10%` and several -d"
        )
    if not matrix.norm_squared:
        raise Unsuitable(f"{matrix.path} holds zeros alone, which every d fits; there is nothing to choose")
    return {d: settled(config, matrix) for d, config in configs.items()}


def _found(
    matrix: StoredMatrix,
    configs: dict[int, NMFConfig],
    memory_nbytes: int | None,
    on_iteration: Callable[[int, Sequence[Iteration]], None],
) -> "tuple[list[_Found], Advice | None, float]":
    """Make all ranks; with what is advised, and the visits of A that it took."""
    largest, ranks = configs[max(configs)], list(configs)
    choice = choose(matrix, largest)
    assert choice is not None  # there is a sample, since A is not zero, and the solver is the default one
    two_starts = choice if choice.rank is None else replace(choice, rank=choice.rank + 2 * largest.n_components)
    plan = make_plan(matrix, largest, memory_nbytes, two_starts, choice.passes)
    part = part_of(matrix, largest.seed)
    advice = advise(HeldOut(part, largest.seed), ranks, above_noise(part))
    this = _Sweep(matrix, configs, choice, plan, on_iteration)
    return this.run({} if advice is None else advice.errors), advice, this.recorder.passes


class _Sweep:
    """The ranks of a sweep, one after the other on one sketch."""

    def __init__(
        self,
        matrix: StoredMatrix,
        configs: dict[int, NMFConfig],
        choice: Choice,
        plan: Plan,
        on_iteration: Callable[[int, Sequence[Iteration]], None],
    ) -> None:
        self.began = time.perf_counter()
        self.matrix, self.configs, self.choice, self.on_iteration = matrix, configs, choice, on_iteration
        self.recorder = Recorder(matrix, [], plan=plan, on_iteration=lambda iterations: None)
        largest, scratch = configs[max(configs)], matrix.path / "nmf" / "scratch"  # of which nothing is made
        self.sketch = OneSketch(matrix, largest, choice, plan)
        self.sketch.make(lambda: open_blocks(matrix, largest, plan, scratch, self.recorder.visited), self.recorder)

    def run(self, errors: Mapping[int, float]) -> list[_Found]:
        """Make all ranks, each from the one before; `errors` are those on entries held out."""
        centres, made_in = self._k_means(), Cost(self.recorder.passes, self.seconds)
        found: list[_Found] = []
        state: State | None = None
        with self.sketch.place():
            for d in self.configs:
                before, first = Cost(self.recorder.passes, self.seconds), len(self.recorder.iterations)
                on = self.sketch.of_rank(d)
                self.recorder.enter(self.choice.kind, on.norm_squared)
                state, start = self._solve(on, d, state)
                own = [_alone(one, before, made_in) for one in self.recorder.iterations[first:]]
                seconds = self.seconds - before.seconds
                cosine, least_cosine = self._stability(on, d, state.W.W)
                rank = Rank(
                    d=d,
                    error=own[-1].relative_error,
                    phase=self.choice.kind,
                    svd_bound=self.sketch.svd_bound(d),
                    k_means=centres.get(d),
                    holdout_error=errors.get(d),
                    cosine=cosine,
                    least_cosine=least_cosine,
                    start=start,
                    n_iter=len(own),
                    seconds=seconds,
                )
                of_sketch = asdict(self.choice) | {"errors": [rank.error]}
                told = {"sketch": of_sketch, "svd_bound": rank.svd_bound}
                found.append(_Found(rank, ordered(state), own, told))
        return found

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.began

    def _solve(self, on: Matrixlike, d: int, smaller: State | None) -> tuple[State, str]:
        """Iterate on rank d from the better one of two starts."""
        state, start = self._better_start(on, d, smaller)
        first = len(self.recorder.iterations)

        def should_stop(iterations: Sequence[Iteration]) -> Stop | None:
            return small_stop_reason(iterations[first:], self.configs[d], self.choice.passes_each)

        def on_state(state: State) -> Sequence[Iteration]:
            iterations = self.recorder(state)
            self.on_iteration(d, iterations[first:])
            return iterations

        state, stop = solve(on, self._solver(), state, should_stop, on_state)
        if stop is Stop.NONFINITE:
            raise store.BadInput(f"{self.matrix.path} was not factorized: {stop}")
        return state, start

    def _better_start(self, on: Matrixlike, d: int, smaller: State | None) -> tuple[State, str]:
        begun = {"cold": self._some(on, self.sketch.cold(d), FIRST)}
        if smaller is not None:
            begun["warm"] = self._some(on, self.sketch.grown(smaller, d), FIRST)
        start = min(begun, key=lambda name: begun[name].loss)
        return begun[start], start

    def _some(self, on: Matrixlike, state: State, count: int) -> State:
        for _ in range(count):
            state = self._solver().step(on, state)
        return state

    def _stability(self, on: Matrixlike, d: int, W: Matrix) -> tuple[float | None, float | None]:
        """How alike components are to those of random starts, one to one: mean and least cosine."""
        if d > MOST_RESTARTED:
            return None, None
        seed = self.configs[d].seed
        randoms = [starts.uniform(seed + k, 0, W.shape) for k in range(1, RESTARTS + 1)]
        others = [self._some(on, self.sketch.of(random), RESTART_ITERATIONS).W.W for random in randoms]
        cosines = np.stack([pairs(W.T, like=other.T).cosines for other in others])
        return float(cosines.mean()), float(cosines.min())

    def _solver(self) -> HALS:
        sweeps = LISTED_SWEEPS if few_nonzero(self.sketch.config, self.matrix) else SWEEPS
        return HALS(sweeps=sweeps, extrapolates_H=True)

    def _k_means(self) -> dict[int, float | None]:
        if not quantization.is_installed():
            return {}
        sketch = self.sketch
        with sketch.place():
            columns, n = quantization.columns_of(sketch.B), self.choice.n_columns
        seed = sketch.config.seed
        return {d: quantization.error(columns, n, d, sketch.norm_squared, sketch.missed, seed) for d in self.configs}


def _alone(one: Iteration, before: Cost, made_in: Cost) -> Iteration:
    """An iteration as it would be recorded if its rank were the only one."""
    passes, seconds = one.passes - before.passes + made_in.passes, one.seconds - before.seconds + made_in.seconds
    return one._replace(passes=passes, seconds=seconds)


def _kept(matrix: StoredMatrix, one: _Found, config: NMFConfig, memory_nbytes: int | None) -> Rank:
    """Polish a rank on A and write it, unless its name has a factorization of the same parameters already."""
    start = starts.Given(W=one.W, before=one.iterations, told=one.told)
    made = factorize(matrix.path, one.rank.d, start=start, memory_nbytes=memory_nbytes, seed=config.seed).factors
    error, phase = made.attributes["relative_error"], made.attributes["phase"]
    return one.rank._replace(error=error, phase=phase, kept=made.path.parent.name)
