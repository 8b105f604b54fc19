"""What became of every file: row j of the manifest is column j of A, and what got no column is in the skipped list.

Both are arrays of strings, a JSON object each. So they are appended to, checked and repaired as all else is, xarray
opens them, and pandas makes a table of them (README).
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from data_prep.listing import SourceFile, printable
from data_prep.places import Passed


class Status(StrEnum):
    """What became of an image."""

    OK = "ok"
    UNREADABLE = "unreadable"
    """It is missing, damaged, of no known format, over a limit, or took too long."""
    SIZE = "size"
    """It is whole, but of another size than the others."""


class Row(NamedTuple):
    """What the manifest says of an image."""

    image: str
    """Its name, as in the array `image`."""
    source: str
    """Folder, archive, array or address that it was found in."""
    status: str
    reason: str
    """Why it has a column of zeros; empty where it has not."""
    nbytes: int
    version: int
    """Changes with the content: time of change in nanoseconds, CRC-32 in a zip archive."""
    sha256: str
    """Of its bytes; empty where they could not be read."""
    format: str
    mode: str
    """Pillow's names of what the file holds."""
    height: int
    width: int
    """As stored in the file, before it was turned or resized; 0 where it does not say."""
    orientation: int
    """Of EXIF, which was undone; 0 where it was not decoded."""


class Unreadable(NamedTuple):
    """An image with a zero column, and why."""

    name: str
    reason: str


def row_of(file: SourceFile, **found: Any) -> Row:
    """Return the row of a file, of which more may be known than the list says."""
    row = Row(
        image=printable(file.name),
        source=file.container.location,
        status=Status.OK,
        reason="",
        nbytes=file.nbytes,
        version=file.version,
        sha256="",
        format="",
        mode="",
        height=0,
        width=0,
        orientation=0,
    )
    return row._replace(**found)


def rendered(rows: Iterable[Row]) -> NDArray[Any]:
    """Strings of some rows, to be stored."""
    return np.array([json.dumps(row._asdict()) for row in rows], np.dtypes.StringDType())


def rendered_passed(passed: Iterable[Passed]) -> NDArray[Any]:
    """Strings of files that get no column, to be stored."""
    rows = ({"file": printable(one.name), "source": one.source, "reason": one.reason} for one in passed)
    return np.array([json.dumps(row) for row in rows], np.dtypes.StringDType())


def read_rows(path: Folder, n: int) -> Iterator[Row]:
    """Rows of the first n columns of a store, a chunk at a time."""
    return (Row(**row) for row in _read(path, "manifest", n))


def read_skipped(path: Folder, n: int) -> Iterator[Mapping[str, str]]:
    """First n entries of the list of files that got no column: file, source and reason."""
    return _read(path, "skipped", n)


def _read(path: Folder, name: str, n: int) -> Iterator[dict[str, Any]]:
    array = store.open_array(path, name)
    c = array.chunks[0]
    for k in range(-(-n // c)):
        for text in store.read_chunk(array, k)[: n - k * c]:
            yield json.loads(text)


def unreadable(path: Folder, n: int) -> list[Unreadable]:
    """Images of a store that have columns of zeros."""
    return [Unreadable(row.image, row.reason) for row in read_rows(path, n) if row.status != Status.OK]


def duplicates(path: Folder, n: int) -> list[list[str]]:
    """Names of images whose files are the same to the byte, group by group in the order of their columns."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for j, row in enumerate(read_rows(path, n)):
        if row.status == Status.OK:
            found[bytes.fromhex(row.sha256)].append(j)
    groups = [columns for columns in found.values() if len(columns) > 1]
    names = store.read_array(path, "image", n) if groups else ()
    return [[str(names[j]) for j in columns] for columns in groups]
