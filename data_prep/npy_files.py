"""Arrays and sparse matrices as NumPy and SciPy save them, read from the front on, a batch of entries at a time.

Nothing is unpickled, and what a header promises is not believed: it costs no memory, and is compared with what comes.
"""

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from data_prep.dense import Entries
from data_prep.groups import BadInput

BATCH_ENTRIES = 2**18
"""Read at once."""
COMPRESSED, COORDINATES = ("csr", "csc"), "coo"
SAVE = "scipy.sparse.save_npz(file, A.tocsr())"
VERSION = (1, 0)
"""Of the format: later ones differ in the length of headers alone, which is then up to 4 GiB, read before a look."""
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
HEADERLESS = (ValueError, KeyError, TypeError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError)
"""What NumPy raises where a header is no literal of Python with what must be in it."""
MOST_LETTERS = 32
"""Of the name of a format."""


@dataclass(frozen=True)
class Stream:
    """An array on its way in."""

    file: IO[bytes]
    what: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def size(self) -> int:
        """Entries that the header promises."""
        return prod(self.shape)

    def take(self, count: int) -> NDArray[Any]:
        """Read the next entries; BadInput where there are not so many."""
        content = self.file.read(count * self.dtype.itemsize)
        if len(content) < count * self.dtype.itemsize:
            raise BadInput(f"{self.what} ends before its {self.size:,} entries do; the file is cut off, get it again")
        return np.frombuffer(content, self.dtype)

    def batches(self) -> Iterator[NDArray[Any]]:
        """All entries, in the order of the file."""
        for first in range(0, self.size, BATCH_ENTRIES):
            yield self.take(min(BATCH_ENTRIES, self.size - first))


def stream(file: IO[bytes], what: str, kinds: str = "biuf") -> Stream:
    """Read the header of an array; BadInput unless it holds values of these kinds of NumPy's types."""
    try:
        if npy.read_magic(file) != VERSION:
            raise ValueError("another version")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            shape, fortran, dtype = npy.read_array_header_1_0(file)
    except HEADERLESS as error:
        raise BadInput(f"{what} does not begin as an array, or is damaged; save it again") from error
    if dtype.kind not in kinds or dtype.itemsize > 4 * MOST_LETTERS or min(shape, default=0) < 0:
        raise BadInput(f"{what} holds {dtype} {shape}, but must hold real numbers; save such")
    return Stream(file, what, shape, dtype, fortran)


@contextmanager
def dense(file: Path) -> Iterator[tuple[tuple[int, int], Iterator[Entries]]]:
    """Shape and entries of an array, those that are zero left out."""
    with file.open("rb") as opened:
        values = stream(opened, str(file))
        if len(values.shape) != 2:
            raise BadInput(f"{file} has shape {values.shape}, but must have rows and columns; reshape it")
        m, n = values.shape
        yield (m, n), _of_dense(values, (m, n))


def _of_dense(values: Stream, shape: tuple[int, int]) -> Iterator[Entries]:
    first, (m, n) = 0, shape
    for batch in values.batches():
        places = np.flatnonzero(batch)
        outer, inner = divmod(first + places, m if values.fortran else n)
        i, j = (inner, outer) if values.fortran else (outer, inner)
        yield Entries(i, j, batch[places].astype(np.float64))
        first += len(batch)


@contextmanager
def sparse(file: Path) -> Iterator[tuple[tuple[int, int], Iterator[Entries]]]:
    """Shape and entries of a sparse matrix; its arrays are read in step with each other."""
    with ExitStack() as stack:
        archive = _Archive(file, stack.enter_context(zipfile.ZipFile(file)), stack)
        name = archive.format()
        shape = archive.shape()
        names = ("indptr", "indices", "data") if name in COMPRESSED else ("row", "col", "data")
        first, second, values = (archive.array(one) for one in names)
        for one in (first, second):
            if one.dtype.kind not in "iu":
                raise BadInput(f"{one.what} holds {one.dtype}, but must hold whole numbers; save it with {SAVE}")
        if any(len(one.shape) != 1 for one in (first, second, values)) or second.size != values.size:
            raise BadInput(f"{file}: {names[1]} and data must be as long as each other; save it with {SAVE}")
        if name == COORDINATES:
            yield shape, _of_coordinates(file, first, second, values)
        else:
            entries = _of_compressed(first, second, values, shape[COMPRESSED.index(name)])
            yield shape, entries if name == "csr" else (Entries(j, i, values) for i, j, values in entries)


@dataclass(frozen=True)
class _Archive:
    """What `save_npz` has written."""

    file: Path
    opened: zipfile.ZipFile
    stack: ExitStack

    def array(self, name: str, kinds: str = "biuf") -> Stream:
        """Open an array of it, to be read from the front on."""
        what = f"{self.file}/{name}"
        try:
            info = self.opened.getinfo(f"{name}.npy")
        except KeyError as error:
            raise BadInput(f"{what} is not there, so it is no sparse matrix; save it with {SAVE}") from error
        if info.header_offset < 0:
            raise BadInput(f"{self.file} is damaged or cut off ({name} begins before it); get it again")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
            raise BadInput(f"{what} is compressed in another way than NumPy does; save it with {SAVE}")
        return stream(self.stack.enter_context(self.opened.open(info)), what, kinds)

    def format(self) -> str:
        """How the entries are stored."""
        found = self.array("format", "SU")
        name = found.take(1)[0] if found.shape == () else ""
        name = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
        if name not in (*COMPRESSED, COORDINATES):
            raise BadInput(f"{self.file} is stored as {name!r}, but must be csr, csc or coo; save it with {SAVE}")
        return name

    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        found = self.array("shape", "iu")
        if found.shape != (2,):
            raise BadInput(f"{self.file} has not two dimensions, but must have rows and columns; save it with {SAVE}")
        m, n = found.take(2).tolist()
        return m, n


def _of_coordinates(file: Path, rows: Stream, columns: Stream, values: Stream) -> Iterator[Entries]:
    if rows.size != values.size:
        raise BadInput(f"{file}: row and data must be as long as each other; save it with {SAVE}")
    for i, j, batch in zip(rows.batches(), columns.batches(), values.batches(), strict=True):
        yield Entries(i.astype(np.int64), j.astype(np.int64), batch.astype(np.float64))


def _of_compressed(pointers: Stream, minor: Stream, values: Stream, n_major: int) -> Iterator[Entries]:
    """Entries of rows, or of columns: those of row k are at pointers[k] to pointers[k + 1]."""
    if pointers.size != n_major + 1:
        raise BadInput(f"{pointers.what} has {pointers.size:,} entries, but must have {n_major + 1:,}; save it again")
    first, last = 0, np.zeros(1, np.int64)
    for batch in pointers.batches():
        ends = np.concatenate([last if first else batch[:1].astype(np.int64), batch.astype(np.int64)])
        if (np.diff(ends) < 0).any() or ends[-1] > values.size or (not first and ends[0]):
            raise BadInput(f"{pointers.what} must rise from 0 to {values.size:,}, and does not; save it with {SAVE}")
        yield from _of_some(ends, first - 1, minor, values)
        first, last = first + len(batch), ends[-1:]
    if last[0] != values.size:
        raise BadInput(f"{pointers.what} ends at {last[0]:,}, but must at {values.size:,}; save it with {SAVE}")


def _of_some(ends: NDArray[np.int64], first: int, minor: Stream, values: Stream) -> Iterator[Entries]:
    """Entries of some rows, the first of which has that number; a row may be longer than what is read at once."""
    for begin in range(int(ends[0]), int(ends[-1]), BATCH_ENTRIES):
        end = min(begin + BATCH_ENTRIES, int(ends[-1]))
        within = np.clip(ends, begin, end)
        counts = within[1:] - within[:-1]
        rows = np.repeat(first + np.arange(len(counts)), counts)
        yield Entries(rows, minor.take(end - begin).astype(np.int64), values.take(end - begin).astype(np.float64))
