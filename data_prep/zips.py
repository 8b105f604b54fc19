"""Members of zip archives, listed without an object each, and read without the list.

The standard library keeps 600 bytes a member in every process that reads one. Here the central directory goes by
once; what is kept of a member is enough to read it alone. The format: PKWARE, APPNOTE.TXT 6.3.10.
"""

import bz2
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from data_prep.groups import BadInput
from data_prep.listing import Container, SourceFile, inside
from data_prep.ranges import read_range, stamp_of

END = struct.Struct("<4s4H2LH")
END64_LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
LONGEST_COMMENT = 0xFFFF
PIECE = 2**20
STORED, DEFLATED, BZIP2 = 0, 8, 12
ENCRYPTED, OVERLAPPING, LINK = -1, -2, -3
REFUSED = {
    ENCRYPTED: "it is encrypted",
    OVERLAPPING: "it overlaps another member of its archive",
    LINK: "it is a link, which is not followed in archives",
}
RATIO, RATIO_FROM = 200, 64 * 2**20
"""Members that unpack to more than so many times their size are refused, from so many bytes on."""


class _Directory(NamedTuple):
    """Where the central directory is."""

    offset: int
    nbytes: int
    n_members: int
    before: int
    """Bytes that stand before the archive, as in one that unpacks itself."""


def list_zip(location: str) -> Iterator[SourceFile]:
    """List the members that are files.

    Raises
    ------
    BadInput
        It is damaged: what it says of itself does not fit together.
    """
    try:
        yield from _without_overlaps(location, _directory(location))
    except (struct.error, ValueError, IndexError) as error:
        raise BadInput(f"{location} is a damaged zip archive ({error}); make it again") from error


def is_zip(location: str) -> bool:
    """Whether a file ends as zip archives do."""
    try:
        _directory(location)
    except (struct.error, ValueError, OSError):
        return False
    return True


def read_member(file: SourceFile, limit: int) -> bytes:
    """Read and unpack a member; ValueError where it is not what the list says, or must not be unpacked."""
    if file.method in REFUSED:
        raise ValueError(REFUSED[file.method])
    if file.nbytes > RATIO_FROM and file.nbytes > RATIO * file.packed:
        raise ValueError(f"it unpacks {file.packed} bytes to {file.nbytes}, more than {RATIO} times as many")
    if max(file.nbytes, file.packed) > limit:
        raise ValueError(f"it has {max(file.nbytes, file.packed)} bytes, more than {limit}")
    header = LOCAL.size + 2 * LONGEST_COMMENT  # with the longest name and extra field, which may differ from the list's
    near = LOCAL.size + len(file.name) + 256
    start = read_range(file.container.location, file.offset, near + file.packed)
    if start[:4] != b"PK\x03\x04":
        raise ValueError("its archive has changed, or is damaged: no member begins where the list says")
    *_, name_nbytes, extra_nbytes = LOCAL.unpack_from(start)
    first = LOCAL.size + name_nbytes + extra_nbytes
    if first > near:
        start = read_range(file.container.location, file.offset, header + file.packed)
    content = _unpacked(memoryview(start)[first : first + file.packed], file)
    if len(content) != file.nbytes or zlib.crc32(content) != file.version:
        raise ValueError("its content and its CRC-32 do not agree")
    return content


def _unpacked(packed: memoryview, file: SourceFile) -> bytes:
    """Unpack no more than the list says there is."""
    if file.method == STORED:
        return bytes(packed)
    if file.method not in (DEFLATED, BZIP2):
        raise ValueError(f"it is packed by method {file.method}, but only 0, 8 and 12 can be read; pack it anew")
    unpack: Any = zlib.decompressobj(-15) if file.method == DEFLATED else bz2.BZ2Decompressor()
    try:
        return unpack.decompress(packed, file.nbytes + 1)
    except (zlib.error, OSError) as error:
        raise ValueError(f"it cannot be unpacked ({error})") from error


def _directory(location: str) -> _Directory:
    """Find the central directory by the record that ends the archive."""
    nbytes = stamp_of(location).nbytes
    first = max(0, nbytes - END.size - LONGEST_COMMENT - END64_LOCATOR.size)
    tail = read_range(location, first, nbytes - first)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0 and at + END.size + int.from_bytes(tail[at + END.size - 2 : at + END.size], "little") != len(tail):
        at = tail.rfind(b"PK\x05\x06", 0, at)  # that was within the comment, which such a record ends with
    if at < 0:
        raise ValueError("it has no end record")
    _, _, _, _, count, length, offset, _ = END.unpack_from(tail, at)
    ends = first + at
    if tail[max(0, at - END64_LOCATOR.size) : at][:4] == b"PK\x06\x07":
        _, _, end64, _ = END64_LOCATOR.unpack_from(tail, at - END64_LOCATOR.size)
        record = read_range(location, end64, END64.size)
        if record[:4] != b"PK\x06\x06":
            raise ValueError("it has no end record of 64 bits where it says")
        *_, count, length, offset = END64.unpack(record)
        ends = end64
    before = ends - length - offset
    if before < 0 or count * ENTRY.size > length:
        raise ValueError("its list is not where it says, or not as long")
    return _Directory(offset + before, length, count, before)


def _without_overlaps(location: str, directory: _Directory) -> Iterator[SourceFile]:
    """Members, with those that share bytes with another marked: a few such unpack to more than any disk holds."""
    begins, ends = np.empty(directory.n_members, np.int64), np.empty(directory.n_members, np.int64)
    for k, file in enumerate(_entries(location, directory)):
        begins[k] = file.offset
        ends[k] = file.offset + LOCAL.size + len(file.name) + file.packed
    order = np.argsort(begins, kind="stable")
    bounded = np.append(begins[order][1:], directory.offset)
    overlaps = np.empty(directory.n_members, np.bool_)
    overlaps[order] = (ends[order] > bounded) | (np.maximum.accumulate(np.append(0, ends[order]))[:-1] > begins[order])
    for overlapping, file in zip(overlaps, _entries(location, directory), strict=True):
        if not file.name.endswith(b"/"):
            yield file._replace(method=OVERLAPPING) if overlapping else file


def _entries(location: str, directory: _Directory) -> Iterator[SourceFile]:
    """Entries of the central directory, read a piece at a time."""
    container, piece, at, read = Container("zip", location), b"", 0, 0
    for _ in range(directory.n_members):
        if len(piece) - at < ENTRY.size + 3 * LONGEST_COMMENT and read < directory.nbytes:
            wanted = min(PIECE, directory.nbytes - read)
            piece, at = piece[at:] + read_range(location, directory.offset + read, wanted), 0
            read += wanted
        magic, _, _, flags, method, _, _, crc, packed, nbytes, *lengths, _, _, attributes, begin = ENTRY.unpack_from(
            piece, at
        )
        if magic != b"PK\x01\x02":
            raise ValueError("its list is broken")
        at += ENTRY.size
        name, extra = inside(piece[at : at + lengths[0]]), piece[at + lengths[0] : at + lengths[0] + lengths[1]]
        at += sum(lengths)
        if at > len(piece):
            raise ValueError("its list is cut short")
        nbytes, packed, begin = _in_64_bits(extra, nbytes, packed, begin)
        method = LINK if stat.S_ISLNK(attributes >> 16) else ENCRYPTED if flags & 1 else min(method, 127)
        yield SourceFile(name, container, nbytes, crc, begin + directory.before, packed, method)


def _in_64_bits(extra: bytes, *numbers: int) -> list[int]:
    """Replace what does not fit 32 bits by what the extra field of type 1 says."""
    found, wide = list(numbers), b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    for k, number in enumerate(numbers):
        if number == 0xFFFFFFFF:
            (found[k],), wide = struct.unpack_from("<Q", wide), wide[8:]
            if found[k] >= 2**63:
                raise ValueError("a member lies beyond any disk")
    return found
