"""nmf-batch plan: what run would do, before it does it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from data_prep.folders import Folder
from data_prep.store import StoredMatrix, open_matrix
from pipeline.commands import options
from pipeline.plan import Plan, make_plan


@click.command(context_settings=options.CONTEXT)
@options.zarr
@click.option("-d", "--n-components", type=click.IntRange(min=1), required=True, help="Rank: how many basis images.")
@click.option("--max-iter", type=click.IntRange(min=1), default=200, help="Passes to plan for.")
@options.memory
@options.place
@options.as_json
def plan(
    path: Folder,
    n_components: int,
    max_iter: int,
    memory: int | None,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    cluster_config: Path | None,
    as_json: bool,
) -> None:
    """Say what `run` would read and hold, and refuse what cannot fit.

    \b
    Example:
      nmf-batch plan --zarr faces.zarr -d 99 --memory 2GiB
    """
    matrix = open_matrix(path)
    with options.connected(workers, scheduler, cluster, cluster_config):
        planned = make_plan(matrix, n_components, memory)
    summary = _summary(matrix, planned, max_iter)
    options.say(json.dumps(summary) if as_json else _text(matrix, planned, summary))


def _summary(matrix: StoredMatrix, planned: Plan, max_iter: int) -> dict[str, Any]:
    streamed = 1 - planned.cached_share
    return {
        **asdict(planned),
        "partitions": len(planned.partitions),
        "shape": list(matrix.shape),
        "cached_share": planned.cached_share,
        "passes": max_iter,
        "bytes_read": round(matrix.nbytes * (1 + streamed * (max_iter - 1))),
    }


def _text(matrix: StoredMatrix, planned: Plan, summary: dict[str, Any]) -> str:
    m, n = matrix.shape
    a, read, disk = (options.nbytes(x) for x in (matrix.nbytes, summary["bytes_read"], planned.disk_nbytes))
    worker, allowed, driver = (
        options.nbytes(x) for x in (planned.worker_nbytes, planned.memory_nbytes, planned.driver_nbytes)
    )
    return "\n".join(
        (
            f"A is {m} × {n}, {a} in {len(planned.partitions)} partitions",
            f"cached: {planned.cached_share:.0%} of it; {summary['passes']} passes read {read} in all",
            f"memory: a worker at most {worker} of the {allowed} it may use, the driver at most {driver}",
            f"disk: {disk} for the result",
        )
    )
