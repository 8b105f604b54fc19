"""What a store says of its rows or columns, read beside W or H: a hundred million names are never in memory."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from data_prep.store import StoredMatrix


class Along:
    """Values of an array (n,) of a store, for one span after the other; of its chunks only the last few are kept."""

    def __init__(self, path: Folder, name: str) -> None:
        self._array = store.open_array(path, name)
        self._kept: dict[int, NDArray[Any]] = {}

    def __call__(self, span: slice) -> NDArray[Any]:
        """Values of a span, which has a start and a stop."""
        c = self._array.chunks[0]
        chunks = range(span.start // c, -(-span.stop // c))
        self._kept = {k: self._kept[k] if k in self._kept else store.read_chunk(self._array, k) for k in chunks}
        first = chunks.start * c
        return np.concatenate(list(self._kept.values()))[span.start - first : span.stop - first]


def labels(matrix: StoredMatrix, names: str) -> Callable[[slice], list[str]]:
    """Return what names a span of rows (`feature`) or columns (`image`, `item`): numbers where nothing does."""
    if names not in matrix.attributes["digests"]:
        return lambda span: [str(k) for k in range(span.start, span.stop)]
    along = Along(matrix.path, names)
    return lambda span: [str(name) for name in along(span)]


def of_columns(matrix: StoredMatrix) -> str:
    """Name of the array that names the columns."""
    return "image" if "image" in matrix.attributes["digests"] else "item"


def names_at(matrix: StoredMatrix, array: str, positions: Iterable[int]) -> dict[int, str]:
    """Names of some rows or columns, read a chunk at a time; their numbers where the store names none.

    Parameters
    ----------
    matrix
        The store.
    array
        Which names: `feature` of rows, `image` or `item` of columns.
    positions
        Which of them.
    """
    if array not in matrix.attributes["digests"]:
        return {position: str(position) for position in positions}
    names, found = store.open_array(matrix.path, array), {}
    for chunk, those in groupby(sorted(set(positions)), key=lambda position: position // names.chunks[0]):
        read, first = store.read_chunk(names, chunk), chunk * names.chunks[0]
        found.update({position: str(read[position - first]) for position in those})
    return found
