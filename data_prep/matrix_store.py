"""A matrix that does not come from images, written block by block: what arrays in memory and tables share.

Where entries of A (m, n) are missing, they are stored as 0, and the bool array `mask` (m, n), chunked like A, is True
where an entry is known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from data_prep.sample import sample_columns, sample_size

ARRAYS = ("A", "ok", "checksum", "sample", "sample_column")
"""What every such store has."""
EXPENDABLE = (*ARRAYS, "mask", "sample_mask", "feature", "item", "idf")
"""What an interrupted attempt may have left."""
SMALLEST, LARGEST = np.float64(1e-12), np.float64(1e12)  # of a type that float16 is compared in without overflow
SPARSE = 0.5
"""A matrix with a smaller share of entries other than 0 than this is compressed."""


class Block(NamedTuple):
    """The columns of one chunk."""

    values: NDArray[Any]
    """(m, c), 0 where an entry is missing."""
    present: NDArray[np.bool_] | None
    """(m, c), False where an entry is missing; None where the matrix has no mask."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What is to be stored, besides the entries."""

    kind: str
    """`matrix`, `table` or `words`."""
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    n_present: int
    """Known entries; m × n where none is missing."""
    n_filled: int
    """Entries that may be known and other than 0, at most."""
    scale: float = 1.0
    """What is factorized is the stored values times this."""
    features: Sequence[str] | None = None
    """Names of the rows, (m,)."""
    items: Sequence[str] | None = None
    """Names of the columns, (n,)."""
    idf: NDArray[np.float64] | None = None
    """What the counts of each word are multiplied with, (m,)."""

    @property
    def masked(self) -> bool:
        """Whether entries are missing."""
        return self.n_present < self.shape[0] * self.shape[1]

    @property
    def codec(self) -> str:
        """What A and its sample are compressed with."""
        return "zstd" if self.n_filled < SPARSE * self.shape[0] * self.shape[1] else "none"


def check_largest(largest: float) -> None:
    """Raise BadInput where the largest value of A is too small for float32 to hold its square."""
    if 0 < largest < SMALLEST:
        raise store.BadInput(
            f"the largest value of A is {largest:g}, but must be at least {SMALLEST:g}: "
            f"float32 does not hold the squares of such; scale A"
        )


def sampled_columns(matrix: Matrix) -> NDArray[np.int64]:
    """Numbers of the columns that the sample holds, (k,), in its order."""
    m, n = matrix.shape
    return sample_columns(np.ones(n, np.bool_), sample_size(m, matrix.dtype.itemsize))


def write_blocks(home: Folder, matrix: Matrix, blocks: Iterator[Block], sample: Iterator[Block]) -> dict[str, Any]:
    """Write all arrays of a store that is begun and put them on disk; returns the attributes to publish.

    Parameters
    ----------
    home
        The store, of which readers see nothing before its attributes are published.
    matrix
        What is to be stored.
    blocks, sample
        The columns of each chunk of A, and of each chunk of its sample, in order. One is held at a time.
    """
    columns, (_, n) = sampled_columns(matrix), matrix.shape
    squares, filled = _fill(_create(home, matrix, ("A", "mask"), n, ("feature", "item")), blocks)
    _fill(_create(home, matrix, ("sample", "sample_mask"), len(columns), ("pixel", "draw")), sample)
    store.write_array(home, "sample_column", columns, ("draw",))
    A, ok = store.open_array(home, "A"), np.ones(n, np.bool_)
    checksum = np.array([store.stored_checksum(A, 0, k) for k in range(A.cdata_shape[1])], np.uint32)
    store.write_array(home, "ok", ok, ("item",))
    store.write_array(home, "checksum", checksum, ("chunk",))
    named = {name: names for name, names in (("feature", matrix.features), ("item", matrix.items)) if names is not None}
    for name, names in named.items():
        store.write_array(home, name, np.array(list(names), np.dtypes.StringDType()), (name,))
    if matrix.idf is not None:
        named["idf"] = []
        store.write_array(home, "idf", matrix.idf, ("feature",))
    home.put_on_disk()
    arrays = (*ARRAYS, *named, *(("mask", "sample_mask") if matrix.masked else ()))
    norm_squared = squares * matrix.scale**2
    about = store.complete(home, matrix.kind, checksums=checksum, ok=ok, norm_squared=norm_squared, arrays=arrays)
    counts = _counts("nonzero", [one.nonzero for one in filled])
    if matrix.masked:
        counts |= _counts("present", [one.known for one in filled])
    return about | counts


def _counts(what: str, of_chunks: Sequence[int]) -> dict[str, int]:
    return {f"n_{what}": sum(of_chunks), f"most_{what}": max(of_chunks)}


def _create(
    home: Folder, matrix: Matrix, names: tuple[str, str], n: int, dimension_names: tuple[str, str]
) -> list[Any]:
    """Create an array of n columns of values, and that of what of them is known where there is a mask."""
    m, (values, mask) = matrix.shape[0], names
    layout: dict[str, Any] = {
        "shape": (m, n),
        "chunks": (m, store.chunk_images(m)),
        "dimension_names": dimension_names,
    }
    scaled = {"scale_factor": matrix.scale} if values == "A" and matrix.scale != 1 else None
    arrays = [store.create_array(home, values, dtype=matrix.dtype, codec=matrix.codec, attributes=scaled, **layout)]
    if matrix.masked:
        arrays.append(store.create_array(home, mask, dtype=np.bool_, codec="zstd", **layout))
    return arrays


class _Filled(NamedTuple):
    """Entries of a chunk."""

    known: int
    nonzero: int
    """Of the known ones."""


def _fill(arrays: Sequence[Any], blocks: Iterator[Block]) -> tuple[float, list[_Filled]]:
    """Write blocks; returns the sum of their squares and how many entries of each there are."""
    squares, filled, c = 0.0, [], arrays[0].chunks[1]
    for k, block in enumerate(blocks):
        for array, entries in zip(arrays, block, strict=False):  # without a mask, values alone
            array[:, k * c : (k + 1) * c] = entries
        known = block.values if block.present is None else block.values[block.present]
        squares += float(np.square(known.astype(np.float32, copy=False), dtype=np.float64).sum())
        filled.append(_Filled(known.size, int(np.count_nonzero(known))))
    return squares, filled
