"""A matrix that is in memory already, as a store."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.sample import write_sample

LARGEST = 1e12


def write_matrix(path: str | Path, A: NDArray[np.floating] | NDArray[np.integer]) -> None:
    """Write A (m, n) ≥ 0, a column an item, as a store that `factorize` takes; its values stay as they are.

    uint8 stays uint8, everything else becomes float32.

    Raises
    ------
    BadInput
        A is not two-dimensional, is empty, or holds a negative, NaN or infinite value; or the path is taken.
    """
    path = Path(path)
    if A.ndim != 2 or A.size == 0:
        raise store.BadInput(f"the matrix has shape {A.shape}, but must have rows and columns")
    values = A if A.dtype == np.uint8 else A.astype(np.float32)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise store.BadInput(f"A[{i}, {j}] is {A[i, j]}, but every value must be finite and 0 or more")
    if store.group_attributes(path).get("status") == "complete":
        raise store.BadInput(f"{path} holds a matrix already; choose another path")
    if values.max() > LARGEST:
        raise store.BadInput(f"the largest value is {values.max():.3g}, whose squares leave float32; scale A first")
    m, n = values.shape
    store.begin(path, expendable=("A", "ok", "checksum", "sample", "sample_column"))
    array = store.create_array(
        path,
        "A",
        shape=(m, n),
        chunks=(m, store.chunk_images(m)),
        dtype=values.dtype,
        dimension_names=("feature", "item"),
    )
    array[...] = values
    checksum = np.array([store.stored_checksum(array, 0, k) for k in range(array.cdata_shape[1])], np.uint32)
    ok = np.ones(n, np.bool_)
    store.write_array(path, "ok", ok, ("item",))
    store.write_array(path, "checksum", checksum, ("chunk",))
    write_sample(path, ok, {})
    store.sync_tree(path)
    store.publish(
        path,
        {
            "format": store.FORMAT,
            "status": "complete",
            "kind": "matrix",
            "norm_squared": float(np.square(values, dtype=np.float64).sum()),
            "n_ok": n,
            "fingerprint": store.fingerprint((m, n), checksum),
        },
    )
