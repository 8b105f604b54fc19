"""Sum of the images, pixel by pixel and append by append: the mean image costs no visit of A."""

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, put_chunk
from data_prep.folders import Folder
from data_prep.store import StoredMatrix
from data_prep.tails import resize_array


def create_sums(path: Folder, sums: NDArray[np.int64]) -> None:
    """Write sums over the first images (m,), in stored values."""
    m = len(sums)
    store.create_array(
        path, "pixel_sum", shape=(m, 1), chunks=(m, 1), dtype=np.int64, dimension_names=("pixel", "append")
    )
    append_sums(path, 0, sums)


def append_sums(path: Folder, k: int, sums: NDArray[np.int64]) -> None:
    """Write sums over the images of append k, (m,)."""
    resize_array(path, "pixel_sum", k + 1)
    array = store.open_array(path, "pixel_sum", mode="r+")
    put_chunk(array, (0, k), encode_chunk(array, (0, k), sums[:, np.newaxis]))


def read_mean(matrix: StoredMatrix) -> NDArray[np.float64]:
    """Mean of the images that could be read, (m,), scaled as the factors are."""
    array = store.open_array(matrix.path, "pixel_sum")
    appends = len(matrix.attributes["prep"]["appends"])
    total = sum(store.read_chunk(array, 0, k)[:, 0] for k in range(appends))
    return np.asarray(total) * matrix.scale / matrix.n_ok
