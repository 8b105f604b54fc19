"""Images without noise and with it: stores that are made for a while, and what W H of them is compared with.

One task a partition writes its chunks, or returns sums, so that images are in memory a chunk at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import derived, store
from data_prep.folders import Folder
from data_prep.lock import only_writer
from data_prep.sample import read_columns, read_sample_as, read_sample_columns, sample_columns, sample_size
from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.kernels import Matrix
from pipeline.noise import restored, seen, with_noise
from pipeline.panels import one_blas_thread, panels
from pipeline.plan import partitions
from pipeline.transform import weights

HOME = ".noise"
"""Folder beside the factorizations: none can be called so."""


class Squares(NamedTuple):
    """Sums of squares of differences from W H, or from noisy images."""

    clean: float
    """A − W H, or A − A_noisy."""
    noisy: float
    """A_noisy − W H."""
    pictures: float
    """The first, of W H as pictures, and of the colours that can be seen."""
    n_seen: int
    """How many values these are."""


@dataclass(frozen=True)
class Pair:
    """Images without noise and with it, column for column."""

    clean: StoredMatrix
    noisy: StoredMatrix

    @property
    def channels(self) -> int:
        """Of an image."""
        return int(self.clean.attributes["image_shape"][2])

    def chunks(self, part: range) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Columns (m, c) of each chunk, clean and noisy, as stored."""
        arrays = [store.open_array(one.path, "A") for one in (self.clean, self.noisy)]
        for k in part:
            clean, noisy = (store.read_chunk(array, 0, k) for array in arrays)
            yield clean, noisy

    def noise(self) -> Squares:
        """Return how far the noisy images are from the clean ones."""
        return _total(engine.call_each(_noise_of, [(self, part) for part in partitions(self.clean)]))

    def measure(self, W: Matrix) -> Squares:
        """Return how far W H is from both, where H (d, n) is what fits the noisy images best."""
        return _total(engine.call_each(_measured, [(self, part, W) for part in partitions(self.clean)]))

    def shown(self, W: Matrix, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Some images, (m, ≤ count): without noise, with it, and what W H makes of them."""
        n = self.clean.shape[1]
        columns = np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(np.int64))
        clean, noisy = (_columns(one, columns) for one in (self.clean, self.noisy))
        return clean, noisy, restored(noisy, W, weights(W, noisy, self.noisy.scale)[0], self.channels)


@contextmanager
def scratch(matrix: StoredMatrix) -> Iterator[Folder]:
    """Yield an empty folder in a store, for one process at a time, and remove it in the end."""
    home = matrix.path / "nmf" / HOME
    with only_writer(home):
        try:
            yield home
        finally:
            home.remove()


def drawn(matrix: StoredMatrix, n: int) -> NDArray[np.int64]:
    """Numbers of n images, (n,), drawn at random: fewer of them are among more, those of the stored sample first."""
    if n <= sampled_images(matrix):
        return read_sample_columns(matrix, n)
    return np.sort(sample_columns(store.read_array(matrix.path, "ok", matrix.shape[1]), n))  # in the order of A


def sampled_images(matrix: StoredMatrix) -> int:
    """How many images can be drawn without reading A."""
    return min(matrix.n_ok, sample_size(matrix.shape[0], matrix.dtype.itemsize))


def some_images(matrix: StoredMatrix, home: Folder, columns: NDArray[np.int64]) -> StoredMatrix:
    """Write images of a store that were `drawn` as a store of their own."""
    n = len(columns)
    home.remove()
    derived.begin(home, matrix, n)
    if n <= sampled_images(matrix):
        put = _copy_sample(matrix, home, n)
    else:
        put = engine.call_each(_copy, [(home, k, matrix, columns) for k in range(-(-n // matrix.chunk_images))])
    return _finished(home, matrix, put, columns)


def noisy_images(clean: StoredMatrix, home: Folder, columns: NDArray[np.int64], sigma: float, seed: int) -> Pair:
    """Write images with noise, which their numbers `columns` say with the seed; see `with_noise`."""
    home.remove()
    derived.begin(home, clean, clean.shape[1])
    put = engine.call_each(_add_noise, [(home, k, clean, columns, sigma, seed) for k in range(clean.n_chunks)])
    return Pair(clean, _finished(home, clean, put, None))


def _finished(
    home: Folder, of: StoredMatrix, put: Sequence[derived.Put], columns: NDArray[np.int64] | None
) -> StoredMatrix:
    store.publish(home, derived.finish(home, of, put, {"fingerprint": of.fingerprint}, columns))
    return store.open_matrix(home)


def _copy_sample(matrix: StoredMatrix, home: Folder, n: int) -> list[derived.Put]:
    """Write the first images of the stored sample, a chunk at a time."""
    c, put = matrix.chunk_images, list[derived.Put]()
    chunks = -(-n // c)

    def write(block: NDArray[np.uint8]) -> None:
        for first in range(0, block.shape[1], c):  # from the first again, where an append replaced the sample meanwhile
            put.append(derived.put(home, len(put) % chunks, np.ascontiguousarray(block[:, first : first + c])))

    read_sample_as(matrix, n, write)
    return put[-chunks:]


def _copy(home: Folder, k: int, matrix: StoredMatrix, columns: NDArray[np.int64]) -> derived.Put:
    c = matrix.chunk_images
    return derived.put(home, k, _columns(matrix, columns[k * c : (k + 1) * c]))


def _add_noise(
    home: Folder, k: int, clean: StoredMatrix, columns: NDArray[np.int64], sigma: float, seed: int
) -> derived.Put:
    A_j, c = store.read_chunk(store.open_array(clean.path, "A"), 0, k), clean.chunk_images
    channels = clean.attributes["image_shape"][2]
    return derived.put(home, k, with_noise(A_j, columns[k * c : (k + 1) * c], sigma, seed, channels))


def _columns(matrix: StoredMatrix, columns: NDArray[np.int64]) -> NDArray[np.uint8]:
    found = read_columns(matrix.path, columns)
    return np.stack([found[int(j)] for j in columns], axis=1)


def _noise_of(pair: Pair, part: range) -> Squares:
    """Compare the chunks of a partition with their noisy ones: the task."""
    found = []
    for clean, noisy in pair.chunks(part):
        found.append(_compared(clean, noisy, partial(_scaled, noisy), noisy, pair.channels))
    return _total(found)


def _measured(pair: Pair, part: range, W: Matrix) -> Squares:
    """Compare the chunks of a partition with W H: the task."""
    one_blas_thread()
    found = []
    for clean, noisy in pair.chunks(part):
        H, _ = weights(W, noisy, pair.noisy.scale)
        pictures = restored(noisy, W, H, pair.channels)
        found.append(_compared(clean, noisy, partial(_product, W, H), pictures, pair.channels))
    return _total(found)


def _scaled(values: NDArray[np.uint8], rows: slice) -> Matrix:
    return values[rows] * np.float32(1 / 255)


def _product(W: Matrix, H: Matrix, rows: slice) -> Matrix:
    return W[rows] @ H


def _compared(
    clean: NDArray[np.uint8],
    noisy: NDArray[np.uint8],
    of: Callable[[slice], Matrix],
    pictures: NDArray[np.uint8],
    channels: int,
) -> Squares:
    """Compare columns with others, whose rows `of` returns, and with what these are as pictures."""
    colours = seen(clean, channels)
    found = []
    for rows in panels(clean):
        values, true, known = of(rows), _scaled(clean, rows), colours[rows]
        of_pictures = _squares((true - _scaled(pictures, rows))[known])
        to_clean, to_noisy = _squares(true - values), _squares(_scaled(noisy, rows) - values)
        found.append(Squares(to_clean, to_noisy, of_pictures, int(known.sum())))
    return _total(found)


def _squares(differences: NDArray[np.float32]) -> float:
    return float(np.square(differences, dtype=np.float64).sum())


def _total(found: Sequence[Squares]) -> Squares:
    return Squares(*map(sum, zip(*found, strict=True)))
