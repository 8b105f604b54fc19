"""Everything in a store is read once and compared with what its groups say of it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from data_prep import store
from data_prep.chunks import chunk_file, columns_of
from data_prep.folders import Folder


class Damage(NamedTuple):
    """A file that is missing, or is not what was written."""

    group: Folder
    """The group that says what the file must be."""
    array: str
    """Name of the array; empty where the file is the group's own."""
    at: tuple[int, ...] | None
    """Index of the chunk; None where the file is the array's metadata."""
    file: str
    what: str
    columns: range | None = None
    """Columns of A that it is about."""


class Part(NamedTuple):
    """A chunk that is to be read."""

    group: Folder
    array: str
    at: tuple[int, ...]
    checksum: int | None
    """What it must be, where that is known of this very chunk."""


def verify(
    groups: Sequence[Folder], executor: Executor, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Damage]:
    """Read every chunk of the arrays of some groups, and say what is damaged or missing.

    Parameters
    ----------
    groups
        The store, and the groups of its factorizations.
    executor
        Threads, which read side by side.
    on_progress
        Called with the number of chunks that are done and of all.
    """
    found = [one for group in groups for one in _of_group(group)]
    damages = [one for one in found if isinstance(one, Damage)]
    parts = [one for one in found if isinstance(one, Part)]
    read: dict[tuple[Folder, str], list[int | None]] = {}
    for done, (part, outcome) in enumerate(zip(parts, executor.map(_read, parts), strict=True), 1):
        if isinstance(outcome, Damage):
            damages.append(outcome)
        read.setdefault((part.group, part.array), []).append(outcome if isinstance(outcome, int) else None)
        on_progress(done, len(parts))
    for (group, name), checksums in read.items():
        damages += _swapped(group, name, checksums)
    return damages


def _of_group(group: Folder) -> Iterator[Damage | Part]:
    """Damages of the metadata of a group and its arrays, and the chunks that can be read."""
    try:
        attributes = store.group_attributes(group)
    except store.BadInput as error:
        yield Damage(group, "", None, f"{group}/zarr.json", _reason(error, f"{group}/zarr.json"))
        return
    if group.read("zarr.json") is None:
        yield Damage(group, "", None, f"{group}/zarr.json", "is missing")
    for name, expected in attributes.get("digests", {}).items():
        metadata = (group / name).read("zarr.json")
        if metadata != expected["metadata"].encode():
            what = "is missing" if metadata is None else "is not what was written"
            yield Damage(group, name, None, f"{group / name}/zarr.json", what)
        array = store.published_array(group, name)
        known = _checksums(group, attributes) if name == "A" else {}
        yield from (Part(group, name, index, known.get(index)) for index in np.ndindex(array.cdata_shape))


def _checksums(group: Folder, attributes: Any) -> dict[tuple[int, ...], int]:
    """What the checksums of the chunks of A must be, where the array that holds them is whole."""
    try:
        checksums = store.read_array(group, "checksum")
    except store.BadInput:
        return {}
    if store.fingerprint(tuple(attributes["shape"]), checksums) != attributes["fingerprint"]:
        return {}
    return {(0, k): int(checksum) for k, checksum in enumerate(checksums)}


def _read(part: Part) -> Damage | int:
    """Read a chunk; returns its checksum, or what is wrong."""
    array = store.published_array(part.group, part.array)
    try:
        store.read_chunk(array, *part.at, checksum=part.checksum)
        return store.stored_checksum(array, *part.at)
    except store.Damaged as error:
        return Damage(part.group, part.array, part.at, error.file, error.what, error.columns)


def _swapped(group: Folder, name: str, checksums: Sequence[int | None]) -> Iterator[Damage]:
    """Damage of an array whose chunks are whole, each for itself, but not those that were written."""
    known = [checksum for checksum in checksums if checksum is not None]
    digest = store.group_attributes(group)["digests"][name]["chunks"]
    if len(known) == len(checksums) and store.digest_of_chunks(known) != digest:
        array = store.published_array(group, name)
        for index in np.ndindex(array.cdata_shape):
            what = "may be of another array: the digest of all chunks is another"
            yield Damage(group, name, index, chunk_file(array, index), what, columns_of(array, index))


def _reason(error: store.BadInput, file: str) -> str:
    return str(error).removeprefix(f"{file} ").partition(";")[0]


def image_names(path: Folder, columns: range | None) -> list[str]:
    """Names of the images, or items, in some columns; none where there are none, or they are damaged themselves."""
    try:
        array = store.open_array(path, "image" if (path / "image").exists() else "item")
        c = array.chunks[0]
        parts = sorted({j // c for j in (columns.start, columns.stop - 1)}) if columns else []
        names = [str(name) for k in parts for name in store.read_chunk(array, k)]
    except store.BadInput:
        return []
    first = parts[0] * c if parts else 0
    return names[columns.start - first : columns.stop - first] if columns else []
