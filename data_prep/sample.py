"""A uniform random sample of the columns of A, stored with it.

It is the k columns with the smallest keyed hash of their number, in order of that hash: the same for any order of
work, any first part of it is a smaller uniform sample, and appended columns only displace some of it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from data_prep.store import StoredMatrix

MAX_COLUMNS = 16_384
MAX_NBYTES = 256 * 2**20
KEY = np.uint64(0x9E3779B97F4A7C15)
T = TypeVar("T")


def write_sample(path: Folder, ok: NDArray[np.bool_], at_hand: Mapping[int, NDArray[Any]]) -> None:
    """Write the sampled columns.

    Parameters
    ----------
    path
        The store, with A complete.
    ok
        Which columns hold an image, (n,); the others are never drawn.
    at_hand
        Columns (m,) that need not be read from A again, by number.
    """
    A = store.open_array(path, "A")
    m, c = A.chunks
    columns = sample_columns(ok, sample_size(m, A.dtype.itemsize))
    missing = np.array([j for j in columns.tolist() if j not in at_hand], np.int64)
    found = {**at_hand, **read_columns(path, missing)}
    array = store.create_array(
        path, "sample", shape=(m, len(columns)), chunks=(m, c), dtype=A.dtype, dimension_names=("pixel", "draw")
    )
    for first in range(0, len(columns), c):
        together = np.stack([found[int(j)] for j in columns[first : first + c]])
        array[:, first : first + c] = np.ascontiguousarray(together.T)
    store.write_array(path, "sample_column", columns, ("draw",))


def read_sample(matrix: StoredMatrix, k: int) -> NDArray[Any]:
    """First columns of the sample of a matrix, (m, ≤ k), as they are stored.

    While an append replaces the sample, and for who began before it, the same columns are read from A.
    """
    return _read(matrix, k, ("sample", "A"), _together)


def read_sample_as(matrix: StoredMatrix, k: int, convert: Callable[[NDArray[Any]], T]) -> list[T]:
    """Return the same, some columns at a time, each converted before the next are read."""
    return _read(matrix, k, ("sample", "A"), lambda blocks, shape, dtype: [convert(block) for block in blocks])


def read_sample_mask(matrix: StoredMatrix, k: int) -> NDArray[np.bool_]:
    """Which entries of the first columns of the sample are known, (m, ≤ k); for a matrix that has a mask."""
    return _read(matrix, k, ("sample_mask", "mask"), _together)


def read_sample_columns(matrix: StoredMatrix, k: int) -> NDArray[np.int64]:
    """Numbers of the first columns of the sample, (≤ k,): those that `read_sample` reads, in its order."""
    if _whole(matrix):
        columns = store.read_array(matrix.path, "sample_column")
        if _whole(matrix):  # still: it was not replaced while it was read
            return columns[:k]
    return _columns_of_sample(matrix)[:k]


Gather = Callable[[Iterator[NDArray[Any]], tuple[int, int], np.dtype[Any]], T]
"""(blocks of columns, the shape of all, their type) → what becomes of them."""


def _read(matrix: StoredMatrix, k: int, names: tuple[str, str], gather: Gather[T]) -> T:
    sample, of = names
    if _whole(matrix):
        try:
            array = store.open_array(matrix.path, sample)
            shape = (array.shape[0], min(k, array.shape[1]))
            found = gather(_chunks(array, shape[1]), shape, array.dtype)
        except store.BadInput:
            if _whole(matrix):
                raise
        else:
            if _whole(matrix):  # still: it was not replaced while it was read
                return found
    m, columns = matrix.shape[0], _columns_of_sample(matrix)[:k]
    by_number = read_columns(matrix.path, columns, of)
    together = np.stack([by_number[int(j)] for j in columns], axis=1)
    return gather(iter([together]), (m, len(columns)), together.dtype)


def _columns_of_sample(matrix: StoredMatrix) -> NDArray[np.int64]:
    m, n = matrix.shape
    return sample_columns(store.read_array(matrix.path, "ok", n), sample_size(m, matrix.dtype.itemsize))


def _chunks(array: Any, k: int) -> Iterator[NDArray[Any]]:
    """First k columns of a stored array, a chunk at a time."""
    for j, first in enumerate(range(0, k, array.chunks[1])):
        yield store.read_chunk(array, 0, j)[:, : k - first]


def _together(blocks: Iterator[NDArray[Any]], shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    columns, first = np.empty(shape, dtype), 0
    for block in blocks:
        columns[:, first : first + block.shape[1]] = block
        first += block.shape[1]
    return columns


def _whole(matrix: StoredMatrix) -> bool:
    """Whether the stored sample is that of the matrix."""
    attributes = store.group_attributes(matrix.path)
    return attributes.get("fingerprint") == matrix.fingerprint and not attributes.get("sampling")


def read_columns(path: Folder, columns: NDArray[np.int64], name: str = "A") -> dict[int, NDArray[Any]]:
    """Columns (m,) of A, or its mask, by number; each chunk that holds one of them is read once."""
    array = store.open_array(path, name)
    c = array.chunks[1]
    found: dict[int, NDArray[Any]] = {}
    for k in np.unique(columns // c):
        chunk = store.read_chunk(array, 0, int(k))
        found |= {int(j): chunk[:, j - k * c].copy() for j in columns[columns // c == k]}
    return found


def sample_size(m: int, itemsize: int) -> int:
    """Columns of a full sample: 16,384, or what fits 256 MiB."""
    return max(1, min(MAX_COLUMNS, MAX_NBYTES // (m * itemsize)))


def sample_columns(ok: NDArray[np.bool_], k: int) -> NDArray[np.int64]:
    """Numbers (≤ k,) of the ok columns with the smallest hash, by ascending hash."""
    candidates = np.flatnonzero(ok)
    order = np.argsort(column_hash(candidates), kind="stable")
    return candidates[order[:k]].astype(np.int64)


def column_hash(columns: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keyed hash of column numbers: the finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), a bijection."""
    z = (columns.astype(np.uint64) + np.uint64(1)) * KEY
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
