"""Reading one chunk of an array, checked: what is read is what was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import SuffixByteRequest
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from data_prep.folders import Folder, LocalFolder, read_file
from data_prep.groups import BadInput


class Damaged(BadInput):
    """A chunk is missing, or is not what was written."""

    def __init__(self, file: str, what: str, columns: range | None = None, names: str = "") -> None:
        images = "" if columns is None else f", with columns {columns.start} to {columns.stop - 1}{names}"
        super().__init__(
            f"{file} {what}{images}; `nmf-batch verify` lists what is damaged, "
            f"`nmf-batch repair` mends what came from images"
        )
        self.file, self.what, self.columns = file, what, columns


def read_chunk(array: zarr.Array[Any], *index: int, checksum: int | None = None, n: int | None = None) -> NDArray[Any]:
    """Read one chunk in one request, cut to the array's shape; the result cannot be written to.

    A chunk that does not exist would read as zeros, a damaged one as an error without its name, and one of another
    store as it is; all three raise Damaged here, which names the file and the images in it.

    Parameters
    ----------
    array
        The array.
    index
        Of the chunk.
    checksum
        What the crc32c that ends the stored bytes must be, where that is known.
    n
        Columns that the reader knows of; later ones, which an append has added since, are left out.
    """
    key = array.metadata.encode_chunk_key(index)
    stored = _stored(array, key)
    if stored is None:
        raise _damage(array, index, "is missing")
    try:
        values = _decoded(array, index, key, stored)
    except (ValueError, RuntimeError, TypeError, EOFError) as error:
        raise _damage(array, index, f"is damaged ({error})") from error
    if n is not None:
        values = values[..., : n - index[-1] * array.chunks[-1]]
    if checksum is not None and last_four(stored) != checksum and not _extends(array, index, values, checksum):
        raise _damage(array, index, "is not the chunk that was prepared")
    return values


def _extends(array: zarr.Array[Any], index: tuple[int, ...], values: NDArray[Any], checksum: int) -> bool:
    """Whether a chunk is one of that checksum to which an append has added columns."""
    return values.shape[-1] < array.chunks[-1] and last_four(encode_chunk(array, index, values)) == checksum


def columns_of(array: zarr.Array[Any], index: Sequence[int]) -> range | None:
    """Columns of A that a chunk of A, H or of one value an image is about; None where it is about none."""
    dimensions = getattr(array.metadata, "dimension_names", None)  # which the second format of Zarr has not
    if not dimensions or dimensions[-1] not in ("image", "item"):
        return None
    c = array.chunks[-1]
    return range(index[-1] * c, min((index[-1] + 1) * c, array.shape[-1]))


def _stored(array: zarr.Array[Any], key: str) -> bytes | None:
    """Bytes of a chunk, or None where there is none."""
    home = array.store_path.store
    if isinstance(home, LocalStore):  # in this thread: Zarr's way through its event loop takes twice the time
        return read_file(Path(home.root, array.store_path.path, key))
    found = sync((array.store_path / key).get(default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def _decoded(array: zarr.Array[Any], index: tuple[int, ...], key: str, stored: bytes) -> NDArray[Any]:
    span = _span(array, index)
    if array.dtype.kind != "T" and [type(codec) for codec in array.compressors] == [Crc32cCodec]:
        # Not compressed: the bytes are the values. Zarr's own way takes three times as long.
        content = np.frombuffer(memoryview(stored)[:-4], np.uint8)
        if google_crc32c.value(content) != last_four(stored):
            raise ValueError("its bytes and its crc32c do not agree")
        whole = content.view(array.dtype.newbyteorder("<")).reshape(array.chunks)
        return whole[tuple(slice(s.stop - s.start) for s in span)]
    prototype = default_buffer_prototype()
    alone = {**array.metadata.to_buffer_dict(prototype), key: prototype.buffer.from_bytes(stored)}
    return np.asarray(zarr.open_array(MemoryStore(alone), mode="r")[span])


def stored_checksum(array: zarr.Array[Any], *index: int) -> int:
    """Return the crc32c that ends the stored bytes of a chunk, little-endian, without reading the rest."""
    key = array.metadata.encode_chunk_key(index)
    tail = sync((array.store_path / key).get(default_buffer_prototype(), byte_range=SuffixByteRequest(4)))
    if tail is None:
        raise _damage(array, index, "is missing")
    return last_four(tail.to_bytes())


def encode_chunk(array: zarr.Array[Any], index: Sequence[int], values: NDArray[Any]) -> bytes:
    """Bytes that a chunk which begins with these values is stored as, with its checksum; nothing is written."""
    key = array.metadata.encode_chunk_key(tuple(index))
    prototype = default_buffer_prototype()
    alone = MemoryStore(dict(array.metadata.to_buffer_dict(prototype)))
    span = tuple(slice(i * c, i * c + length) for i, c, length in zip(index, array.chunks, values.shape, strict=True))
    zarr.open_array(alone, mode="r+").with_config({"write_empty_chunks": True})[span] = values
    encoded = sync(alone.get(key, prototype))
    assert encoded is not None
    return encoded.to_bytes()


def put_chunk(array: zarr.Array[Any], index: Sequence[int], encoded: bytes) -> None:
    """Replace a chunk by such bytes, in one step that survives a crash: there may be columns in it that are in use."""
    key = array.metadata.encode_chunk_key(tuple(index))
    home = array.store_path.store
    if isinstance(home, LocalStore):
        file = Path(home.root, array.store_path.path, key)
        LocalFolder(file.parent).make()
        LocalFolder(file.parent).replace(file.name, encoded)
    else:
        sync((array.store_path / key).set(default_buffer_prototype().buffer.from_bytes(encoded)))


def resize(path: Folder, array: zarr.Array[Any], length: int) -> None:
    """Make the last dimension of an array so long, in one step; then chunks beyond it are removed.

    Zarr's own way replaces the metadata without a sync, so they could be lost, and with them all that is in the array.
    """
    before, after = array.metadata, array.metadata.update_shape((*array.shape[:-1], length))
    path.replace("zarr.json", after.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes())
    for k in range(-(-length // array.chunks[-1]), array.cdata_shape[-1]):
        index = (*(0 for _ in array.shape[:-1]), k)
        sync((array.store_path / before.encode_chunk_key(index)).delete())


def last_four(stored: bytes) -> int:
    """Checksum that ends the stored bytes of a chunk."""
    return int.from_bytes(stored[-4:], "little")


def _span(array: zarr.Array[Any], index: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(i * c, min((i + 1) * c, length)) for i, c, length in zip(index, array.chunks, array.shape, strict=True)
    )


def chunk_file(array: zarr.Array[Any], index: Sequence[int]) -> str:
    """Path or address of a chunk, for people."""
    return f"{array.store_path}/{array.metadata.encode_chunk_key(tuple(index))}".removeprefix("file://")


def _damage(array: zarr.Array[Any], index: Sequence[int], what: str) -> Damaged:
    columns = columns_of(array, index)
    names = "" if columns is None else _names(array, columns)
    return Damaged(chunk_file(array, index), what, columns, names)


def _names(array: zarr.Array[Any], columns: range) -> str:
    """First and last name of the images, or items, of a chunk of A or its mask, where they can be read."""
    home, _, name = array.store_path.path.rpartition("/")
    dimensions: Any = getattr(array.metadata, "dimension_names", None)  # there are some: columns_of told them
    try:
        names: Any = zarr.open_array(array.store_path.store, path=f"{home}/{dimensions[-1]}".lstrip("/"), mode="r")
        return f" ({names[columns.start]} to {names[columns.stop - 1]})" if name in ("A", "mask") else ""
    except (OSError, ValueError, KeyError, RuntimeError):
        return ""
