"""Images or documents that are not stored, or columns of another store, a chunk at a time, read where it is needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.columns import How, decode_all
from data_prep.decode import stored_decoding
from data_prep.document_files import Fields
from data_prep.documents import Rows, Texts, parts
from data_prep.folders import Folder
from data_prep.listing import Files
from data_prep.manifest import Status
from data_prep.sources import list_sources
from data_prep.store import StoredMatrix
from data_prep.words import stored_vectorizer


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


@dataclass(frozen=True)
class WordBatch:
    """Documents, whose words are counted as those of a store were."""

    documents: Texts | Rows
    path: Folder
    fingerprint: str
    """Of the store."""
    m: int

    def __len__(self) -> int:
        return len(self.documents)

    def __call__(self) -> Batch:
        """Read them."""
        names, reasons = list[str](), list[str]()

        def texts() -> Iterator[str]:
            for document in self.documents:
                names.append(document.name)
                reasons.append(document.reason)
                yield document.text

        found = stored_vectorizer(str(self.path), self.fingerprint)(texts())
        columns = np.zeros((self.m, found.n), np.float32)  # whatever type A has: a document may count higher
        columns[found.i, found.j] = found.values
        return Batch(columns, names, reasons)


Batches = list[ImageBatch | StoredBatch | WordBatch]


def batches(matrix: StoredMatrix, sources: Sequence[str], lists: Sequence[str] = ()) -> Batches:
    """Images or documents of sources as columns like those of a matrix: read as its own were.

    Parameters
    ----------
    matrix
        A store of images or of words.
    sources, lists
        As for `list_sources`, or `documents`; or one prepared store, whose images must have the same shape, or the same
        rows.

    Raises
    ------
    BadInput
        The matrix holds neither images nor words but files are given, a source is missing, or a store has other rows.
    """
    if len(sources) == 1 and not lists and store.group_attributes(sources[0]).get("format") == store.FORMAT:
        return _of_store(matrix, store.open_matrix(sources[0]))
    if matrix.attributes["kind"] == "words":
        return _of_documents(matrix, sources, lists)
    if "image_shape" not in matrix.attributes:
        raise store.BadInput(
            f"{matrix.path} does not hold images or words (kind: {matrix.attributes['kind']}); "
            f"give a store of columns like its own instead, made as it was"
        )
    height, width, channels = matrix.attributes["image_shape"]
    how = How(stored_decoding(matrix.attributes), (height, width, channels))
    files, c = list_sources(sources, lists).files, matrix.chunk_images
    return [ImageBatch(files[first : first + c], how) for first in range(0, len(files), c)]


def _of_documents(matrix: StoredMatrix, sources: Sequence[str], lists: Sequence[str]) -> Batches:
    if lists:
        raise store.BadInput(f"--from-list names images, but {matrix.path} holds words; name the documents themselves")
    prep = matrix.attributes["prep"]
    fields = Fields(prep["text"], prep["id"])
    return [
        WordBatch(part, matrix.path, matrix.fingerprint, matrix.shape[0])
        for part in parts(sources, fields, matrix.chunk_images)
    ]


def _of_store(matrix: StoredMatrix, other: StoredMatrix) -> Batches:
    ours, theirs = (one.attributes.get("image_shape") for one in (matrix, other))
    if ours != theirs:
        raise store.BadInput(f"{other.path} holds images of {theirs}, but must hold images of {ours}, as {matrix.path}")
    if other.shape[0] != matrix.shape[0] or _features(other) != _features(matrix):
        raise store.BadInput(f"{other.path} has other rows than {matrix.path}, but must have the same")
    if other.scale != matrix.scale:
        raise store.BadInput(
            f"{other.path} has a scale of {other.scale:g}, but must have one of {matrix.scale:g}, as {matrix.path}; "
            f"write it likewise"
        )
    if other.n_present is not None and matrix.n_present is None:
        raise store.BadInput(
            f"{other.path} has missing entries, but {matrix.path} has none, so that zeros would be meant; "
            f"fill them in, or factorize a matrix that has a mask"
        )
    spans, masked = other.columns(range(other.n_chunks)), other.n_present is not None
    return [StoredBatch(other.path, k, span.start, span.stop, masked) for k, span in enumerate(spans)]


def _features(matrix: StoredMatrix) -> list[str] | None:
    """Names of the rows, where they have any."""
    return store.read_array(matrix.path, "feature").tolist() if (matrix.path / "feature").exists() else None
