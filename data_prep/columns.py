"""One task of the prep job: the columns of a chunk, decoded and written."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.decode import Decoding, decode
from data_prep.folders import Folder
from data_prep.sources import SourceFile, printable, read_bytes


class Unreadable(NamedTuple):
    """An image with a zero column, and why."""

    name: str
    reason: str


class Chunk(NamedTuple):
    """What a task needs to know."""

    path: Folder
    number: int
    files: list[SourceFile]
    decoding: Decoding
    image_shape: tuple[int, int, int]
    sampled: NDArray[np.int64]
    """Numbers of columns of A that the sample holds if they can be read, those in this chunk."""


class ChunkResult(NamedTuple):
    """What a task returns: nothing that grows with the pixels, but for its part of the sample, which is bounded."""

    number: int
    ok: NDArray[np.bool_]
    checksum: int
    sum_of_squares: int
    unreadable: list[Unreadable]
    sampled: dict[int, NDArray[np.uint8]]


def write_chunk(chunk: Chunk) -> ChunkResult:
    """Decode the images of a chunk and write their columns: the task."""
    A = store.open_array(chunk.path, "A", mode="r+")
    rows = np.zeros((len(chunk.files), A.shape[0]), np.uint8)
    ok = np.zeros(len(chunk.files), np.bool_)
    unreadable: list[Unreadable] = []
    for row, file in enumerate(chunk.files):
        try:
            rows[row] = _column(file, chunk.decoding, chunk.image_shape)
            ok[row] = True
        except Exception as error:  # Pillow raises far more than OSError; the reason is kept
            unreadable.append(Unreadable(printable(file.name), f"{type(error).__name__}: {error}".removesuffix(": ")))
    first = chunk.number * A.chunks[1]
    A[:, first : first + len(rows)] = np.ascontiguousarray(rows.T)
    squares = np.square(rows, dtype=np.uint32).sum(dtype=np.uint64)
    checksum = store.stored_checksum(A, 0, chunk.number)
    sampled = {int(j): rows[j - first].copy() for j in chunk.sampled if ok[j - first]}
    return ChunkResult(chunk.number, ok, checksum, int(squares), unreadable, sampled)


def _column(file: SourceFile, decoding: Decoding, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    pixels = decode(read_bytes(file), decoding)
    if pixels.shape != image_shape:
        height, width, _ = pixels.shape
        raise ValueError(
            f"it is {height} × {width}, the others are {image_shape[0]} × {image_shape[1]}; "
            f"--size {image_shape[0]}x{image_shape[1]} would fit it"
        )
    return pixels.ravel()
