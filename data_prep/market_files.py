"""Matrix Market files, a line an entry, compressed or not, read a block of lines at a time."""

import gzip
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from data_prep.dense import Entries
from data_prep.groups import BadInput

BLOCK_NBYTES = 4 * 2**20
"""Read at once."""
LINE_NBYTES = 2**16
"""The longest line that is believed to be one."""
GZIP = b"\x1f\x8b"
BROKEN = (zlib.error, EOFError, gzip.BadGzipFile)
FORMS, FIELDS, SYMMETRIES = ("coordinate", "array"), ("real", "integer", "pattern"), ("general", "symmetric")
Fields = list[tuple[str, type[Any]]]
INDICES: Fields = [("i", np.int64), ("j", np.int64)]
SAVE = "scipy.io.mmwrite(file, A)"


class Header(NamedTuple):
    """What the first lines say."""

    form: str
    field: str
    symmetric: bool
    shape: tuple[int, int]
    n_entries: int
    """Lines that follow."""
    n_lines: int
    """Of the header."""


@contextmanager
def market(file: Path) -> Iterator[tuple[tuple[int, int], Iterator[Entries]]]:
    """Shape and entries of a matrix."""
    with _opened(file) as opened:
        header = _header(file, opened)
        entries = _coordinates(file, opened, header) if header.form == "coordinate" else _array(file, opened, header)
        yield header.shape, (_both_triangles(one) for one in entries) if header.symmetric else entries


def _opened(file: Path) -> IO[bytes]:
    with file.open("rb") as head:
        compressed = head.read(len(GZIP)) == GZIP
    return cast(IO[bytes], gzip.open(file)) if compressed else file.open("rb")


def _header(file: Path, opened: IO[bytes]) -> Header:
    """Read the banner, comments and the line of sizes."""
    banner = _line(file, opened).decode("ascii", "replace").lower().split()
    if len(banner) != 5 or banner[:2] != ["%%matrixmarket", "matrix"]:
        raise BadInput(f"{file} does not begin as a Matrix Market file; write it with {SAVE}")
    form, field, symmetry = banner[2:]
    if form not in FORMS or field not in FIELDS or symmetry not in SYMMETRIES or (form, field) == ("array", "pattern"):
        raise BadInput(
            f"{file} is {form} {field} {symmetry}, but must be {' or '.join(FORMS)}, {' or '.join(FIELDS)}, "
            f"{' or '.join(SYMMETRIES)}; write the whole matrix with {SAVE}"
        )
    line, n_lines = _line(file, opened), 2
    while line.startswith(b"%") or line.isspace():
        line, n_lines = _line(file, opened), n_lines + 1
    sizes = line.split()
    if len(sizes) != (3 if form == "coordinate" else 2) or not all(one.isdigit() and len(one) < 19 for one in sizes):
        raise BadInput(f"{file}, line {n_lines}: there must be rows, columns and entries, and are not; write it again")
    m, n, *stated = (int(one) for one in sizes)
    if symmetry == "symmetric" and m != n:
        raise BadInput(f"{file} is symmetric with {m:,} rows and {n:,} columns, but must have as many; write it again")
    n_entries = stated[0] if stated else m * (m + 1) // 2 if symmetry == "symmetric" else m * n
    return Header(form, field, symmetry == "symmetric", (m, n), n_entries, n_lines)


def _line(file: Path, opened: IO[bytes]) -> bytes:
    line = opened.readline(LINE_NBYTES)
    if not line.endswith(b"\n"):
        raise BadInput(f"{file} ends, or goes on without an end of line, within its header; write it with {SAVE}")
    return line


def _coordinates(file: Path, opened: IO[bytes], header: Header) -> Iterator[Entries]:
    pattern = header.field == "pattern"
    for batch in _tables(file, opened, header, INDICES if pattern else [*INDICES, ("value", np.float64)]):
        values = np.ones(len(batch)) if pattern else batch["value"]
        yield Entries(batch["i"] - 1, batch["j"] - 1, values)


def _array(file: Path, opened: IO[bytes], header: Header) -> Iterator[Entries]:
    """Entries column by column; of a symmetric matrix, those from the diagonal on."""
    first, (m, _) = 0, header.shape
    for batch in _tables(file, opened, header, [("value", np.float64)]):
        places = first + np.arange(len(batch))
        j, i = _lower(places, m) if header.symmetric else divmod(places, m)
        filled = batch["value"] != 0
        yield Entries(i[filled], j[filled], batch["value"][filled])
        first += len(batch)


def _lower(places: NDArray[np.int64], m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Column and row of places in the lower triangle, which are counted column by column."""
    before_end = m * (m + 1) // 2 - 1 - places
    t = ((np.sqrt(8.0 * before_end + 1) - 1) / 2).astype(np.int64)  # columns after it; rounded, so perhaps one off
    t -= t * (t + 1) // 2 > before_end
    t += (t + 1) * (t + 2) // 2 <= before_end
    return m - 1 - t, m - 1 - (before_end - t * (t + 1) // 2)


def _both_triangles(entries: Entries) -> Entries:
    i, j, values = entries
    off = i != j
    return Entries(np.append(i, j[off]), np.append(j, i[off]), np.append(values, values[off]))


def _tables(file: Path, opened: IO[bytes], header: Header, fields: Fields) -> Iterator[NDArray[np.void]]:
    """Read the lines after the header as records; BadInput names the line that is none."""
    n_lines, n_entries = header.n_lines, 0
    for block in _blocks(file, opened):
        lines = block.split(b"\n")
        if not block.isspace():
            try:
                batch = _parsed(lines, fields)
            except ValueError as error:
                raise _unreadable(file, lines, n_lines, fields) from error
            n_entries += len(batch)
            if n_entries > header.n_entries:
                break
            yield batch
        n_lines += len(lines) - 1
    if n_entries != header.n_entries:
        more = "more" if n_entries > header.n_entries else f"{n_entries:,}"
        raise BadInput(f"{file} says that it has {header.n_entries:,} entries, but has {more}; get it again")


def _parsed(lines: list[bytes], fields: Fields) -> NDArray[np.void]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lines that hold nothing but odd kinds of space
        return np.loadtxt(lines, dtype=fields, comments=None, ndmin=1, encoding="latin-1")


def _unreadable(file: Path, lines: list[bytes], before: int, fields: Fields) -> BadInput:
    """Return the error that names the first line that cannot be read; the quick reader does not tell blank ones."""
    for k, line in enumerate(lines, before + 1):
        try:
            if line.strip():
                _parsed([line], fields)
        except ValueError:
            shown = line[:40].decode("utf-8", "replace")
            return BadInput(f"{file}, line {k} is {shown!r}, but must be {len(fields)} numbers; mend it")
    return BadInput(f"{file} has lines of other than {len(fields)} numbers after line {before}; mend them")


def _blocks(file: Path, opened: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, so many at once."""
    rest = b""
    while content := opened.read(BLOCK_NBYTES):
        whole, end, rest_of = (rest + content).rpartition(b"\n")
        if len(rest_of) > LINE_NBYTES:
            raise BadInput(f"{file} has a line of more than {LINE_NBYTES:,} bytes, which is no entry; write it again")
        rest = rest_of
        if end:
            yield whole + end
    if rest.strip():
        yield rest + b"\n"
