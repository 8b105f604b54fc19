"""Arrays with a value an image become longer: chunks are replaced whole, and what is in use of them stays."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, put_chunk, resize
from data_prep.folders import Folder


def create_rows(path: Folder, name: str, length: int, dimension: str) -> None:
    """Create an array of long strings, compressed."""
    store.create_array(
        path,
        name,
        shape=(length,),
        chunks=(max(1, min(length, store.NAMES_PER_CHUNK)),),
        dtype=np.dtypes.StringDType(),
        dimension_names=(dimension,),
        codec="zstd",
    )


def write_tail(path: Folder, name: str, first: int, n: int, pieces: Iterable[NDArray[Any]]) -> None:
    """Write values behind the first so many of an array.

    Parameters
    ----------
    path, name
        The store and the array, (≥ first,).
    first, n
        How long it is without them, and with them.
    pieces
        The values, some at a time; no more than these and a chunk are in memory.
    """
    before = store.open_array(path, name)
    c = before.chunks[0]
    waiting = [np.array(store.read_chunk(before, first // c)[: first % c])] if first % c else []
    resize_array(path, name, n)
    array, k = store.open_array(path, name, mode="r+"), first // c
    for piece in pieces:
        waiting.append(piece)
        while sum(map(len, waiting)) >= c:
            together = np.concatenate(waiting)
            put_chunk(array, (k,), encode_chunk(array, (k,), together[:c]))
            waiting, k = [together[c:]], k + 1
    if sum(map(len, waiting)):
        put_chunk(array, (k,), encode_chunk(array, (k,), np.concatenate(waiting)))


def resize_array(path: Folder, name: str, length: int) -> None:
    """Make the last dimension of an array so long."""
    array = store.open_array(path, name, mode="r+")
    if array.shape[-1] != length:
        resize(path / name, array, length)
