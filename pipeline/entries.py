"""Blocks of columns an entry at a time: which of them are present, and what an objective sums over those.

An objective that is not ‖A − W H‖² over all entries needs W H at each entry: S is made of A and W H there, and what
moves the factors are WᵀS and S Hᵀ. A block is dense, and its float32 values exist a panel of rows at a time; or sparse
(`sparse_blocks`), where few entries are present or few are not zero.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import Matrix
from pipeline.panels import panel, panels

MISSING, PRESENT, HELD_OUT = 0, 1, 2
"""What an entry is."""
SPARSE = 0.05
"""Share of present entries below which blocks are sparse: `benchmarks.densities` measures where that becomes faster."""

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
    def zeros(self) -> bool:
        """Whether entries that no piece has are zeros that count; else they are missing."""
        ...

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
        return squared_errors(self.a[held], self.x[held])


@dataclass(frozen=True)
class DenseBlock:
    """All entries (m, c)."""

    A: NDArray[Any]
    """As stored."""
    what: NDArray[np.uint8] | None = None
    """What each entry is; None where all are present."""
    zeros = False

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


def squared_errors(a: Matrix, x: Matrix) -> NDArray[np.float64]:
    """Sum of (a − x)², and how many there are, (2,)."""
    return np.array([np.square(a - x, dtype=np.float64).sum(), len(a)])
