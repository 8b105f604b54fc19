"""The Zarr store: its layout, how it is opened, checked and published.

A store is a Zarr v3 group that holds A (m, n), a column an image, with its names and checksums, and below
``nmf/`` the factorizations W (m, d), H (d, n) of it. Everything else in this project meets in this file's layout.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from data_prep.chunks import Damaged as Damaged  # "as": the layout is one module to those who use it
from data_prep.chunks import read_chunk as read_chunk
from data_prep.chunks import stored_checksum as stored_checksum
from data_prep.digests import ALWAYS_WRITE
from data_prep.digests import digest as digest
from data_prep.digests import digest_of_chunks as digest_of_chunks
from data_prep.digests import published_array as published_array
from data_prep.folders import Folder, Where, folder
from data_prep.groups import FORMAT as FORMAT
from data_prep.groups import BadInput as BadInput
from data_prep.groups import attributes_and_version as attributes_and_version
from data_prep.groups import begin as begin
from data_prep.groups import check_vacant as check_vacant
from data_prep.groups import group_attributes as group_attributes
from data_prep.groups import publish as publish
from data_prep.groups import switch as switch

NEEDED = {"shape", "norm_squared", "n_ok", "fingerprint", "last_checksum", "digests"}
CHUNK_NBYTES = 8 * 2**20
MAX_CHUNK_IMAGES = 16_384
NAMES_PER_CHUNK = 16_384
GROWING = ("A", "image", "ok", "norm", "checksum", "manifest", "skipped", "pixel_sum")
"""Arrays that an append makes longer in place. Readers take the n that they began with."""
CODECS = {"none": (), "lz4": (BloscCodec(cname="lz4"),), "zstd": (ZstdCodec(),)}


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
    n_present: int | None = None
    """Entries of A that are known; None where none is missing, else the array `mask` says which they are."""
    most_present: int | None = None
    """The largest number of known entries in one chunk of A; None where none is missing."""
    n_nonzero: int | None = None
    """Entries of A other than 0; None for images, where they are not counted."""
    most_nonzero: int | None = None
    """The largest number of them in one chunk of A."""

    @property
    def noun(self) -> str:
        """What a column is, in a word."""
        return {"images": "image", "words": "document"}.get(self.attributes["kind"], "column")

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
    """Open an array of the store; BadInput names it where it is missing or its metadata is not what was published."""
    home = folder(path)
    expected = group_attributes(home).get("digests", {}).get(name)
    metadata = (home / name).read("zarr.json")
    if expected is not None and metadata is not None and not _as_published(name, metadata, expected["metadata"]):
        raise BadInput(f"{path}/{name}/zarr.json is damaged: it is not what was written; `nmf-batch repair` mends it")
    try:
        array = zarr.open_array(home.zarr(), path=name, mode=mode)
    except FileNotFoundError as error:
        raise BadInput(
            f"{path}/{name}/zarr.json is not there; restore it, or mount it at this path on every worker"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}/{name}/zarr.json is damaged ({error}); restore the file") from error
    return array.with_config(ALWAYS_WRITE)


def _as_published(name: str, metadata: bytes, published: str) -> bool:
    """Whether metadata are those that were published, but for columns that an append is about to add."""
    if metadata == published.encode() or name not in GROWING:
        return metadata == published.encode()
    try:
        found, expected = json.loads(metadata), json.loads(published)
        (*rows, n), (*expected_rows, expected_n) = found.pop("shape"), expected.pop("shape")
    except (ValueError, KeyError, TypeError):
        return False
    return bool(found == expected and rows == expected_rows and n > expected_n)


def read_array(path: Where, name: str, length: int | None = None) -> NDArray[Any]:
    """Read a small one-dimensional array, chunk by checked chunk: whole, or so much of it as the reader knows of."""
    array = open_array(path, name)
    length = array.shape[0] if length is None else length
    chunks = [read_chunk(array, k) for k in range(-(-length // array.chunks[0]))]
    return np.concatenate(chunks)[:length] if chunks else np.empty(0, array.dtype)


def column_names(path: Where, n: int) -> list[str]:
    """Names of the first n columns, whether images or items; their numbers where they have none."""
    for name in ("image", "item"):
        if (folder(path) / name).exists():
            return [str(one) for one in read_array(path, name, n)]
    return [str(j) for j in range(n)]


def read_checksums(matrix: StoredMatrix) -> NDArray[np.uint32]:
    """Checksums of the chunks of A; BadInput where they are not those of the matrix."""
    checksums = read_array(matrix.path, "checksum", matrix.n_chunks).copy()
    checksums[-1] = matrix.attributes["last_checksum"]  # an append may have replaced the chunk, and this with it
    if fingerprint(matrix.shape, checksums) != matrix.fingerprint:
        raise BadInput(f"{matrix.path}/checksum and the fingerprint of the store do not agree; prepare the store again")
    return checksums


def fingerprint(shape: tuple[int, int], checksums: NDArray[np.uint32]) -> str:
    """Hash of the shape of A and the checksums of its chunks: equal where A is equal."""
    return hashlib.sha256(f"{shape}".encode() + checksums.astype("<u4").tobytes()).hexdigest()


def complete(
    path: Folder,
    kind: str,
    *,
    checksums: NDArray[np.uint32],
    ok: NDArray[np.bool_],
    norm_squared: float,
    arrays: Sequence[str],
) -> dict[str, Any]:
    """Attributes of a store whose arrays are all written, for its publication.

    Parameters
    ----------
    path
        The store.
    kind
        `images`, `matrix`, `table` or `words`.
    checksums
        Of the chunks of A.
    ok
        Which columns hold an image, (n,).
    norm_squared, arrays
        ‖A‖² of the scaled matrix, and the names of the arrays.
    """
    shape = (open_array(path, "A").shape[0], len(ok))
    known = {"A": checksums.tolist()}
    return {
        "format": FORMAT,
        "status": "complete",
        "kind": kind,
        "shape": list(shape),
        "norm_squared": norm_squared,
        "n_ok": int(ok.sum()),
        "fingerprint": fingerprint(shape, checksums),
        "last_checksum": int(checksums[-1]),
        "digests": {name: digest(path, name, known.get(name)) for name in arrays},
    }


def open_matrix(path: Where) -> StoredMatrix:
    """Open A; BadInput says what is wrong where there is no complete, consistent matrix."""
    home = folder(path)
    attributes = group_attributes(home)
    if attributes.get("format") != FORMAT:
        if (home / "A").exists() and not attributes:
            raise BadInput(f"{path}/zarr.json is missing, but {path}/A is there; restore the file")
        what = "is not an nmf-batch store" if home.exists() else "does not exist"
        raise BadInput(
            f"{path} {what}; make one with `nmf-batch prep SOURCE --zarr {path}`, or prep-table, prep-matrix, prep-text"
        )
    if attributes.get("status") != "complete":
        raise BadInput(
            f"{path} is unfinished: its preparation was interrupted; "
            "run the same `nmf-batch prep`, or other command that makes stores, again"
        )
    A = open_array(path, "A")
    missing = NEEDED - attributes.keys()
    if missing:
        raise BadInput(f"{path}/zarr.json is damaged: it has no {', '.join(sorted(missing))}; restore the file")
    m, n = attributes["shape"]
    if A.chunks[0] != m:
        raise BadInput(
            f"{path}/A has chunks {A.chunks}, which split its {m} pixels, "
            f"but a chunk must hold whole images; prepare it again with `nmf-batch prep`"
        )
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
        n_present=attributes.get("n_present"),
        most_present=attributes.get("most_present"),
        n_nonzero=attributes.get("n_nonzero"),
        most_nonzero=attributes.get("most_nonzero"),
    )
