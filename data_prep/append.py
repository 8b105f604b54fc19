"""Files that have come since are appended: new columns of A after those that are there.

What is longer in place (A, names, `ok`, checksums) is written first, and readers take the n that they began with. Then
the attributes of the store say the new n, in one step. The sample is replaced after that; until it is, who needs it
reads its columns from A.
"""

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, put_chunk, resize
from data_prep.columns import (
    RECORDS,
    ChunkResult,
    Progress,
    attempt_of,
    check_room,
    check_share,
    chunks_of,
    write_chunks,
)
from data_prep.decode import stored_decoding
from data_prep.folders import HALF, Folder
from data_prep.lock import HeldError, only_writer
from data_prep.sample import write_sample
from data_prep.sources import SourceFile, digest, printable
from data_prep.store import StoredMatrix


class Tasks(NamedTuple):
    """What runs the tasks, and who is told."""

    executor: Executor
    on_progress: Callable[[Progress], None]


def since(
    matrix: StoredMatrix, appends: Sequence[tuple[int, str]], files: Sequence[SourceFile]
) -> tuple[list[SourceFile], bool]:
    """Files that are not in a store yet, and whether any that is in it is missing now or has changed.

    Parameters
    ----------
    matrix
        The stored matrix.
    appends
        For each time that files were added how many they were, and the digest of their names and versions.
    files
        What the sources hold now, in order.
    """
    given: dict[str, deque[int]] = defaultdict(deque)
    for position, file in enumerate(files):
        given[printable(file.name)].append(position)
    names = iter(store.read_array(matrix.path, "image", matrix.shape[1]))
    taken: set[int] = set()
    for count, expected in appends:
        found = [given[name].popleft() for name in islice(names, count) if given[name]]
        taken |= set(found)
        if digest([files[position] for position in found]) != expected:
            return [], True
    return [file for position, file in enumerate(files) if position not in taken], False


def append(matrix: StoredMatrix, files: Sequence[SourceFile], max_skip: float, tasks: Tasks) -> Mapping[str, Any]:
    """Append images to a complete store; returns its attributes.

    Parameters
    ----------
    matrix
        As it was opened to find out what is new.
    files
        The new ones, in order; none where only an interrupted append is to be ended.
    max_skip
        Share of them that may be unreadable.
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
        if files:
            results = _write_columns(matrix, files, tasks)
            unreadable = [list(broken) for result in results for broken in result.unreadable]
            check_share(unreadable, len(files), max_skip, path)
            attributes = {**attributes, **_lengthen(matrix, files, results)}
            attributes["unreadable"] = [*attributes["unreadable"], *unreadable]
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
        _resize(path, "A", n)
        _write_tail(path, "image", n, np.array([], np.dtypes.StringDType()))
        _write_tail(path, "ok", n, np.array([], np.bool_))
        _write_tail(path, "checksum", matrix.n_chunks - 1, np.array([last], np.uint32))
        (path / RECORDS).remove()


def _write_columns(matrix: StoredMatrix, files: Sequence[SourceFile], tasks: Tasks) -> list[ChunkResult]:
    """Make A longer, and write the chunks that have new columns."""
    path = matrix.path
    check_room(path, matrix.shape[0] * len(files) if matrix.attributes["prep"]["codec"] == "none" else 0)
    attempt = hashlib.sha256(json.dumps([matrix.fingerprint, digest(files)]).encode()).hexdigest()
    if attempt_of(path) != attempt:
        (path / RECORDS).remove()
        (path / RECORDS).make()
        (path / RECORDS).replace("attempt", attempt.encode())
    _resize(path, "A", matrix.shape[1] + len(files))
    height, width, channels = matrix.attributes["image_shape"]
    chunks = chunks_of(path, files, stored_decoding(matrix.attributes), (height, width, channels), matrix)
    return write_chunks(chunks, tasks.executor, tasks.on_progress)


def _lengthen(matrix: StoredMatrix, files: Sequence[SourceFile], results: Sequence[ChunkResult]) -> dict[str, Any]:
    """Write what belongs to the new columns behind what is there; returns attributes for the publication."""
    path, attributes, (_, n), c = matrix.path, matrix.attributes, matrix.shape, matrix.chunk_images
    ok = np.concatenate([result.ok for result in results])
    old, changed = store.read_checksums(matrix)[: n // c], [result.checksum for result in results]
    names = np.array([printable(file.name) for file in files], np.dtypes.StringDType())
    _write_tail(path, "image", n, names)
    _write_tail(path, "ok", n, ok)
    _write_tail(path, "checksum", n // c, np.array(changed, np.uint32))
    squares = attributes["sum_of_squares"] + sum(result.sum_of_squares for result in results)
    about = store.complete(
        path,
        "images",
        checksums=np.concatenate([old, np.array(changed, np.uint32)]),
        ok=store.read_array(path, "ok"),
        norm_squared=squares / 255**2,
        arrays=list(attributes["digests"]),
    )
    appends = [*attributes["prep"]["appends"], [len(files), digest(files)]]
    prep = {**attributes["prep"], "appends": appends}
    return {**about, "sum_of_squares": squares, "prep": prep, "sampling": True}


def _resize(path: Folder, name: str, length: int) -> None:
    array = store.open_array(path, name, mode="r+")
    if array.shape[-1] != length:
        resize(path / name, array, length)


def _write_tail(path: Folder, name: str, first: int, values: NDArray[Any]) -> None:
    """Write values behind the first so many of an array, which becomes just as long; chunks are replaced whole."""
    array = store.open_array(path, name)
    c = array.chunks[0]
    if first % c:
        values = np.concatenate([store.read_chunk(array, first // c)[: first % c], values])
    start = first - first % c
    _resize(path, name, start + len(values))
    array = store.open_array(path, name, mode="r+")
    for offset in range(0, len(values), c):
        index = ((start + offset) // c,)
        put_chunk(array, index, encode_chunk(array, index, values[offset : offset + c]))


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
