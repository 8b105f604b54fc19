"""Revisions: finished factorizations in the store, written once, then only read.

A revision is a group `nmf/NAME/r000001-ID` with W (m, d), H (d, n), and a record of each iteration. It is written under
a name of its own, put on disk, and only then named by `nmf/NAME`'s attribute `current`.
"""

import itertools
import re
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import ASIDE, Folder, Where, folder
from data_prep.lock import HeldError
from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.blocks import write_blocks
from pipeline.kernels import Matrix
from pipeline.record import Iteration, to_arrays

if TYPE_CHECKING:
    import dask.array as da

W_CHUNK_NBYTES = 64 * 2**20
KEPT_REVISIONS = 2
NEEDED = {"parameters", "shape", "fingerprint", "relative_error", "n_iter", "passes", "seconds", "stop", "ended"}
REVISION = re.compile(r"r\d{6}-")
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Factors:
    """A factorization A ≈ W H, read lazily; every chunk is checked as it is read."""

    path: Folder
    """The revision's folder."""
    attributes: Mapping[str, Any]
    """d, solver, parameters, relative_error, passes, when and how it was made."""

    @property
    def complete(self) -> bool:
        """False for a checkpoint, the state of a run that was under way."""
        return bool(self.attributes["status"] == "complete")

    @cached_property
    def W(self) -> "da.Array":
        """Basis images (m, d), a column each, as a Dask array."""
        return _lazy(self.path, "W")

    @cached_property
    def H(self) -> "da.Array":
        """Weights (d, n), a column for each image, as a Dask array."""
        return _lazy(self.path, "H")

    @cached_property
    def loss(self) -> NDArray[np.float64]:
        """The objective after each iteration, (n_iter,)."""
        return np.asarray(store.read_array(self.path, "loss"))

    @cached_property
    def iterations(self) -> list[Iteration]:
        """The whole record, an entry an iteration."""
        columns = [store.read_array(self.path, field).tolist() for field in Iteration._fields]
        return [Iteration(*values) for values in zip(*columns, strict=True)]


def open_factors(path: Where, name: str) -> Factors:
    """Open the newest complete factorization of that name.

    Parameters
    ----------
    path
        The store.
    name
        As given to `run`: `d99` unless it was told otherwise.

    Raises
    ------
    BadInput
        Where there is none, or it is damaged.
    """
    home = folder(path)
    factors = current(home, name)
    if factors is None:
        known = ", ".join(names(home)) or "none"
        raise store.BadInput(f"{path} has no factorization {name!r}, it has: {known}; make one with `nmf-batch run`")
    return factors


def named(path: Folder, name: str) -> Folder:
    """Folder of a factorization; ValueError where the name could lead elsewhere."""
    if not NAME.fullmatch(name):
        raise ValueError(f"the name is {name!r}, but must be letters, digits, '.', '_' or '-', and begin with no '.'")
    return path / "nmf" / name


def names(path: Folder, pointer: str = "current") -> list[str]:
    """Names of the complete factorizations in a store; with `resume` of those that were interrupted."""
    below = path / "nmf"
    return [name for name in below.entries() if pointer in store.group_attributes(below / name)]


def current(path: Folder, name: str) -> Factors | None:
    """Return the newest complete factorization of that name, or None."""
    return _pointed_at(named(path, name), "current", "complete")


def newest(path: Folder, name: str) -> Factors | None:
    """Return the newest state of a factorization: a checkpoint where a run was interrupted, else what is current."""
    return _pointed_at(named(path, name), "resume", "checkpoint") or current(path, name)


def _pointed_at(group: Folder, pointer: str, status: str) -> Factors | None:
    pointers, version = store.attributes_and_version(group)
    if version is None and any(map(REVISION.match, group.entries())):
        raise store.BadInput(f"{group}/zarr.json is missing; restore the file, or start over with `run --fresh`")
    revision = pointers.get(pointer)
    if revision is None:
        return None
    attributes = store.group_attributes(group / revision)
    if attributes.get("status") != status or NEEDED - attributes.keys():
        raise store.BadInput(
            f"{group / revision}/zarr.json is named as {pointer}, but missing or not {status}; restore it"
        )
    return Factors(group / revision, _told(attributes))


def _told(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that are there to notice damage."""
    return {key: value for key, value in attributes.items() if key not in ("digest", "digests")}


def groups(path: Folder) -> list[Folder]:
    """Groups of a store below its own: of its factorizations, and of their revisions that are to be whole."""
    below = path / "nmf"
    if not below.exists():
        return []
    found = [below]
    for group in (below / name for name in below.entries() if (below / name).entries()):
        found.append(group)
        with suppress(store.BadInput):  # who verifies will say that, too
            pointers = store.group_attributes(group)
            named = {pointers.get(pointer) for pointer in ("current", "resume")}
            revisions = [name for name in group.entries() if REVISION.match(name)]
            found += [group / name for name in revisions if name in named or (group / name).read("zarr.json")]
    return found


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a revision is written from."""

    W: Matrix
    """(m, d)."""
    H: Sequence[tuple[range, Any]]
    """For each partition its chunks and their blocks (d, c), where the engine keeps them: tasks write these."""
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
        attributes["digests"] = _write(revision, matrix, finished)
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
    return Factors(revision, _told(attributes))


def _pointers(group: Folder) -> tuple[dict[str, Any], str | None]:
    """Return what a factorization points at, and the version of it that is to be replaced.

    It is there before the first revision is, so that where revisions are without it, it was lost.
    """
    for path in (group.parent, group):
        if path.read("zarr.json") is None:
            path.make()
            store.publish(path, {})
    return store.attributes_and_version(group)


def _clean(group: Folder, in_use: Set[str | None]) -> None:
    """Remove all complete revisions but the newest two, and what dead attempts left; only the writer may."""
    entries = group.entries()
    revisions = [name for name in entries if REVISION.match(name)]
    complete = [name for name in revisions if store.group_attributes(group / name).get("status") == "complete"]
    aside = [name for name in entries if name.startswith(ASIDE)]
    for name in {*revisions, *aside} - {*complete[-KEPT_REVISIONS:]} - in_use:
        (group / name).remove()


def _write(revision: Folder, matrix: StoredMatrix, finished: Finished) -> dict[str, dict[str, str]]:
    """Write the arrays of a revision; returns their digests."""
    m, d = finished.W.shape
    together = max(1, min(d, W_CHUNK_NBYTES // (4 * m)))
    W = store.create_array(
        revision,
        "W",
        shape=(m, d),
        chunks=(m, together),
        dtype=np.float32,
        dimension_names=("pixel", "component"),
    )
    W[...] = finished.W
    create_H(revision, "H", d, matrix)
    checksums = engine.call_each(write_blocks, [(revision, "H", part, blocks) for part, blocks in finished.H])
    for field, values in to_arrays(finished.iterations).items():
        store.write_array(revision, field, values, ("iteration",))
    known = {"H": list(itertools.chain.from_iterable(checksums))}
    return {name: store.digest(revision, name, known.get(name)) for name in ("W", "H", *Iteration._fields)}


def create_H(where: Folder, name: str, d: int, matrix: StoredMatrix) -> None:
    """Create an empty H (d, n), chunked like A: a chunk of it belongs to one task."""
    where.make()
    store.create_array(
        where,
        name,
        shape=(d, matrix.shape[1]),
        chunks=(d, matrix.chunk_images),
        dtype=np.float32,
        dimension_names=("component", "image"),
        overwrite=True,
    )


def _next_revision(group: Folder) -> str:
    taken = [int(name[1:7]) for name in group.entries() if REVISION.match(name)]
    return f"r{max(taken, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"


def _lazy(path: Folder, name: str) -> "da.Array":
    """Describe a stored array as a Dask array whose blocks are checked chunks."""
    import dask.array as da  # here, since it takes a quarter of a second that no command should pay for

    array = store.open_array(path, name)
    chunks = tuple(
        tuple(min(c, length - first) for first in range(0, length, c))
        for length, c in zip(array.shape, array.chunks, strict=True)
    )
    return da.map_blocks(_read_block, path, name, chunks=chunks, dtype=array.dtype, meta=np.empty((0, 0), array.dtype))


def _read_block(path: Folder, name: str, block_info: Mapping[Any, Any]) -> NDArray[Any]:
    return store.read_chunk(store.open_array(path, name), *block_info[None]["chunk-location"])
