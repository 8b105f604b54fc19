"""Basis images and reconstructions as PNG files, each of the size and mode of the images: what is transparent is so."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from itertools import count

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from PIL import Image

from data_prep import store
from pipeline.factors import Factors
from pipeline.file_names import picture_parts
from pipeline.kernels import Matrix
from pipeline.labels import Along, labels
from pipeline.new_files import NewFolder
from pipeline.panels import one_blas_thread
from pipeline.report.sheets import image_shape

VALUES_TOGETHER = 2**20
"""Of the images that a thread draws at once, unless one alone has more."""


@dataclass(frozen=True)
class Chosen:
    """Which images are written."""

    pattern: str = "*"
    """Of their names, as of files in a shell; a * stands for slashes too."""
    limit: int | None = None
    """The first so many."""


@dataclass
class Written:
    """What became of the images that were chosen."""

    pictures: int = 0
    unreadable: int = 0
    """Those that could not be read when the store was made: they have no weights."""
    numbered: int = 0
    """Pictures with the number of their column, since there was another of the same name."""


@dataclass(frozen=True)
class _Batch:
    """Some images of a chunk of H."""

    H: Matrix
    """(d, k)."""
    columns: list[int]
    names: list[str]
    seen: int
    """How many columns of the store have been looked at so far."""


def png(column: NDArray[np.floating], shape: tuple[int, int, int]) -> bytes:
    """Draw a column of values (m,), of which 0..1 can be shown, as gray, RGB or RGBA."""
    pixels = np.rint(255 * np.clip(column, 0, 1)).astype(np.uint8).reshape(shape)
    content = BytesIO()
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(content, format="PNG")
    return content.getvalue()


def write_basis(factors: Factors, folder: NewFolder, on_progress: Callable[[int], None] = lambda done: None) -> Written:
    """Write the basis images, `component00.png` and so on, each stretched to its own maximum."""
    W, shape = factors.read("W"), image_shape(factors)
    digits = len(str(W.shape[1] - 1))
    for k, w in enumerate(W.T):
        folder.put((f"component{k:0{digits}d}.png",), png(w / max(w.max(), np.finfo(np.float32).tiny), shape))
        on_progress(k + 1)
    return Written(pictures=W.shape[1])


def write_reconstructions(
    factors: Factors, folder: NewFolder, chosen: Chosen, on_progress: Callable[[int], None] = lambda seen: None
) -> Written:
    """Write W h of each image that was readable, at its name; see `picture_parts` for what becomes of that.

    A chunk of H is in memory at a time, and the names that go with it; and of the pictures as many as threads draw.

    Parameters
    ----------
    factors
        Of a store of images.
    folder
        Where to.
    chosen
        Which of the images.
    on_progress
        Told how many columns were looked at.
    """
    W, shape, written = factors.read("W"), image_shape(factors), Written()

    def draw(batch: _Batch) -> list[bytes]:
        one_blas_thread()
        return [png(column, shape) for column in batch.H.T @ W.T]

    with ThreadPoolExecutor(CPU_COUNT) as threads:
        under_way: deque[tuple[_Batch, Future[list[bytes]]]] = deque()
        for batch in _batches(factors, chosen, written):
            under_way.append((batch, threads.submit(draw, batch)))
            if len(under_way) > CPU_COUNT:
                _put(folder, written, *under_way.popleft(), on_progress)
        while under_way:
            _put(folder, written, *under_way.popleft(), on_progress)
    return written


def _batches(factors: Factors, chosen: Chosen, written: Written) -> Iterator[_Batch]:
    """Images that are chosen, in the order of their columns, so many as are drawn at once."""
    matrix = store.open_matrix(factors.home)
    ok, names = Along(matrix.path, "ok"), labels(matrix, "image")
    together, left = max(1, VALUES_TOGETHER // matrix.shape[0]), chosen.limit
    for span, H in factors.chunks_of_H():
        known = names(span)
        alike = np.array([fnmatchcase(name, chosen.pattern) for name in known])
        readable = ok(span)
        some = np.flatnonzero(alike & readable)[:left]
        last = some[-1] + 1 if len(some) == left else len(known)
        written.unreadable += int((alike & ~readable)[:last].sum())
        for first in range(0, len(some), together):
            these = some[first : first + together].tolist()
            columns = [span.start + j for j in these]
            yield _Batch(H[:, these], columns, [known[j] for j in these], columns[-1] + 1)
        left = None if left is None else left - len(some)
        if left == 0:
            return


def _put(
    folder: NewFolder, written: Written, batch: _Batch, drawn: Future[list[bytes]], on_progress: Callable[[int], None]
) -> None:
    """Write the pictures of a batch once they are drawn."""
    for name, column, content in zip(batch.names, batch.columns, drawn.result(), strict=True):
        for attempt in count():
            try:
                folder.put(picture_parts(name, column, attempt), content)
            except FileExistsError:
                continue
            break
        written.pictures += 1
        written.numbered += attempt > 0
    on_progress(batch.seen)
