"""Bytes of a file, be it on this machine or behind an address: how long it is, and any part of it."""

import io
import os
import stat
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from data_prep import objects
from data_prep.remote import check_scheme


class Stamp(NamedTuple):
    """What changes when a file does."""

    nbytes: int
    time_ns: int


def is_address(location: str) -> bool:
    """Whether it is behind an address, and not a path."""
    return "://" in location


def split_address(url: str) -> tuple[str, str]:
    """Return the folder of an address, and the name in it; ValueError where it carries more than a place."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"the address of {parts.scheme}://{parts.hostname}{parts.path} carries more than a place; "
            f"credentials are taken from the environment (AWS_ACCESS_KEY_ID and the like)"
        )
    check_scheme(parts.scheme)
    folder, _, name = url.rstrip("/").removeprefix(f"{parts.scheme}://").rpartition("/")
    return f"{parts.scheme}://{folder}", name


def stamp_of(location: str) -> Stamp:
    """Size and time of change; FileNotFoundError where there is nothing."""
    if is_address(location):
        return Stamp(*objects.stamp_of(*split_address(location)))
    found = os.stat(location)
    return Stamp(found.st_size, found.st_mtime_ns)


def read_range(location: str, offset: int, length: int) -> bytes:
    """Read so many bytes from there on; fewer where the file ends."""
    if is_address(location):
        return objects.read_range(*split_address(location), offset, length)
    # Not blocking: a pipe that has taken the place of a file would hold the task for ever.
    descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file but a folder, a pipe or a device")
        length, parts = min(length, max(0, found.st_size - offset)), []
        while length > 0 and (part := os.pread(descriptor, min(length, 2**30), offset)):
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)


class Ranges(io.RawIOBase):
    """A file that is read by parts, for libraries that want one to seek in."""

    def __init__(self, location: str) -> None:
        self._location, self._at, self._nbytes = location, 0, stamp_of(location).nbytes

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on from there."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._nbytes}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        wanted = max(0, min(len(buffer), self._nbytes - self._at))
        part = read_range(self._location, self._at, wanted) if wanted else b""
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def seekable(location: str) -> io.BufferedReader:
    """Open a file to seek in; it holds no descriptor, so who forgets it leaves nothing open."""
    return io.BufferedReader(Ranges(location), 2**20)
