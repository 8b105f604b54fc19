"""Where images come from: folders, single files and zip archives, listed first and read later, a file at a time."""

import os
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data_prep.store import BadInput

MAX_FILE_NBYTES = 512 * 2**20
SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("bmp", "dib", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""Names that promise an image; what is inside decides."""


class SourceFile(NamedTuple):
    """A file that should hold an image."""

    name: str
    """Path inside its source, as the system gives it."""
    container: str
    """The folder or zip archive that `name` is in."""


class Listing(NamedTuple):
    """What the sources hold."""

    files: list[SourceFile]
    """Images to be, sorted by the bytes of their names."""
    not_images: list[str]
    """Files that do not look like images: they get no column."""


def list_sources(sources: Sequence[Path]) -> Listing:
    """List the files of folders (recursively), zip archives and single files, sorted by the bytes of their names.

    Raises BadInput where a source does not exist or there is no image in any.
    """
    files: list[SourceFile] = []
    not_images: list[str] = []
    for source in sources:
        for file in _list_source(source):
            if _promises_image(file.name):
                files.append(file)
            else:
                not_images.append(printable(file.name))
    if not files:
        listed = ", ".join(str(source) for source in sources)
        raise BadInput(f"no images in {listed}; known endings are {' '.join(sorted(SUFFIXES))}")
    return Listing(sorted(files, key=lambda file: os.fsencode(file.name)), not_images)


def read_bytes(file: SourceFile) -> bytes:
    """Read a file; ValueError where it is larger than 512 MiB."""
    if os.path.isdir(file.container):
        path = Path(file.container, file.name)
        _check_size(path.stat().st_size)
        return path.read_bytes()
    archive, lock = _open_zip(file.container)
    with lock, archive.open(file.name) as member:
        raw = member.read(MAX_FILE_NBYTES + 1)  # a header may understate what it unpacks to
    _check_size(len(raw))
    return raw


def printable(name: str) -> str:
    """Percent-encode what is not UTF-8 in a name, and percent signs, so that the bytes can be had back."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8").replace("%", "%25")
    except UnicodeDecodeError:
        return "".join(chr(b) if 32 < b < 127 and b != 0x25 else f"%{b:02X}" for b in raw)


def original_bytes(printed: str) -> bytes:
    """Return the bytes of the name that `printable` was given."""
    return urllib.parse.unquote_to_bytes(printed)


def _list_source(source: Path) -> Iterator[SourceFile]:
    if source.is_dir():
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in names:
                path = Path(folder, name)
                if path.is_file():
                    yield SourceFile(path.relative_to(source).as_posix(), str(source))
    elif not source.exists():
        raise BadInput(f"{source} does not exist; give a folder, an image or a zip archive")
    elif zipfile.is_zipfile(source):
        archive, _ = _open_zip(str(source))
        yield from (SourceFile(info.filename, str(source)) for info in archive.infolist() if not info.is_dir())
    else:
        yield SourceFile(source.name, str(source.parent))


def _promises_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


def _check_size(nbytes: int) -> None:
    if nbytes > MAX_FILE_NBYTES:
        raise ValueError(f"it has {nbytes} bytes, more than {MAX_FILE_NBYTES}")


@lru_cache(maxsize=16)
def _open_zip(path: str) -> tuple[zipfile.ZipFile, threading.Lock]:
    """Open an archive once a process: listing a large one takes longer than reading from it."""
    try:
        return zipfile.ZipFile(path), threading.Lock()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise BadInput(f"{path} is a damaged zip archive ({error}); make it again") from error
