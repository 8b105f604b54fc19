"""Images a second of `nmf-batch prep`, beside a bare loop that decodes and resizes in one thread.

    python -m benchmarks.prep celeba.zip --mode L --scale 0.4

The rate is marginal, (time of all − time of the first tenth) / images between them: start-up is stated apart.
"""

import io
import statistics
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import click
from dask.system import CPU_COUNT
from PIL import Image

from benchmarks.measure import run


def bare_loop(archive: Path, names: list[str], mode: str, scale: str) -> float:
    """Seconds to open, convert and resize images of an archive, one after the other."""
    began = time.perf_counter()
    with zipfile.ZipFile(archive) as file:
        for name in names:
            with Image.open(io.BytesIO(file.read(name))) as image:
                width, height = (int(Fraction(scale) * side) for side in image.size)
                image.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    return time.perf_counter() - began


def ours(archive: Path, limit: int, mode: str, scale: str, *extra: str) -> float:
    """Seconds of the whole command on the first images."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        run(
            *(Path(sys.executable).parent / "nmf-batch", "prep", archive, "--zarr", Path(scratch) / "b.zarr"),
            *("--mode", mode, "--scale", scale, "--limit", str(limit), *extra),
        )
        return time.perf_counter() - began


@click.command()
@click.argument("archive", type=click.Path(path_type=Path, exists=True))
@click.option("--mode", default="L", show_default=True)
@click.option("--scale", default="0.4", show_default=True)
@click.option("--rounds", "n", type=int, default=5, show_default=True)
def main(archive: Path, mode: str, scale: str, n: int) -> None:
    with zipfile.ZipFile(archive) as file:
        names = sorted(file.namelist())
    few, between = len(names) // 10, len(names) - len(names) // 10
    rows = []
    processes = ProcessPoolExecutor(CPU_COUNT)
    for k in range(n + 1):
        loop_s = bare_loop(archive, names, mode, scale) * between / len(names)
        parts = [names[first::CPU_COUNT] for first in range(CPU_COUNT)]
        began = time.perf_counter()
        list(processes.map(bare_loop, *zip(*((archive, part, mode, scale) for part in parts), strict=True)))
        loops_s = (time.perf_counter() - began) * between / len(names)
        few_s, all_s = (ours(archive, limit, mode, scale) for limit in (few, len(names)))
        if k:
            rate = between / (all_s - few_s)
            rows.append((between / loop_s, rate, rate * loop_s / between, loop_s / loops_s, few_s))
    loop, rate, ratio, ceiling, startup = (statistics.median(column) for column in zip(*rows, strict=True))
    click.echo(f"{archive.name}: {len(names)} images, medians of {n} rounds")
    click.echo(f"bare loop, one thread: {loop:.0f} images/s")
    click.echo(f"{CPU_COUNT} bare loops side by side, a process each: {ceiling:.2f} × the loop")
    click.echo(
        f"nmf-batch prep, marginal: {rate:.0f} images/s, {ratio:.2f} × the loop; {few} images take {startup:.1f} s"
    )


if __name__ == "__main__":
    main()
