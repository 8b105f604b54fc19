"""Passes on one worker and on several, beside what as many plain processes gain on this machine.

    python -m benchmarks.tiled --zarr celeba.zarr --times 16 --out larger.zarr
    python -m benchmarks.scaling --zarr larger.zarr -d 99 --workers 2

A pass is an MU iteration over A kept in the workers' memory: arithmetic, no reading. Both clusters are open at once and
pass in turn, so that a slow minute of the machine meets both. A plain process does the two products WᵀA_j and
A_j H_jᵀ in float32, as often as A has blocks, and nothing else: several of them share the blocks evenly. What these do
not gain, the machine does not have; the efficiency is the workers' speed-up as a share of theirs.
"""

import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import rounds, table
from benchmarks.one_pass import Iterating, cached
from cluster.connect import connect
from data_prep import store
from pipeline import engine, starts
from pipeline.config import NMFConfig
from pipeline.panels import one_blas_thread
from pipeline.plan import partitions
from pipeline.solvers.mu import MU


def multiply(m: int, d: int, c: int, times: int) -> None:
    """Both products of a block, several times, with one BLAS thread."""
    A_j, W, H_j = (np.ones(shape, np.float32) for shape in ((m, c), (m, d), (d, c)))
    for _ in range(times):
        W.T @ A_j, A_j @ H_j.T


def side_by_side(stack: ExitStack, matrix: store.StoredMatrix, d: int, processes: int) -> Callable[[], None]:
    """As many products as A has blocks, shared by processes that are there already."""
    fresh = multiprocessing.get_context("spawn")  # forked from a process with clusters, one could hang
    pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=fresh, initializer=one_blas_thread))
    bounds = [k * matrix.n_chunks // processes for k in range(processes + 1)]
    times = np.diff(bounds).tolist()
    arguments = [[value] * processes for value in (matrix.shape[0], d, matrix.chunk_images)]

    def products() -> None:
        list(pool.map(multiply, *arguments, times))

    return products


class OnCluster:
    """Something called on one cluster while others are open."""

    def __init__(self, client: Any, call: Callable[[], object]) -> None:
        self.client, self.call = client, call

    def __call__(self) -> None:
        """Call it there."""
        with self.client.as_current():
            self.call()


def shares(client: Any, futures: Sequence[Any]) -> str:
    """How many of some results each worker of a cluster holds."""
    keys = {future.key for future in futures}
    return " + ".join(str(len(keys & set(held))) for held in client.has_what().values())


def median_ratio(one: list[float], many: list[float]) -> float:
    """Median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(one, many, strict=True))


@click.command()
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("-d", "d", type=int, default=99, show_default=True)
@click.option("--workers", type=int, default=2, show_default=True)
@click.option("--rounds", "n", type=int, default=7, show_default=True)
def main(path: Path, d: int, workers: int, n: int) -> None:
    matrix = store.open_matrix(path)
    parts = partitions(matrix)

    def empty_pass() -> None:
        engine.call_each(abs, [(1,)] * len(parts))

    start = starts.cold(matrix, NMFConfig(n_components=d, solver="mu", init="random"), parts)
    with threadpool_limits(1, user_api="blas"), ExitStack() as stack:
        contenders: dict[str, Callable[[], object]] = {}
        matrices = {}
        for count in (1, workers):
            client = stack.enter_context(connect(workers=count))
            assert client is not None
            with client.as_current():
                A = matrices[client] = cached(matrix)
            contenders[f"bare products, processes: {count}"] = side_by_side(stack, matrix, d, count)
            contenders[f"empty pass, workers: {count}"] = OnCluster(client, empty_pass)
            contenders[f"MU iteration, workers: {count}"] = OnCluster(client, Iterating(MU(), A, start))
        seconds = rounds(contenders, n)
        placed = [shares(client, A.partitions) for client, A in matrices.items()]
    click.echo(
        f"{path.name}: A is {matrix.shape}, {matrix.nbytes / 1e9:.2f} GB in {len(parts)} partitions, d = {d}; "
        f"kept by the workers: {', '.join(placed)}\n"
    )
    click.echo(table(seconds, "bare products, processes: 1"))
    ours, theirs = (
        median_ratio(seconds[f"{what}: 1"], seconds[f"{what}: {workers}"])
        for what in ("MU iteration, workers", "bare products, processes")
    )
    rate = matrix.nbytes / statistics.median(seconds["MU iteration, workers: 1"])
    click.echo(f"\n1 → {workers} workers: {ours:.2f} ×; as many plain processes: {theirs:.2f} ×; {ours / theirs:.0%}")
    click.echo(f"one worker: {rate / 1e6:.0f} MB of A a second")


if __name__ == "__main__":
    main()
