"""Entries of a matrix on their way into chunks: a file a chunk, of which one is open at a time."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.folders import ASIDE, Folder, LocalFolder

ENTRY = np.dtype([("i", "<u4"), ("j", "<u4"), ("value", "<f4")])
"""Row in A, column in the chunk, value."""
SPILLED = f"{ASIDE}spilled"
"""Folder of the files, inside a store on this machine: what an interrupted attempt leaves of it, `begin` removes."""
PIECE = 2**20
"""Entries of a chunk that are read at once where there may be more than it has room for."""


@dataclass(frozen=True)
class Spill:
    """The entries of a matrix."""

    folder: Path
    name: str
    chunk_images: int
    """Columns of a chunk."""

    def add(self, i: NDArray[np.int64], j: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Append the entries in rows i and columns j to the files of their chunks."""
        chunks = j // self.chunk_images
        order = np.argsort(chunks, kind="stable")
        entries = np.empty(len(order), ENTRY)
        entries["i"], entries["j"], entries["value"] = i[order], (j % self.chunk_images)[order], values[order]
        numbers, firsts = np.unique(chunks[order], return_index=True)
        for k, first, last in zip(numbers.tolist(), firsts, [*firsts[1:], len(order)], strict=False):
            with self._file(k).open("ab") as file:
                file.write(entries[first:last].data)

    def count(self, k: int) -> int:
        """Entries of a chunk."""
        return self._file(k).stat().st_size // ENTRY.itemsize if self._file(k).exists() else 0

    def take(self, k: int, most: int) -> NDArray[np.void]:
        """Entries of a chunk, in the order in which they came, so many at most."""
        if not self._file(k).exists():
            return np.empty(0, ENTRY)
        with self._file(k).open("rb") as file:
            return np.frombuffer(file.read(most * ENTRY.itemsize), ENTRY)

    def pieces(self, k: int) -> Iterator[NDArray[np.void]]:
        """All entries of a chunk in the order in which they came, some at a time; an empty piece where it has none."""
        if not self._file(k).exists():
            yield np.empty(0, ENTRY)
            return
        with self._file(k).open("rb") as file:
            while content := file.read(PIECE * ENTRY.itemsize):
                yield np.frombuffer(content, ENTRY)

    def drop(self, k: int) -> None:
        """Remove the entries of a chunk."""
        self._file(k).unlink(missing_ok=True)

    def _file(self, k: int) -> Path:
        return self.folder / f"{self.name}-{k}"


@contextmanager
def spilled(home: Folder) -> Iterator[Path]:
    """Make room for entries: in the store, or in the system's temporary folder for one that is elsewhere."""
    if isinstance(home, LocalFolder):
        path = home.path / SPILLED
        path.mkdir()
    else:
        path = Path(tempfile.mkdtemp(prefix="nmf-batch-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
