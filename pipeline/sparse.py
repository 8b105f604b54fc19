"""Columns of which few entries are listed: those that are not zero, or those that are present. SciPy is here alone."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, hstack

Sparse: TypeAlias = csc_array
"""(m, c), by columns; its values are as stored."""
Shape = tuple[int, int]
WORD = np.dtype(np.uint64)
VALUES_TOGETHER = 2**17


def listed(values: NDArray[Any], rows: NDArray[np.integer], starts: NDArray[np.integer], shape: Shape) -> Sparse:
    """Make columns of which each begins at its start in values and rows; starts is (c + 1,)."""
    return csc_array((values, rows.astype(np.int32, copy=False), starts.astype(np.int32, copy=False)), shape=shape)


def lists_entries(A_j: Any) -> TypeGuard[Sparse]:
    """Whether a block is one of these."""
    return isinstance(A_j, csc_array)


def without_zeros(A_j: NDArray[Any]) -> Sparse:
    """Entries of a block (m, c) that are not zero."""
    m, c = A_j.shape
    flat = np.ascontiguousarray(A_j).ravel()
    places = _nonzero(flat)
    starts = np.searchsorted(places, np.arange(m + 1) * c).astype(np.int32)
    return csr_array((flat[places], (places % c).astype(np.int32), starts), shape=(m, c)).tocsc()


def _nonzero(flat: NDArray[Any]) -> NDArray[np.int64]:
    """Places of what is not zero: most are told eight bytes at a time, which takes a tenth of the time."""
    if flat.nbytes % WORD.itemsize:
        return np.flatnonzero(flat)
    each = WORD.itemsize // flat.itemsize
    words = np.flatnonzero(flat.view(WORD))
    among = np.flatnonzero(flat.reshape(-1, each)[words])
    return words[among // each] * each + among % each


def joined(parts: Sequence[Sparse]) -> Sparse:
    """Blocks beside each other."""
    return hstack(parts, format="csc") if len(parts) > 1 else parts[0]


def product_at(A_j: Sparse, W: NDArray[np.float32], H: NDArray[np.float32]) -> NDArray[np.float32]:
    """W H at the listed entries, in their order; so many at a time that their rows of the factors stay in the cache."""
    Ht, x = np.ascontiguousarray(H.T), np.empty(A_j.nnz, np.float32)
    columns = np.repeat(np.arange(A_j.shape[1]), np.diff(A_j.indptr))
    together = max(1, VALUES_TOGETHER // len(H))
    of_W, of_H = (np.empty((min(together, len(x)), len(H)), np.float32) for _ in range(2))
    for first in range(0, len(x), together):
        some = slice(first, first + together)
        k = len(x[some])
        np.take(W, A_j.indices[some], axis=0, out=of_W[:k], mode="clip")  # other modes copy once more
        np.take(Ht, columns[some], axis=0, out=of_H[:k], mode="clip")
        np.einsum("kd,kd->k", of_W[:k], of_H[:k], out=x[some])
    return x
