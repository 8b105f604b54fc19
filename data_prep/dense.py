"""Entries that wait in a `Spill` become the blocks of a store, a chunk at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from data_prep.matrix_store import LARGEST, Block, Matrix, check_largest, sampled_columns, write_blocks
from data_prep.spill import PIECE, Spill, spilled

Dense = Callable[[Spill, int, int], Block]
"""(entries, number of a chunk, its columns) → the chunk."""
OnProgress = Callable[[int, int], None]
SPARSEST, FEW = 1e-6, 2**24
"""The least share of entries other than 0 in a matrix of more than `FEW`: chunks are dense, so zeros take time."""


class Entries(NamedTuple):
    """Entries of a matrix, each (entries,)."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    values: NDArray[np.float64]


def nothing(done: int, total: int) -> None:
    """Tell nobody of progress."""


def dense_blocks(
    A: Spill, matrix: Matrix, dense: Dense, on_progress: OnProgress = nothing
) -> tuple[Iterator[Block], Iterator[Block]]:
    """Blocks of A and of its sample, for `write_blocks`, which takes all of the first before the second."""
    columns, (_, n) = sampled_columns(matrix), matrix.shape
    drawn = np.full(n, -1)
    drawn[columns] = np.arange(len(columns))
    sample = replace(A, name="sample")

    def all_of_A() -> Iterator[Block]:
        for k, columns in enumerate(_spans(n, A.chunk_images)):
            block = dense(A, k, columns.stop - columns.start)
            A.drop(k)
            _draw(block, drawn[columns], sample)
            yield block
            on_progress(columns.stop, n)

    spans = enumerate(_spans(len(columns), A.chunk_images))
    return all_of_A(), (dense(sample, k, columns.stop - columns.start) for k, columns in spans)


def _spans(n: int, c: int) -> Iterator[slice]:
    return (slice(first, min(n, first + c)) for first in range(0, n, c))


def _draw(block: Block, drawn: NDArray[np.int64], sample: Spill) -> None:
    """Spill the entries of the columns that are drawn; `drawn` says where in the sample a column is, −1 where not."""
    chosen = np.flatnonzero(drawn >= 0)
    known = block.values if block.present is None else block.present
    i, j = np.nonzero(known[:, chosen])
    sample.add(i, drawn[chosen][j], block.values[i, chosen[j]])


def write_summed(
    home: Folder, about: Mapping[str, Any], entries: Iterator[Entries], on_progress: OnProgress = nothing
) -> dict[str, Any]:
    """Write a matrix whose other entries are zero, with entries that are given more than once summed.

    uint8 where all values are whole numbers up to 255, uint16 where they are up to 65,535, float32 else.

    Parameters
    ----------
    home
        The store, which is begun; what is returned are the attributes to publish.
    about
        Of the `Matrix`: kind, shape, names.
    entries
        Checked, a batch at a time, in any order.
    on_progress
        Called with the number of columns of A that are written and of all.
    """
    m, n = about["shape"]
    with spilled(home) as room:
        A, n_entries = Spill(room, "A", store.chunk_images(m)), 0
        for i, j, values in entries:
            filled = values != 0
            A.add(i[filled], j[filled], values[filled])
            n_entries += int(filled.sum())
        if m * n > FEW and n_entries < SPARSEST * m * n:
            raise store.BadInput(
                f"A is {m:,} × {n:,} with {n_entries:,} entries other than 0, but must have one in a million; "
                f"leave rows and columns without any out"
            )
        found = _survey(A, m, n)
        matrix = Matrix(**about, dtype=found.dtype, n_present=m * n, n_filled=found.n_filled)

        def dense(spill: Spill, k: int, width: int) -> Block:
            values = np.zeros(m * width, matrix.dtype)
            places, sums = _summed(spill, k, (m, width))
            values[places] = sums
            return Block(values.reshape(m, width), None)

        return write_blocks(home, matrix, *dense_blocks(A, matrix, dense, on_progress))


class _Survey(NamedTuple):
    """What a matrix is made of."""

    n_filled: int
    dtype: np.dtype[Any]


def _survey(A: Spill, m: int, n: int) -> _Survey:
    """Look through all entries, which tells what type holds their sums."""
    n_filled, largest, whole = 0, 0.0, True
    for k, columns in enumerate(_spans(n, A.chunk_images)):
        places, sums = _summed(A, k, (m, columns.stop - columns.start))
        n_filled += int(np.count_nonzero(sums))
        largest = max(largest, sums.max(initial=0.0))
        whole = whole and bool((sums == np.floor(sums)).all())
        if largest > LARGEST:
            i, j = divmod(int(places[sums.argmax()]), columns.stop - columns.start)
            raise store.BadInput(
                f"the entries of row {i} and column {columns.start + j} sum to {largest:g}, "
                f"but must be at most {LARGEST:g}; scale A"
            )
    if not n_filled:
        raise store.BadInput("A has no entry other than 0, but at least one must be; is it the right file?")
    check_largest(largest)
    small = next((one for one in (np.uint8, np.uint16) if whole and largest <= np.iinfo(one).max), np.float32)
    return _Survey(n_filled, np.dtype(small))


def _summed(spill: Spill, k: int, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places, counted row by row, and values of the entries of a chunk, each place once."""
    if spill.count(k) <= PIECE:
        entries = np.concatenate([*spill.pieces(k)])
        places, order = np.unique(_places(entries, shape), return_inverse=True)
        sums = np.bincount(order, entries["value"], len(places))
        return places, sums.astype(np.float64)  # of nothing, the sums are integers
    total = np.zeros(shape[0] * shape[1])
    for entries in spill.pieces(k):
        np.add.at(total, _places(entries, shape), entries["value"].astype(np.float64))
    places = np.flatnonzero(total)
    return places, total[places]


def _places(entries: NDArray[np.void], shape: tuple[int, int]) -> NDArray[np.int64]:
    return entries["i"].astype(np.int64) * shape[1] + entries["j"]
