"""The products of one block, some of its rows at a time: what became float32 stays in the processor's cache.

A block that lists what is not zero is multiplied by SciPy as it is. Only its residual, which is wanted where a fit is
all but exact, is made by rows.
"""

import functools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.kernels import Matrix, hals
from pipeline.sparse import Sparse, lists_entries

PANEL_ROWS, PANEL_VALUES = 512, 2**20

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
    scaled = H_j * np.float32(scale)
    if lists_entries(A_j):
        return A_j @ np.ascontiguousarray(scaled.T)
    AHt = np.empty((len(A_j), len(H_j)), np.float32)
    for rows in panels(A_j):
        np.matmul(panel(A_j, rows), scaled.T, out=AHt[rows])
    return AHt


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
