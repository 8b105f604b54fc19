"""W H as images: a store like the one that was factorized, with less noise."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import derived, store
from data_prep.folders import Folder
from data_prep.lock import only_writer
from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.blocks import StoredBlocks, read_ahead
from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.noise import restored, seen
from pipeline.noise_experiment import check_images
from pipeline.panels import aligned, one_blas_thread
from pipeline.plan import partitions


class Denoised(NamedTuple):
    """What was written."""

    n: int
    changed: float
    """Root of the mean square of how much colours that can be seen have changed, where 1 is the largest pixel value."""


class _Part(NamedTuple):
    """What a task has done."""

    chunks: list[derived.Put]
    changed: float
    n_seen: int


def check_out(home: Folder) -> None:
    """Raise BadInput where a path is taken."""
    if store.group_attributes(home).get("status") == "complete":
        raise store.BadInput(f"{home} is a store already, and is not written over; remove it, or choose another --out")
    store.check_vacant(home, expendable=derived.ARRAYS)


def write_denoised(
    factors: Factors, home: Folder, on_progress: Callable[[int], None] = lambda chunks: None
) -> Denoised:
    """Write W H of images as a store of its own, a chunk at a time; on the active Dask client, or on threads.

    Names, size and mode are those of the images. So is, to the bit, opacity, and the colour of what is transparent.

    Parameters
    ----------
    factors
        Of the noisy images.
    home
        Where to. An attempt that was interrupted is begun again.
    on_progress
        Called with the number of chunks that are written.

    Raises
    ------
    BadInput
        The store does not hold images, or others than were factorized; or the path is taken.
    HeldError
        Another process writes there.
    """
    matrix = store.open_matrix(factors.home)
    check_images(matrix)
    if factors.attributes["fingerprint"] != matrix.fingerprint:
        raise store.BadInput(
            f"{factors.path.parent.name} is of {factors.attributes['shape'][1]:,} images, but {matrix.path} holds "
            f"{matrix.shape[1]:,}; run `nmf-batch run` again, which takes them in"
        )
    check_out(home)
    with only_writer(home) as still_ours:
        derived.begin(home, matrix, matrix.shape[1])
        parts = _written(matrix, factors, home, on_progress)
        about = {key: factors.attributes[key] for key in ("fingerprint", "parameters")}
        chunks = list(itertools.chain.from_iterable(part.chunks for part in parts))
        attributes = derived.finish(home, matrix, chunks, {"revision": factors.path.name, **about})
        still_ours()
        store.publish(home, attributes)
    squares, n_seen = sum(part.changed for part in parts), sum(part.n_seen for part in parts)
    return Denoised(matrix.shape[1], math.sqrt(squares / max(n_seen, 1)))


def _written(matrix: StoredMatrix, factors: Factors, home: Folder, on_progress: Callable[[int], None]) -> list[_Part]:
    """Write all chunks, so many partitions at once as there are threads; W is read for these together."""
    place, parts = engine.place(), partitions(matrix)
    together, found = 2 * place.workers * place.threads, list[_Part]()
    for first in range(0, len(parts), together):
        some = parts[first : first + together]
        tasks = {f"part-{k}": (_write, factors, home, part, "basis") for k, part in enumerate(some)}
        found += engine.run({"basis": (Factors.read, factors, "W")} | tasks, keep=[], bring=list(tasks))[1]
        on_progress(sum(len(part.chunks) for part in found))
    return found


def _write(factors: Factors, home: Folder, part: range, W: Matrix) -> _Part:
    """Write the chunks of a partition: the task."""
    one_blas_thread()
    matrix, W, put = store.open_matrix(factors.home), aligned(W), []
    channels, squares, n_seen = matrix.attributes["image_shape"][2], 0, 0
    checksums = store.read_checksums(matrix).tolist()
    A = StoredBlocks(matrix.path, "A", part, checksums[part.start : part.stop], matrix.shape[1])
    H = StoredBlocks(factors.path, "H", part)
    for k, noisy, H_j in zip(part, read_ahead(A), read_ahead(H), strict=True):
        clean = restored(noisy, W, H_j, channels)
        put.append(derived.put(home, k, clean))
        visible = seen(noisy, channels)
        squares += _squares(clean, noisy, visible)
        n_seen += int(visible.sum())
    return _Part(put, squares / 255**2, n_seen)


def _squares(clean: NDArray[np.uint8], noisy: NDArray[np.uint8], visible: NDArray[np.bool_]) -> int:
    """Sum of squares of differences, by rows, so that little is made wider."""
    rows: Any = (
        np.subtract(after, before, dtype=np.int64)[known]
        for after, before, known in zip(clean, noisy, visible, strict=True)
    )
    return sum(int(np.dot(row, row)) for row in rows)
