"""What is larger than the memory that it may use: `pipeline.NMF` on a Dask array, and `nmf-batch denoise` on a store.

    python -m benchmarks.beyond_memory --what estimator --memory 600MiB
    python -m benchmarks.beyond_memory --what denoise --memory 600MiB --scratch /dev/shm

The array has 1,000,000 samples of 2,048 bytes, drawn a chunk at a time; the peak is that of the whole process, with
what draws. The store has 300,000 images of 48 × 48, mixtures of 30 parts with noise of σ = 0.1, and no d is given.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from dask import array as da
from dask.utils import parse_bytes

from benchmarks.measure import measured_command, run
from pipeline.engine import peak_nbytes

FEATURES, TOGETHER, MIXED = 2048, 2000, 12
IMAGES, SIDE, PARTS, DRAWN = 300_000, 48, 30, 10_000


def mixtures(block: Any, block_info: Any = None) -> Any:
    """Samples of one chunk of X."""
    shapes = (np.random.default_rng(0).random((MIXED, FEATURES)) ** 4).astype(np.float32)
    amounts = np.random.default_rng(block_info[0]["chunk-location"][0]).gamma(0.3, 1, (len(block), MIXED))
    return (amounts.astype(np.float32) @ shapes * 60).clip(0, 255).astype(np.uint8)


def fit(samples: int, memory: int) -> None:
    from pipeline import NMF  # here: scikit-learn is an extra, and takes memory

    empty = da.zeros((samples, FEATURES), chunks=(TOGETHER, FEATURES), dtype=np.uint8)
    X, began = empty.map_blocks(mixtures, dtype=np.uint8), time.perf_counter()
    model = NMF(MIXED, random_state=0, memory=memory).fit(X)
    seconds = time.perf_counter() - began
    click.echo(
        f"X of {samples:,} × {FEATURES} bytes, {X.nbytes / 2**20:.0f} MiB: fit in {seconds:.0f} s, "
        f"{model.n_iter_} iterations, peak {peak_nbytes() / 2**20:.0f} MiB"
    )


def draw(file: Path) -> None:
    """Write noisy images, (IMAGES, SIDE, SIDE)."""
    rng = np.random.default_rng(0)
    parts = np.kron(rng.random((PARTS, 6, 6)), np.ones((1, SIDE // 6, SIDE // 6))).reshape(PARTS, -1)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(IMAGES, SIDE, SIDE))
    for first in range(0, IMAGES, DRAWN):
        mixed = rng.gamma(0.3, 1.0, (DRAWN, PARTS)).astype(np.float32) @ parts.astype(np.float32)
        mixed = 0.1 + 0.6 * mixed / mixed.max(axis=1, keepdims=True)
        mixed += 0.1 * rng.standard_normal(mixed.shape, np.float32)
        images[first : first + DRAWN] = (255 * mixed.clip(0, 1)).reshape(-1, SIDE, SIDE)


def denoise(home: Path, memory: str) -> None:
    draw(home / "noisy.npy")
    run("nmf-batch", "prep", home / "noisy.npy", "--zarr", home / "noisy.zarr")
    done = measured_command("denoise", "--zarr", home / "noisy.zarr", "--out", home / "clean.zarr", "--memory", memory)
    said = done.stdout.partition(": ")[2]
    click.echo(f"{said}: {done.seconds:.0f} s, peak {done.peak_nbytes / 2**20:.0f} MiB")


@click.command()
@click.option("--what", type=click.Choice(["estimator", "denoise"]), required=True)
@click.option("--memory", default="600MiB", show_default=True)
@click.option("--samples", default=1_000_000, show_default=True, help="Of the array.")
@click.option("--scratch", type=click.Path(path_type=Path, exists=True), help="Folder for images and stores.")
def main(what: str, memory: str, samples: int, scratch: Path | None) -> None:
    """Measure."""
    if what == "estimator":
        fit(samples, parse_bytes(memory))
    else:
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            denoise(Path(name), memory)


if __name__ == "__main__":
    main()
