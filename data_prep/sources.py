"""Where images come from: what a source is, what files it holds, and the bytes of one of them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from numpy.typing import NDArray

from data_prep import image_arrays, places, tars, zips
from data_prep.groups import BadInput
from data_prep.listing import Files, SourceFile, listed
from data_prep.places import Passed
from data_prep.ranges import is_address

MAX_FILE_NBYTES = 512 * 2**20
SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("bmp", "dib", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pfm", "pgm"),
        *("png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""Names that promise an image; what is inside decides."""
READ: dict[str, Callable[[SourceFile, int], bytes | NDArray[Any]]] = {
    "folder": places.read_file,
    "url": places.read_file,
    "zip": zips.read_member,
    "tar": tars.read_member,
    "stream": tars.read_member,
    "npy": image_arrays.read_image,
    "zarr": image_arrays.read_image,
}


class Listing(NamedTuple):
    """What the sources hold."""

    files: Files
    """Images to be, sorted by the bytes of their names."""
    passed: Sequence[Passed]
    """Files that get no column, sorted likewise."""


def list_sources(sources: Sequence[str | os.PathLike[str]], lists: Sequence[str] = ()) -> Listing:
    """List files of folders, archives, arrays, patterns and addresses, sorted by the bytes of their names.

    Parameters
    ----------
    sources
        Paths, patterns or addresses. What in a folder or an archive does not promise an image gets no column.
    lists
        Files that name images, a line each; `-` is standard input. Every one of them gets a column.

    Raises
    ------
    BadInput
        A source does not exist or is damaged, or there is no image in any.
    """
    passed: list[Passed] = []
    given = [os.fspath(source) for source in sources]
    files = listed(_images(given, lists, passed))
    if not files:
        raise BadInput(f"no images in {', '.join([*given, *lists])}; known endings are {' '.join(sorted(SUFFIXES))}")
    return Listing(files, sorted(passed))


def read(file: SourceFile) -> bytes | NDArray[Any]:
    """Read a file, or an image of an array; ValueError where it is larger than 512 MiB or must not be read."""
    return READ[file.container.kind](file, MAX_FILE_NBYTES)


def sha256_of(content: bytes | NDArray[Any]) -> str:
    """Hash of what was read, in hexadecimal digits."""
    return hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).hexdigest()


def _images(sources: Sequence[str], lists: Sequence[str], passed: list[Passed]) -> Iterator[SourceFile]:
    for source in sources:
        for file in _list_source(source if is_address(source) else os.path.abspath(source), source):
            if isinstance(file, Passed):
                passed.append(file)
                continue
            why_not = "" if file.container.kind in ("npy", "zarr") else _promises_no_image(file.name)
            if why_not:
                passed.append(Passed(file.name, file.container.location, why_not))
            else:
                yield file
    for path in lists:
        yield from places.list_from(path)


def _list_source(source: str, given: str) -> Iterable[SourceFile | Passed]:
    """List what a source holds, whatever it is."""
    if is_address(source):
        return _list_address(source)
    if os.path.isdir(source):
        is_array = image_arrays.is_zarr_array(source)
        return image_arrays.list_array("zarr", source) if is_array else places.list_folder(source)
    if os.path.exists(source):
        return _list_file(source, given)
    found = places.matching(source)
    if not found:
        raise BadInput(f"{given} does not exist; give a folder, an image, an archive, an array or a pattern")
    return (file for path in found for file in _list_source(path, path))


def _list_file(source: str, given: str) -> Iterable[SourceFile | Passed]:
    if tars.compression(source) is not None:
        return tars.list_tar(source)
    if source.lower().endswith(".npy"):
        return image_arrays.list_array("npy", source)
    if os.path.splitext(source)[1].lower() in SUFFIXES:
        return [places.one_file(source)]
    if zips.is_zip(source):
        return zips.list_zip(source)
    raise BadInput(
        f"{given} is neither a folder, an image, an array nor a whole zip or tar archive; leave it out or make it again"
    )


def _list_address(source: str) -> Iterable[SourceFile | Passed]:
    if tars.compression(source) is not None:
        return tars.list_tar(source)
    if source.lower().endswith(".zip"):
        return zips.list_zip(source)
    if source.rstrip("/").lower().endswith(".zarr"):
        return image_arrays.list_array("zarr", source)
    return places.list_address(source)


def _promises_no_image(name: bytes) -> str:
    """Return why a name does not promise an image; nothing where it does."""
    path = PurePosixPath(os.fsdecode(name))
    if any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in path.parts):
        return "it is hidden, or made by a system for itself"
    if path.suffix.lower() not in SUFFIXES:
        return "its name does not promise an image"
    return ""
