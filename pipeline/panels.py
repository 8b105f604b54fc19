"""The products of one block, some of its rows at a time: what became float32 stays in the processor's cache.

A block that lists what is not zero is multiplied by SciPy as it is. Only its residual, which is wanted where a fit is
all but exact, is made by rows.
"""

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.kernels import Matrix, hals
from pipeline.sparse import Sparse, joined, lists_entries

PANEL_ROWS, PANEL_VALUES = 512, 2**20
MANY = 1024
"""Entries of a row, from which on a float32 sum of one after the other loses more than a product of BLAS would."""
LISTED_TOGETHER, MOST_TOGETHER = 2**21, 2**14
"""Entries and columns of blocks that are multiplied together."""

# A sweep is many operations on short rows, each of which lets go of the interpreter. Two threads that sweep at once
# spend their time handing it over, and both take longer than one after the other (50 against 24 ms, d = 99, two blocks
# of 1,024 images). Products of other threads run meanwhile.
_sweeping = threading.Lock()

Columns = NDArray[Any] | Sparse
"""A block of A (m, c), as stored."""


def project(A_j: Columns, W: Matrix, scale: float) -> Matrix:
    """WᵀA_j (d, c): A_j becomes float32 some rows at a time, which stay in the processor's cache meanwhile."""
    if lists_entries(A_j):
        AtW = A_j.T @ W
    else:
        AtW = np.zeros((A_j.shape[1], W.shape[1]), np.float32)
        for rows in panels(A_j):
            AtW += panel(A_j, rows).T @ W[rows]  # this way round BLAS is a tenth faster than WᵀA
    return np.ascontiguousarray(AtW.T) * np.float32(scale)


def back_project(A_j: Columns, H_j: Matrix, scale: float) -> Matrix:
    """A_j H_jᵀ (m, d), by rows of A_j likewise."""
    if lists_entries(A_j):
        return _listed_back(A_j, [H_j], scale)
    AHt, scaled = np.empty((len(A_j), len(H_j)), np.float32), H_j * np.float32(scale)
    for rows in panels(A_j):
        np.matmul(panel(A_j, rows), scaled.T, out=AHt[rows])
    return AHt


def _listed_back(A: Sparse, H: Sequence[Matrix], scale: float) -> Matrix:
    """A Hᵀ (m, d) of columns whose H is in several blocks.

    SciPy adds up what is in a row one after the other, so rows of many entries are multiplied in float64.
    """
    Ht = np.ascontiguousarray(np.concatenate(H, axis=1).T)
    Ht *= np.float32(scale)
    AHt: Matrix = A @ Ht
    full = np.flatnonzero(np.bincount(A.indices, minlength=A.shape[0]) > MANY)
    if len(full):
        AHt[full] = A[full] @ Ht.astype(np.float64)
    return AHt


class BackProjection:
    """A Hᵀ summed over blocks, in float64 where there are several.

    Of blocks that list what is not zero many are multiplied together: that is less than A Hᵀ of each would be.
    """

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._total: NDArray[Any] | None = None
        self._lists: list[Sparse] = []
        self._H: list[Matrix] = []

    def add(self, A_j: Columns, H_j: Matrix) -> None:
        """Take in a block."""
        if not lists_entries(A_j):
            self._add(back_project(A_j, H_j, self._scale))
            return
        self._lists.append(A_j)
        self._H.append(H_j)
        listed = sum(one.nnz for one in self._lists)
        if listed >= LISTED_TOGETHER or sum(one.shape[1] for one in self._lists) >= MOST_TOGETHER:
            self._multiply()

    def total(self) -> Matrix:
        """Return the sum, (m, d)."""
        if self._lists:
            self._multiply()
        if self._total is None:
            raise ValueError("a partition has no blocks")
        return self._total.astype(np.float32, copy=False)

    def _multiply(self) -> None:
        product = _listed_back(joined(self._lists), self._H, self._scale)
        self._lists, self._H = [], []
        self._add(product)

    def _add(self, product: Matrix) -> None:
        if self._total is None:
            self._total = product
        else:
            self._total = self._total.astype(np.float64, copy=False)
            self._total += product


def sweep(G: Matrix, C: Matrix, X: Matrix, sweeps: int) -> Matrix:
    """Sweeps of HALS over a block of H or Wᵀ, while no other thread sweeps."""
    with _sweeping:
        return hals(G, C, X, sweeps)


def squared_residual(A_j: Columns, W: Matrix, H_j: Matrix, scale: float) -> float:
    """‖A_j − W H_j‖²: differences in float32, their squares summed in float64."""
    return sum(float(np.square(missed, dtype=np.float64).sum()) for missed in residuals(A_j, W, H_j, scale))


def residuals(A_j: Columns, W: Matrix, H_j: Matrix, scale: float) -> Iterator[Matrix]:
    """A_j − W H_j, by rows of A_j likewise."""
    by_rows = A_j.tocsr() if lists_entries(A_j) else None
    for rows in panels(A_j):
        A_rows = panel(A_j, rows) if by_rows is None else by_rows[rows].toarray()
        yield A_rows * np.float32(scale) - W[rows] @ H_j


def squared_norm(A_j: Columns, scale: float) -> float:
    """‖A_j‖², in float64."""
    values = A_j.data if lists_entries(A_j) else A_j
    rows = (row.astype(np.float64) for row in np.atleast_2d(values))
    return scale**2 * sum(float(np.vdot(row, row)) for row in rows)


def panels(A_j: Columns) -> list[slice]:
    """Rows of a block that become float32 together: a function of its shape alone."""
    height = max(PANEL_ROWS, PANEL_VALUES // A_j.shape[1])
    return [slice(first, first + height) for first in range(0, A_j.shape[0], height)]


def panel(A_j: NDArray[Any], rows: slice) -> Matrix:
    """Rows of a block as float32, where this thread had those before: new pages of memory cost as much as BLAS."""
    values = A_j[rows]
    if values.dtype == np.float32:
        return aligned(values)
    if getattr(_thread, "panel", np.empty(0)).size < values.size:
        _thread.panel = np.empty(values.size, np.float32)
    converted: Matrix = _thread.panel[: values.size].reshape(values.shape)
    np.copyto(converted, values)
    return converted


_thread = threading.local()


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Copy an array that the network left at an odd address: NumPy multiplies those without BLAS, to other bits."""
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])


@functools.cache
def one_blas_thread() -> None:
    """Give BLAS one thread in this process, once: tasks are the parallelism, and bits depend on the thread count."""
    threadpool_limits(limits=1, user_api="blas")
