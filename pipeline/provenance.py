"""What is recorded with a result: how it was made, what was planned, and what it took."""

import socket
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from threadpoolctl import threadpool_info

from data_prep.store import StoredMatrix
from pipeline import engine, penalties
from pipeline.config import KULLBACK_LEIBLER, NMFConfig
from pipeline.loop import Stop
from pipeline.objective import is_masked
from pipeline.plan import Plan
from pipeline.record import Iteration, Recorder
from pipeline.solvers.state import State

RECORDED_PACKAGES = ("nmf-batch", "numpy", "dask", "distributed", "zarr")


def provenance(
    matrix: StoredMatrix, config: NMFConfig, iterations: Sequence[Iteration], stop: Stop | None
) -> dict[str, Any]:
    """Attributes of a revision: what was asked for, from what, by which code, and what came of it."""
    last = iterations[-1]
    return {
        "objective": objective(config, matrix),
        "parameters": asdict(config),
        "seed": config.seed,
        "phase": last.phase,
        "stop": None if stop is None else stop.name,
        "relative_error": last.relative_error,
        "holdout_error": last.holdout_error if last.holdout_error == last.holdout_error else None,
        "n_iter": len(iterations),
        "passes": last.passes,
        "bytes_read": last.bytes_read,
        "seconds": last.seconds,
        "shape": list(matrix.shape),
        "fingerprint": matrix.fingerprint,
        "last_checksum": matrix.attributes["last_checksum"],
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "versions": {package: version(package) for package in RECORDED_PACKAGES},
        "blas": sorted({f"{i['internal_api']} {i['version']} {i.get('architecture')}" for i in threadpool_info()}),
    }


def objective(config: NMFConfig, matrix: StoredMatrix) -> str:
    """Name what is minimised."""
    over = " over the entries that are present" if is_masked(config, matrix) else ""
    fit = "D(A ‖ W H)" if config.loss == KULLBACK_LEIBLER else "‖A − W H‖²_F"
    return f"{fit}{over}{' + penalties' if penalties.any_in(config) else ''}"


def told_of_state(state: State) -> dict[str, Any]:
    """How good the factors are, and what the next iteration needs to know besides them."""
    momentum = state.momentum
    return {
        "penalty": state.penalty,
        "projected_gradient": state.projected_gradient,
        "momentum": {
            "moving": momentum.W_before is not None,
            "beta": momentum.beta,
            "limit": momentum.limit,
            "revivals": momentum.revivals,
            "from_residual": state.from_residual,
        },
    }


def plan_and_outcome(matrix: StoredMatrix, plan: Plan, recorder: Recorder) -> dict[str, Any]:
    """What was planned for this call, and the same figures as they were."""
    peaks = engine.on_every_worker(engine.peak_nbytes).values()
    last, before = recorder.iterations[-1], recorder.earlier
    return {
        "plan": {
            "passes": plan.passes,
            "bytes_read": plan.bytes_read(matrix.nbytes),
            "worker_nbytes": plan.worker_nbytes,
            "driver_nbytes": plan.driver_nbytes,
            "memory_nbytes": plan.memory_nbytes,
            "cached_share": plan.cached_share,
            "stores_H": plan.stores_H,
        },
        "outcome": {
            "passes": recorder.passes,
            "bytes_read": recorder.bytes_read,
            "worker_nbytes": max((peak for peak in peaks if isinstance(peak, int)), default=None),
            "driver_nbytes": engine.peak_nbytes(),
            "seconds": last.seconds - before.seconds,
        },
    }
