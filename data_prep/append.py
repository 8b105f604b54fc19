"""Files that have come since are appended: new columns of A after those that are there.

What is longer in place (A, names, `ok`, checksums) is written first, and readers take the n that they began with. Then
the attributes of the store say the new n, in one step. The sample is replaced after that; until it is, who needs it
reads its columns from A.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, put_chunk
from data_prep.columns import (
    RECORDS,
    ChunkResult,
    How,
    Progress,
    attempt_of,
    check_room,
    check_share,
    chunks_of,
    recorded_rows,
    sum_of_pixels,
    write_chunks,
)
from data_prep.decode import stored_decoding
from data_prep.folders import HALF, Folder
from data_prep.listing import digest, printable
from data_prep.lock import HeldError, only_writer
from data_prep.manifest import read_skipped, rendered, rendered_passed
from data_prep.places import Passed
from data_prep.sample import write_sample
from data_prep.sources import Listing
from data_prep.store import StoredMatrix
from data_prep.sums import append_sums
from data_prep.tails import resize_array, write_tail

if TYPE_CHECKING:
    from data_prep.images import Options


class Tasks(NamedTuple):
    """What runs the tasks, and who is told."""

    executor: Executor
    on_progress: Callable[[Progress], None]


def append(matrix: StoredMatrix, listing: Listing, options: "Options", tasks: Tasks) -> Mapping[str, Any]:
    """Append images to a complete store; returns its attributes.

    Parameters
    ----------
    matrix
        As it was opened to find out what is new.
    listing
        The new ones, in order, none where only an interrupted append is to be ended; and files that get no column.
    options
        What is asked for; it has been compared with what the store was made with.
    tasks
        What runs the tasks.

    Raises
    ------
    BadInput
        More are unreadable; the store stays as it was.
    HeldError
        Another process writes the store, or has appended meanwhile.
    """
    path = matrix.path
    with only_writer(path) as still_ours:
        attributes, version = store.attributes_and_version(path)
        if attributes.get("fingerprint") != matrix.fingerprint:
            raise HeldError(f"another process has appended to {path} meanwhile; run the same command again")
        at_hand = {} if attributes.get("sampling") else _stored_sample(path)
        if listing.files:
            results = _write_columns(matrix, listing, options, tasks)
            broken = sum(int((~result.ok).sum()) for result in results)
            first = (one for result in results for one in result.unreadable)
            check_share(broken, len(listing.files), options.max_skip, path, first)
            attributes = {**attributes, **_lengthen(matrix, listing, results)}
            still_ours()
            store.switch(path, attributes, version)
            version = store.attributes_and_version(path)[1]
            at_hand |= {j: column for result in results for j, column in result.sampled.items()}
        attributes = _replace_sample(path, attributes, at_hand)
        still_ours()
        store.switch(path, attributes, version)
        (path / RECORDS).remove()
    return attributes


def take_back(matrix: StoredMatrix) -> None:
    """Make shorter again what an append has made longer that was interrupted and is not asked for any more."""
    path, (_, n), c = matrix.path, matrix.shape, matrix.chunk_images
    with only_writer(path):
        A, last = store.open_array(path, "A", mode="r+"), matrix.attributes["last_checksum"]
        if n % c:
            columns = store.read_chunk(A, 0, n // c, checksum=last, n=n)
            put_chunk(A, (0, n // c), encode_chunk(A, (0, n // c), columns))
        resize_array(path, "A", n)
        for name in ("image", "ok", "norm", "manifest"):
            write_tail(path, name, n, n, ())
        write_tail(path, "skipped", n_skipped(matrix), n_skipped(matrix), ())
        resize_array(path, "pixel_sum", len(matrix.attributes["prep"]["appends"]))
        write_tail(path, "checksum", matrix.n_chunks - 1, matrix.n_chunks, [np.array([last], np.uint32)])
        (path / RECORDS).remove()


def n_skipped(matrix: StoredMatrix) -> int:
    """Length of the list of files that got no column."""
    return int(json.loads(matrix.attributes["digests"]["skipped"]["metadata"])["shape"][0])


def _write_columns(matrix: StoredMatrix, listing: Listing, options: "Options", tasks: Tasks) -> list[ChunkResult]:
    """Make A longer, and write the chunks that have new columns."""
    path, files = matrix.path, listing.files
    check_room(path, matrix.shape[0] * len(files) if matrix.attributes["prep"]["codec"] == "none" else 0)
    attempt = hashlib.sha256(json.dumps([matrix.fingerprint, digest(files)]).encode()).hexdigest()
    if attempt_of(path) != attempt:
        (path / RECORDS).remove()
        (path / RECORDS).make()
        (path / RECORDS).replace("attempt", attempt.encode())
    resize_array(path, "A", matrix.shape[1] + len(files))
    height, width, channels = matrix.attributes["image_shape"]
    how = How(stored_decoding(matrix.attributes), (height, width, channels), options.time_limit_s)
    return write_chunks(chunks_of(path, files, how, matrix), len(files), tasks.executor, tasks.on_progress)


def _lengthen(matrix: StoredMatrix, listing: Listing, results: Sequence[ChunkResult]) -> dict[str, Any]:
    """Write what belongs to the new columns behind what is there; returns attributes for the publication."""
    path, attributes, (_, n), c = matrix.path, matrix.attributes, matrix.shape, matrix.chunk_images
    files, ok = listing.files, np.concatenate([result.ok for result in results])
    old, changed = store.read_checksums(matrix)[: n // c], [result.checksum for result in results]
    names = np.array([printable(name) for name in files.names], np.dtypes.StringDType())
    squares = np.concatenate([result.squares for result in results])
    length = n + len(files)
    write_tail(path, "image", n, length, [names])
    write_tail(path, "ok", n, length, [ok])
    write_tail(path, "norm", n, length, [np.sqrt(squares) / 255])
    write_tail(path, "manifest", n, length, map(rendered, recorded_rows(path, results)))
    passed = _not_listed_yet(matrix, listing.passed)
    write_tail(path, "skipped", n_skipped(matrix), n_skipped(matrix) + len(passed), [rendered_passed(passed)])
    write_tail(path, "checksum", n // c, n // c + len(changed), [np.array(changed, np.uint32)])
    total = attributes["sum_of_squares"] + int(squares.sum())
    append_sums(path, len(attributes["prep"]["appends"]), sum_of_pixels(results))
    about = store.complete(
        path,
        "images",
        checksums=np.concatenate([old, np.array(changed, np.uint32)]),
        ok=store.read_array(path, "ok"),
        norm_squared=total / 255**2,
        arrays=list(attributes["digests"]),
    )
    prep = {**attributes["prep"], "appends": [*attributes["prep"]["appends"], len(files)]}
    return {**about, "sum_of_squares": total, "prep": prep, "sampling": True}


def _not_listed_yet(matrix: StoredMatrix, passed: Sequence[Passed]) -> list[Passed]:
    known = {(one["file"], one["source"]) for one in read_skipped(matrix.path, n_skipped(matrix))}
    return [one for one in passed if (printable(one.name), one.source) not in known]


def _stored_sample(path: Folder) -> dict[int, NDArray[Any]]:
    """Columns of the sample as it is, which need not be read from A for the new one."""
    sample = store.open_array(path, "sample")
    chunks = [store.read_chunk(sample, 0, k) for k in range(sample.cdata_shape[1])]
    numbers = store.read_array(path, "sample_column").tolist()
    return dict(zip(numbers, np.concatenate(chunks, axis=1).T, strict=True))


def _replace_sample(path: Folder, attributes: Mapping[str, Any], at_hand: Mapping[int, NDArray[Any]]) -> dict[str, Any]:
    """Draw the sample anew from all columns; returns attributes that say it is there."""
    names = ("sample", "sample_column")
    for name in names:
        (path / name).remove()
    write_sample(path, store.read_array(path, "ok"), at_hand)
    for name in attributes["digests"]:  # not the whole store: a run may be writing in it
        (path / name).put_on_disk()
    for name in path.entries():
        if name.endswith(HALF):
            (path / name).remove()
    digests = {**attributes["digests"], **{name: store.digest(path, name) for name in names}}
    return {**{key: value for key, value in attributes.items() if key != "sampling"}, "digests": digests}
