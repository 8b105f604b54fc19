"""Blocks of columns of which few entries are listed, an entry at a time; see `entries`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.entries import HELD_OUT, PRESENT, squared_errors
from pipeline.kernels import Matrix
from pipeline.sparse import Sparse, listed, product_at


@dataclass
class SparsePiece:
    """All rows."""

    a: Matrix
    x: Matrix
    of: "SparseBlock"
    product: tuple[Matrix, Matrix, float]
    """W, H and the scale."""
    rows = slice(None)

    def spread(self, S: Matrix) -> Sparse:
        """S at the entries of the block."""
        entries = self.of.entries
        return listed(S, entries.indices, entries.indptr, entries.shape)

    def total(self, S: Matrix) -> float:
        """Sum in float64."""
        return float(S.sum(dtype=np.float64))

    def held_out(self) -> NDArray[np.float64]:
        """See `Piece`."""
        held = self.of.held
        return np.zeros(2) if held is None else squared_errors(*_values(held, *self.product))


@dataclass(frozen=True)
class SparseBlock:
    """Entries that are listed, and those that are held out."""

    entries: Sparse
    zeros: bool = False
    """Whether all others are zero, and count; else they are missing."""
    held: Sparse | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(m, c)."""
        m, c = self.entries.shape
        return m, c

    @cached_property
    def row_counts(self) -> NDArray[np.float64]:
        """See `Block`."""
        m, c = self.shape
        counts = np.full(m, c) if self.zeros else np.bincount(self.entries.indices, minlength=m)
        return counts[:, np.newaxis].astype(np.float64)

    @cached_property
    def column_counts(self) -> NDArray[np.float64]:
        """See `Block`."""
        m, c = self.shape
        counts = np.full(c, m) if self.zeros else np.diff(self.entries.indptr)
        return counts[np.newaxis].astype(np.float64)

    def pieces(self, W: Matrix, H: Matrix, scale: float) -> Iterator[SparsePiece]:
        """One piece."""
        yield SparsePiece(*_values(self.entries, W, H, scale), self, (W, H, scale))


def _values(entries: Sparse, W: Matrix, H: Matrix, scale: float) -> tuple[Matrix, Matrix]:
    """Values (k,), and W H at the same entries."""
    return entries.data.astype(np.float32) * np.float32(scale), product_at(entries, W, H)


def present_entries(A: NDArray[Any], what: NDArray[np.uint8]) -> SparseBlock:
    """Entries that count, and those held out, of a dense block (m, c)."""
    held = _entries_that_are(HELD_OUT, A, what)
    return SparseBlock(_entries_that_are(PRESENT, A, what), held=held if held.nnz else None)


def _entries_that_are(kind: int, A: NDArray[Any], what: NDArray[np.uint8]) -> Sparse:
    columns, rows = np.nonzero(np.equal(what, np.uint8(kind)).T)
    starts = np.searchsorted(columns, np.arange(A.shape[1] + 1))
    return listed(A[rows, columns], rows, starts, A.shape)
