"""A store of images that are computed from those of another one: same names, size and mode, other pixels.

Who computes them writes each chunk once. Readers see nothing before all is there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, last_four, put_chunk
from data_prep.folders import Folder
from data_prep.sample import write_sample
from data_prep.store import StoredMatrix

ARRAYS = ("A", "image", "ok", "checksum", "sample", "sample_column")
FROM = "derived_from"
"""Attribute that says what the images were computed from: they cannot be prepared again, nor can others be added."""


class Put(NamedTuple):
    """A chunk that is written."""

    checksum: int
    squares: int
    """Sum of squares of its values, as stored."""


def begin(home: Folder, of: StoredMatrix, n: int) -> None:
    """Make an empty store for n images like those of another one; what an interrupted attempt left is removed.

    Raises
    ------
    BadInput
        The path holds something else.
    """
    m = of.shape[0]
    store.begin(home, expendable=ARRAYS)
    store.create_array(
        home,
        "A",
        shape=(m, n),
        chunks=(m, of.chunk_images),
        dtype=of.dtype,
        dimension_names=("pixel", "image"),
        attributes={"scale_factor": of.scale},
    )


def put(home: Folder, k: int, columns: NDArray[np.uint8]) -> Put:
    """Write the columns (m, ≤ c) of chunk k, which nobody else writes."""
    A = store.open_array(home, "A", mode="r+")
    encoded = encode_chunk(A, (0, k), columns)
    put_chunk(A, (0, k), encoded)
    rows = (row.astype(np.float64) for row in columns)  # exact: the sums stay below 2⁵³
    return Put(last_four(encoded), sum(int(np.dot(row, row)) for row in rows))


def finish(
    home: Folder,
    of: StoredMatrix,
    chunks: Sequence[Put],
    about: Mapping[str, Any],
    columns: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Write what belongs to A and put everything on disk; returns the attributes to publish, which readers wait for.

    Parameters
    ----------
    home
        The store.
    of
        What the images are computed from.
    chunks
        What `put` returned for each, in order.
    about
        Attribute `derived_from`.
    columns
        Which images of the other store these are; all of them unless given.
    """
    n = of.shape[1]
    chosen = slice(None) if columns is None else columns
    names, ok = (store.read_array(of.path, name, n)[chosen] for name in ("image", "ok"))
    checksums = np.array([chunk.checksum for chunk in chunks], np.uint32)
    store.write_array(home, "image", names, ("image",))
    store.write_array(home, "ok", ok, ("image",))
    store.write_array(home, "checksum", checksums, ("chunk",))
    write_sample(home, ok, {})
    home.put_on_disk()
    squares = sum(chunk.squares for chunk in chunks) * of.scale**2
    complete = store.complete(home, "images", checksums=checksums, ok=ok, norm_squared=squares, arrays=ARRAYS)
    kept = {key: of.attributes[key] for key in ("image_shape", "mode", "prep") if key in of.attributes}
    return {**complete, **kept, FROM: dict(about)}
