"""How well entries of images that are held out at random are filled in, for several d, beside the mean image.

    python -m benchmarks.completion cbcl.zarr celeba.zarr -d 10,25,49,99

Half of the entries are kept out of the fit (--holdout), drawn by the hash of their place that `run --holdout` draws by.
PSNR is −20 log10 of the root of the mean squared error over all of these, with values of 0..1. The mean image is the
mean of each row over the entries that are not held out; its PSNR is over the same entries. Ours works on a copy of the
store; passes and seconds are those of its record, and the error of the entries that it sees is ‖A − W H‖ / ‖A‖.
"""

import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from data_prep import store
from pipeline import factorize
from pipeline.which import is_held_out

SEED = 0
HEADINGS = ("images", "d", "PSNR dB", "mean image dB", "gain dB", "error seen", "passes", "seconds")


def psnr(rmse: float) -> float:
    return -20 * math.log10(rmse)


def chunks(path: Path, holdout: float) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Columns that hold an image, a chunk at a time, in 0..1, and which of their entries are held out."""
    matrix = store.open_matrix(path)
    A, ok = store.open_array(path, "A"), store.read_array(path, "ok")
    for span in matrix.columns(range(matrix.n_chunks)):
        readable = np.flatnonzero(ok[span])
        values = np.asarray(A[:, span])[:, readable] * matrix.scale
        yield values, is_held_out(np.arange(matrix.shape[0]), readable + span.start, holdout, SEED)


def of_mean_image(path: Path, holdout: float) -> float:
    """RMSE of the means of rows at the entries that are held out."""
    m = store.open_matrix(path).shape[0]
    sums, counts = np.zeros((m, 1)), np.zeros((m, 1))
    for values, held in chunks(path, holdout):
        sums += values.sum(axis=1, keepdims=True, where=~held)
        counts += (~held).sum(axis=1, keepdims=True)
    mean, squares, count = sums / np.maximum(counts, 1), 0.0, 0
    for values, held in chunks(path, holdout):
        squares += float(np.square(values - mean).sum(where=held))
        count += int(held.sum())
    return math.sqrt(squares / count)


def row(path: Path, d: int, holdout: float, mean_db: float) -> str:
    """One factorization."""
    made = factorize(path, d, holdout=holdout, seed=SEED, name=f"completion-d{d}", fresh=True).factors
    last, db = made.iterations[-1], psnr(made.attributes["holdout_error"])
    cells = (f"{db:.2f}", f"{mean_db:.2f}", f"{db - mean_db:+.2f}", f"{last.relative_error:.4f}")
    return f"| {path.stem} | {d} | {' | '.join(cells)} | {last.passes:.3g} | {last.seconds:.1f} |"


@click.command()
@click.argument("paths", metavar="STORE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("-d", "ranks", default="10,25,49,99", show_default=True)
@click.option("--holdout", type=float, default=0.5, show_default=True)
def main(paths: tuple[Path, ...], ranks: str, holdout: float) -> None:
    click.echo(f"{holdout:.0%} of the entries held out\n")
    click.echo(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for path in paths:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / path.name
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("nmf"))
            mean_db = psnr(of_mean_image(copy, holdout))
            for d in (int(rank) for rank in ranks.split(",")):
                click.echo(row(copy, d, holdout, mean_db))


if __name__ == "__main__":
    main()
