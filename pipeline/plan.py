"""How the work is cut and what stays in memory: decided by arithmetic, before anything runs.

What is computed does not depend on any of it but `partitions`, which follows from the store alone.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.blocks import COLUMNS_TOGETHER
from pipeline.config import NMFConfig
from pipeline.engine import Place
from pipeline.objective import few_nonzero, is_entrywise, is_masked, is_sparse, nearly_all_zero
from pipeline.panels import LISTED_TOGETHER, MOST_TOGETHER, PANEL_ROWS, PANEL_VALUES
from pipeline.sketching import Choice
from pipeline.sparse import VALUES_TOGETHER

PARTITION_NBYTES = 128_000_000
MIN_PARTITIONS = 16
PROCESS_NBYTES = 128 * 2**20
"""A Python process with NumPy, Zarr and Dask, before it works: measured 78 to 100 MiB."""
MEMBER_NBYTES = 160 * 2**20
"""One that is a member of a cluster, as worker or as driver: measured 105 to 150 MiB."""

ROW_NBYTES = 4
"""Of the number of a row, or of where a column begins."""
MIN_LISTED, LISTED_NBYTES, DECODED_NBYTES = 4, 16_000_000, 8_000_000_000
"""Of partitions that are nearly all zero: how many there are at least, and how much is listed and decoded of each."""
H_SHARE = 0.25
"""Of the memory of a worker: H is kept there up to that."""


class RefusedPlan(ValueError):
    """What was asked cannot be computed here: the command ends with exit code 2."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will hold where. Written beside the result."""

    partitions: list[range]
    """Chunks of each task."""
    n_cached: int
    """Partitions, the first ones, that stay in memory in their stored type; the others are read each pass."""
    memory_nbytes: int
    """What a worker may use; without a cluster, what this process may."""
    worker_nbytes: int
    """Peak of a worker; without a cluster, of this process with all that a driver holds."""
    driver_nbytes: int
    """Peak of the driver."""
    stores_H: bool
    """Whether tasks write their part of H after every pass and read it in the next, since it would not fit."""
    disk_nbytes: int
    """What the result takes in the store, with the checkpoint before it and what is kept there on the way."""
    sketch_here: bool
    """Whether the small problem is in this process, else it is where the engine keeps it."""
    passes: float
    """Visits of A at most."""

    def bytes_read(self, nbytes: int) -> int:
        """Bytes of A that the passes read: all of it once, and then what is not cached."""
        return round(nbytes * (1 + (1 - self.cached_share) * (self.passes - 1))) if self.passes else 0

    @property
    def cached_share(self) -> float:
        """Share of A that is read once only."""
        chunks = sum(len(part) for part in self.partitions)
        return sum(len(part) for part in self.partitions[: self.n_cached]) / chunks


def make_plan(
    matrix: StoredMatrix,
    config: NMFConfig,
    memory_nbytes: int | None = None,
    choice: Choice | None = None,
    passes: float = 1.0,
) -> Plan:
    """Plan passes over a matrix, where the engine runs now.

    Parameters
    ----------
    matrix
        What is factorized.
    config
        What is asked for, with its solver settled.
    memory_nbytes
        What a worker may use; a share of what it has unless given.
    choice
        The small problem that is iterated on first.
    passes
        Visits of A at most.

    Raises
    ------
    RefusedPlan
        d is above min(m, n), or not even the work on single chunks fits; says how much would.
    """
    d = config.n_components
    check_rank(matrix, d)
    place, parts, entries = engine.place(), partitions(matrix), _entries(matrix, config)
    budget = place.memory_nbytes if memory_nbytes is None else memory_nbytes
    needs = _with(entries, _needs(matrix, d, place, budget, choice), threads_of(place, parts), place)
    if max(needs.worker, needs.alone) > budget:
        raise _refused(matrix, d, place, budget, needs)
    result = 4 * d * sum(matrix.shape)
    scratch = 0 if place.in_process and not needs.stores_H else 2 * 4 * d * matrix.shape[1]
    _check_disk(matrix, result + scratch)
    largest = max(len(part) for part in parts) * entries.chunk
    spare = 0 if place.in_process else 1  # a cached partition that Dask hands to an idle worker is there twice
    n_cached = min(len(parts), place.workers * max(0, (budget - needs.worker) // largest - spare))
    cached = (-(-n_cached // place.workers) + (spare if n_cached else 0)) * largest
    of_all = round(matrix.nbytes * entries.chunk / _chunk_nbytes(matrix))
    worker = max(needs.worker + min(cached, of_all), needs.alone)
    return Plan(
        partitions=parts,
        n_cached=n_cached,
        memory_nbytes=budget,
        worker_nbytes=worker,
        driver_nbytes=worker if place.in_process else needs.driver,
        stores_H=needs.stores_H,
        sketch_here=needs.sketch_here,
        passes=passes,
        disk_nbytes=2 * result + scratch,
    )


class _Needs(NamedTuple):
    """Bytes that cannot be done without, and what follows from them."""

    worker: int
    """For passes over A of which nothing is kept."""
    driver: int
    alone: int
    """For what is of the sample alone, which is over before A is opened."""
    sketch: int
    stores_H: bool
    sketch_here: bool


class _Entries(NamedTuple):
    """Bytes that an objective which goes by entries takes, besides those of one that does not."""

    work: int = 0
    """Of a task."""
    driver: int = 0
    """Of the sums in the driver."""
    chunk: int = 0
    """Of a chunk that is kept in memory, A itself included."""


def _entries(matrix: StoredMatrix, config: NMFConfig) -> _Entries:
    (m, _), d, values = matrix.shape, config.n_components, _chunk_nbytes(matrix) // matrix.dtype.itemsize
    if not is_entrywise(config, matrix):
        return _Entries(chunk=_listed_chunk(matrix) if few_nonzero(config, matrix) else _chunk_nbytes(matrix))
    c, masked, panel = values // m, is_masked(config, matrix), min(values, max(PANEL_ROWS * values // m, PANEL_VALUES))
    driver = (8 + 8 + 4) * m * d
    work = 3 * 4 * panel + 4 * 4 * c * d + (4 + 8 + 8) * m * d + (2 * values + 3 * 8 * panel if masked else 0)
    if not is_sparse(config, matrix):
        return _Entries(work, driver, _chunk_nbytes(matrix) + (values if masked else 0))
    most, listed = max(matrix.most_present or 0, matrix.most_nonzero or 0), 8 * VALUES_TOGETHER
    if masked:
        return _Entries(work + 64 * most + listed, driver, _listed_chunk(matrix))
    together = -(-COLUMNS_TOGETHER // matrix.chunk_images)  # chunks beside each other
    listed += together * (64 * most + 4 * 4 * matrix.chunk_images * d)
    return _Entries(listed + 8 * m * d, 4 * m * d, _listed_chunk(matrix))


def _listed_chunk(matrix: StoredMatrix) -> int:
    """Bytes of a chunk of which the entries that are present, or not zero, are listed: value and row of each."""
    most = max(matrix.most_present or 0, matrix.most_nonzero or 0)
    return (matrix.dtype.itemsize + ROW_NBYTES) * most + ROW_NBYTES * matrix.chunk_images


def _listed_nbytes(matrix: StoredMatrix) -> int:
    """Bytes of the whole matrix with what is not zero listed."""
    return (matrix.dtype.itemsize + ROW_NBYTES) * (matrix.n_nonzero or 0) + ROW_NBYTES * matrix.shape[1]


def _needs(matrix: StoredMatrix, d: int, place: Place, budget: int, choice: Choice | None) -> _Needs:
    (m, n), parts = matrix.shape, partitions(matrix)
    column_nbytes = _listed_nbytes(matrix) / n if nearly_all_zero(matrix) else m * matrix.dtype.itemsize
    sketch = 0 if choice is None else choice.nbytes(m, d, column_nbytes)
    if choice is not None and choice.kind == "all" and nearly_all_zero(matrix):
        sketch = max(choice.tall_nbytes(m, d) - _driver_nbytes(matrix, d), 0) + 4 * d * n  # one comes after the other
    of_sample = choice is not None and not choice.whole
    here = place.in_process or of_sample or sketch <= H_SHARE * budget
    driver = _driver_nbytes(matrix, d) + (sketch if here and not of_sample else 0)
    H_nbytes = 2 * 4 * d * -(-n // place.workers)  # before and after a pass
    stores_H = H_nbytes > H_SHARE * budget
    kept = threads_of(place, parts) * _H_of_a_partition(matrix, d, parts) if stores_H else H_nbytes
    fixed = (PROCESS_NBYTES if place.in_process else MEMBER_NBYTES) + _work_nbytes(matrix, d, place, parts)
    worker = fixed + kept + (driver if place.in_process else 0 if here else -(-sketch // place.workers))
    alone = fixed + sketch if of_sample and place.in_process else 0
    at_driver = MEMBER_NBYTES + max(driver, sketch if of_sample else 0)
    return _Needs(worker, at_driver, alone, sketch, stores_H, here)


def _with(entries: _Entries, needs: _Needs, tasks: int, place: Place) -> _Needs:
    worker = needs.worker + tasks * entries.work + (entries.driver if place.in_process else 0)
    return needs._replace(worker=worker, driver=needs.driver + entries.driver)


def _refused(matrix: StoredMatrix, d: int, place: Place, budget: int, needs: _Needs) -> RefusedPlan:
    needed = max(needs.worker, needs.alone)
    return RefusedPlan(
        f"a worker with {place.threads} threads needs {_mib(needed)} for A of {matrix.shape[0]} rows at d = {d}, "
        f"but may use {_mib(budget)}; give --memory {_mib(needed).replace(' ', '')} or more, or a smaller -d"
        + (", or --solver hals, which needs no sketch" if needs.sketch > H_SHARE * needed else "")
    )


def _check_disk(matrix: StoredMatrix, nbytes: int) -> None:
    """Raise RefusedPlan where not even the result has room; that a checkpoint has none is survived when it happens."""
    free = matrix.path.free_nbytes()
    if free is not None and free < nbytes:
        raise RefusedPlan(
            f"the result and what leads to it need {nbytes:,} bytes on the disk of {matrix.path}, but {free:,} are "
            f"free; make room there, or choose a smaller -d"
        )


def check_rank(matrix: StoredMatrix, d: int) -> None:
    """Raise RefusedPlan where the factors would be larger than any that could be of use."""
    m, n = matrix.shape
    if d > min(m, n):
        raise RefusedPlan(
            f"d is {d}, but A is {m} × {n}: with d = {min(m, n)} the factors already hold A itself; "
            f"choose -d from 1 to {min(m, n)}"
        )


def partitions(matrix: StoredMatrix) -> list[range]:
    """Runs of consecutive chunks, a task each: a function of the store alone, so that results are too.

    There are min(chunks, max(16, bytes / 128 MB)) of them, as even as whole chunks allow; where nearly all is zero,
    max(4, bytes of what is not / 16 MB), since the sums of a task may be larger than its part of A, and take longer.
    """
    chunks, count = matrix.n_chunks, max(MIN_PARTITIONS, -(-matrix.nbytes // PARTITION_NBYTES))
    if nearly_all_zero(matrix):
        decoded = -(-matrix.nbytes // DECODED_NBYTES)
        count = max(MIN_LISTED, -(-_listed_nbytes(matrix) // LISTED_NBYTES), decoded)
    count = min(chunks, count)
    bounds = [k * chunks // count for k in range(count + 1)]
    return [range(first, last) for first, last in itertools.pairwise(bounds)]


def _work_nbytes(matrix: StoredMatrix, d: int, place: Place, parts: list[range]) -> int:
    """Bytes that the tasks of a worker hold at once, besides cached partitions."""
    m, n = matrix.shape
    c = min(matrix.chunk_images, n)
    reading = 3 * _chunk_nbytes(matrix)  # as stored, decoded, and the one read ahead
    panel = 4 * min(m * c, max(PANEL_ROWS * c, PANEL_VALUES))
    sums = (4 + 8 + 8) * m * d  # of a block, of the partition, and of a neighbour it is added to
    if nearly_all_zero(matrix):
        reading = 2 * _chunk_nbytes(matrix)  # what is stored is small
        together = min(max(len(part) for part in parts), -(-MOST_TOGETHER // c))  # chunks of a task, as far as joined
        listed = min(together * _listed_chunk(matrix), (matrix.dtype.itemsize + ROW_NBYTES) * LISTED_TOGETHER)
        panel = 2 * (listed + _listed_chunk(matrix)) + (4 + 4 + 8) * d * min(together * c, n)  # and its H
        c = min(c + COLUMNS_TOGETHER, n)
    updating = 6 * 4 * d * c + 2 * 8 * d * d
    return threads_of(place, parts) * (reading + panel + updating + sums + 4 * m * d)


def threads_of(place: Place, parts: list[range]) -> int:
    """Tasks that a worker runs at once."""
    return min(place.threads, len(parts))


def _H_of_a_partition(matrix: StoredMatrix, d: int, parts: list[range]) -> int:
    """Bytes of H that a task holds where it reads and writes them: all that it improved, and what it reads."""
    columns = max(len(part) for part in parts) * matrix.chunk_images
    return 4 * d * (min(columns, matrix.shape[1]) + 2 * matrix.chunk_images)


def _driver_nbytes(matrix: StoredMatrix, d: int) -> int:
    """Bytes of W after its update, where that began, and of the two before; of the sums, and of copies of these."""
    return (4 * 4 + 8 + 8 + 2 * 4) * matrix.shape[0] * d


def _chunk_nbytes(matrix: StoredMatrix) -> int:
    return matrix.shape[0] * min(matrix.chunk_images, matrix.shape[1]) * matrix.dtype.itemsize


def _mib(nbytes: int) -> str:
    return f"{-(-nbytes // 2**20)} MiB"
