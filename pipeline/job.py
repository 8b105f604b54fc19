"""The job: open the matrix, decide what is left to do, solve, publish."""

import itertools
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from data_prep import store
from data_prep.folders import Folder, Where
from data_prep.lock import only_writer
from data_prep.store import StoredMatrix
from pipeline import engine, starts
from pipeline.blocks import Scratch, StoredBlocks
from pipeline.config import NMFConfig, differences
from pipeline.factors import Factors, Finished, create_H, current, named, publish_revision
from pipeline.loop import Stop, solve, stop_reason
from pipeline.one_pass import BlockMatrix
from pipeline.plan import Plan, RefusedPlan, check_rank, make_plan
from pipeline.record import Iteration, Recorder
from pipeline.solvers.hals import HALS
from pipeline.solvers.mu import MU
from pipeline.solvers.state import Solver, State

SOLVERS: dict[str, Solver] = {"hals": HALS(), "mu": MU()}
SPILL_EVERY = 8
RECORDED_PACKAGES = ("nmf-batch", "numpy", "dask", "distributed", "zarr")


class ParametersDiffer(ValueError):
    """Parameters or data differ from the stored run's: the command ends with exit code 5."""


@dataclass(frozen=True)
class Result:
    """What `factorize` did."""

    factors: Factors
    stop: Stop
    n_new: int
    """Iterations of this call; 0 where the stored factorization already answers the request."""


def factorize(
    path: Where,
    n_components: int,
    *,
    name: str | None = None,
    fresh: bool = False,
    memory_nbytes: int | None = None,
    start: starts.Given | None = None,
    on_iteration: Callable[[Sequence[Iteration]], None] = lambda iterations: None,
    **settings: Any,
) -> Result:
    """Factorize the matrix of a store and write W, H and the loss history back to it.

    Runs on the active Dask client, or on threads of this process. A factorization of that name that was stopped by
    a smaller budget is continued; one that needs no more work is returned as it is.

    Parameters
    ----------
    path
        The store, made by `nmf-batch prep` or `data_prep.arrays.write_matrix`.
    n_components
        Rank d, from 1 to min(m, n).
    name
        Of the factorization in the store; `d` and the rank unless given.
    fresh
        Start over, whatever is stored under the name. It stays readable until the new result is complete.
    memory_nbytes
        What a worker may use, without a cluster what this process may; a share of what it has unless given.
    start
        W and H to start from, in place of `init`. Used only where nothing is continued.
    on_iteration
        Called after every iteration with the record so far.
    **settings
        Fields of `NMFConfig`: solver, init, seed, max_iter, tol, target_error.

    Raises
    ------
    BadInput
        The store is missing, unfinished or damaged, or the loss became NaN.
    HeldError
        Another process is at this factorization.
    RefusedPlan
        n_components is above min(m, n), the start has other shapes, or the memory does not do.
    ParametersDiffer
        The stored factorization of that name was made with other parameters or from other data.
    """
    config = NMFConfig(n_components=n_components, **settings)
    matrix = store.open_matrix(path)
    check_rank(matrix, n_components)
    if start is not None:
        _check_start(n_components, matrix, start)
    folder = named(matrix.path, name or f"d{n_components}")
    with only_writer(folder):
        return _factorize(matrix, folder.name, config, Ways(fresh, memory_nbytes, start, on_iteration))


class Ways(NamedTuple):
    """How to go about it: nothing of this changes what is asked for."""

    fresh: bool
    memory_nbytes: int | None
    start: starts.Given | None
    on_iteration: Callable[[Sequence[Iteration]], None]


def _factorize(matrix: StoredMatrix, name: str, config: NMFConfig, ways: Ways) -> Result:
    previous = None if ways.fresh else current(matrix.path, name)
    if previous is not None:
        _check_same(previous, matrix, config, name)
        losses = [iteration.loss for iteration in previous.iterations]
        reason = stop_reason(losses, matrix.norm_squared, config)
        if reason is not None:
            return Result(previous, reason, 0)
    _check_reachable(matrix)
    began, plan = datetime.now(UTC), make_plan(matrix, config.n_components, ways.memory_nbytes)
    recorder = Recorder(matrix, previous.iterations if previous else [], plan=plan, on_iteration=ways.on_iteration)
    scratch = matrix.path / "nmf" / name / f"scratch-{uuid.uuid4().hex[:8]}"

    def begin() -> State:
        if previous is not None:
            return starts.continued(previous, plan.partitions)
        if ways.start is not None:
            return starts.given(ways.start, matrix, plan.partitions)
        return starts.cold(matrix, config, plan.partitions)

    try:
        with threadpool_limits(limits=1, user_api="blas"):  # the driver's bits must not depend on its cores either
            state, stop = _solve(matrix, config, plan, begin, recorder, scratch)
        if stop is Stop.NONFINITE:
            raise store.BadInput(f"{name} was not written: {stop}")
        attributes = {
            **_attributes(matrix, config, recorder.iterations, stop),
            **_plan_and_outcome(matrix, config, plan, recorder),
            "start": "given" if ways.start is not None and previous is None else config.init,
            "parent": None if previous is None else previous.path.name,
            "began": began.isoformat(timespec="seconds"),
        }
        H = list(zip(plan.partitions, state.H, strict=True))
        finished = Finished(W=state.W.W, H=H, iterations=recorder.iterations, attributes=attributes)
        return Result(publish_revision(matrix, name, finished), stop, recorder.n_new)
    finally:
        scratch.remove()


def _solve(
    matrix: StoredMatrix,
    config: NMFConfig,
    plan: Plan,
    begin: Callable[[], State],
    recorder: Recorder,
    scratch: Folder,
) -> tuple[State, Stop]:
    checksums = store.read_checksums(matrix).tolist()
    stored = [StoredBlocks(matrix.path, "A", part, checksums[part.start : part.stop]) for part in plan.partitions]
    cached = engine.keep_each(list, [(blocks,) for blocks in stored[: plan.n_cached]])
    A = BlockMatrix(
        partitions=[*cached, *stored[plan.n_cached :]],
        shape=matrix.shape,
        scale=matrix.scale,
        norm_squared=matrix.norm_squared,
        spills=_spills(matrix, config.n_components, plan, scratch),
    )

    def should_stop(losses: Sequence[float]) -> Stop | None:
        return stop_reason(losses, matrix.norm_squared, config)

    return solve(A, SOLVERS[config.solver], begin(), should_stop, recorder)


def _spills(matrix: StoredMatrix, d: int, plan: Plan, scratch: Folder) -> Iterator[Scratch | None]:
    """Where H does not fit it is stored every pass; on a cluster every eighth, from which lost parts are made again."""
    if engine.place().in_process and not plan.stores_H:
        yield from itertools.repeat(None)
    for k in itertools.count():  # each has a name of its own: a worker that was given up may wake and write its old one
        yield from itertools.repeat(None, 0 if plan.stores_H else SPILL_EVERY - 1)
        (scratch / f"H{k - 2}").remove()
        create_H(scratch, f"H{k}", d, matrix)
        yield Scratch(scratch, f"H{k}", plan.partitions)


def _plan_and_outcome(matrix: StoredMatrix, config: NMFConfig, plan: Plan, recorder: Recorder) -> dict[str, Any]:
    """What was planned for this call, and the same figures as they were."""
    earlier = len(recorder.iterations) - recorder.n_new
    peaks = engine.on_every_worker(engine.peak_nbytes).values()
    last, before = recorder.iterations[-1], recorder.earlier
    return {
        "plan": {
            "passes": config.max_iter - earlier,
            "bytes_read": plan.bytes_read(matrix.nbytes, config.max_iter - earlier),
            "worker_nbytes": plan.worker_nbytes,
            "driver_nbytes": plan.driver_nbytes,
            "memory_nbytes": plan.memory_nbytes,
            "cached_share": plan.cached_share,
            "stores_H": plan.stores_H,
        },
        "outcome": {
            "passes": recorder.n_new,
            "bytes_read": last.bytes_read - before.bytes_read,
            "worker_nbytes": max((peak for peak in peaks if isinstance(peak, int)), default=None),
            "driver_nbytes": engine.peak_nbytes(),
            "seconds": last.seconds - before.seconds,
        },
    }


def _check_reachable(matrix: StoredMatrix) -> None:
    """Raise BadInput where a worker does not see the store that this process sees."""
    for worker, seen in engine.on_every_worker(store.group_attributes, matrix.path).items():
        if isinstance(seen, Exception) or seen.get("fingerprint") != matrix.fingerprint:
            what = f"cannot read it ({seen})" if isinstance(seen, Exception) else "finds another there, or none"
            raise store.BadInput(
                f"{matrix.path} must be the same store for all workers, but {worker} {what}; mount it at this path "
                f"on every worker, or keep it in an object store"
            )


def iterations_done(matrix: StoredMatrix, name: str, config: NMFConfig) -> int:
    """Iterations that a stored factorization of that name saves a run; ParametersDiffer where it is another one."""
    previous = current(matrix.path, name)
    if previous is None:
        return 0
    _check_same(previous, matrix, config, name)
    return int(previous.attributes["n_iter"])


def _attributes(matrix: StoredMatrix, config: NMFConfig, iterations: Sequence[Iteration], stop: Stop) -> dict[str, Any]:
    last = iterations[-1]
    return {
        "objective": "‖A − W H‖²_F",
        "parameters": asdict(config),
        "seed": config.seed,
        "stop": stop.name,
        "relative_error": last.relative_error,
        "n_iter": len(iterations),
        "passes": last.passes,
        "bytes_read": last.bytes_read,
        "seconds": last.seconds,
        "shape": list(matrix.shape),
        "fingerprint": matrix.fingerprint,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "versions": {package: version(package) for package in RECORDED_PACKAGES},
        "blas": sorted({f"{i['internal_api']} {i['version']} {i.get('architecture')}" for i in threadpool_info()}),
    }


def _check_start(d: int, matrix: StoredMatrix, start: starts.Given) -> None:
    m, n = matrix.shape
    if start.W.shape != (m, d) or start.H.shape != (d, n):
        raise RefusedPlan(f"the start has W {start.W.shape} and H {start.H.shape}, but must have {(m, d)} and {(d, n)}")
    if not all(np.isfinite(X).all() and (X >= 0).all() for X in (start.W, start.H)):
        raise RefusedPlan("the start has negative, NaN or infinite values, but W and H must be finite and 0 or more")


def _check_same(previous: Factors, matrix: StoredMatrix, config: NMFConfig, name: str) -> None:
    different = differences(previous.attributes["parameters"], config)
    if previous.attributes["fingerprint"] != matrix.fingerprint:
        old, new = (f"{m} × {n}" for m, n in (previous.attributes["shape"], matrix.shape))
        different.append(f"the matrix: {old} → {new}, or other values")
    if different:
        raise ParametersDiffer(
            f"{name} was made with other parameters ({'; '.join(different)}); "
            f"give this one another --name, or start {name} over with --fresh"
        )
