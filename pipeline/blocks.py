"""Blocks of columns, as they lie in a store."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_prep import store


@dataclass(frozen=True)
class StoredBlocks:
    """Consecutive chunks of a stored (rows, columns) array, read and checked one at a time when iterated."""

    path: Path
    name: str
    chunks: range

    def __iter__(self) -> Iterator[NDArray[Any]]:
        array = store.open_array(self.path, self.name)
        for k in self.chunks:
            yield store.read_chunk(array, 0, k)


def write_blocks(path: Path, name: str, chunks: range, blocks: list[NDArray[Any]]) -> None:
    """Write consecutive chunks of a stored array; nobody else writes these."""
    array = store.open_array(path, name, mode="r+")
    for k, block in zip(chunks, blocks, strict=True):
        first = k * array.chunks[1]
        array[:, first : first + block.shape[1]] = block
