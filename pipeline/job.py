"""The job: open the matrix, decide what is left to do, solve, publish."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info, threadpool_limits

from data_prep import store
from data_prep.store import StoredMatrix
from pipeline import engine, starts
from pipeline.blocks import StoredBlocks
from pipeline.config import NMFConfig, differences
from pipeline.factors import Factors, Finished, current, publish_revision
from pipeline.loop import Stop, solve, stop_reason
from pipeline.one_pass import BlockMatrix
from pipeline.plan import fits_in_cache, partitions
from pipeline.record import Iteration, Recorder
from pipeline.solvers.hals import HALS
from pipeline.solvers.mu import MU
from pipeline.solvers.state import Solver, State

SOLVERS: dict[str, Solver] = {"hals": HALS(), "mu": MU()}
RECORDED_PACKAGES = ("nmf-batch", "numpy", "dask", "distributed", "zarr")


class ParametersDiffer(ValueError):
    """Parameters or data differ from the stored run's: the command ends with exit code 5."""


class RefusedPlan(ValueError):
    """What was asked cannot be computed on this matrix: the command ends with exit code 2."""


@dataclass(frozen=True)
class Result:
    """What `factorize` did."""

    factors: Factors
    stop: Stop
    n_new: int
    """Iterations of this call; 0 where the stored factorization already answers the request."""


def factorize(
    path: str | Path,
    n_components: int,
    *,
    name: str | None = None,
    fresh: bool = False,
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
    start
        W and H to start from, in place of `init`. Used only where nothing is continued.
    on_iteration
        Called after every iteration with the record so far.
    **settings
        Fields of `NMFConfig`: solver, init, seed, max_iter, tol, target_error.

    Raises
    ------
    BadInput
        The store is missing, unfinished or damaged.
    RefusedPlan
        n_components is above min(m, n), or the start has other shapes.
    ParametersDiffer
        The stored factorization of that name was made with other parameters or from other data.
    """
    config = NMFConfig(n_components=n_components, **settings)
    name = name or f"d{n_components}"
    matrix = store.open_matrix(Path(path))
    _check_shapes(n_components, matrix, start)
    previous = None if fresh else current(matrix.path, name)
    if previous is not None:
        _check_same(previous, matrix, config, name)
        losses = [iteration.loss for iteration in previous.iterations]
        reason = stop_reason(losses, matrix.norm_squared, config)
        if reason is not None:
            return Result(previous, reason, 0)
    with threadpool_limits(limits=1, user_api="blas"):  # the driver's bits must not depend on its cores either
        began = datetime.now(UTC)
        recorder, state, stop = _solve(matrix, config, previous, start, on_iteration)
        attributes = {
            **_attributes(matrix, config, recorder.iterations, stop),
            "parent": None if previous is None else previous.path.name,
            "began": began.isoformat(timespec="seconds"),
        }
        finished = Finished(
            W=state.W.W,
            H=list(zip(partitions(matrix), state.H, strict=True)),
            iterations=recorder.iterations,
            attributes=attributes,
        )
        return Result(publish_revision(matrix, name, finished), stop, recorder.n_new)


def _solve(
    matrix: StoredMatrix,
    config: NMFConfig,
    previous: Factors | None,
    start: starts.Given | None,
    on_iteration: Callable[[Sequence[Iteration]], None],
) -> tuple[Recorder, State, Stop]:
    parts, cached = partitions(matrix), fits_in_cache(matrix)
    recorder = Recorder(matrix, previous.iterations if previous else [], cached=cached, on_iteration=on_iteration)
    stored = [StoredBlocks(matrix.path, "A", part) for part in parts]
    A = BlockMatrix(
        partitions=engine.keep_each(list, [(blocks,) for blocks in stored]) if cached else stored,
        shape=matrix.shape,
        scale=matrix.scale,
        norm_squared=matrix.norm_squared,
    )
    if previous is not None:
        state = starts.continued(previous, parts)
    elif start is not None:
        state = starts.given(start, matrix, parts)
    else:
        state = starts.cold(matrix, config, parts)

    def should_stop(losses: Sequence[float]) -> Stop | None:
        return stop_reason(losses, matrix.norm_squared, config)

    state, stop = solve(A, SOLVERS[config.solver], state, should_stop, recorder)
    return recorder, state, stop


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


def _check_shapes(d: int, matrix: StoredMatrix, start: starts.Given | None) -> None:
    m, n = matrix.shape
    if d > min(m, n):
        raise RefusedPlan(
            f"d is {d}, but A is {m} × {n}: with d = {min(m, n)} the factors already hold A itself; "
            f"choose -d from 1 to {min(m, n)}"
        )
    if start is not None and (start.W.shape != (m, d) or start.H.shape != (d, n)):
        raise RefusedPlan(f"the start has W {start.W.shape} and H {start.H.shape}, but must have {(m, d)} and {(d, n)}")


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
