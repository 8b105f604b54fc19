"""Blocks of columns, as they lie in a store."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from pipeline.sparse import Sparse, joined, without_zeros

COLUMNS_TOGETHER = 1024
T = TypeVar("T")


class Shaped(Protocol):
    """A block of columns of any form."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        ...


B = TypeVar("B", bound=Shaped)


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
    """The same columns, as lists of what is not zero, and beside each other where they are narrow."""

    stored: StoredBlocks

    def __iter__(self) -> Iterator[Sparse]:
        return map(joined, _groups(map(without_zeros, self.stored)))


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
    return [_beside(together) for together in _groups(blocks)]


def like(A: Iterable[B], H: Iterable[NDArray[Any]] | None) -> Iterator[tuple[B, NDArray[Any] | None]]:
    """Each block of A with the columns of H for it, whose own blocks may be narrower; None where there is no H."""
    if H is None:
        yield from ((block, None) for block in A)
        return
    parts = iter(H)
    for block in A:
        found = [next(parts)]
        while sum(part.shape[1] for part in found) < block.shape[1]:
            found.append(next(parts))
        yield block, _beside(found)
    if next(parts, None) is not None:
        raise ValueError("H has more columns than A")


def _groups(blocks: Iterable[B]) -> Iterator[list[B]]:
    """Blocks that go together, so few that there are a thousand columns."""
    group: list[B] = []
    for block in blocks:
        group.append(block)
        if sum(one.shape[1] for one in group) >= COLUMNS_TOGETHER:
            yield group
            group = []
    if group:
        yield group


def _beside(blocks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0]


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
