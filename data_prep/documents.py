"""Documents of several sources: a text file each, or a row of a CSV file or a line of JSON each."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_prep.document_files import LINES, TABLES, TOP, Document, Fields, Place, kind_of, several, text_of
from data_prep.groups import BadInput
from data_prep.listing import name_of, printable

Sources = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Texts:
    """Text files, each of which is a document."""

    files: Sequence[tuple[str, Path]]
    """Name and path."""

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Document]:
        for name, file in self.files:
            try:
                yield Document(name, text_of(file))
            except (BadInput, OSError) as error:
                yield Document(name, "", str(error))


@dataclass(frozen=True)
class Rows:
    """Documents of a file of several, so many from a place on."""

    file: Path
    fields: Fields
    begin: Place
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Document]:
        return (document for document, _ in islice(several(self.file, self.fields, self.begin), self.count))


def documents(sources: Sources, fields: Fields) -> Iterator[Document]:
    """All documents of text files, folders of such, CSV files and JSON lines, in the order of the sources.

    Raises
    ------
    BadInput
        A source is missing or cannot be read, a row or a line is no document, or one is larger than 64 MiB.
    """
    for source in map(Path, sources):
        if _holds_several(source):
            yield from (document for document, _ in several(source, fields))
        else:
            yield from (Document(name, text_of(file)) for name, file in _text_files(source))


def parts(sources: Sources, fields: Fields, size: int) -> Iterator[Texts | Rows]:
    """The same, so many documents at a time, which are read where they are needed; BadInput as for `documents`."""
    for source in map(Path, sources):
        if _holds_several(source):
            yield from _parts_of_several(source, fields, size)
        else:
            files = _text_files(source)
            yield from (Texts(files[first : first + size]) for first in range(0, len(files), size))


def _parts_of_several(file: Path, fields: Fields, size: int) -> Iterator[Rows]:
    begin, count = TOP, 0
    for _, end in several(file, fields):
        count += 1
        if count == size:
            yield Rows(file, fields, begin, count)
            begin, count = end, 0
    if count:
        yield Rows(file, fields, begin, count)


def _holds_several(source: Path) -> bool:
    return not source.is_dir() and kind_of(source) in (*TABLES, *LINES)


def _text_files(source: Path) -> Sequence[tuple[str, Path]]:
    """Name and path of a file, or of those below a folder; hidden ones and linked folders are left out."""
    if not source.is_dir():
        if source.exists() and not source.is_file():
            raise BadInput(f"{source} is no file, but must be one, as it is read twice; save it as such")
        return [(printable(name_of(source.name)), source)]
    found: list[tuple[bytes, Path]] = []
    for home, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(home, name) for name in files if not name.startswith("."))
        found += [(name_of(str(path.relative_to(source))), path) for path in paths if path.is_file()]
    if not found:
        raise BadInput(f"{source} is a folder without files, but must hold a document each; name another")
    return [(printable(name), path) for name, path in sorted(found)]
