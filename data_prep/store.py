"""The Zarr store: its layout, how it is opened, checked and published.

A store is a Zarr v3 group that holds A (m, n), a column an image, with its names and checksums, and below
``nmf/`` the factorizations W (m, d), H (d, n) of it. Everything else in this project meets in this file's layout.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import SuffixByteRequest
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigLike
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from data_prep.folders import ASIDE, LEASE, Folder, LocalFolder, Where, folder

FORMAT = "nmf-batch/1"
CHUNK_NBYTES = 8 * 2**20
MAX_CHUNK_IMAGES = 16_384
NAMES_PER_CHUNK = 16_384
ALWAYS_WRITE: ArrayConfigLike = {"write_empty_chunks": True}
"""Not part of an array's metadata, so it is said each time one is opened: a chunk left out could not be missed."""
CODECS = {"none": (), "lz4": (BloscCodec(cname="lz4"),), "zstd": (ZstdCodec(),)}


class BadInput(ValueError):
    """What was given or stored cannot be used: the command ends with exit code 4."""


@dataclass(frozen=True, kw_only=True)
class StoredMatrix:
    """What is known of A without reading it."""

    path: Folder
    shape: tuple[int, int]
    """(m, n)."""
    dtype: np.dtype[Any]
    chunk_images: int
    """Columns of a chunk, c; the last chunk of A may hold fewer."""
    scale: float
    """What a stored value is multiplied with: 1/255 for images, so that A lies in 0..1."""
    norm_squared: float
    """‖A‖² of the scaled matrix."""
    n_ok: int
    """Columns that hold an image; the others are zero."""
    fingerprint: str
    attributes: Mapping[str, Any]

    @property
    def n_chunks(self) -> int:
        """Number of chunks of A, all of whole columns."""
        return -(-self.shape[1] // self.chunk_images)

    def columns(self, chunks: range) -> list[slice]:
        """Columns of each of some chunks."""
        c, n = self.chunk_images, self.shape[1]
        return [slice(k * c, min(n, (k + 1) * c)) for k in chunks]

    @property
    def nbytes(self) -> int:
        """Bytes of A, uncompressed."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def chunk_images(m: int) -> int:
    """Columns of a chunk: the largest power of two with m × c ≤ 8 MiB, from 1 to 16,384."""
    return min(MAX_CHUNK_IMAGES, 1 << max(0, (CHUNK_NBYTES // m).bit_length() - 1))


def create_array(
    path: Folder,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: DTypeLike,
    dimension_names: Sequence[str],
    codec: str = "none",
    attributes: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> zarr.Array[Any]:
    """Create an array whose every chunk carries a crc32c and is written even where it holds zeros only."""
    compressors: tuple[BytesBytesCodec, ...] = (*CODECS[codec], Crc32cCodec())
    return zarr.create_array(
        path.zarr(),
        name=name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        filters=None if np.dtype(dtype).kind == "T" else (),
        compressors=compressors,
        dimension_names=dimension_names,
        attributes=attributes,
        fill_value=None if np.dtype(dtype).kind == "T" else 0,
        config=ALWAYS_WRITE,
        overwrite=overwrite,
    )


def write_array(path: Folder, name: str, values: NDArray[Any], dimension_names: Sequence[str]) -> None:
    """Write a small array whole, in chunks of 16,384 along its last dimension."""
    chunks = (*values.shape[:-1], max(1, min(values.shape[-1], NAMES_PER_CHUNK)))
    array = create_array(
        path, name, shape=values.shape, chunks=chunks, dtype=values.dtype, dimension_names=dimension_names
    )
    array[...] = values


def open_array(path: Where, name: str, mode: Literal["r", "r+"] = "r") -> zarr.Array[Any]:
    """Open an array of the store; BadInput names it where it is missing or its metadata cannot be read."""
    try:
        array = zarr.open_array(folder(path).zarr(), path=name, mode=mode)
    except FileNotFoundError as error:
        raise BadInput(f"{path}/{name} is not there; restore it, or mount it at this path on every worker") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}/{name}/zarr.json is damaged ({error}); restore the file") from error
    return array.with_config(ALWAYS_WRITE)


def read_chunk(array: zarr.Array[Any], *index: int, checksum: int | None = None) -> NDArray[Any]:
    """Read one chunk in one request, cut to the array's shape; the result cannot be written to.

    A chunk that does not exist would read as zeros, a damaged one as an error without its name, and one of another
    store as it is; all three raise BadInput here, which names the file.

    Parameters
    ----------
    array
        The array.
    index
        Of the chunk.
    checksum
        What the crc32c that ends the stored bytes must be, where that is known.
    """
    key = array.metadata.encode_chunk_key(index)
    stored = _stored(array, key)
    if stored is None:
        raise BadInput(f"{_file(array, *index)} is missing; restore the file, or prepare the store again")
    try:
        values = _decoded(array, index, key, stored)
    except (ValueError, RuntimeError, TypeError, EOFError) as error:
        raise BadInput(
            f"{_file(array, *index)} is damaged ({error}); restore the file, or prepare the store again"
        ) from error
    if checksum is not None and _last_four(stored) != checksum:
        raise BadInput(
            f"{_file(array, *index)} is not the chunk that was prepared; restore it, or prepare the store again"
        )
    return values


def _stored(array: zarr.Array[Any], key: str) -> bytes | None:
    """Bytes of a chunk, or None where there is none."""
    home = array.store_path.store
    if isinstance(home, LocalStore):  # in this thread: Zarr's way through its event loop takes twice the time
        try:
            return Path(home.root, array.store_path.path, key).read_bytes()
        except FileNotFoundError:
            return None
    found = sync((array.store_path / key).get(default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def _decoded(array: zarr.Array[Any], index: tuple[int, ...], key: str, stored: bytes) -> NDArray[Any]:
    span = tuple(
        slice(i * c, min((i + 1) * c, length)) for i, c, length in zip(index, array.chunks, array.shape, strict=True)
    )
    if array.dtype.kind != "T" and [type(codec) for codec in array.compressors] == [Crc32cCodec]:
        # Not compressed: the bytes are the values. Zarr's own way takes three times as long.
        content = np.frombuffer(memoryview(stored)[:-4], np.uint8)
        if google_crc32c.value(content) != _last_four(stored):
            raise ValueError("its bytes and its crc32c do not agree")
        whole = content.view(array.dtype.newbyteorder("<")).reshape(array.chunks)
        return whole[tuple(slice(s.stop - s.start) for s in span)]
    prototype = default_buffer_prototype()
    alone = {**array.metadata.to_buffer_dict(prototype), key: prototype.buffer.from_bytes(stored)}
    return np.asarray(zarr.open_array(MemoryStore(alone), mode="r")[span])


def _last_four(stored: bytes) -> int:
    return int.from_bytes(stored[-4:], "little")


def read_array(path: Where, name: str) -> NDArray[Any]:
    """Read a small one-dimensional array whole, chunk by checked chunk."""
    array = open_array(path, name)
    return np.concatenate([read_chunk(array, k) for k in range(array.cdata_shape[0])])


def stored_checksum(array: zarr.Array[Any], *index: int) -> int:
    """Return the crc32c that ends the stored bytes of a chunk, little-endian, without reading the rest."""
    key = array.metadata.encode_chunk_key(index)
    tail = sync((array.store_path / key).get(default_buffer_prototype(), byte_range=SuffixByteRequest(4)))
    if tail is None:
        raise BadInput(f"{_file(array, *index)} is missing; restore the file, or prepare the store again")
    return int.from_bytes(tail.to_bytes(), "little")


def read_checksums(matrix: StoredMatrix) -> NDArray[np.uint32]:
    """Checksums of the chunks of A; BadInput where they are not those of the matrix."""
    checksums = read_array(matrix.path, "checksum")
    if fingerprint(matrix.shape, checksums) != matrix.fingerprint:
        raise BadInput(f"{matrix.path}/checksum and the fingerprint of the store do not agree; prepare the store again")
    return checksums


def _file(array: zarr.Array[Any], *index: int) -> str:
    return f"{array.store_path}/{array.metadata.encode_chunk_key(index)}".removeprefix("file://")


def fingerprint(shape: tuple[int, int], checksums: NDArray[np.uint32]) -> str:
    """Hash of the shape of A and the checksums of its chunks: equal where A is equal."""
    return hashlib.sha256(f"{shape}".encode() + checksums.astype("<u4").tobytes()).hexdigest()


def begin(path: Folder, *, expendable: Sequence[str]) -> None:
    """Make an empty store that readers refuse until `publish`; what an interrupted attempt left is removed."""
    check_vacant(path, expendable=expendable)
    path.make()
    for name in path.entries():
        if not name.startswith(LEASE):
            (path / name).remove()
    publish(path, {"format": FORMAT, "status": "preparing"})


def check_vacant(path: Folder, *, expendable: Sequence[str]) -> None:
    """Raise BadInput where a path holds anything but the `expendable` arrays of an interrupted attempt."""
    if isinstance(path, LocalFolder) and path.exists() and not path.path.is_dir():
        raise BadInput(f"{path} is a file, but a store is a folder; choose another --zarr")
    entries = {name for name in path.entries() if not name.startswith((ASIDE, LEASE))}
    strangers = entries - {"zarr.json", *expendable}
    if strangers or (entries and group_attributes(path).get("status") != "preparing"):
        raise BadInput(f"{path} exists and is not an nmf-batch store; choose another --zarr or remove it")


def group_attributes(path: Where) -> dict[str, Any]:
    """Attributes of a group, or none where there is no group; BadInput where its metadata cannot be read."""
    content = folder(path).read("zarr.json")
    if content is None:
        return {}
    try:
        metadata = json.loads(content)
        attributes = metadata["attributes"] if metadata["node_type"] == "group" else {}
        return dict(attributes)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}/zarr.json is damaged ({error}); restore the file") from error


def publish(path: Where, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group, and make it one, in one step that survives a crash."""
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}, indent=2)
    folder(path).replace("zarr.json", text.encode())


def open_matrix(path: Where) -> StoredMatrix:
    """Open A; BadInput says what is wrong where there is no complete, consistent matrix."""
    home = folder(path)
    attributes = group_attributes(home)
    if attributes.get("format") != FORMAT:
        what = "is not an nmf-batch store" if home.exists() else "does not exist"
        raise BadInput(f"{path} {what}; make one with `nmf-batch prep SOURCE --zarr {path}`")
    if attributes.get("status") != "complete":
        raise BadInput(f"{path} is unfinished: its preparation was interrupted; run the same `nmf-batch prep` again")
    A = open_array(path, "A")
    m, n = A.shape
    if A.chunks[0] != m:
        raise BadInput(
            f"{path}/A has chunks {A.chunks}, which split its {m} pixels, "
            f"but a chunk must hold whole images; prepare it again with `nmf-batch prep`"
        )
    missing = {"norm_squared", "n_ok", "fingerprint"} - attributes.keys()
    if missing:
        raise BadInput(f"{path}/zarr.json is damaged: it has no {', '.join(sorted(missing))}; restore the file")
    return StoredMatrix(
        path=home,
        shape=(m, n),
        dtype=np.dtype(A.dtype),
        chunk_images=A.chunks[1],
        scale=float(A.attrs.get("scale_factor", 1.0)),  # type: ignore[arg-type]  # JSON, written as a number
        norm_squared=float(attributes["norm_squared"]),
        n_ok=int(attributes["n_ok"]),
        fingerprint=str(attributes["fingerprint"]),
        attributes=attributes,
    )
