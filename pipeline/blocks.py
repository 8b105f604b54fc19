"""Blocks of columns, as they lie in a store."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from pipeline.sparse import Sparse, without_zeros

COLUMNS_TOGETHER = 1024
T = TypeVar("T")


@dataclass(frozen=True)
class StoredBlocks:
    """Consecutive chunks of a stored (rows, columns) array, read and checked one at a time when iterated."""

    path: Folder
    name: str
    chunks: range
    checksums: Sequence[int] | None = None
    """What the chunks' own checksums must be, where that is known: a chunk of another store has a valid one too."""
    n: int | None = None
    """Columns of the matrix; an append may have made the array longer since."""
    skip: int = 0
    """Columns of the first chunk that are left out."""

    def __iter__(self) -> Iterator[NDArray[Any]]:
        array = store.open_array(self.path, self.name)
        for position, k in enumerate(self.chunks):
            checksum = None if self.checksums is None else self.checksums[position]
            yield store.read_chunk(array, 0, k, checksum=checksum, n=self.n)[:, 0 if position else self.skip :]


@dataclass(frozen=True)
class WithoutZeros:
    """The same blocks, as lists of what is not zero."""

    stored: StoredBlocks

    def __iter__(self) -> Iterator[Sparse]:
        return map(without_zeros, self.stored)


def read_ahead(blocks: Iterable[T]) -> Iterator[T]:
    """Iterate over blocks; those that are not in memory are read one ahead, while the one before is worked on."""
    if isinstance(blocks, list):
        yield from blocks
        return
    with ThreadPoolExecutor(1) as reader:
        source = iter(blocks)
        coming = reader.submit(next, source, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, source, None)
            yield block
            del block  # the reader makes room for the next one while this generator waits


def side_by_side(blocks: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """Put blocks together that are narrow: to sweep over few columns takes as long as over a thousand."""
    wide: list[list[NDArray[Any]]] = [[]]
    for block in blocks:
        if sum(one.shape[1] for one in wide[-1]) >= COLUMNS_TOGETHER:
            wide.append([])
        wide[-1].append(block)
    return [np.concatenate(together, axis=1) if len(together) > 1 else together[0] for together in wide]


@dataclass(frozen=True)
class Scratch:
    """Where tasks leave H between passes: a new array each time, since what is read must not be written meanwhile."""

    path: Folder
    name: str
    parts: Sequence[range]

    def __call__(self, k: int, visited: tuple[list[NDArray[Any]], Any]) -> StoredBlocks:
        """Write the blocks of partition k."""
        write_blocks(self.path, self.name, self.parts[k], visited[0])
        return StoredBlocks(self.path, self.name, self.parts[k])


def write_blocks(path: Folder, name: str, chunks: range, blocks: Iterable[NDArray[Any]]) -> list[int]:
    """Write consecutive chunks of a stored array, which nobody else writes; returns their checksums.

    Parameters
    ----------
    path, name
        The array.
    chunks
        Their numbers.
    blocks
        Their columns: a block a chunk, or side by side in fewer.
    """
    array = store.open_array(path, name, mode="r+")
    c = array.chunks[1]
    if isinstance(blocks, list) and len(blocks) < len(chunks):
        columns = np.concatenate(blocks, axis=1)
        blocks = [columns[:, j : j + c] for j in range(0, columns.shape[1], c)]
    for k, block in zip(chunks, blocks, strict=True):
        array[:, k * c : k * c + block.shape[1]] = block
    return [store.stored_checksum(array, 0, k) for k in chunks]
