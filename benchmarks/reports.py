"""A report on very many small images: how long it takes, and the memory of the process that makes it.

    python -m benchmarks.reports --images 1000000 --side 19 -d 49 --scratch /dev/shm

Images are mixtures of drawn parts with noise, made below --scratch, prepared and factorized with `nmf-batch`.
"""

import json
import tempfile
from pathlib import Path

import click
import numpy as np

from benchmarks.measure import measured_command, run

PARTS, TOGETHER = 40, 10_000


def make(file: Path, n: int, side: int) -> None:
    """Write n images as an array (n, side, side), some at a time."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((side, side))
    centres = rng.uniform(0, side, (PARTS, 2))
    squares = [(rows - y) ** 2 + (columns - x) ** 2 for y, x in centres]
    parts = np.exp(-np.stack(squares) / (side / 3)).reshape(PARTS, -1).astype(np.float32)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(n, side, side))
    for first in range(0, n, TOGETHER):
        count = min(TOGETHER, n - first)
        amounts = rng.gamma(0.3, 1.0, (count, PARTS)).astype(np.float32)
        noisy = amounts @ parts + 0.05 * rng.random((count, side * side), np.float32)
        images[first : first + count] = (255 * np.clip(noisy / 3, 0, 1)).reshape(count, side, side)


@click.command()
@click.option("--images", default=1_000_000)
@click.option("--side", default=19, help="Pixels a side.")
@click.option("-d", default=49)
@click.option("--scratch", type=click.Path(path_type=Path, exists=True), default=None)
def main(images: int, side: int, d: int, scratch: Path | None) -> None:
    """Make, prepare and factorize images, and report on them."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        home = Path(name)
        make(home / "images.npy", images, side)
        run("nmf-batch", "prep", home / "images.npy", "--zarr", home / "s.zarr")
        run("nmf-batch", "run", "--zarr", home / "s.zarr", "-d", str(d))
        out = home / "report.html"
        done = measured_command("report", "--zarr", home / "s.zarr", "--out", out)
        told = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
        whole = "all" if told["errors"]["whole"] else "of a sample of them"
        click.echo(
            f"{images:,} images of {side} × {side}, d = {d}: report in {done.seconds:.1f} s, peak "
            f"{done.peak_nbytes / 2**20:.0f} MiB, {out.stat().st_size / 2**20:.1f} MiB of HTML; errors of "
            f"{told['errors']['examined']:,} images, {whole}"
        )


if __name__ == "__main__":
    main()
