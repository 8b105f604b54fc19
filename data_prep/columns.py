"""One task of the prep job: the columns of a chunk, decoded and written.

What a task did is recorded beside the store until the whole is complete, so that an interrupted preparation goes on.
"""

import errno
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, last_four, put_chunk
from data_prep.decode import Decoded, Decoding, decode, facts_of, opened
from data_prep.folders import ASIDE, Folder
from data_prep.listing import Files, SourceFile
from data_prep.manifest import Row, Status, Unreadable, row_of
from data_prep.remote import Unreachable
from data_prep.sample import sample_columns, sample_size
from data_prep.sources import read, sha256_of
from data_prep.time_limit import time_limit

RECORDS = f"{ASIDE}prep"
"""Folder of the records; its file `attempt` says of which preparation they are."""
AHEAD = 64
"""Tasks that are handed out before others are done."""
TIME_LIMIT_S = 60.0
FEW = 3
"""Unreadable images that a task names; the manifest has all of them."""


class How(NamedTuple):
    """What files are to become."""

    decoding: Decoding
    image_shape: tuple[int, int, int]
    time_limit_s: float = TIME_LIMIT_S
    """For one image."""


class Chunk(NamedTuple):
    """What a task needs to know."""

    path: Folder
    number: int
    files: Files
    how: How
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
    nbytes: int
    """Bytes of the files that are done."""


class ChunkResult(NamedTuple):
    """What a task returns: little an image, and its part of the sample, which is bounded."""

    number: int
    checksum: int
    squares: NDArray[np.int64]
    """Sum of squares of each new column, as stored."""
    pixel_sums: NDArray[np.int64]
    """Sum over the new columns, (m,)."""
    ok: NDArray[np.bool_]
    nbytes: int
    unreadable: list[Unreadable]
    """The first few."""
    sampled: dict[int, NDArray[np.uint8]]


def write_chunk(chunk: Chunk) -> ChunkResult:
    """Decode the images of a chunk and write their columns, unless that is done: the task."""
    A = store.open_array(chunk.path, "A", mode="r+")
    done = _recorded(chunk, A)
    if done is not None:
        return done
    columns, rows = decode_all(chunk.files, chunk.how)
    if attempt_of(chunk.path) != chunk.attempt:
        raise store.BadInput(f"another preparation of {chunk.path} has begun, so this one ends")
    whole = np.ascontiguousarray(columns.T)
    if chunk.kept:  # the chunk is written whole: what is kept of it is checked, not merged by whoever writes
        n = chunk.number * A.chunks[1] + chunk.kept
        before = store.read_chunk(A, 0, chunk.number, checksum=chunk.kept_checksum, n=n)
        whole = np.concatenate([before, whole], axis=1)
    encoded = encode_chunk(A, (0, chunk.number), whole)
    put_chunk(A, (0, chunk.number), encoded)
    record = json.dumps({"checksum": last_four(encoded), "rows": rows}).encode()
    (chunk.path / RECORDS).replace(f"{chunk.number}.json", _digest(record) + b"\n" + record)
    return _result(chunk, A.chunks[1], last_four(encoded), columns, rows)


def _result(chunk: Chunk, c: int, checksum: int, columns: NDArray[np.uint8], rows: Sequence[Row]) -> ChunkResult:
    """Return what is to be known of new columns, given as the rows of an array (images, m)."""
    first = chunk.number * c + chunk.kept
    ok = np.array([row.status == Status.OK for row in rows], np.bool_)
    broken = (Unreadable(row.image, row.reason) for row in rows if row.status != Status.OK)
    return ChunkResult(
        number=chunk.number,
        checksum=checksum,
        squares=np.array([np.dot(wide, wide) for wide in map(_wide, columns)], np.int64),
        pixel_sums=columns.sum(axis=0, dtype=np.int64),
        ok=ok,
        nbytes=int(chunk.files.nbytes.sum()),
        unreadable=list(islice(broken, FEW)),
        sampled={int(j): columns[j - first].copy() for j in chunk.sampled if ok[j - first]},
    )


def _wide(column: NDArray[np.uint8]) -> NDArray[np.float64]:
    return column.astype(np.float64)  # exact: the sums stay below 2⁵³, and BLAS knows no integers


def write_chunks(
    chunks: Iterable[Chunk], n: int, executor: Executor, on_progress: Callable[[Progress], None]
) -> list[ChunkResult]:
    """Run the tasks, some ahead of those that are done; when one fails, those that wait are not begun."""
    results: list[ChunkResult] = []
    waiting, under_way = iter(chunks), set[Future[ChunkResult]]()
    so_far = Progress(0, n, 0, 0)
    try:
        while True:
            under_way |= {executor.submit(write_chunk, chunk) for chunk in islice(waiting, AHEAD - len(under_way))}
            if not under_way:
                return sorted(results, key=lambda result: result.number)
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for result in (future.result() for future in done):
                results.append(result)
                so_far = Progress(
                    so_far.done + len(result.ok),
                    n,
                    so_far.unreadable + int((~result.ok).sum()),
                    so_far.nbytes + result.nbytes,
                )
            on_progress(so_far)
    finally:  # none is left under way but after a failure or an interrupt
        for future in under_way:
            future.cancel()


def attempt_of(path: Folder) -> str | None:
    """Return which preparation of a store is under way, or was interrupted."""
    found = (path / RECORDS).read("attempt")
    return None if found is None else found.decode("ascii", "replace")


def chunks_of(path: Folder, files: Files, how: How, matrix: Any = None) -> Iterator[Chunk]:
    """Say what is to be done for each chunk of A that gets new columns, all or those after a stored matrix's."""
    m = int(np.prod(how.image_shape))
    c, before, attempt = store.chunk_images(m), 0 if matrix is None else matrix.shape[1], attempt_of(path) or ""
    n = before + len(files)
    drawn = np.sort(sample_columns(np.ones(n, np.bool_), sample_size(m, 1)))
    drawn = drawn[drawn >= before]
    for k in range(before // c, -(-n // c)):
        kept = max(0, before - k * c)
        those = files[max(0, k * c - before) : (k + 1) * c - before]
        checksum = matrix.attributes["last_checksum"] if kept else None
        yield Chunk(path, k, those, how, drawn[drawn // c == k], attempt, kept, checksum)


def recorded_rows(path: Folder, results: Sequence[ChunkResult]) -> Iterator[list[Row]]:
    """Rows of the manifest, chunk by chunk, as the tasks recorded them."""
    for result in results:
        content = _content(path, result.number)
        if content is None:
            raise store.BadInput(
                f"{path / RECORDS}/{result.number}.json is gone or damaged; run the same command again"
            )
        yield [Row(*row) for row in content["rows"]]


def sum_of_pixels(results: Sequence[ChunkResult]) -> NDArray[np.int64]:
    """Sum over the new columns of all chunks, (m,)."""
    return np.sum([result.pixel_sums for result in results], axis=0)


def check_share(n_unreadable: int, n: int, max_skip: float, path: Folder, first: Iterable[Unreadable]) -> None:
    """Raise BadInput, with the first few, where more of n images are unreadable than are allowed to be."""
    if n_unreadable > max_skip * n:
        few = "; ".join(f"{name} ({reason})" for name, reason in islice(first, FEW))
        raise store.BadInput(
            f"{n_unreadable} of {n} images cannot be used, more than --max-skip {100 * max_skip:g}% allows "
            f"for {path}; mend them or raise it: {few}{'; …' if n_unreadable > FEW else ''}"
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


def decode_all(files: Files, how: How) -> tuple[NDArray[np.uint8], list[Row]]:
    """Columns of images as the rows of an array (images, m), zero where one cannot be read, and what became of each."""
    columns = np.zeros((len(files), int(np.prod(how.image_shape))), np.uint8)
    rows: dict[int, Row] = {}
    for k in files.places():  # archives are read from front to back
        rows[k], pixels = examine(files[k], how)
        if pixels is not None:
            columns[k] = pixels
    return columns, [rows[k] for k in range(len(files))]


def examine(file: SourceFile, how: How) -> tuple[Row, NDArray[np.uint8] | None]:
    """Decode an image; returns its row of the manifest, and its column (m,) unless it must be zero."""
    found: dict[str, Any] = {}
    try:
        with time_limit(how.time_limit_s):
            decoded = _decoded(file, how.decoding, found)
    except Unreachable:  # nothing is wrong with the image
        raise
    except Exception as error:  # Pillow raises far more than OSError; the reason is kept
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        return row_of(file, **found, status=Status.UNREADABLE, reason=reason), None
    found["orientation"] = decoded.orientation
    height, width, _ = decoded.pixels.shape
    wanted_height, wanted_width, _ = how.image_shape
    if (height, width) != (wanted_height, wanted_width):
        reason = (
            f"it is {height} × {width}, the others are {wanted_height} × {wanted_width}; "
            f"--size {wanted_height}x{wanted_width} would fit it"
        )
        return row_of(file, **found, status=Status.SIZE, reason=reason), None
    return row_of(file, **found), decoded.pixels.ravel()


def _decoded(file: SourceFile, decoding: Decoding, found: dict[str, Any]) -> Decoded:
    """Read and decode an image; what is found out on the way is noted, wherever that ends."""
    raw = read(file)
    found |= {
        "sha256": sha256_of(raw),
        "nbytes": len(raw) if isinstance(raw, bytes) else raw.nbytes,
    }
    with opened(raw) as image:
        found |= facts_of(image)._asdict()
        return decode(image, decoding)


def _recorded(chunk: Chunk, A: Any) -> ChunkResult | None:
    """Return what an interrupted attempt recorded of a chunk, where the chunk itself is there, whole."""
    record = _content(chunk.path, chunk.number)
    if record is None:
        return None
    try:
        whole = store.read_chunk(A, 0, chunk.number, checksum=record["checksum"])
        rows = [Row(*row) for row in record["rows"]]
    except (ValueError, KeyError, TypeError):  # a machine that went down may have kept a record and lost what it is of
        return None
    columns = np.ascontiguousarray(whole[:, chunk.kept : chunk.kept + len(rows)].T)
    return _result(chunk, A.chunks[1], record["checksum"], columns, rows)


def _content(path: Folder, number: int) -> dict[str, Any] | None:
    """Content of the record of a chunk; None where it is missing or damaged."""
    digest, _, content = ((path / RECORDS).read(f"{number}.json") or b"").partition(b"\n")
    return json.loads(content) if digest == _digest(content) else None


def _digest(record: bytes) -> bytes:
    return hashlib.sha256(record).hexdigest().encode()
