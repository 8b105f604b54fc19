"""The whole default command on a store that does not fit its memory, beside what it cannot do without.

    python -m benchmarks.tiled --zarr celeba.zarr --times 176 --out large.zarr
    python -m benchmarks.larger_than_memory --zarr large.zarr -d 99 --memory 1GiB

What it cannot do without: for each pass over A the longer of a bare read (every chunk read and checked) and the bare
products (WᵀA_j and A_j H_jᵀ in float32, as often as there are blocks), both by as many threads as there are cores; and
the iterations on the sketch, as the record has them. --compare runs it again without --memory: the same bits?
"""

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits

from benchmarks.measure import run
from data_prep import store
from data_prep.folders import folder
from pipeline import open_factors
from pipeline.blocks import StoredBlocks
from pipeline.record import EXACT


def side_by_side_s(work: Callable[[int], Any], items: Iterable[int]) -> float:
    """Seconds until threads have done the work on all items."""
    began = time.perf_counter()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(CPU_COUNT) as pool:
        for _ in pool.map(work, items):
            pass
    return time.perf_counter() - began


@click.command()
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("-d", "d", type=int, default=99, show_default=True)
@click.option("--memory", default="1GiB", show_default=True)
@click.option("--compare", is_flag=True, help="Also run without --memory, which the machine must have room for.")
def main(path: Path, d: int, memory: str, compare: bool) -> None:
    command = [
        str(Path(sys.executable).parent / "nmf-batch"),
        *f"run -d {d} --fresh --zarr".split(),
        str(path),
        "--name",
    ]
    began = time.perf_counter()
    run(*command, "within", "--memory", memory)
    wall_s = time.perf_counter() - began
    factors, matrix = open_factors(path, "within"), store.open_matrix(path)
    about, iterations = factors.attributes, factors.iterations
    passes = [k for k, iteration in enumerate(iterations) if iteration.phase == EXACT]
    small_s = iterations[passes[0] - 1].seconds

    block = next(iter(StoredBlocks(folder(path), "A", range(1)))).astype(np.float32)
    W, H = np.ones((len(block), d), np.float32), np.ones((d, block.shape[1]), np.float32)
    read_s = side_by_side_s(lambda k: list(StoredBlocks(folder(path), "A", range(k, k + 1))), range(matrix.n_chunks))
    products_s = side_by_side_s(lambda _: (W.T @ block, block @ H.T), range(matrix.n_chunks))
    needed_s = len(passes) * max(read_s, products_s) + small_s
    click.echo(
        f"{path.name}: A is {matrix.shape[0]} × {matrix.shape[1]}, d = {d}, --memory {memory}: "
        f"{about['plan']['cached_share']:.0%} cached, peak {about['outcome']['driver_nbytes'] / 2**20:.0f} MiB\n"
        f"relative error {about['relative_error']:.4f} after {about['passes']:.3g} passes\n"
        f"whole command {wall_s:.1f} s = {wall_s / needed_s:.2f} × ({len(passes)} × max(bare read {read_s:.1f} s, "
        f"bare products {products_s:.1f} s) + before the passes {small_s:.1f} s)"
    )
    if compare:
        run(*command, "in-memory")
        same = open_factors(path, "in-memory").loss.tobytes() == factors.loss.tobytes()
        click.echo(f"in memory: {'the same bits' if same else 'ANOTHER loss'}")


if __name__ == "__main__":
    main()
