"""Images that are files of their own: in folders, behind addresses, by pattern or from a list."""

import glob
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep import objects
from data_prep.groups import BadInput
from data_prep.listing import UNKNOWN, Container, SourceFile, name_of
from data_prep.ranges import is_address, read_range, split_address, stamp_of


class Passed(NamedTuple):
    """A file that gets no column, and why."""

    name: bytes
    source: str
    reason: str


def list_folder(source: str) -> Iterator[SourceFile | Passed]:
    """List what is below a folder; linked folders are named but not entered, since links can form rings."""
    container, folders = Container("folder", source), [""]
    while folders:
        inside = folders.pop()
        try:
            with os.scandir(os.path.join(source, inside)) as entries:
                for entry in entries:
                    path = os.path.join(inside, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    else:
                        yield _entry(entry, path, container)
        except OSError as error:
            where = error.filename or os.path.join(source, inside)
            raise BadInput(f"{where} cannot be listed ({error.strerror}); allow it, or leave it out") from error


def _entry(entry: os.DirEntry[str], path: str, container: Container) -> SourceFile | Passed:
    try:
        found = entry.stat()
    except OSError:  # a link that leads nowhere or in a ring: what reads it says so
        return SourceFile(name_of(path), container, 0)
    if not stat.S_ISREG(found.st_mode):
        what = "a linked folder, which is not entered" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        return Passed(name_of(path), container.location, f"it is {what}")
    return SourceFile(name_of(path), container, found.st_size, found.st_mtime_ns)


def one_file(path: str, name: str | None = None) -> SourceFile:
    """Return a file that was named itself; BadInput where it is not there."""
    folder, own = split_address(path) if is_address(path) else os.path.split(path)
    try:
        found = stamp_of(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist; mend its name, or leave it out") from error
    container = Container("url" if is_address(path) else "folder", folder)
    return SourceFile(name_of(own if name is None else name), container, *found)


def list_address(url: str) -> Iterator[SourceFile]:
    """List what is below an address; where that is no folder but an object, that alone."""
    split_address(url)
    home, found = url.rstrip("/"), False
    if not home.startswith(("http://", "https://")):  # which cannot be listed
        for path, nbytes, time_ns in objects.list_below(home):
            found = True
            yield SourceFile(name_of(path), Container("url", home), nbytes, time_ns)
    if not found:
        yield one_file(home)


def matching(pattern: str) -> list[str]:
    """Paths that match a pattern such as `photos/**/*.jpg`, sorted; none where it is no pattern."""
    return sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []


def list_from(path: str) -> Iterator[SourceFile]:
    """List the files that a list names, one a line, or with NUL between them where names may have line ends.

    Names are those of the list; paths that are not absolute begin where the command was called.
    """
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); mend its name") from error
    for line in content.split(b"\0" if b"\0" in content else b"\n"):
        name = line if b"\0" in content else line.rstrip(b"\r")
        if name:
            yield _named(os.fsdecode(name))


def _named(name: str) -> SourceFile:
    """Return a file of a list, which is taken as it is: one that is missing is an image that cannot be read."""
    if is_address(name):
        split_address(name)
        scheme, _, rest = name.partition("://")
        host, _, path = rest.partition("/")  # one connection a host, however many folders there are
        return SourceFile(name_of(path), Container("url", f"{scheme}://{host}"), UNKNOWN)
    try:
        found = os.stat(name)
    except OSError:
        return SourceFile(name_of(name), Container("folder", os.getcwd()), 0)
    return SourceFile(name_of(name), Container("folder", os.getcwd()), found.st_size, found.st_mtime_ns)


def read_file(file: SourceFile, limit: int) -> bytes:
    """Read a file; ValueError where it is larger than the limit."""
    name, home = os.fsdecode(file.name), file.container.location
    if file.container.kind == "url":
        return objects.read_whole(home, name, limit)
    content = read_range(os.path.join(home, name), 0, limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return content
