"""One task of the prep job: the columns of a chunk, decoded and written.

What a task did is recorded beside the store until the whole is complete, so that an interrupted preparation goes on.
"""

import errno
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, last_four, put_chunk
from data_prep.decode import Decoding, decode
from data_prep.folders import ASIDE, Folder
from data_prep.sample import sample_columns, sample_size
from data_prep.sources import SourceFile, printable, read_bytes

RECORDS = f"{ASIDE}prep"
"""Folder of the records; its file `attempt` says of which preparation they are."""
AHEAD = 64
"""Tasks that are handed out before others are done."""
RECORDED = ("checksum", "sum_of_squares", "unreadable")


class Unreadable(NamedTuple):
    """An image with a zero column, and why."""

    name: str
    reason: str


class Chunk(NamedTuple):
    """What a task needs to know."""

    path: Folder
    number: int
    files: Sequence[SourceFile]
    decoding: Decoding
    image_shape: tuple[int, int, int]
    sampled: NDArray[np.int64]
    """Numbers of columns of A that the sample holds if they can be read, those in this chunk."""
    attempt: str
    """What the records say is prepared. A task that comes late, for something else, leaves A alone."""
    kept: int = 0
    """Columns that the chunk begins with and that stay as they are: those before an append."""
    kept_checksum: int | None = None
    """Of the chunk with those alone."""


class Progress(NamedTuple):
    """How far a preparation is."""

    done: int
    total: int
    unreadable: int


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
    if attempt_of(chunk.path) != chunk.attempt:
        raise store.BadInput(f"another preparation of {chunk.path} has begun, so this one ends")
    start = chunk.number * A.chunks[1]
    first = start + chunk.kept
    columns = np.ascontiguousarray(rows.T)
    if chunk.kept:  # the chunk is written whole: what is kept of it is checked, not merged by whoever writes
        before = store.read_chunk(A, 0, chunk.number, checksum=chunk.kept_checksum, n=first)
        columns = np.concatenate([before, columns], axis=1)
    encoded = encode_chunk(A, (0, chunk.number), columns)
    put_chunk(A, (0, chunk.number), encoded)
    squares, checksum = np.square(rows, dtype=np.uint32).sum(dtype=np.uint64), last_four(encoded)
    sampled = {int(j): rows[j - first].copy() for j in chunk.sampled if ok[j - first]}
    result = ChunkResult(chunk.number, ok, checksum, int(squares), unreadable, sampled)
    record = json.dumps({"ok": ok.tolist(), **{field: getattr(result, field) for field in RECORDED}}).encode()
    (chunk.path / RECORDS).replace(f"{chunk.number}.json", _digest(record) + b"\n" + record)
    return result


def write_chunks(
    chunks: Sequence[Chunk], executor: Executor, on_progress: Callable[[Progress], None]
) -> list[ChunkResult]:
    """Run the tasks, some ahead of those that are done; when one fails, those that wait are not begun."""
    total = sum(len(chunk.files) for chunk in chunks)
    results: list[ChunkResult] = []
    waiting, under_way = iter(chunks), set[Future[ChunkResult]]()
    try:
        while True:
            under_way |= {executor.submit(write_chunk, chunk) for chunk in islice(waiting, AHEAD - len(under_way))}
            if not under_way:
                return sorted(results, key=lambda result: result.number)
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            results += [future.result() for future in done]
            n_done = sum(len(result.ok) for result in results)
            on_progress(Progress(n_done, total, sum(len(result.unreadable) for result in results)))
    finally:  # none is left under way but after a failure or an interrupt
        for future in under_way:
            future.cancel()


def attempt_of(path: Folder) -> str | None:
    """Return which preparation of a store is under way, or was interrupted."""
    found = (path / RECORDS).read("attempt")
    return None if found is None else found.decode("ascii", "replace")


def chunks_of(
    path: Folder, files: Sequence[SourceFile], decoding: Decoding, image_shape: tuple[int, int, int], matrix: Any = None
) -> list[Chunk]:
    """Say what is to be done for each chunk of A that gets new columns, all or those after a stored matrix's."""
    m = int(np.prod(image_shape))
    c, before, attempt = store.chunk_images(m), 0 if matrix is None else matrix.shape[1], attempt_of(path) or ""
    n = before + len(files)
    drawn = np.sort(sample_columns(np.ones(n, np.bool_), sample_size(m, 1)))
    drawn = drawn[drawn >= before]
    chunks = []
    for k in range(before // c, -(-n // c)):
        kept = max(0, before - k * c)
        those = files[max(0, k * c - before) : (k + 1) * c - before]
        checksum = matrix.attributes["last_checksum"] if kept else None
        chunks.append(Chunk(path, k, those, decoding, image_shape, drawn[drawn // c == k], attempt, kept, checksum))
    return chunks


def check_share(unreadable: Sequence[Sequence[str]], n: int, max_skip: float, path: Folder) -> None:
    """Raise BadInput, with the first few, where more of n images are unreadable than are allowed to be."""
    if len(unreadable) > max_skip * n:
        first = "; ".join(f"{name} ({reason})" for name, reason in unreadable[:3])
        raise store.BadInput(
            f"{len(unreadable)} of {n} images cannot be used, more than --max-skip {100 * max_skip:g}% allows "
            f"for {path}; mend them or raise it: {first}{'; …' if len(unreadable) > 3 else ''}"
        )


def check_room(path: Folder, nbytes: int) -> None:
    """Raise OSError where so many bytes do not fit."""
    free = path.free_nbytes()
    if free is not None and free < nbytes:
        raise OSError(
            errno.ENOSPC,
            f"the new columns of A, and its sample, need {nbytes:,} bytes, but {free:,} are free; make room",
            str(path),
        )


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
    digest, _, content = ((chunk.path / RECORDS).read(f"{chunk.number}.json") or b"").partition(b"\n")
    if digest != _digest(content):  # missing, or damaged
        return None
    try:
        record = json.loads(content)
        columns = store.read_chunk(A, 0, chunk.number, checksum=record["checksum"])
    except (ValueError, KeyError):  # a machine that went down may have kept a record and lost what it is about
        return None
    start = chunk.number * A.chunks[1]
    ok = np.array(record["ok"], np.bool_)
    sampled = {int(j): columns[:, j - start].copy() for j in chunk.sampled if ok[j - start - chunk.kept]}
    unreadable = [Unreadable(*broken) for broken in record["unreadable"]]
    return ChunkResult(chunk.number, ok, record["checksum"], record["sum_of_squares"], unreadable, sampled)


def _digest(record: bytes) -> bytes:
    return hashlib.sha256(record).hexdigest().encode()


def _column(file: SourceFile, decoding: Decoding, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    pixels = decode(read_bytes(file), decoding)
    if pixels.shape != image_shape:
        height, width, _ = pixels.shape
        raise ValueError(
            f"it is {height} × {width}, the others are {image_shape[0]} × {image_shape[1]}; "
            f"--size {image_shape[0]}x{image_shape[1]} would fit it"
        )
    return pixels.ravel()
