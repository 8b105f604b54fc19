"""One task of the prep job: the columns of a chunk, decoded and written.

What a task did is recorded beside the store until the whole is complete, so that an interrupted preparation goes on.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.decode import Decoding, decode
from data_prep.folders import ASIDE, Folder
from data_prep.sources import SourceFile, printable, read_bytes

RECORDS = f"{ASIDE}prep"
RECORDED = ("checksum", "sum_of_squares", "unreadable")


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
    attempt: str
    """What the store says is prepared in it. A task that comes late, for something else, leaves A alone."""


class ChunkResult(NamedTuple):
    """What a task returns: nothing that grows with the pixels, but for its part of the sample, which is bounded."""

    number: int
    ok: NDArray[np.bool_]
    checksum: int
    sum_of_squares: int
    unreadable: list[Unreadable]
    sampled: dict[int, NDArray[np.uint8]]


def write_chunk(chunk: Chunk) -> ChunkResult:
    """Decode the images of a chunk and write their columns, unless that is done: the task."""
    A = store.open_array(chunk.path, "A", mode="r+")
    done = _recorded(chunk, A)
    if done is not None:
        return done
    rows, ok, unreadable = decode_all(chunk.files, chunk.decoding, chunk.image_shape)
    if store.group_attributes(chunk.path).get("attempt") != chunk.attempt:
        raise store.BadInput(f"another preparation of {chunk.path} has begun, so this one ends")
    first = chunk.number * A.chunks[1]
    A[:, first : first + len(rows)] = np.ascontiguousarray(rows.T)
    squares = np.square(rows, dtype=np.uint32).sum(dtype=np.uint64)
    checksum = store.stored_checksum(A, 0, chunk.number)
    sampled = {int(j): rows[j - first].copy() for j in chunk.sampled if ok[j - first]}
    result = ChunkResult(chunk.number, ok, checksum, int(squares), unreadable, sampled)
    record = {"ok": ok.tolist(), **{field: getattr(result, field) for field in RECORDED}}
    (chunk.path / RECORDS).replace(f"{chunk.number}.json", json.dumps(record).encode())
    return result


def decode_all(
    files: Sequence[SourceFile], decoding: Decoding, image_shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[Unreadable]]:
    """Columns of images as the rows of an array (images, m), which of them could be read, and why others could not."""
    rows = np.zeros((len(files), int(np.prod(image_shape))), np.uint8)
    ok = np.zeros(len(files), np.bool_)
    unreadable: list[Unreadable] = []
    for row, file in enumerate(files):
        try:
            rows[row] = _column(file, decoding, image_shape)
            ok[row] = True
        except Exception as error:  # Pillow raises far more than OSError; the reason is kept
            unreadable.append(Unreadable(printable(file.name), f"{type(error).__name__}: {error}".removesuffix(": ")))
    return rows, ok, unreadable


def _recorded(chunk: Chunk, A: Any) -> ChunkResult | None:
    """Return what an interrupted attempt recorded of a chunk, where the chunk itself is there, whole."""
    content = (chunk.path / RECORDS).read(f"{chunk.number}.json")
    if content is None:
        return None
    try:
        record = json.loads(content)
        columns = store.read_chunk(A, 0, chunk.number, checksum=record["checksum"])
    except (ValueError, KeyError):  # a machine that went down may have kept a record and lost what it is about
        return None
    first = chunk.number * A.chunks[1]
    ok = np.array(record["ok"], np.bool_)
    sampled = {int(j): columns[:, j - first].copy() for j in chunk.sampled if ok[j - first]}
    unreadable = [Unreadable(*broken) for broken in record["unreadable"]]
    return ChunkResult(chunk.number, ok, record["checksum"], record["sum_of_squares"], unreadable, sampled)


def _column(file: SourceFile, decoding: Decoding, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    pixels = decode(read_bytes(file), decoding)
    if pixels.shape != image_shape:
        height, width, _ = pixels.shape
        raise ValueError(
            f"it is {height} × {width}, the others are {image_shape[0]} × {image_shape[1]}; "
            f"--size {image_shape[0]}x{image_shape[1]} would fit it"
        )
    return pixels.ravel()
