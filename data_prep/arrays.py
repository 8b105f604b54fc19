"""A matrix that is in memory already, as a store."""

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Where, folder
from data_prep.sample import write_sample

ARRAYS = ("A", "ok", "checksum", "sample", "sample_column")
SMALLEST, LARGEST = np.float64(1e-12), np.float64(1e12)  # of a type that float16 is compared in without overflow


def write_matrix(path: Where, A: NDArray[np.floating] | NDArray[np.integer], scale: float = 1.0) -> None:
    """Write A (m, n) ≥ 0, a column an item, as a store that `factorize` takes; its values stay as they are.

    uint8 stays uint8, everything else becomes float32. What is factorized is `scale` times that.

    Raises
    ------
    BadInput
        A is not two-dimensional, is empty, or holds no real numbers, or a negative, NaN or infinite one, or only ones
        too small for float32; or the path is taken.
    """
    home = folder(path)
    if A.ndim != 2 or A.size == 0:
        raise store.BadInput(f"the matrix has shape {A.shape}, but must have rows and columns")
    if A.dtype.kind not in "buif":
        raise store.BadInput(f"the matrix holds {A.dtype}, but must hold real numbers")
    m, n = A.shape
    c = store.chunk_images(m)
    norm_squared = sum(_squares(A[:, first : first + c], first) for first in range(0, n, c))
    if 0 < A.max() < SMALLEST:
        raise store.BadInput(
            f"the largest value of A is {A.max():g}, but must be at least {SMALLEST:g}: "
            f"float32 does not hold the squares of such; scale A"
        )
    if store.group_attributes(home).get("status") == "complete":
        raise store.BadInput(f"{path} holds a matrix already; choose another path")
    store.begin(home, expendable=ARRAYS)
    array = store.create_array(
        home,
        "A",
        shape=(m, n),
        chunks=(m, c),
        dtype=np.uint8 if A.dtype == np.uint8 else np.float32,
        dimension_names=("feature", "item"),
        attributes={"scale_factor": scale} if scale != 1 else None,
    )
    for first in range(0, n, c):
        array[:, first : first + c] = A[:, first : first + c].astype(array.dtype)
    checksum = np.array([store.stored_checksum(array, 0, k) for k in range(array.cdata_shape[1])], np.uint32)
    ok = np.ones(n, np.bool_)
    store.write_array(home, "ok", ok, ("item",))
    store.write_array(home, "checksum", checksum, ("chunk",))
    write_sample(home, ok, {})
    home.put_on_disk()
    about = store.complete(
        home, "matrix", checksums=checksum, ok=ok, norm_squared=norm_squared * scale**2, arrays=ARRAYS
    )
    store.publish(home, about)


def _squares(block: NDArray[np.number], first: int) -> float:
    """Sum of squares of a block of columns as they are stored; BadInput where a value cannot be factorized."""
    wrong = ~(np.isfinite(block) & (block >= 0) & (block <= LARGEST))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise store.BadInput(
            f"A[{i}, {first + j}] is {block[i, j]}, but every value must be finite, 0 or more, "
            f"and at most {LARGEST:g}, whose squares float32 can sum; scale A, or leave such values out"
        )
    return float(np.square(block.astype(np.float32), dtype=np.float64).sum())
