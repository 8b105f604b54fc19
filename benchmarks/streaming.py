"""A pass over a store that is not kept in memory, beside reading it and multiplying it.

    python -m benchmarks.tiled --zarr celeba.zarr --times 64 --out large.zarr
    python -m benchmarks.streaming --zarr large.zarr -d 99 --memory 600MiB

Bare read: every chunk read and checked, by as many threads as there are cores. Bare products: WᵀA_j and A_j H_jᵀ in
float32 on one block, as often as there are blocks. The page cache is as earlier rounds leave it (warm), unless --cold
drops what it holds of the store before each contender.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from threadpoolctl import threadpool_limits

from benchmarks.measure import rounds, table
from data_prep import store
from data_prep.folders import folder
from pipeline import starts
from pipeline.blocks import StoredBlocks
from pipeline.config import NMFConfig
from pipeline.opening import open_blocks
from pipeline.plan import make_plan
from pipeline.solvers.mu import MU


def drop_from_cache(path: Path) -> None:
    """Ask the system to forget the files of a store."""
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@click.command()
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("-d", "d", type=int, default=99, show_default=True)
@click.option("--memory", default="600MiB", show_default=True)
@click.option("--rounds", "n", type=int, default=3, show_default=True)
@click.option("--cold", is_flag=True)
def main(path: Path, d: int, memory: str, n: int, cold: bool) -> None:
    matrix = store.open_matrix(path)
    plan = make_plan(matrix, NMFConfig(n_components=d), int(parse_bytes(memory)))
    stored = [StoredBlocks(matrix.path, "A", part) for part in plan.partitions]
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(CPU_COUNT) as pool,
        TemporaryDirectory(dir=path.parent) as scratch,
    ):
        A = open_blocks(matrix, NMFConfig(n_components=d), plan, folder(scratch))
        state = starts.cold(matrix, NMFConfig(n_components=d, solver="mu", init="random"), plan.partitions)
        block = next(iter(stored[0])).astype(np.float32)
        W, H = state.W.W, np.ones((d, block.shape[1]), np.float32)

        def read(blocks: StoredBlocks) -> int:
            return sum(chunk.nbytes for chunk in blocks)

        def multiply(_: Any) -> tuple[Any, Any]:
            return W.T @ block, block @ H.T

        def iterate() -> None:
            nonlocal state
            state = MU().step(A, state)

        def after_begin(work: Callable[[], Any]) -> Any:
            if cold:
                drop_from_cache(path)
            return work()

        contenders = {
            "bare read": lambda: after_begin(lambda: list(pool.map(read, stored[plan.n_cached :]))),
            "bare products": lambda: list(pool.map(multiply, range(matrix.n_chunks))),
            "MU iteration": lambda: after_begin(iterate),
        }
        click.echo(
            f"{path.name}: A is {matrix.shape}, d = {d}, --memory {memory}: {plan.cached_share:.0%} cached, "
            f"{'cold' if cold else 'warm'} page cache\n"
        )
        click.echo(table(rounds(contenders, n), "bare products"))


if __name__ == "__main__":
    main()
