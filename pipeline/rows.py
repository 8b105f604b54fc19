"""X as scikit-learn has it, samples in rows, as a store of A = Xᵀ: a chunk of its columns at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from data_prep.matrix_store import EXPENDABLE, LARGEST, Block, Matrix, check_largest, sampled_columns, write_blocks

STORED = (np.uint8, np.float32)
"""What stays as it is; everything else becomes float32."""


def write_rows(home: Folder, X: Any) -> None:
    """Write X (samples, features) as a store of A = Xᵀ, (features, samples).

    Parameters
    ----------
    home
        The store to make.
    X
        A NumPy array, a SciPy matrix that can be cut by rows, or a Dask array, which is computed a chunk of columns
        of A at a time.

    Raises
    ------
    BadInput
        A value is negative, NaN or infinite, or too large for float32 to hold its square.
    """
    n, m = X.shape
    dtype = np.dtype(X.dtype if X.dtype in STORED else np.float32)
    filled = getattr(X, "nnz", None)
    matrix = Matrix(
        kind="matrix", shape=(m, n), dtype=dtype, n_present=m * n, n_filled=m * n if filled is None else filled
    )
    columns = sampled_columns(matrix)
    drawn, largest = dict[int, NDArray[Any]](), 0.0
    order = np.sort(columns)

    def blocks() -> Iterator[Block]:
        nonlocal largest
        first = 0
        for rows in row_blocks(X, store.chunk_images(m)):
            largest = max(largest, _largest(rows, first))
            block = np.ascontiguousarray(rows.T, dtype)
            here = order[np.searchsorted(order, first) : np.searchsorted(order, first + len(rows))]
            drawn.update({int(j): block[:, j - first].copy() for j in here})
            first += len(rows)
            yield Block(block, None)

    def sample() -> Iterator[Block]:
        c = store.chunk_images(m)
        for first in range(0, len(columns), c):
            yield Block(np.stack([drawn.pop(int(j)) for j in columns[first : first + c]], axis=1), None)

    store.begin(home, expendable=EXPENDABLE)
    attributes = write_blocks(home, matrix, blocks(), sample())
    check_largest(largest)
    store.publish(home, attributes)


def row_blocks(X: Any, count: int) -> Iterator[NDArray[Any]]:
    """Rows of X, so many at a time, as dense arrays; each chunk of a Dask array is computed once."""
    if is_dask(X):
        yield from _cut(_computed(X), count)
        return
    listed = X.tocsr() if hasattr(X, "tocsr") else None
    for first in range(0, X.shape[0], count):
        rows = slice(first, first + count)
        yield np.asarray(X[rows] if listed is None else listed[rows].toarray())


def _computed(X: Any) -> Iterator[NDArray[Any]]:
    """Chunks of rows of a Dask array, one after the other."""
    for k in range(X.numblocks[0]):
        yield np.asarray(X.blocks[k].compute())


def _cut(chunks: Iterator[NDArray[Any]], count: int) -> Iterator[NDArray[Any]]:
    """Rows of chunks of any height, so many at a time."""
    rest: list[NDArray[Any]] = []
    for chunk in chunks:
        rows = np.concatenate([*rest, chunk])
        whole = len(rows) - len(rows) % count
        yield from (rows[first : first + count] for first in range(0, whole, count))
        rest = [rows[whole:]]
    if rest and len(rest[0]):
        yield rest[0]


def is_dask(X: Any) -> bool:
    """Whether X is a Dask array."""
    return hasattr(X, "dask") and hasattr(X, "rechunk")


def is_zarr(X: Any) -> bool:
    """Whether X is a Zarr array."""
    return hasattr(X, "store_path")


def _largest(rows: NDArray[Any], first: int) -> float:
    """Largest value of some rows; BadInput where one cannot be factorized."""
    wrong = ~((rows >= 0) & (rows <= LARGEST))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise store.BadInput(
            f"X[{first + i}, {j}] is {rows[i, j]}, but every value must be finite, 0 or more, and at most {LARGEST:g}; "
            f"scale X, or leave such values out"
        )
    return float(rows.max(initial=0))
