"""Six people rate six films of two kinds: two components find the kinds, and fill in what somebody has not rated."""

import tempfile
from pathlib import Path

import numpy as np

from data_prep.arrays import write_matrix
from pipeline import factorize

FILMS = ["Avengers: Infinity War", "Avengers: Endgame", "Spiderman: Homecoming"]
FILMS += ["LotR: Fellowship of the Ring", "LotR: Two Towers", "LotR: Return of the King"]
RATINGS = np.array(
    [
        [5, 1, 3, 1, 3, 2],
        [4, 1, 5, 1, 4, 2],
        [3, 1, 5, 3, 3, 2],
        [2, 4, 1, 4, 1, 4],
        [1, 4, 2, 5, 2, 4],
        [2, 4, 2, 4, 2, 4],
    ],
    np.float32,
)
UNSEEN = (4, 5)
"""Of the last person it is not known what they think of the Two Towers."""


def main() -> None:
    """Factorize with one rating missing, and print the kinds and the rating."""
    present = np.ones(RATINGS.shape, np.bool_)
    present[UNSEEN] = False
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "ratings.zarr"
        people = [f"user {k}" for k in range(1, 7)]
        write_matrix(store, RATINGS, present=present, features=FILMS, items=people)
        factors = factorize(store, 2, tol=1e-7).factors
        W, H = factors.W.compute(), factors.H.compute()
    for k in range(2):
        print(f"kind {k + 1}: {', '.join(film for film, w in zip(FILMS, W, strict=True) if w.argmax() == k)}")
    for person, h in zip(people, (H * W.sum(axis=0)[:, np.newaxis]).T, strict=True):
        print(f"{person} prefers kind {h.argmax() + 1}")
    print(f"{people[UNSEEN[1]]} would give {FILMS[UNSEEN[0]]} {W[UNSEEN[0]] @ H[:, UNSEEN[1]]:.1f} (and gave 4)")


if __name__ == "__main__":
    main()
