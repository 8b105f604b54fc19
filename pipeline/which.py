"""Which entries of a matrix count: those its store says are present, less what a mask hides and what is held out."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.sample import column_hash
from pipeline.blocks import StoredBlocks, WithoutZeros
from pipeline.entries import HELD_OUT, MISSING, PRESENT, DenseBlock
from pipeline.panels import panels
from pipeline.sparse import without_zeros
from pipeline.sparse_blocks import SparseBlock, present_entries


@dataclass(frozen=True)
class Which:
    """Which entries of a matrix count."""

    stored: bool
    """Whether the store has a mask."""
    alpha: bool
    holdout: float
    seed: int
    sparse: bool
    """Whether blocks list the entries that are present, or where all are, those that are not zero."""

    @property
    def masked(self) -> bool:
        """Whether not all entries count."""
        return bool(self.stored or self.alpha or self.holdout)

    @property
    def lists_nonzeros(self) -> bool:
        """Whether all entries count, and those that are not zero are listed."""
        return self.sparse and not self.masked

    def block(
        self, A: NDArray[Any], present: NDArray[np.bool_] | None, columns: NDArray[np.int64]
    ) -> DenseBlock | SparseBlock:
        """Return columns of A with what each entry is; see `what`."""
        if self.lists_nonzeros:
            return SparseBlock(without_zeros(A), zeros=True)
        if not self.masked:
            return DenseBlock(A)
        what = self.what(A, present, columns)
        return present_entries(A, what) if self.sparse else DenseBlock(A, what)

    def what(self, A: NDArray[Any], present: NDArray[np.bool_] | None, columns: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What each entry is, (m, c).

        Parameters
        ----------
        A
            As stored, (m, c).
        present
            The stored mask, (m, c), where there is one.
        columns
            Their numbers (c,); negative for one that holds no image, of which nothing counts.
        """
        what = np.full(A.shape, PRESENT, np.uint8) if present is None else present.astype(np.uint8)
        if self.alpha:
            pixels = what.reshape(-1, 4, A.shape[1])
            transparent = A.reshape(pixels.shape)[:, 3:] == 0
            np.copyto(pixels[:, :3], MISSING, where=transparent)
        if self.holdout:
            for rows in panels(what):
                held = is_held_out(np.arange(len(A))[rows], columns, self.holdout, self.seed)
                np.copyto(what[rows], HELD_OUT, where=held & (what[rows] == PRESENT))
        what[:, columns < 0] = MISSING
        return what


def is_held_out(rows: NDArray[np.int64], columns: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which of the entries in some rows and columns are drawn, (rows, columns): by a hash of their place alone.

    So the same ones are in any order of work, and once columns are appended.
    """
    of_columns = column_hash(columns + (np.int64(seed) << np.int64(40)))
    keys = column_hash((of_columns[np.newaxis] + column_hash(rows)[:, np.newaxis]).view(np.int64))
    return keys < np.uint64(share * 2**64)


@dataclass(frozen=True)
class EntryBlocks:
    """Consecutive chunks of a matrix as blocks of entries, read and checked one at a time when iterated."""

    A: StoredBlocks
    which: Which
    unreadable: NDArray[np.int64]
    """Numbers of columns that hold no image."""

    def __iter__(self) -> Iterator[DenseBlock | SparseBlock]:
        of_A = self.A
        if self.which.lists_nonzeros:
            yield from (SparseBlock(block, zeros=True) for block in WithoutZeros(of_A))
            return
        first = of_A.chunks.start * store.open_array(of_A.path, "A").chunks[1] + of_A.skip
        masks: Iterable[Any] = itertools.repeat(None)
        if self.which.stored:
            masks = StoredBlocks(of_A.path, "mask", of_A.chunks, n=of_A.n, skip=of_A.skip)
        for A_j, present in zip(of_A, masks, strict=False):
            columns = np.arange(first, first + A_j.shape[1])
            first += A_j.shape[1]
            columns[np.isin(columns, self.unreadable)] = -1
            yield self.which.block(A_j, present, columns)
