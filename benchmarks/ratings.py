"""How well ratings that are held out are predicted, beside the mean, biases and scikit-surprise's NMF.

    pip install '.[tables,bench]'
    python -m benchmarks.ratings ratings.csv -d 50 --seeds 5

For each seed a tenth of the ratings is held out, drawn by the hash of their place that `run --holdout` draws by; every
method learns from the others alone and is asked for just these. RMSE is the root of the mean squared error over them;
for ours it is what the run records, and the benchmark stops where W and H read back say another. "both seen" is over
those whose row and column have a rating to learn from; "clipped" is over all, with predictions cut to the range of the
ratings learned from. scikit-surprise's are always cut, as is its default; where it has not seen a row or a column, it
says the mean. The biases are those of a row and of a column, one fitted after the other, ten times, as the mean of
what the other leaves, with so many zeros added. ± is the standard deviation over the seeds. Seconds are those of
fitting, their median: ours are those of the run's record, which reads the store; others begin with the ratings in
memory.
"""

import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import run
from data_prep import store
from data_prep.folders import folder
from pipeline import factorize
from pipeline.which import is_held_out

HOLDOUT = 0.1
ROW_DAMPING, COLUMN_DAMPING, ROUNDS = 10, 15, 10
Values = NDArray[np.float64]


class Entries(NamedTuple):
    """Some entries of A: their places and values, each (entries,)."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    values: Values

    def only(self, these: NDArray[np.bool_]) -> "Entries":
        """Some of them."""
        return Entries(self.i[these], self.j[these], self.values[these])


class Split(NamedTuple):
    """What every method is given."""

    path: Path
    shape: tuple[int, int]
    seed: int
    known: Entries
    asked: Entries


class Fitted(NamedTuple):
    """What a method says of the entries that are asked for, and how long it took to learn."""

    said: Values
    seconds: float


class Score(NamedTuple):
    """RMSE of one method and seed, and its seconds."""

    all: float
    clipped: float
    both_seen: float
    seconds: float


def split(path: Path, seed: int) -> Split:
    """Read the entries that are present, a chunk at a time, and part them."""
    matrix = store.open_matrix(path)
    A, mask = (store.open_array(path, name) for name in ("A", "mask"))
    parts: list[tuple[Entries, NDArray[np.bool_]]] = []
    for span in matrix.columns(range(matrix.n_chunks)):
        present = np.asarray(mask[:, span], np.bool_)
        held = is_held_out(np.arange(matrix.shape[0]), np.arange(span.start, span.stop), HOLDOUT, seed)
        i, j = np.nonzero(present)
        values = np.asarray(A[:, span])[present].astype(np.float64) * matrix.scale
        parts.append((Entries(i, j + span.start, values), held[present]))
    every = Entries(*map(np.concatenate, zip(*(entries for entries, _ in parts), strict=True)))
    held = np.concatenate([drawn for _, drawn in parts])
    return Split(path, matrix.shape, seed, every.only(~held), every.only(held))


def timed(fit: Callable[[Split], Values]) -> Callable[[Split], Fitted]:
    """Clock a method."""

    def clocked(at: Split) -> Fitted:
        began = time.perf_counter()
        said = fit(at)
        return Fitted(said, time.perf_counter() - began)

    return clocked


def mean(at: Split) -> Values:
    return np.full(len(at.asked.i), at.known.values.mean())


def biases(at: Split) -> Values:
    """μ + b_row + b_column."""
    known, mu = at.known, at.known.values.mean()
    of_row, of_column = np.zeros(at.shape[0]), np.zeros(at.shape[1])
    for _ in range(ROUNDS):
        of_row = damped(known.i, known.values - mu - of_column[known.j], at.shape[0], ROW_DAMPING)
        of_column = damped(known.j, known.values - mu - of_row[known.i], at.shape[1], COLUMN_DAMPING)
    return mu + of_row[at.asked.i] + of_column[at.asked.j]


def damped(places: NDArray[np.int64], left: Values, length: int, damping: float) -> Values:
    """Mean of what is left at each place, with so many zeros added."""
    return np.bincount(places, left, length) / (np.bincount(places, minlength=length) + damping)


def ours(d: int, alpha: float) -> Callable[[Split], Fitted]:
    """`factorize` with this penalty."""

    def fit(at: Split) -> Fitted:
        made = factorize(at.path, d, holdout=HOLDOUT, alpha_W=alpha, seed=at.seed, name="ratings", fresh=True)
        W, H = made.factors.read("W"), made.factors.read("H")
        said = np.einsum("kd,kd->k", W[at.asked.i], H[:, at.asked.j].T, dtype=np.float64)
        recorded, found = made.factors.attributes["holdout_error"], rmse(at.asked.values, said)
        if not np.isclose(recorded, found, rtol=1e-4):
            raise RuntimeError(f"the run recorded an RMSE of {recorded}, but W and H read back give {found}")
        return Fitted(said, made.factors.iterations[-1].seconds)

    return fit


def surprise_nmf(n_factors: int) -> Callable[[Split], Fitted]:
    """scikit-surprise's NMF with its defaults, which leave biases out."""

    def fit(at: Split) -> Fitted:
        surprise, known = importlib.import_module("surprise"), at.known
        scale = (known.values.min(), known.values.max())
        raw = [(j, i, value, None) for i, j, value in zip(*(one.tolist() for one in known), strict=True)]
        ratings = surprise.Dataset(surprise.Reader(rating_scale=scale)).construct_trainset(raw)
        model = surprise.NMF(n_factors=n_factors, random_state=at.seed)
        began = time.perf_counter()
        model.fit(ratings)
        seconds = time.perf_counter() - began
        asked = zip(at.asked.j.tolist(), at.asked.i.tolist(), strict=True)
        return Fitted(np.array([model.predict(j, i).est for j, i in asked]), seconds)

    return fit


def rmse(values: Values, said: Values) -> float:
    return float(np.sqrt(np.mean(np.square(values - said))))


def score(at: Split, fitted: Fitted) -> Score:
    """RMSE over all that is asked for, clipped, and where both sides have been seen."""
    known, asked, said = at.known, at.asked, fitted.said
    seen = np.isin(asked.i, known.i) & np.isin(asked.j, known.j)
    clipped = np.clip(said, known.values.min(), known.values.max())
    over = (rmse(asked.values, said), rmse(asked.values, clipped), rmse(asked.values[seen], said[seen]))
    return Score(*over, fitted.seconds)


def methods(d: int, alpha: float) -> Iterator[tuple[str, Callable[[Split], Fitted]]]:
    """All of them by name, in the order of the table."""
    yield f"nmf-batch, d = {d}, alpha_W = {alpha:g}", ours(d, alpha)
    yield f"nmf-batch, d = {d}, no penalty", ours(d, 0.0)
    yield "mean", timed(mean)
    yield f"biases, damped by {ROW_DAMPING} and {COLUMN_DAMPING}", timed(biases)
    for n_factors in sorted({15, d}):  # 15 is its default
        yield f"surprise.NMF(n_factors={n_factors})", surprise_nmf(n_factors)


def table(scores: Mapping[str, list[Score]], absent: str) -> list[str]:
    """A row a method; where it could not be run, why."""
    lines = ["| method | RMSE | min – max | clipped | both seen | seconds |", "|---|---|---|---|---|---|"]
    for name, of_seeds in scores.items():
        if not of_seeds:
            lines.append(f"| {name} | {absent} | – | – | – | – |")
            continue
        every, clipped, seen, seconds = zip(*of_seeds, strict=True)
        cells = (spread(every), f"{min(every):.4f} – {max(every):.4f}", spread(clipped), spread(seen))
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.median(seconds):.2f} |")
    return lines


def spread(errors: tuple[float, ...]) -> str:
    """Mean ± standard deviation over the seeds."""
    return f"{statistics.mean(errors):.4f} ± {statistics.stdev(errors) if len(errors) > 1 else 0:.4f}"


def absence(module: str) -> str:
    """Why a module cannot be imported; empty where it can."""
    try:
        importlib.import_module(module)
    except ImportError as error:  # not there, or compiled for another NumPy
        return f"cannot be imported by Python {sys.version.split()[0]} with NumPy {np.__version__}: {error}"
    return ""


@click.command()
@click.argument("csv", type=click.Path(path_type=Path, exists=True))
@click.option("--rows", default="movieId", show_default=True)
@click.option("--columns", default="userId", show_default=True)
@click.option("--values", default="rating", show_default=True)
@click.option("-d", "d", type=int, default=50, show_default=True)
@click.option("--alpha", type=float, default=0.15, show_default=True, help="Our alpha_W.")
@click.option("--seeds", type=int, default=5, show_default=True)
def main(csv: Path, rows: str, columns: str, values: str, d: int, alpha: float, seeds: int) -> None:
    absent = absence("surprise")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "ratings.zarr"
        named = ("--rows", rows, "--columns", columns, "--values", values)
        run(Path(sys.executable).parent / "nmf-batch", "prep-table", csv, *named, "--zarr", path)
        matrix, scores = store.open_matrix(folder(path)), dict[str, list[Score]]()
        for at in (split(path, seed) for seed in range(seeds)):
            for name, fit in methods(d, alpha):
                kept = scores.setdefault(name, [])
                if not (absent and name.startswith("surprise")):
                    kept.append(score(at, fit(at)))
                    click.echo(f"seed {at.seed}, {name}: {kept[-1]}", err=True)
    m, n = matrix.shape
    click.echo(f"{csv.name}: {matrix.n_present:,} entries of {m:,} × {n:,}, {seeds} seeds\n")
    click.echo("\n".join(table(scores, absent)))


if __name__ == "__main__":
    main()
