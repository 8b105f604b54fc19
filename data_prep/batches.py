"""Images that are not stored, or those of another store, a chunk at a time: each batch is read where it is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.columns import How, decode_all
from data_prep.decode import stored_decoding
from data_prep.folders import Folder
from data_prep.listing import Files
from data_prep.manifest import Status
from data_prep.sources import list_sources
from data_prep.store import StoredMatrix


class Batch(NamedTuple):
    """Columns like those of A."""

    columns: NDArray[Any]
    """(m, c), as stored: zero where an image could not be read."""
    names: Sequence[str]
    reasons: Sequence[str]
    """Why an image could not be read; empty where it could."""
    present: NDArray[np.bool_] | None = None
    """Which entries are known, (m, c); None where all are."""


@dataclass(frozen=True)
class ImageBatch:
    """Images of some files."""

    files: Files
    how: How

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self) -> Batch:
        """Decode them."""
        columns, rows = decode_all(self.files, self.how)
        return Batch(
            np.ascontiguousarray(columns.T),
            [row.image for row in rows],
            ["" if row.status == Status.OK else row.reason or "unreadable" for row in rows],
        )


@dataclass(frozen=True)
class StoredBatch:
    """A chunk of a prepared store."""

    path: Folder
    chunk: int
    first: int
    last: int
    masked: bool
    """Whether entries are missing."""

    def __len__(self) -> int:
        return self.last - self.first

    def __call__(self) -> Batch:
        """Read it."""
        reasons = ["" if one else "unreadable in its store" for one in self._values("ok")]
        return Batch(self._chunk("A"), self._names(), reasons, self._chunk("mask") if self.masked else None)

    def _chunk(self, name: str) -> NDArray[Any]:
        return store.read_chunk(store.open_array(self.path, name), 0, self.chunk, n=self.last)

    def _names(self) -> list[str]:
        """Names of the columns; their numbers where they have none."""
        for name in ("image", "item"):
            if (self.path / name).exists():
                return [str(one) for one in self._values(name)]
        return [str(j) for j in range(self.first, self.last)]

    def _values(self, name: str) -> NDArray[Any]:
        """Values of an array (n,) of these images."""
        array = store.open_array(self.path, name)
        c = array.chunks[0]
        first = self.first // c
        found = [store.read_chunk(array, k) for k in range(first, -(-self.last // c))]
        return np.concatenate(found)[self.first - first * c : self.last - first * c]


def batches(matrix: StoredMatrix, sources: Sequence[str], lists: Sequence[str] = ()) -> list[ImageBatch | StoredBatch]:
    """Images of sources as columns like those of a matrix: decoded as its own were.

    Parameters
    ----------
    matrix
        A store of images.
    sources, lists
        As for `list_sources`; or one prepared store, whose images must have the same shape, or the same rows.

    Raises
    ------
    BadInput
        The matrix does not hold images but files of such are given, a source is missing, or a store has other rows.
    """
    if len(sources) == 1 and not lists and store.group_attributes(sources[0]).get("format") == store.FORMAT:
        return _of_store(matrix, store.open_matrix(sources[0]))
    if "image_shape" not in matrix.attributes:
        raise store.BadInput(f"{matrix.path} does not hold images; give a store of columns like its own instead")
    height, width, channels = matrix.attributes["image_shape"]
    how = How(stored_decoding(matrix.attributes), (height, width, channels))
    files, c = list_sources(sources, lists).files, matrix.chunk_images
    return [ImageBatch(files[first : first + c], how) for first in range(0, len(files), c)]


def _of_store(matrix: StoredMatrix, other: StoredMatrix) -> list[ImageBatch | StoredBatch]:
    ours, theirs = (one.attributes.get("image_shape") for one in (matrix, other))
    if ours != theirs:
        raise store.BadInput(f"{other.path} holds images of {theirs}, but must hold images of {ours}, as {matrix.path}")
    if other.shape[0] != matrix.shape[0] or _features(other) != _features(matrix):
        raise store.BadInput(f"{other.path} has other rows than {matrix.path}, but must have the same")
    spans, masked = other.columns(range(other.n_chunks)), other.n_present is not None
    return [StoredBatch(other.path, k, span.start, span.stop, masked) for k, span in enumerate(spans)]


def _features(matrix: StoredMatrix) -> list[str] | None:
    """Names of the rows, where they have any."""
    return store.read_array(matrix.path, "feature").tolist() if (matrix.path / "feature").exists() else None
