"""The table job: entries in long form in, a masked matrix A (m, n) with the names of its rows and columns out.

The files are read twice. The first time, everything in them is checked and the distinct labels are collected, which
fixes the place of each; the second time, entries are spilled to a file a chunk. Then each chunk is made dense and
written. What is held is the labels, a batch of a file, and one chunk of A.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder, Where, folder
from data_prep.images import StoreDiffers
from data_prep.lock import only_writer
from data_prep.matrix_store import EXPENDABLE, Block, Matrix, check_largest, sampled_columns, write_blocks
from data_prep.spill import Spill, spilled
from data_prep.table_files import Labels, Names, batches, digest

NUMBER = re.compile(r"(?=.{1,300}\Z)[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A label that is sorted as a number; what is longer than any float is text, and Python's int refuses 4,300 digits."""


@dataclass(frozen=True, kw_only=True)
class PreparedTable:
    """What a preparation did."""

    path: Folder
    shape: tuple[int, int]
    n_entries: int
    new: bool
    """False where the store held just this before."""


@dataclass(frozen=True)
class Contents:
    """What the first reading finds."""

    features: Mapping[str, int]
    items: Mapping[str, int]
    """Place of each label."""
    n_entries: int


class Entries(NamedTuple):
    """Entries with their places, each (entries,)."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    values: NDArray[np.float64]
    drawn: NDArray[np.int64]
    """Column in the sample, −1 where it has none of them."""


def prepare_table(
    sources: Sequence[str | os.PathLike[str]],
    path: Where,
    names: Names,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PreparedTable:
    """Turn files in long form into a store: a row and a column for each distinct label, the other entries missing.

    Parameters
    ----------
    sources
        CSV or Parquet files of this machine; neither their order nor that of their lines matters.
    path
        The store to make. One that holds just this is left alone.
    names
        Columns of the files that name the row and the column of an entry, and that hold its value.
    on_progress
        Called with the number of columns of A that are written and of all.

    Raises
    ------
    BadInput
        A file is missing or no table, lacks a column or holds what is no entry; the same entry is given twice, or
        none; the path is taken.
    StoreDiffers
        The store was made from other files or columns.
    """
    if len(set(names)) < len(names):
        raise store.BadInput(f"rows, columns and values are {', '.join(names)}, but must be three columns; name each")
    home, files = folder(path), [Path(source) for source in sources]
    made_of = {**names._asdict(), "files": sorted(list(digest(file)) for file in files)}
    if store.group_attributes(home).get("status") == "complete":
        return _again(home, made_of)
    store.check_vacant(home, expendable=EXPENDABLE)
    contents = _read_contents(files, names)
    with only_writer(home) as still_ours:
        store.begin(home, expendable=EXPENDABLE)
        try:
            attributes = _write(home, files, names, contents, on_progress)
        except store.BadInput:
            home.remove()
            raise
        still_ours()
        store.publish(home, {**attributes, "prep": made_of})
    return _prepared(home, attributes, new=True)


def _again(home: Folder, made_of: Mapping[str, Any]) -> PreparedTable:
    """Return what a complete store holds, where it was made of just this."""
    attributes = store.open_matrix(home).attributes
    stored = attributes.get("prep", {})
    if attributes["kind"] != "table":
        raise StoreDiffers(f"{home} does not hold a table (kind: {attributes['kind']}); choose another --zarr")
    different = [f"{key}: {stored[key]} → {made_of[key]}" for key in Names._fields if stored[key] != made_of[key]]
    if not different and stored["files"] != made_of["files"]:
        different = ["the files have another content"]
    if different:
        raise StoreDiffers(
            f"{home} was made of another table ({'; '.join(different)}); choose another --zarr, or remove it first"
        )
    return _prepared(home, attributes, new=False)


def _prepared(home: Folder, attributes: Mapping[str, Any], *, new: bool) -> PreparedTable:
    m, n = attributes["shape"]
    return PreparedTable(path=home, shape=(m, n), n_entries=attributes.get("n_present", m * n), new=new)


def _read_contents(files: Sequence[Path], names: Names) -> Contents:
    """Read all files, check what is in them, and collect their labels; memory is the labels and a batch."""
    features, items = set[str](), set[str]()
    n_entries, largest = 0, 0.0
    for batch in (batch for file in files for batch in batches(file, names)):
        features.update(batch.rows.distinct)
        items.update(batch.columns.distinct)
        n_entries += len(batch.values)
        largest = max(largest, batch.values.max(initial=0.0))
    if not n_entries:
        raise store.BadInput(f"{', '.join(map(str, files))}: there are no entries, but at least one must be")
    check_largest(largest)
    return Contents(_places(features), _places(items), n_entries)


def _places(labels: set[str]) -> dict[str, int]:
    """Place of each label: numbers come first, as numbers; then the others by their UTF-8 bytes."""
    return {label: place for place, label in enumerate(sorted(labels, key=_sort_key))}


def _sort_key(label: str) -> tuple[bool, float, bytes]:
    if not NUMBER.fullmatch(label):
        return True, 0, label.encode()
    digits = label.lstrip("+-")
    return False, int(label) if digits.isdecimal() else float(label), label.encode()  # int: ids may have 20 digits


def _write(
    home: Folder, files: Sequence[Path], names: Names, contents: Contents, on_progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Read the files again, and write their entries; returns the attributes to publish."""
    m, n = len(contents.features), len(contents.items)
    matrix = Matrix(
        kind="table",
        shape=(m, n),
        dtype=np.dtype(np.float32),
        n_present=contents.n_entries,
        n_filled=contents.n_entries,
        features=list(contents.features),
        items=list(contents.items),
    )
    columns = sampled_columns(matrix)
    with spilled(home) as room:
        A, sample = (Spill(room, name, store.chunk_images(m)) for name in ("A", "sample"))
        for i, j, values, drawn in _entries(files, names, contents, columns):
            A.add(i, j, values)
            sample.add(i[drawn >= 0], drawn[drawn >= 0], values[drawn >= 0])
        blocks = _blocks(A, matrix, n, on_progress)
        return write_blocks(home, matrix, blocks, _blocks(sample, matrix, len(columns)))


def _entries(files: Sequence[Path], names: Names, contents: Contents, columns: NDArray[np.int64]) -> Iterator[Entries]:
    """Read the files again; BadInput where they are not what they were."""
    drawn = np.full(len(contents.items), -1)
    drawn[columns] = np.arange(len(columns))
    n_entries = 0
    for file in files:
        for batch in batches(file, names):
            i, j = _found(batch.rows, contents.features, file), _found(batch.columns, contents.items, file)
            yield Entries(i, j, batch.values, drawn[j])
            n_entries += len(batch.values)
    if n_entries != contents.n_entries:
        raise _changed(*files)


def _found(labels: Labels, places: Mapping[str, int], file: Path) -> NDArray[np.int64]:
    """Place of the label of each entry."""
    found = np.array([places.get(label, -1) for label in labels.distinct], np.int64)
    if (found < 0).any():
        raise _changed(file)
    return found[labels.codes]


def _changed(*files: Path) -> store.BadInput:
    return store.BadInput(f"{', '.join(map(str, files))} changed while being read; run the same command again")


def _blocks(
    spill: Spill, matrix: Matrix, n: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Block]:
    """Make the chunks of n columns dense, one after another."""
    m, c = matrix.shape[0], spill.chunk_images
    for first in range(0, n, c):
        width = min(c, n - first)
        entries = spill.take(first // c, m * width + 1)  # one more than there is room for has a double in it
        values, present = np.zeros((m, width), np.float32), np.zeros((m, width), np.bool_)
        values[entries["i"], entries["j"]] = entries["value"]
        present[entries["i"], entries["j"]] = True
        if present.sum() < len(entries):
            raise _twice(matrix, first, entries)
        yield Block(values, present if matrix.masked else None)
        on_progress(first + width, n)


def _twice(matrix: Matrix, first: int, entries: NDArray[np.void]) -> store.BadInput:
    """Return the error that names the first entry that is given more than once."""
    places, counts = np.unique(entries[["j", "i"]], return_counts=True)
    place = places[counts > 1][0]
    assert matrix.features is not None
    assert matrix.items is not None
    row, column = matrix.features[int(place["i"])], matrix.items[first + int(place["j"])]
    return store.BadInput(
        f"the entry of row {row!r} and column {column!r} is given more than once; leave one of them out"
    )
