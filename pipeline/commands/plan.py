"""nmf-batch plan: what run would do, before it does it."""

import json
from dataclasses import asdict
from typing import Any

import click

from data_prep.folders import Folder
from data_prep.store import StoredMatrix, open_matrix
from pipeline.calibration import Estimate, estimate
from pipeline.commands import options
from pipeline.plan import Plan
from pipeline.standing import planned


@click.command(context_settings=options.CONTEXT)
@options.request
@options.place
@options.as_json
def plan(
    path: Folder,
    n_components: int,
    name: str | None,
    fresh: bool,
    refresh: str,
    memory: int | None,
    place: options.Place,
    as_json: bool,
    **settings: Any,
) -> None:
    """Say what `run` would read and hold and how long it would take, and refuse what cannot fit.

    It takes the options of `run`. The time is told from a second of the work itself, on a few chunks.

    \b
    Example:
      nmf-batch plan --zarr faces.zarr -d 99 --memory 2GiB
    """
    config, name = options.configured(n_components, name, settings)
    matrix = open_matrix(path)
    with options.connected(place):
        to_do = planned(matrix, name, config, memory, fresh=fresh, refresh=refresh)
        measured = estimate(matrix, config, to_do)
    summary = _summary(matrix, to_do, measured)
    options.say(json.dumps(summary) if as_json else _text(matrix, to_do, summary))


def _summary(matrix: StoredMatrix, to_do: Plan, measured: Estimate) -> dict[str, Any]:
    pass_s = max(measured.arithmetic_s, measured.reading_s)
    return {
        **asdict(to_do),
        "partitions": len(to_do.partitions),
        "shape": list(matrix.shape),
        "cached_share": to_do.cached_share,
        "bytes_read": to_do.bytes_read(matrix.nbytes),
        "pass_seconds": pass_s,
        "seconds": to_do.passes * pass_s,
        **{f"pass_{name}": value for name, value in measured._asdict().items()},
    }


def _text(matrix: StoredMatrix, to_do: Plan, summary: dict[str, Any]) -> str:
    m, n = matrix.shape
    a, read, disk = (options.nbytes(x) for x in (matrix.nbytes, summary["bytes_read"], to_do.disk_nbytes))
    worker, allowed, driver = (
        options.nbytes(x) for x in (to_do.worker_nbytes, to_do.memory_nbytes, to_do.driver_nbytes)
    )
    why = "A fits beside the work" if to_do.cached_share == 1 else "the rest does not fit beside the work"
    arithmetic, reading = summary["pass_arithmetic_s"], summary["pass_reading_s"]
    return "\n".join(
        (
            f"A is {m} × {n}, {a} in {len(to_do.partitions)} partitions",
            f"passes: at most {summary['passes']:.3g}",
            f"cached: {to_do.cached_share:.0%} of A, since {why}; all passes read {read}",
            f"memory: a worker at most {worker} of the {allowed} it may use, the driver at most {driver}; "
            + ("H is stored after each pass, since it does not fit" if to_do.stores_H else "H stays there"),
            f"disk: {disk} for the result and what leads to it",
            f"time: about {summary['seconds']:.3g} s for the passes, {summary['pass_seconds']:.2g} each: arithmetic "
            f"{arithmetic:.2g}, reading {reading:.2g} beside it, as {summary['pass_chunks']} chunks took just now",
        )
    )
