"""Ratings of films: what people would give to films they have not rated, and which films each component is for.

    pip install '.[tables]'
    python examples/ratings.py ratings.csv --titles movies.csv --out ratings.zarr --user 3

`ratings.csv` has columns userId, movieId and rating, as MovieLens has them: what no line gives is missing, not zero.
"""

import csv
from pathlib import Path

import click
import numpy as np

from data_prep.store import open_array, read_array
from data_prep.table_files import Names
from data_prep.tables import prepare_table
from pipeline import factorize


@click.command()
@click.argument("ratings", type=click.Path(exists=True))
@click.option("--titles", type=click.Path(exists=True, path_type=Path), help="CSV with columns movieId and title.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Store to make.")
@click.option("-d", "d", default=6, show_default=True)
@click.option("--user", default="3", show_default=True)
@click.option("--least", default=100, show_default=True, help="Ratings that a film must have to be listed.")
def main(ratings: str, titles: Path | None, out: Path, d: int, user: str, least: int) -> None:
    """Fit nine ratings in ten, compare with the tenth, and list films for a user and for each component."""
    path = prepare_table([ratings], out, Names("movieId", "userId", "rating")).path
    factors = factorize(out, d, holdout=0.1, alpha_W=0.15).factors
    W, H = factors.read("W"), factors.read("H")
    A, rated = np.asarray(open_array(path, "A")[:]), np.asarray(open_array(path, "mask")[:]) != 0
    error = factors.iterations[-1].holdout_error
    print(f"ratings that no fit has seen: {error:.3f} off (RMS); all are {A[rated].std():.3f} from their mean")

    films, users = (read_array(path, names).tolist() for names in ("feature", "item"))
    if titles is not None:
        with titles.open(encoding="utf-8", newline="") as lines:
            films = list(map({line["movieId"]: line["title"] for line in csv.DictReader(lines)}.get, films, films))
    known, j = np.flatnonzero(rated.sum(axis=1) >= least), users.index(user)
    predicted = W[known] @ H[:, j]
    unseen = [k for k in np.argsort(-predicted) if not rated[known[k], j]]
    print(
        f"user {user} would give {', '.join(f'{films[known[k]]} {min(predicted[k], A.max()):.1f}' for k in unseen[:5])}"
    )

    shares = W[known] * H.mean(axis=1)  # of what people give to a film on average, that of each component
    shares /= shares.sum(axis=1, keepdims=True)
    for component, share in enumerate(shares.T):
        print(f"component {component}: {', '.join(films[known[k]] for k in np.argsort(-share)[:5])}")


if __name__ == "__main__":
    main()
