"""Blocks of columns an entry at a time: which of them are present, and what an objective sums over those.

An objective that is not ‖A − W H‖² over all entries needs W H at each entry: S is made of A and W H there, and what
moves the factors are WᵀS and S Hᵀ. A block is dense, and its float32 values exist a panel of rows at a time; or sparse,
where few entries are present.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from pipeline.kernels import Matrix
from pipeline.panels import panel, panels

MISSING, PRESENT, HELD_OUT = 0, 1, 2
"""What an entry is."""
SPARSE = 0.05
"""Share of present entries below which blocks are sparse: `benchmarks.densities` measures where that becomes faster."""
ENTRIES_TOGETHER = 2**12

Weigh = Callable[[Matrix, Matrix], Matrix]
"""(entries of A, those of W H) → S. It may overwrite neither."""


class Piece(Protocol):
    """Some rows of a block: their entries, and W H at these."""

    rows: slice
    a: Matrix
    x: Matrix

    def spread(self, S: Matrix) -> Any:
        """S as a matrix (rows, c) that can be multiplied, zero at entries that do not count; S may be overwritten."""
        ...

    def total(self, S: Matrix) -> float:
        """Sum over the entries that count; S may be overwritten."""
        ...

    def held_out(self) -> NDArray[np.float64]:
        """Sum of (a − x)² over entries that are held out, and their number, (2,)."""
        ...


class Block(Protocol):
    """Columns of A."""

    @property
    def shape(self) -> tuple[int, int]:
        """(m, c)."""
        ...

    @property
    def row_counts(self) -> NDArray[np.float64]:
        """Entries of each row that count, (m, 1)."""
        ...

    @property
    def column_counts(self) -> NDArray[np.float64]:
        """Entries of each column that count, (1, c)."""
        ...

    def pieces(self, W: Matrix, H: Matrix, scale: float) -> Iterator[Piece]:
        """All rows, some at a time; a piece is worth nothing once the next is asked for."""
        ...


@dataclass
class DensePiece:
    """A panel of rows."""

    rows: slice
    a: Matrix
    x: Matrix
    what: NDArray[np.uint8] | None

    def spread(self, S: Matrix) -> Matrix:
        """S, with zeros where nothing counts."""
        return S if self.what is None else np.multiply(S, self.what == PRESENT, out=S)

    def total(self, S: Matrix) -> float:
        """Sum in float64."""
        return float(self.spread(S).sum(dtype=np.float64))

    def held_out(self) -> NDArray[np.float64]:
        """See `Piece`."""
        if self.what is None:
            return np.zeros(2)
        held = self.what == HELD_OUT
        return _squares(self.a[held], self.x[held])


@dataclass(frozen=True)
class DenseBlock:
    """All entries (m, c)."""

    A: NDArray[Any]
    """As stored."""
    what: NDArray[np.uint8] | None = None
    """What each entry is; None where all are present."""

    @property
    def shape(self) -> tuple[int, int]:
        """(m, c)."""
        m, c = self.A.shape
        return m, c

    @cached_property
    def row_counts(self) -> NDArray[np.float64]:
        """See `Block`."""
        m, c = self.shape
        return np.full((m, 1), c, np.float64) if self.what is None else self._counts(axis=1)

    @cached_property
    def column_counts(self) -> NDArray[np.float64]:
        """See `Block`."""
        m, c = self.shape
        return np.full((1, c), m, np.float64) if self.what is None else self._counts(axis=0)

    def _counts(self, axis: int) -> NDArray[np.float64]:
        present = np.asarray(self.what) == PRESENT
        return present.sum(axis=axis, keepdims=True, dtype=np.float64)

    def pieces(self, W: Matrix, H: Matrix, scale: float) -> Iterator[DensePiece]:
        """Panels of rows."""
        for rows in panels(self.A):
            a = panel(self.A, rows)
            if scale != 1:
                a = np.multiply(a, np.float32(scale), out=None if self.A.dtype == np.float32 else a)
            yield DensePiece(rows, a, W[rows] @ H, None if self.what is None else self.what[rows])


@dataclass
class SparsePiece:
    """All rows."""

    rows: slice
    a: Matrix
    x: Matrix
    of: "SparseBlock"
    product: tuple[Matrix, Matrix, float]
    """W, H and the scale."""

    def spread(self, S: Matrix) -> csc_array:
        """S at the entries of the block."""
        return csc_array((S, self.of.rows, self.of.starts), shape=self.of.shape)

    def total(self, S: Matrix) -> float:
        """Sum in float64."""
        return float(S.sum(dtype=np.float64))

    def held_out(self) -> NDArray[np.float64]:
        """See `Piece`."""
        return np.zeros(2) if self.of.held is None else _squares(*self.of.held.entries(*self.product))


@dataclass(frozen=True)
class SparseBlock:
    """The entries that count, by columns, and those that are held out likewise."""

    shape: tuple[int, int]
    values: NDArray[Any]
    """(k,), as stored."""
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    """Where each column begins, (c + 1,)."""
    held: "SparseBlock | None" = None

    @cached_property
    def row_counts(self) -> NDArray[np.float64]:
        """See `Block`."""
        return np.bincount(self.rows, minlength=self.shape[0])[:, np.newaxis].astype(np.float64)

    @cached_property
    def column_counts(self) -> NDArray[np.float64]:
        """See `Block`."""
        return np.diff(self.starts)[np.newaxis].astype(np.float64)

    def pieces(self, W: Matrix, H: Matrix, scale: float) -> Iterator[SparsePiece]:
        """One piece."""
        yield SparsePiece(slice(None), *self.entries(W, H, scale), self, (W, H, scale))

    def entries(self, W: Matrix, H: Matrix, scale: float) -> tuple[Matrix, Matrix]:
        """Values (k,), and W H at the same entries; some at a time, so that rows of the factors stay in the cache."""
        columns, Ht = np.repeat(np.arange(self.shape[1]), np.diff(self.starts)), np.ascontiguousarray(H.T)
        x = np.empty(len(self.rows), np.float32)
        of_W, of_H = (np.empty((min(ENTRIES_TOGETHER, len(x)), W.shape[1]), np.float32) for _ in range(2))
        for first in range(0, len(x), ENTRIES_TOGETHER):
            some = slice(first, first + ENTRIES_TOGETHER)
            k = len(x[some])
            np.take(W, self.rows[some], axis=0, out=of_W[:k], mode="clip")  # other modes copy once more
            np.take(Ht, columns[some], axis=0, out=of_H[:k], mode="clip")
            np.einsum("kd,kd->k", of_W[:k], of_H[:k], out=x[some])
        return self.values.astype(np.float32) * np.float32(scale), x


def sparse_block(A: NDArray[Any], what: NDArray[np.uint8]) -> SparseBlock:
    """Entries that count, and those held out, of a dense block (m, c)."""
    held = _entries_that_are(HELD_OUT, A, what)
    count = _entries_that_are(PRESENT, A, what)
    return SparseBlock(A.shape, *count, SparseBlock(A.shape, *held) if len(held[0]) else None)


def _entries_that_are(
    kind: int, A: NDArray[Any], what: NDArray[np.uint8]
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int64]]:
    columns, rows = np.nonzero(np.equal(what, np.uint8(kind)).T)
    starts = np.searchsorted(columns, np.arange(A.shape[1] + 1))
    return A[rows, columns], rows.astype(np.int32), starts.astype(np.int64)


def times_W(block: Block, W: Matrix, H: Matrix, scale: float, weigh: Weigh) -> Matrix:
    """WᵀS (d, c)."""
    StW = np.zeros((block.shape[1], W.shape[1]), np.float32)
    for piece in block.pieces(W, H, scale):
        StW += piece.spread(weigh(piece.a, piece.x)).T @ W[piece.rows]
    return np.ascontiguousarray(StW.T)


def ones(a: Matrix, x: Matrix) -> Matrix:
    """S of 1: WᵀS and S Hᵀ are the sums of the factors over the entries that count."""
    return np.ones_like(a)


def values(a: Matrix, x: Matrix) -> Matrix:
    """S of A itself."""
    return a.copy()


def model(a: Matrix, x: Matrix) -> Matrix:
    """S of W H."""
    return x.copy()


def residual(a: Matrix, x: Matrix) -> Matrix:
    """S of A − W H."""
    return a - x


def ratio(a: Matrix, x: Matrix) -> Matrix:
    """S of A / W H."""
    return np.divide(a, np.maximum(x, SMALLEST), dtype=np.float32)


SMALLEST = np.float32(np.finfo(np.float32).eps)
"""What W H is taken for at least where A is divided by it, as scikit-learn does."""


def squared(a: Matrix, x: Matrix) -> Matrix:
    """Terms of ‖A − W H‖²."""
    return np.square(a - x)


def divergence(a: Matrix, x: Matrix) -> Matrix:
    """Terms of D(A ‖ W H) = Σ a log(a / x) − a + x, where 0 log 0 = 0."""
    x = np.maximum(x, SMALLEST)
    terms: Matrix = np.divide(a, x)
    np.log(terms, out=terms, where=terms > 0)
    terms *= a
    terms += x
    terms -= a
    return terms


def power(a: Matrix, x: Matrix) -> Matrix:
    """Terms of ‖A‖²."""
    return np.square(a)


def entropy(a: Matrix, x: Matrix) -> Matrix:
    """Terms of Σ a log a."""
    terms = np.zeros_like(a)
    np.log(a, out=terms, where=a > 0)
    terms *= a
    return terms


def _squares(a: Matrix, x: Matrix) -> NDArray[np.float64]:
    return np.array([np.square(a - x, dtype=np.float64).sum(), len(a)])
