"""Names of some rows or columns, of which there may be more than fit in memory."""

from collections.abc import Iterable
from itertools import groupby

from data_prep import store
from data_prep.store import StoredMatrix


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
