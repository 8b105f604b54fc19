"""Several ranks of one matrix: how error and cost go with d, and which d to take.

One sketch serves all. Each rank starts from the one before, or from nothing where that fits better. What is beside the
errors is of the sketch or of a part of the stored sample: A itself is visited for the sketch alone, and for those
factorizations that are kept.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from pipeline.ladder import Ladder, Rung
from pipeline.objective import Unsuitable, is_entrywise, settled
from pipeline.opening import check_reachable
from pipeline.record import Iteration
from pipeline.report.pairs import pairs
from pipeline.small import ordered
from pipeline.standing import where_it_stands

RESTARTS, RESTART_ITERATIONS, MOST_RESTARTED = 2, 60, 100
"""Starts that a rank is compared with, how far they go, and up to which d they cost little."""


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
        ladder = Ladder(matrix, configs, memory_nbytes=memory_nbytes, on_iteration=on_iteration)
        part = part_of(matrix, seed)
        advice = advise(HeldOut(part, seed), list(configs), above_noise(part))
        found = list(_found(ladder, {} if advice is None else advice.errors))
    made = [_kept(matrix, one, configs[one.rank.d], memory_nbytes) if keep else one.rank for one in found]
    return Swept(made, advice, time.perf_counter() - began, ladder.recorder.passes)


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


def _found(ladder: Ladder, errors: Mapping[int, float]) -> Iterator[_Found]:
    """Make all ranks; `errors` are those on entries held out."""
    centres, sketch = _k_means(ladder), ladder.sketch
    for rung in ladder.rungs():
        with ladder.place():
            cosine, least_cosine = _stability(ladder, rung)
            W, d = ordered(rung.state), rung.d
        rank = Rank(
            d=d,
            error=rung.iterations[-1].relative_error,
            phase=ladder.choice.kind,
            svd_bound=sketch.svd_bound(d),
            k_means=centres.get(d),
            holdout_error=errors.get(d),
            cosine=cosine,
            least_cosine=least_cosine,
            start=rung.start,
            n_iter=len(rung.iterations),
            seconds=rung.seconds,
        )
        of_sketch = asdict(ladder.choice) | {"errors": [rank.error]}
        yield _Found(rank, W, rung.iterations, {"sketch": of_sketch, "svd_bound": rank.svd_bound})


def _stability(ladder: Ladder, rung: Rung) -> tuple[float | None, float | None]:
    """How alike components are to those of random starts, one to one: mean and least cosine."""
    if rung.d > MOST_RESTARTED:
        return None, None
    seed, W = ladder.configs[rung.d].seed, rung.state.W.W
    randoms = [starts.uniform(seed + k, 0, W.shape) for k in range(1, RESTARTS + 1)]
    others = [ladder.some(rung.on, ladder.sketch.of(random), RESTART_ITERATIONS).W.W for random in randoms]
    cosines = np.stack([pairs(W.T, like=other.T).cosines for other in others])
    return float(cosines.mean()), float(cosines.min())


def _k_means(ladder: Ladder) -> dict[int, float | None]:
    if not quantization.is_installed():
        return {}
    sketch = ladder.sketch
    with ladder.place():
        columns, n = quantization.columns_of(sketch.B), ladder.choice.n_columns
    seed = sketch.config.seed
    return {d: quantization.error(columns, n, d, sketch.norm_squared, sketch.missed, seed) for d in ladder.configs}


def _kept(matrix: StoredMatrix, one: _Found, config: NMFConfig, memory_nbytes: int | None) -> Rank:
    """Polish a rank on A and write it, unless its name has a factorization of the same parameters already."""
    start = starts.Given(W=one.W, before=one.iterations, told=one.told)
    made = factorize(matrix.path, one.rank.d, start=start, memory_nbytes=memory_nbytes, seed=config.seed).factors
    error, phase = made.attributes["relative_error"], made.attributes["phase"]
    return one.rank._replace(error=error, phase=phase, kept=made.path.parent.name)
