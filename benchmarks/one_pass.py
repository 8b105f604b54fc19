"""The cost of an iteration on cached A, as a ratio to its two bare products on the same blocks.

    python -m benchmarks.one_pass --zarr celeba.zarr -d 99

The bare products are WᵀA_j and A_j H_jᵀ in float32 on blocks that are float32 already, one BLAS thread a core, so the
ratio holds everything else: conversion from uint8, the updates, the sums, the scheduler, the loss.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits

from benchmarks.measure import rounds, table
from cluster.connect import connect
from data_prep import store
from pipeline import engine, starts
from pipeline.blocks import StoredBlocks
from pipeline.config import NMFConfig
from pipeline.one_pass import BlockMatrix
from pipeline.plan import partitions
from pipeline.solvers.hals import HALS
from pipeline.solvers.mu import MU
from pipeline.solvers.state import State


def cached(matrix: store.StoredMatrix) -> BlockMatrix:
    parts = partitions(matrix)
    stored = engine.keep_each(list, [(StoredBlocks(matrix.path, "A", part),) for part in parts])
    return BlockMatrix(partitions=stored, shape=matrix.shape, scale=matrix.scale, norm_squared=matrix.norm_squared)


class Iterating:
    """A solver that is stepped each time it is called."""

    def __init__(self, solver: MU | HALS, A: BlockMatrix, state: State) -> None:
        self.solver, self.A, self.state = solver, A, state

    def __call__(self) -> None:
        """Step once."""
        self.state = self.solver.step(self.A, self.state)


@click.command()
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("-d", "d", type=int, default=99, show_default=True)
@click.option("--rounds", "n", type=int, default=15, show_default=True)
@click.option("--workers", type=int, help="Measure on a LocalCluster, with the cost of an empty pass beside it.")
def main(path: Path, d: int, n: int, workers: int | None) -> None:
    matrix = store.open_matrix(path)
    start = starts.cold(matrix, NMFConfig(n_components=d, solver="mu", init="random"), partitions(matrix))
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(CPU_COUNT) as pool,
        connect(workers=workers),
    ):
        stored = [StoredBlocks(matrix.path, "A", part) for part in partitions(matrix)]
        blocks = [block.astype(np.float32) for part in stored for block in part]
        W = start.W.W
        H = [np.ones((d, block.shape[1]), np.float32) for block in blocks]

        def bare_products() -> None:
            list(pool.map(lambda A_j, H_j: (W.T @ A_j, A_j @ H_j.T), blocks, H))

        contenders: dict[str, Callable[[], object]] = {
            "two bare products": bare_products,
            "MU iteration": Iterating(MU(), cached(matrix), start),
            "HALS iteration (8 + 8 sweeps)": Iterating(HALS(), cached(matrix), start),
            "empty pass": lambda: engine.call_each(abs, [(1,)] * len(stored)),
        }
        where = f"{workers} workers" if workers else "threads of this process"
        click.echo(f"{path.name}: A is {matrix.shape}, d = {d}, {len(blocks)} blocks, {CPU_COUNT} cores, {where}\n")
        click.echo(table(rounds(contenders, n), "two bare products"))


if __name__ == "__main__":
    main()
