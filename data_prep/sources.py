"""Where images come from: folders, single files and zip archives, listed first and read later, a file at a time."""

import hashlib
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
    version: tuple[int, int]
    """Changes with the content: size and time of a file, size and CRC-32 in an archive."""
    member: int = -1
    """Position in an archive, where a name can stand twice."""


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
            if _promises_image(file):
                files.append(file)
            else:
                not_images.append(printable(file.name))
    if not files:
        listed = ", ".join(str(source) for source in sources)
        raise BadInput(f"no images in {listed}; known endings are {' '.join(sorted(SUFFIXES))}")
    return Listing(sorted(files, key=lambda file: os.fsencode(file.name)), not_images)


def read_bytes(file: SourceFile) -> bytes:
    """Read a file; ValueError where it is larger than 512 MiB."""
    if file.member < 0:
        path = Path(file.container, file.name)
        _check_size(path.stat().st_size)
        return path.read_bytes()
    archive, lock = _open_zip(file.container, _stamp(file.container))
    with lock, archive.open(archive.infolist()[file.member]) as member:
        raw = member.read(MAX_FILE_NBYTES + 1)  # a header may understate what it unpacks to
    _check_size(len(raw))
    return raw


def digest(files: Sequence[SourceFile]) -> str:
    """Hash of names and versions: equal where the same files are given again, unchanged."""
    found = hashlib.sha256()
    for file in files:
        found.update(repr((os.fsencode(file.name), file.version)).encode())
    return found.hexdigest()


def printable(name: str) -> str:
    """Percent-encode what is not UTF-8, control characters and percent signs, so that the bytes can be had back."""
    raw = os.fsencode(name)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(b) if 32 < b < 127 and b != 0x25 else f"%{b:02X}" for b in raw)
    return "".join(f"%{ord(x):02X}" if x == "%" or ord(x) < 32 or ord(x) == 127 else x for x in text)


def original_bytes(printed: str) -> bytes:
    """Return the bytes of the name that `printable` was given."""
    return urllib.parse.unquote_to_bytes(printed)


def _list_source(source: Path) -> Iterator[SourceFile]:
    if source.is_dir():
        yield from _list_folder(source)
    elif not source.exists():
        raise BadInput(f"{source} does not exist; give a folder, an image or a zip archive")
    elif zipfile.is_zipfile(source):
        archive, _ = _open_zip(str(source), _stamp(str(source)))
        for k, info in enumerate(archive.infolist()):
            if not info.is_dir():
                yield SourceFile(info.filename, str(source), (info.file_size, info.CRC), k)
    elif source.suffix.lower() in SUFFIXES:
        yield SourceFile(source.name, str(source.parent), _stamp(str(source)))
    else:
        raise BadInput(f"{source} is neither a folder, an image nor a whole zip archive; leave it out or make it again")


def _list_folder(source: Path) -> Iterator[SourceFile]:
    """List what is below a folder; linked folders are named but not entered, since links can form rings."""
    for folder, folders, names in os.walk(source, onerror=_cannot_list):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            path = Path(folder, name)
            yield SourceFile(path.relative_to(source).as_posix(), str(source), _stamp(str(path)))


def _cannot_list(error: OSError) -> None:
    raise BadInput(f"{error.filename} cannot be listed ({error.strerror}); allow it, or leave it out") from error


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of change, which change with the content; zeros where a link leads nowhere."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _promises_image(file: SourceFile) -> bool:
    if file.member < 0 and Path(file.container, file.name).exists() and not Path(file.container, file.name).is_file():
        return False  # a linked folder, a pipe, a device
    path = PurePosixPath(file.name)
    hidden = any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


def _check_size(nbytes: int) -> None:
    if nbytes > MAX_FILE_NBYTES:
        raise ValueError(f"it has {nbytes} bytes, more than {MAX_FILE_NBYTES}")


@lru_cache(maxsize=16)
def _open_zip(path: str, stamp: tuple[int, int]) -> tuple[zipfile.ZipFile, threading.Lock]:
    """Open an archive once a process and version: listing a large one takes longer than reading from it."""
    try:
        return zipfile.ZipFile(path), threading.Lock()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise BadInput(f"{path} is a damaged zip archive ({error}); make it again") from error
