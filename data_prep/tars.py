"""Members of tar archives: plain ones are read where they lie, compressed ones from the beginning on.

tarfile of Python 3.11.7 runs for ever on negative sizes (CVE-2025-8194), and reads headers of any length into memory;
both end the list here.
"""

import bz2
import gzip
import lzma
import tarfile
import threading
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from data_prep.groups import BadInput
from data_prep.listing import Container, SourceFile, inside
from data_prep.ranges import Stamp, read_range, seekable, stamp_of

ENDINGS = {
    (".tar",): "",
    (".tar.gz", ".tgz"): "gz",
    (".tar.bz2", ".tbz2"): "bz2",
    (".tar.xz", ".txz"): "xz",
}
LONGEST_HEADER = 2**15
"""Bytes of a header that holds a long name or what else describes a member."""
RATIO, RATIO_FROM = 200, 2**30
"""A compressed archive may unpack to so many times its size, from so many bytes on."""
FARTHEST = 2**62
BROKEN = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OverflowError, OSError)


class _Member(tarfile.TarInfo):
    """A member whose header is not believed."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise ValueError("a size is negative")
        return super()._block(count)  # type: ignore[misc]  # not public, but where a size becomes a place in the file

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size < 0:
            raise ValueError("a size is negative")
        if self.type in HEADERS and self.size > LONGEST_HEADER:
            raise ValueError("the header of a member is too long")
        return super()._proc_member(archive)  # type: ignore[misc]


HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


def compression(location: str) -> str | None:
    """How a tar archive is compressed, empty where it is not; None where its name is not that of one."""
    name = location.lower()
    return next((how for endings, how in ENDINGS.items() if name.endswith(endings)), None)


def list_tar(location: str) -> Iterator[SourceFile]:
    """List the members that are files; links and the like are named, for what reads them to refuse.

    Raises
    ------
    BadInput
        It is damaged, cut short, or unpacks to more than 200 times its size.
    """
    how = compression(location)
    container = Container("stream" if how else "tar", location)
    try:
        with seekable(location) as raw, _unpacked(raw, how) as file:
            for member in _members(file, RATIO * stamp_of(location).nbytes if how else None):
                yield from _listed(member, container)
    except BROKEN as error:
        raise BadInput(f"{location} is a damaged tar archive ({error}); make it again") from error


def _members(file: Any, longest: int | None) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            if archive.offset > FARTHEST or (longest is not None and archive.offset > max(longest, RATIO_FROM)):
                raise ValueError(f"it says that it unpacks to {archive.offset} bytes, more than {RATIO} times its size")
            yield member
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # where tarfile sees the end of the archive
            raise ValueError(f"there is no member at byte {archive.offset}, and no end")


def _listed(member: tarfile.TarInfo, container: Container) -> Iterator[SourceFile]:
    if member.isdir():
        return
    plain = member.type in tarfile.REGULAR_TYPES and member.type != tarfile.GNUTYPE_SPARSE and not member.sparse
    name = inside(member.name.encode("utf-8", "surrogateescape"))
    version = min(FARTHEST, max(-FARTHEST, int(member.mtime * 10**9)))
    yield SourceFile(name, container, member.size, version, member.offset_data, member.size, 0 if plain else -1)


def read_member(file: SourceFile, limit: int) -> bytes:
    """Read a member; ValueError where it is a link, or larger than the limit, or its archive ends before it does."""
    if file.method < 0:
        raise ValueError("it is a link, or another member of a tar archive that is no plain file")
    if file.nbytes > limit:
        raise ValueError(f"it has {file.nbytes} bytes, more than {limit}")
    location = file.container.location
    if file.container.kind == "tar":
        content = read_range(location, file.offset, file.nbytes)
    else:
        stream, lock = _stream(location, stamp_of(location))
        with lock:
            try:
                stream.seek(file.offset)
                content = stream.read(file.nbytes)
            except BROKEN as error:
                raise ValueError(f"its archive cannot be unpacked ({error})") from error
    if len(content) != file.nbytes:
        raise ValueError("its archive ends before it does")
    return content


@lru_cache(maxsize=4)
def _stream(location: str, stamp: Stamp) -> tuple[Any, threading.Lock]:
    """Open a compressed archive once a process and version: whoever reads on need not begin again."""
    return _unpacked(seekable(location), compression(location)), threading.Lock()


def _unpacked(file: Any, how: str | None) -> Any:
    if how == "gz":
        return gzip.GzipFile(fileobj=file)
    if how == "bz2":
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if how == "xz" else file
