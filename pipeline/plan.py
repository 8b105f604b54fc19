"""How the work is cut, and what is kept in memory: decided by arithmetic, before anything runs."""

import itertools

from data_prep.store import StoredMatrix
from pipeline import engine

PARTITION_NBYTES = 128_000_000
MIN_PARTITIONS = 16
CACHE_SHARE = 0.5


def partitions(matrix: StoredMatrix) -> list[range]:
    """Runs of consecutive chunks, a task each: a function of the store alone, so that results are too.

    There are min(chunks, max(16, bytes / 128 MB)) of them, as even as whole chunks allow.
    """
    chunks = matrix.n_chunks
    count = min(chunks, max(MIN_PARTITIONS, -(-matrix.nbytes // PARTITION_NBYTES)))
    bounds = [k * chunks // count for k in range(count + 1)]
    return [range(first, last) for first, last in itertools.pairwise(bounds)]


def fits_in_cache(matrix: StoredMatrix) -> bool:
    """Whether A is read once and kept, in its stored type, or read again each pass; the result is the same."""
    return matrix.nbytes <= CACHE_SHARE * engine.memory_nbytes()
