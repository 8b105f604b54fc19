"""The files that sources hold, in columns: a million names cost their bytes and about a hundred more each."""

import hashlib
import os
import urllib.parse
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Size of a file that nobody was asked about."""
NUMBERS = 5
"""How many numbers are kept of a file."""


class Container(NamedTuple):
    """What files lie in."""

    kind: str
    """`folder`, `url`, `zip`, `tar`, `stream` (a compressed tar), `npy` or `zarr`."""
    location: str
    """Path or address."""


class SourceFile(NamedTuple):
    """A file that should hold an image."""

    name: bytes
    """Path inside its source, as it is there."""
    container: Container
    nbytes: int
    """Size of the file, unpacked."""
    version: int = 0
    """Changes with the content: time of change of a file, CRC-32 in a zip archive."""
    offset: int = 0
    """First byte in an archive, or number of the image in an array."""
    packed: int = 0
    """Bytes in an archive."""
    method: int = 0
    """How it is packed, as zip archives number it; negative where it must not be unpacked."""


class Files(Sequence[SourceFile]):
    """Files in the order that their images will have as columns."""

    def __init__(self, names: list[bytes], containers: Sequence[Container], numbers: NDArray[np.int64]) -> None:
        self.names = names
        """Bytes of the names."""
        self._containers = containers
        self._numbers = numbers

    @overload
    def __getitem__(self, k: int) -> SourceFile: ...
    @overload
    def __getitem__(self, k: slice) -> "Files": ...
    def __getitem__(self, k: int | slice) -> "SourceFile | Files":
        if isinstance(k, slice):
            return Files(self.names[k], self._containers, self._numbers[k])
        nbytes, version, offset, packed, both = self._numbers[k].tolist()
        where, method = divmod(both, 256)
        return SourceFile(self.names[k], self._containers[where], nbytes, version, offset, packed, method - 128)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, positions: NDArray[np.integer[Any]]) -> "Files":
        """Return some of the files, in the order of their positions."""
        return Files([self.names[k] for k in positions.tolist()], self._containers, self._numbers[positions])

    @property
    def nbytes(self) -> NDArray[np.int64]:
        """Size of each file."""
        return self._numbers[:, 0]

    @property
    def versions(self) -> NDArray[np.int64]:
        """Version of each file."""
        return self._numbers[:, 1]

    def places(self) -> list[int]:
        """Positions of the files in the order that they lie in what they are read from."""
        return np.lexsort((self._numbers[:, 2], self._numbers[:, 4] // 256)).tolist()


def listed(files: Iterable[SourceFile]) -> Files:
    """Sort files by the bytes of their names; those with equal names stay in the order of their sources."""
    names: list[bytes] = []
    containers: dict[Container, int] = {}
    numbers = array("q")
    for name, container, nbytes, version, offset, packed, method in files:
        where = containers.setdefault(container, len(containers))
        names.append(name)
        numbers.extend((nbytes, version, offset, packed, where * 256 + method + 128))
    table = np.frombuffer(numbers, np.int64).reshape(-1, NUMBERS)
    order = sorted(range(len(names)), key=names.__getitem__)
    for k in range(NUMBERS if order else 0):  # column by column: what is moved aside stays small
        table[:, k] = table[order, k]
    return Files([names[k] for k in order], list(containers), table)


def positions_of(files: Files, names: Iterable[bytes]) -> Iterator[int]:
    """Position of the file of each name, −1 where there is none; of files with equal names one after the other."""
    taken = np.zeros(len(files), np.bool_)
    for name in names:
        k = bisect_left(files.names, name)
        while k < len(files) and taken[k] and files.names[k] == name:
            k += 1
        found = k < len(files) and files.names[k] == name
        if found:
            taken[k] = True
        yield k if found else -1


def digest(files: Files) -> str:
    """Hash of names and versions: equal where the same files are given again, unchanged."""
    found = hashlib.sha256()
    for name in files.names:
        found.update(b"%d:" % len(name) + name)
    found.update(np.ascontiguousarray(files.nbytes).tobytes() + np.ascontiguousarray(files.versions).tobytes())
    return found.hexdigest()


def printable(name: bytes) -> str:
    """Percent-encode what is not UTF-8, control characters and percent signs, so that the bytes can be had back."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(b) if 32 < b < 127 and b != 0x25 else f"%{b:02X}" for b in name)
    if text.isprintable() and "%" not in text:
        return text
    return "".join(f"%{ord(x):02X}" if x == "%" or ord(x) < 32 or ord(x) == 127 else x for x in text)


def original_bytes(printed: str) -> bytes:
    """Return the bytes of the name that `printable` was given."""
    return urllib.parse.unquote_to_bytes(printed)


def inside(name: bytes) -> bytes:
    """Return the name of a member of an archive as it would be in a folder: without ./ before it."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name


def name_of(path: str) -> bytes:
    """Return the bytes of a path, with slashes."""
    return os.fsencode(path).replace(os.fsencode(os.sep), b"/")
