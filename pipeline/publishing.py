"""Writing a revision: under a name of its own, put on disk, and only then pointed at."""

import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import ASIDE, Folder
from data_prep.lock import HeldError
from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.blocks import write_blocks
from pipeline.factors import REVISION, Factors, named, told
from pipeline.kernels import Matrix
from pipeline.record import Iteration, to_arrays

W_CHUNK_NBYTES = 64 * 2**20
KEPT_REVISIONS = 2


class Wide(NamedTuple):
    """An array (rows, n), where the engine keeps it: tasks write it."""

    rows: int
    n: int
    chunk: int
    """Columns of a chunk."""
    parts: Sequence[tuple[range, Any]]
    """For each partition its chunks, and blocks that have their columns."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a revision is written from."""

    tall: Mapping[str, Matrix]
    """W (m, d) and what else has a row a pixel, by name."""
    wide: Mapping[str, "Wide"]
    """H and what else has a column an image, by name."""
    exact: Mapping[str, NDArray[np.float64]]
    """H Hᵀ (d, d) and what else is in float64, by name."""
    iterations: Sequence[Iteration]
    attributes: Mapping[str, Any]
    complete: bool
    """False for a checkpoint: readers do not see it, and the next run continues from it."""


def publish_revision(
    matrix: StoredMatrix,
    name: str,
    finished: Finished,
    *,
    still_ours: Callable[[], None],
    in_use: str | None = None,
) -> Factors:
    """Write a revision of a factorization, put it on disk, and point at it.

    Parameters
    ----------
    matrix
        What was factorized.
    name
        Of the factorization.
    finished
        What to write.
    still_ours
        Raises where another process has become the writer: then nothing is pointed at.
    in_use
        A revision that is not to go yet.
    """
    group = named(matrix.path, name)
    revision = group / _next_revision(group)
    status = "complete" if finished.complete else "checkpoint"
    attributes = {"format": store.FORMAT, "status": status, **finished.attributes}
    pointers, version = _pointers(group)
    try:
        revision.make()
        attributes["digests"] = _write(revision, finished)
        store.publish(revision, attributes)
        revision.put_on_disk()
        still_ours()
    except BaseException:
        revision.remove()
        raise
    pointers.pop("resume", None)
    pointers["current" if finished.complete else "resume"] = revision.name
    try:
        store.switch(group, pointers, version)  # where it fails otherwise it may have been done: the revision stays
    except HeldError:
        revision.remove()
        raise
    _clean(group, {in_use, pointers.get("current"), pointers.get("resume")})
    return Factors(revision, told(attributes))


def _pointers(group: Folder) -> tuple[dict[str, Any], str | None]:
    """Return what a factorization points at, and the version of it that is to be replaced.

    It is there before the first revision is, so that where revisions are without it, it was lost.
    """
    for path in (group.parent, group):
        if path.read("zarr.json") is None or (path == group.parent and _is_damaged(path)):  # that one never says more
            path.make()
            store.publish(path, {})
    if _is_damaged(group):  # only a fresh run comes this far
        return {}, group.read_versioned("zarr.json")[1]
    return store.attributes_and_version(group)


def _is_damaged(group: Folder) -> bool:
    try:
        store.group_attributes(group)
    except store.BadInput:
        return True
    return False


def _clean(group: Folder, in_use: Set[str | None]) -> None:
    """Remove all complete revisions but the newest two, and what dead attempts left; only the writer may."""
    entries = group.entries()
    revisions = [name for name in entries if REVISION.match(name)]
    whole = [name for name in revisions if not _is_damaged(group / name)]
    complete = [name for name in whole if store.group_attributes(group / name).get("status") == "complete"]
    aside = [name for name in entries if name.startswith(ASIDE)]
    for name in {*revisions, *aside} - {*complete[-KEPT_REVISIONS:]} - in_use:
        if name in revisions:
            (group / name / "zarr.json").remove()  # first: without it what a kill leaves is nothing to anybody
        (group / name).remove()


def _write(revision: Folder, finished: Finished) -> dict[str, dict[str, str]]:
    """Write the arrays of a revision; returns their digests."""
    for name, values in finished.tall.items():
        m, d = values.shape
        together = max(1, min(d, W_CHUNK_NBYTES // (4 * m)))
        store.create_array(
            revision, name, shape=(m, d), chunks=(m, together), dtype=np.float32, dimension_names=("pixel", "component")
        )[...] = values
    for name, terms in finished.exact.items():
        store.create_array(
            revision, name, shape=terms.shape, chunks=terms.shape, dtype=np.float64, dimension_names=("row", "other")
        )[...] = terms
    known = {}
    for name, wide in finished.wide.items():
        create_wide(revision, name, wide.rows, wide.n, wide.chunk)
        checksums = engine.call_each(write_blocks, [(revision, name, part, blocks) for part, blocks in wide.parts])
        known[name] = list(itertools.chain.from_iterable(checksums))
    for field, column in to_arrays(finished.iterations).items():
        store.write_array(revision, field, column, ("iteration",))
    written = (*finished.tall, *finished.exact, *finished.wide, *Iteration._fields)
    return {name: store.digest(revision, name, known.get(name)) for name in written}


def create_wide(where: Folder, name: str, rows: int, n: int, chunk: int) -> None:
    """Create an empty array (rows, n), such as H, which is chunked like A: a chunk of it belongs to one task."""
    where.make()
    store.create_array(
        where,
        name,
        shape=(rows, n),
        chunks=(rows, chunk),
        dtype=np.float32,
        dimension_names=("component", "image"),
        overwrite=True,
    )


def _next_revision(group: Folder) -> str:
    taken = [int(name[1:7]) for name in group.entries() if REVISION.match(name)]
    return f"r{max(taken, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"
