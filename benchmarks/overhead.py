"""What a pass costs besides arithmetic: the scheduler, W going out, sums coming back.

    python -m benchmarks.overhead --partitions 16,100,1000 --workers 16
    python -m benchmarks.overhead --partitions 16,100,1000 --workers 2 --processes

A partition is one block of a single column and the solver returns ones, so a visit computes next to nothing and returns
sums of the size that they have for m pixels and rank d. Everything else is the product: its graph, its tree, H kept by
the workers and brought back every eighth pass. Workers are threads of this process that talk over loopback sockets
unless --processes is given; then the CPU time is that of the driver and the scheduler, without the workers.
Visits here: the same visits in this process, one after the other, with no scheduler.
"""

import dataclasses
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click
import numpy as np
from distributed import Client, LocalCluster

from pipeline import engine
from pipeline.basis import Added, Basis, basis_of
from pipeline.kernels import Matrix
from pipeline.one_pass import Arithmetic, BlockMatrix, Spill, visit_partition
from pipeline.opening import SPILL_EVERY
from pipeline.panels import one_blas_thread

LOOPBACK = "127.0.0.1"


def column(m: int, k: int) -> list[Matrix]:
    """Partition k: a block of one column."""
    return [np.full((m, 1), k % 256, np.uint8)]


def ones(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    """H, without solving anything."""
    return np.ones_like(WtA)


class Brought(NamedTuple):
    """Stands for where H is stored: what comes back is as small as what would name it."""

    name: str = "H"

    def __call__(self, k: int, visited: tuple[list[Matrix], Added]) -> list[Matrix]:
        """Partition k."""
        return visited[0]


def spills() -> Callable[[str | None], Spill | None]:
    """H stays with the workers, but for every eighth pass."""
    turns = itertools.cycle([*[None] * (SPILL_EVERY - 1), Brought()])
    return lambda in_use: next(turns)


class Row(NamedTuple):
    """What a pass cost."""

    seconds: float
    cpu_s: float
    """Of this process."""
    W_nbytes: int
    """W, from the worker that has it to the others."""
    sums_nbytes: int
    """Sums, and where visits were moved H, between workers."""
    driver_nbytes: int
    """What the driver was sent."""
    tasks_held: int
    """Tasks that the scheduler still knows after the pass."""


def sent(dask_worker: Any) -> tuple[int, int, int]:
    """Bytes that a worker sent since it was last asked: of W to workers, of anything else to workers, to the driver."""
    transfers = list(dask_worker.transfer_outgoing_log)
    dask_worker.transfer_outgoing_log.clear()
    parts = [(name, nbytes, one["who"]) for one in transfers for name, nbytes in one["keys"].items()]
    return (
        sum(nbytes for name, nbytes, who in parts if who and name.startswith("W-")),
        sum(nbytes for name, nbytes, who in parts if who and not name.startswith("W-")),
        sum(nbytes for _, nbytes, who in parts if not who),
    )


def tasks_held(dask_scheduler: Any) -> int:
    """Tasks that the scheduler knows."""
    return len(dask_scheduler.tasks)


def passes(client: Client, A: BlockMatrix, W: Basis, n: int) -> list[Row]:
    """Visit A n times, each from the H of the one before."""
    H: Sequence[Any] = [None] * len(A.partitions)
    rows = []
    for _ in range(n):
        client.run(sent)
        began, cpu = time.perf_counter(), time.process_time()
        H, _sums = A.visit(W, H, ones)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        W_nbytes, sums_nbytes, driver_nbytes = (sum(p) for p in zip(*client.run(sent).values(), strict=True))
        held = client.run_on_scheduler(tasks_held)
        rows.append(Row(seconds, cpu_s, W_nbytes, sums_nbytes, driver_nbytes, held))
    return rows


def visits_alone(m: int, W: Basis, count: int) -> float:
    """Seconds of as many visits, here, one after the other."""
    H = [np.ones((W.W.shape[1], 1), np.float32)]
    began = time.perf_counter()
    for k in range(count):
        visit_partition(column(m, k), H, W, ones, Arithmetic(1.0, False))
    return time.perf_counter() - began


def shown(count: int, workers: int, rows: list[Row], alone_s: float) -> str:
    """A row of the table: medians over the passes, and what is held at most."""
    seconds, cpu_s, *moved, _ = (statistics.median(column) for column in zip(*rows, strict=True))
    tasks = 3 * count  # a visit, its H, and its share of the tree
    cells = [
        *(str(count), str(workers), str(tasks), f"{seconds:.2f}", f"{min(rows).seconds:.2f} – {max(rows).seconds:.2f}"),
        *(f"{1000 * seconds / tasks:.2f}", f"{1000 * cpu_s / tasks:.2f}", f"{alone_s:.2f}"),
        *(f"{nbytes / 1e6:.1f}" for nbytes in moved),
        str(max(row.tasks_held for row in rows)),
    ]
    return f"| {' | '.join(cells)} |"


HEADINGS = (
    *("partitions", "workers", "tasks", "s a pass", "min – max", "ms a task", "CPU ms a task here", "visits alone s"),
    *("W to workers MB", "sums between workers MB", "to the driver MB", "tasks held"),
)


@click.command()
@click.option("--partitions", default="16,100,1000", show_default=True)
@click.option("--workers", default="16", show_default=True, help="One number, or one for each of --partitions.")
@click.option("--processes", is_flag=True)
@click.option("-m", "m", type=int, default=6177, show_default=True)
@click.option("-d", "d", type=int, default=99, show_default=True)
@click.option("--passes", "n", type=int, default=2 * SPILL_EVERY, show_default=True)
def main(partitions: str, workers: str, processes: bool, m: int, d: int, n: int) -> None:
    counts = [int(count) for count in partitions.split(",")]
    one_blas_thread()
    W = basis_of(np.ones((m, d), np.float32))
    click.echo(f"m = {m}, d = {d}, {n} passes, workers are {'processes' if processes else 'threads of this process'}\n")
    click.echo(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for count, n_workers in zip(counts, itertools.cycle(int(number) for number in workers.split(","))):
        with (
            LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=processes,
                protocol="tcp",
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.CRITICAL,  # heartbeats of workers that are closed
            ) as cluster,
            Client(cluster) as client,
        ):
            kept = engine.keep_each(column, [(m, k) for k in range(count)])
            A = BlockMatrix(partitions=kept, shape=(m, count), scale=1.0, norm_squared=1.0, spill=spills())
            passes(client, A, W, 1)
            A = dataclasses.replace(A, spill=spills())
            click.echo(shown(count, n_workers, passes(client, A, W, n), visits_alone(m, W, count)))


if __name__ == "__main__":
    main()
