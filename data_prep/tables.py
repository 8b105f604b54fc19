"""The table job: entries in long form in, a masked matrix A (m, n) with the names of its rows and columns out.

The files are read twice. The first time, everything in them is checked and the distinct labels are collected, which
fixes the place of each; the second time, entries are spilled to a file a chunk. Then each chunk is made dense and
written. What is held is the labels, a batch of a file, and one chunk of A.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.dense import Entries, dense_blocks
from data_prep.folders import Folder, Where, folder
from data_prep.input_files import digest
from data_prep.made_of import prepare, prepared_before
from data_prep.matrix_store import Block, Matrix, check_largest, write_blocks
from data_prep.spill import Spill, spilled
from data_prep.table_files import FILES, Labels, Names, batches

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
    made_of = {**names._asdict(), "files": sorted(list(digest(file, FILES)) for file in files)}
    before = prepared_before(home, "table", made_of, {"files": "the files have another content"})
    if before is not None:
        return _prepared(home, before, new=False)
    contents = _read_contents(files, names)
    attributes = prepare(home, made_of, lambda: _write(home, files, names, contents, on_progress))
    return _prepared(home, attributes, new=True)


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
    with spilled(home) as room:
        A = Spill(room, "A", store.chunk_images(m))
        for i, j, values in _entries(files, names, contents):
            A.add(i, j, values)
        return write_blocks(home, matrix, *dense_blocks(A, matrix, partial(_dense, matrix), on_progress))


def _entries(files: Sequence[Path], names: Names, contents: Contents) -> Iterator[Entries]:
    """Read the files again; BadInput where they are not what they were."""
    n_entries = 0
    for file in files:
        for batch in batches(file, names):
            i, j = _found(batch.rows, contents.features, file), _found(batch.columns, contents.items, file)
            yield Entries(i, j, batch.values)
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


def _dense(matrix: Matrix, spill: Spill, k: int, width: int) -> Block:
    """Make a chunk of so many columns dense; BadInput where an entry of it is given twice."""
    m = matrix.shape[0]
    entries = spill.take(k, m * width + 1)  # one more than there is room for has a double in it
    values, present = np.zeros((m, width), np.float32), np.zeros((m, width), np.bool_)
    values[entries["i"], entries["j"]] = entries["value"]
    present[entries["i"], entries["j"]] = True
    if present.sum() < len(entries):
        raise _twice(matrix, k * spill.chunk_images, entries)
    return Block(values, present if matrix.masked else None)


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
