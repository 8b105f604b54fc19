"""A as a run visits it: what the plan keeps in memory is read, the rest described."""

from collections.abc import Callable, Sequence

import numpy as np

from data_prep import store
from data_prep.folders import Folder
from data_prep.sample import read_sample, read_sample_as
from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.blocks import Scratch, StoredBlocks, WithoutZeros
from pipeline.config import NMFConfig
from pipeline.objective import few_nonzero, is_entrywise, which
from pipeline.one_pass import BlockMatrix
from pipeline.panels import Columns
from pipeline.plan import Plan
from pipeline.publishing import create_wide
from pipeline.sparse import joined, without_zeros
from pipeline.which import EntryBlocks

SPILL_EVERY = 8
SCRATCH = "scratch-"
"""Beginning of the name of a folder that a run has beside the revisions while it lasts."""


def open_blocks(
    matrix: StoredMatrix, config: NMFConfig, plan: Plan, scratch: Folder, on_visit: Callable[[], None] = lambda: None
) -> BlockMatrix:
    """Read what the plan keeps in memory, and describe the rest; H goes to the scratch where and when it is stored."""
    checksums = store.read_checksums(matrix).tolist()
    n = matrix.shape[1]
    of_A = [StoredBlocks(matrix.path, "A", part, checksums[part.start : part.stop], n) for part in plan.partitions]
    stored = as_objective_needs(of_A, config, matrix)
    cached = engine.keep_each(list, [(blocks,) for blocks in stored[: plan.n_cached]])
    return BlockMatrix(
        partitions=[*cached, *stored[plan.n_cached :]],
        shape=matrix.shape,
        scale=matrix.scale,
        norm_squared=matrix.norm_squared,
        spill=Spills(matrix, config.n_components, plan, scratch),
        on_visit=on_visit,
    )


def as_objective_needs(
    of_A: Sequence[StoredBlocks], config: NMFConfig, matrix: StoredMatrix
) -> Sequence[StoredBlocks | WithoutZeros | EntryBlocks]:
    """Blocks of A as they are, without zeros where these are nearly all, or with what each entry is."""
    if not is_entrywise(config, matrix):
        return [WithoutZeros(blocks) for blocks in of_A] if few_nonzero(config, matrix) else of_A
    idle = matrix.shape[1] != matrix.n_ok
    ok = store.read_array(matrix.path, "ok", matrix.shape[1]) if idle else np.ones(0, np.bool_)
    unreadable, c = np.flatnonzero(~ok), matrix.chunk_images

    def of(blocks: StoredBlocks) -> EntryBlocks:
        first, last = np.searchsorted(unreadable, [blocks.chunks.start * c, blocks.chunks.stop * c])
        return EntryBlocks(blocks, which(config, matrix), unreadable[first:last])

    return [of(blocks) for blocks in of_A]


def sampled(matrix: StoredMatrix, config: NMFConfig, k: int) -> Columns:
    """First columns of the stored sample, (m, ≤ k), without zeros where these are nearly all."""
    if few_nonzero(config, matrix):
        return joined(read_sample_as(matrix, k, without_zeros))
    return read_sample(matrix, k)


class Spills:
    """Where H does not fit it is stored every pass; on a cluster every eighth, from which lost parts are made again."""

    def __init__(self, matrix: StoredMatrix, d: int, plan: Plan, scratch: Folder) -> None:
        self._matrix, self._d, self._plan, self._scratch = matrix, d, plan, scratch
        self._every = 1 if plan.stores_H else None if engine.place().in_process else SPILL_EVERY
        self._visits = 0
        self._made: list[str] = []

    def __call__(self, in_use: str | None) -> Scratch | None:
        """Where the next visit stores H, if it does; what is not in use any more is removed."""
        self._visits += 1
        if self._every is None or self._visits % self._every:
            return None
        for name in self._made:
            if name != in_use:
                (self._scratch / name).remove()
        name = f"H{self._visits}"  # of its own: a worker that was given up may wake and write its old one
        self._made = [name, *([in_use] if in_use else [])]
        create_wide(self._scratch, name, self._d, self._matrix.shape[1], self._matrix.chunk_images)
        return Scratch(self._scratch, name, self._plan.partitions)


def remove_scratch(group: Folder) -> None:
    """Remove what runs that were killed left behind; only the writer may."""
    for entry in group.entries():
        if entry.startswith(SCRATCH):
            (group / entry).remove()


def check_reachable(matrix: StoredMatrix) -> None:
    """Raise BadInput where a worker does not see the store that this process sees."""
    for worker, seen in engine.on_every_worker(store.group_attributes, matrix.path).items():
        if isinstance(seen, Exception) or seen.get("fingerprint") != matrix.fingerprint:
            what = f"cannot read it ({seen})" if isinstance(seen, Exception) else "finds another there, or none"
            raise store.BadInput(
                f"{matrix.path} must be the same store for all workers, but {worker} {what}; mount it at this path "
                f"on every worker, or keep it in an object store"
            )
