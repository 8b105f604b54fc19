"""What stands in a file of documents: the text of one, or the rows or lines of several, one held at a time."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from data_prep.groups import BadInput
from data_prep.input_files import readable
from data_prep.listing import name_of, printable

MOST_NBYTES = 64 * 2**20
"""Of a document."""
FILES = "text, CSV or JSON lines files"
TABLES, LINES = (".csv", ".tsv"), (".json", ".jsonl", ".ndjson")
BOM = "\ufeff"


class Fields(NamedTuple):
    """Columns of a table, or keys of JSON objects."""

    text: str | None
    id: str | None
    """Of the name; None: that of the file and the number of the line."""


class Document(NamedTuple):
    """A document."""

    name: str
    text: str
    reason: str = ""
    """Why it could not be read; empty where it could."""


class Place(NamedTuple):
    """Where a document begins in a file of several."""

    offset: int
    line: int
    """Lines before it."""


TOP = Place(0, 0)


def kind_of(file: Path) -> str:
    """Ending of a name, without that of its compression."""
    return (Path(file.stem) if file.suffix == ".gz" else file).suffix.lower()


def text_of(file: Path) -> str:
    """Text of a file that is one document; BadInput where it cannot be read, or is too large."""
    with _opened(file) as stream:
        content = stream.read(MOST_NBYTES + 1)
    if len(content) > MOST_NBYTES:
        raise _too_large(str(file))
    return content.decode("utf-8", "replace").removeprefix(BOM)


def several(file: Path, fields: Fields, begin: Place = TOP) -> Iterator[tuple[Document, Place]]:
    """Documents of a file of several from a place on, each with the place where the next one begins."""
    if fields.text is None:
        raise BadInput(
            f"{file} holds several documents, but no --text says which column or key is their text; "
            f"give it, or a text file for each"
        )
    table = kind_of(file) in TABLES
    header = _header(file, fields) if table else []
    with _opened(file) as stream:
        lines = _Lines(file, stream, begin)
        for name, text in _rows(lines, header, fields) if table else _objects(lines, fields):
            yield Document(_encodable(lines.name if name is None else name), _encodable(text)), lines.end


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """Open a file, compressed or not; BadInput where it is missing or its compression is damaged."""
    try:
        with readable(file, FILES):
            stream = file.open("rb")
        with stream, gzip.open(stream) if file.suffix == ".gz" else stream as content:
            yield cast(IO[bytes], content)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise BadInput(f"{file} is damaged or cut off ({error}); get it again") from error


def _too_large(what: str) -> BadInput:
    return BadInput(f"{what} is larger than {MOST_NBYTES // 2**20} MiB, but must be one document; cut it into several")


def _encodable(text: str) -> str:
    """Replace halves of characters, which JSON can hold and no file."""
    return text.encode("utf-8", "replace").decode()


class _Lines:
    """Lines of a file, which know where they are and stop where a document goes on for too long."""

    def __init__(self, file: Path, stream: IO[bytes], begin: Place) -> None:
        stream.seek(begin.offset)
        self.file, self._stream = file, stream
        self.begin = self.end = begin
        """Where the document begins, and where reading has come to."""

    def __iter__(self) -> Iterator[str]:
        while content := self._stream.readline(MOST_NBYTES + 1):
            line = content.decode("utf-8", "replace")
            line = line if self.end.offset else line.removeprefix(BOM)
            self.end = Place(self.end.offset + len(content), self.end.line + 1)
            if self.end.offset - self.begin.offset > MOST_NBYTES:
                raise _too_large(str(self))
            yield line

    def __str__(self) -> str:
        return f"{self.file}, line {self.begin.line + 1}"

    @property
    def name(self) -> str:
        """Of the document, where it says none itself."""
        return f"{printable(name_of(self.file.name))}:{self.begin.line + 1}"


def _table(lines: _Lines) -> Iterator[list[str]]:
    """Rows of a CSV file; one without anything is passed over."""
    csv.field_size_limit(MOST_NBYTES)  # of this process: a reader has none of its own, and 128 KiB are few
    rows = csv.reader(lines, delimiter="\t" if kind_of(lines.file) == ".tsv" else ",", strict=True)
    try:
        for row in rows:
            if row:
                yield row
            lines.begin = lines.end
    except csv.Error as error:
        raise BadInput(f"{lines} cannot be read as CSV ({error}); mend it") from error


def _header(file: Path, fields: Fields) -> list[str]:
    """Names of the columns; BadInput unless those that are needed are among them once."""
    with _opened(file) as stream:
        header = next(_table(_Lines(file, stream, TOP)), [])
    for name in fields:
        if name is not None and header.count(name) != 1:
            has = "no column" if name not in header else "more than one column"
            there = ", ".join(f"{one!r:.40}" for one in header[:20]) or "nothing"
            raise BadInput(f"{file} has {has} {name!r}, but {there}; name one of these")
    return header


def _rows(lines: _Lines, header: Sequence[str], fields: Fields) -> Iterator[tuple[str | None, str]]:
    """Name and text of each row; the first row of the file is its header."""
    rows = _table(lines)
    if lines.begin == TOP:
        next(rows)
    text, name = (None if field is None else header.index(field) for field in (fields.text, fields.id))
    assert text is not None
    for row in rows:
        if len(row) != len(header):
            raise BadInput(f"{lines} has {len(row)} fields, but the header has {len(header)}; mend it")
        yield None if name is None else row[name], row[text]


def _objects(lines: _Lines, fields: Fields) -> Iterator[tuple[str | None, str]]:
    """Name and text of each line of JSON; one without anything is passed over."""
    for line in lines:
        if line.strip():
            found = _object(line)
            text, name = found.get(fields.text), None if fields.id is None else found.get(fields.id, "")
            if not isinstance(text, str):
                raise BadInput(f"{lines} must be a JSON object with text as {fields.text!r}, and is not; mend it")
            if name is not None and (not isinstance(name, str | int) or name == ""):
                raise BadInput(f"{lines} must have a name as {fields.id!r}, and has not; mend it, or leave out --id")
            yield None if name is None else str(name), text
        lines.begin = lines.end


def _object(line: str) -> dict[str | None, object]:
    """Return a line of JSON; nothing where it is no object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
