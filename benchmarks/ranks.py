"""What a sweep over ranks costs, against one cold run at the largest d; and whether it finds a planted rank.

    python -m benchmarks.ranks celeba.zarr -d 10,25,49,99,200,500
    python -m benchmarks.ranks --planted

The sweep and the run each work on a copy of the store, in a process of their own, one after the other. Processor time
is what both took of all cores, which other work on the machine changes less than it changes the clock's. A planted
matrix is W H of rank 12 (300 × 1,500), half of the entries of W and H zero, with white noise of a share of the standard
deviation of W H, and what is below zero cut off.
"""

import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from data_prep.arrays import write_matrix
from pipeline import factorize
from pipeline.ranks import Rank, sweep

NOISES, SEEDS, PLANTED = (0.1, 0.3, 0.6), range(3), 12
LISTS = ("4,6,8,10,11,12,13,14,16,20,24", "5,10,20,40")


def swept(path: Path, ranks: list[int]) -> tuple[list[Rank], str]:
    made = sweep(path, ranks)
    return made.ranks, made.advice.why if made.advice else ""


def cold(path: Path, ranks: list[int]) -> float:
    return float(factorize(path, ranks[-1]).factors.attributes["relative_error"])


def measured(what: Any, path: Path, ranks: list[int]) -> tuple[float, float, Any]:
    """Seconds by the clock, of processors, and the result."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        shutil.copytree(path, copy, ignore=shutil.ignore_patterns("nmf"))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(timed, (what, copy, ranks))


def timed(what: Any, path: Path, ranks: list[int]) -> tuple[float, float, Any]:
    clock, processors = time.perf_counter(), time.process_time()
    result = what(path, ranks)
    return time.perf_counter() - clock, time.process_time() - processors, result


def planted(noise: float, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    m, n = 300, 1500
    W, H = (rng.random(shape) * (rng.random(shape) < 0.5) for shape in ((m, PLANTED), (PLANTED, n)))
    true = W @ H
    return np.maximum(true + noise * true.std() * rng.standard_normal((m, n)), 0).astype(np.float32)


def find_planted() -> None:
    click.echo("| noise | seed | asked for | recommended |\n|---|---|---|---|")
    for noise in NOISES:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / "planted.zarr"
                write_matrix(path, planted(noise, seed))
                for ranks in LISTS:
                    advice = sweep(path, [int(d) for d in ranks.split(",")], seed=seed).advice
                    click.echo(f"| {noise} | {seed} | {ranks} | {advice and advice.d} |")


def compare_cost(path: Path, ranks: list[int]) -> None:
    clock, processors, (made, why) = measured(swept, path, ranks)
    cold_clock, cold_processors, error = measured(cold, path, ranks)
    click.echo("| d | error | SVD bound | k-means | held out | stability | seconds |\n|---|---|---|---|---|---|---|")
    for one in made:
        cells = (one.error, one.svd_bound, one.k_means, one.holdout_error, one.cosine)
        shown = " | ".join("–" if cell is None else f"{cell:.4f}" for cell in cells)
        click.echo(f"| {one.d} | {shown} | {one.seconds:.1f} |")
    click.echo(f"\n{why}\nsweep: {clock:.1f} s, of processors {processors:.1f} s")
    click.echo(
        f"cold run, d = {ranks[-1]}: {cold_clock:.1f} s, of processors {cold_processors:.1f} s, error {error:.4f}"
    )
    click.echo(f"ratio: {clock / cold_clock:.2f}, of processors {processors / cold_processors:.2f}")


@click.command()
@click.argument("path", metavar="STORE", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("-d", "ranks", default="10,25,49,99,200,500", show_default=True)
@click.option("--planted", "plants", is_flag=True, help="Find planted ranks.")
def main(path: Path | None, ranks: str, plants: bool) -> None:
    if path is not None:
        compare_cost(path, sorted(int(d) for d in ranks.split(",")))
    if plants:
        find_planted()


if __name__ == "__main__":
    main()
