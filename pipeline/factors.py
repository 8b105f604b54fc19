"""Revisions: finished factorizations in the store, written once (see publishing.py), then only read.

A revision is a group `nmf/NAME/r000001-ID` with W (m, d), H (d, n), and a record of each iteration. `nmf/NAME`'s
attribute `current` names the newest that is complete, `resume` a checkpoint that a run can go on from.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder, Where, folder
from pipeline.blocks import StoredBlocks, read_ahead
from pipeline.record import Iteration

if TYPE_CHECKING:
    import dask.array as da

NEEDED = {
    "parameters",
    "shape",
    "fingerprint",
    "relative_error",
    "n_iter",
    "passes",
    "seconds",
    "stop",
    "ended",
    "phase",
    "momentum",
}
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
    def home(self) -> Folder:
        """The store's folder."""
        return self.path.parent.parent.parent

    @property
    def complete(self) -> bool:
        """False for a checkpoint, the state of a run that was under way."""
        return bool(self.attributes["status"] == "complete")

    def read(self, name: str) -> NDArray[np.float32]:
        """Read an array (rows, columns) of the revision into memory."""
        return np.ascontiguousarray(_lazy(self.path, name).compute(scheduler="synchronous"))

    def chunks_of_H(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Columns of each chunk of H, and the chunk (d, c): one after the other, read one ahead."""
        n, c = self.attributes["shape"][1], store.open_array(self.path, "H").chunks[1]
        chunks = range(-(-n // c))
        for k, H in zip(chunks, read_ahead(StoredBlocks(self.path, "H", chunks)), strict=True):
            yield slice(k * c, k * c + H.shape[1]), H

    def read_exact(self, name: str) -> NDArray[np.float64]:
        """Read an array of the revision whose terms nearly cancel, or are counts, and are in float64."""
        return store.read_chunk(store.open_array(self.path, name), 0, 0)

    @cached_property
    def W(self) -> "da.Array":
        """Basis images (m, d), a column each, as a Dask array."""
        return _lazy(self.path, "W")

    @cached_property
    def H(self) -> "da.Array":
        """Weights (d, n), a column for each image, as a Dask array."""
        return _lazy(self.path, "H")

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.decomposition.NMF`, whose `transform` takes samples in ROWS: X = Aᵀ.

        X is in float64, scaled as A is: images from 0 to 1, not to 255. Needs scikit-learn.
        """
        from pipeline.conversions import to_sklearn

        return to_sklearn(self)

    def to_xarray(self) -> Any:
        """Return an `xarray.Dataset`: W, H lazily, loss, names of columns and rows as coordinates.

        Of images `basis` is W as (component, y, x, channel). Needs xarray.
        """
        from pipeline.conversions import to_xarray

        return to_xarray(self)

    def reconstruct(self, names: Sequence[str]) -> NDArray[np.float32]:
        """W h of some columns by name, as (k, height, width[, channels]) from 0 to 1, or (k, m) of other matrices.

        Raises
        ------
        KeyError
            There is no column of such a name.
        """
        from pipeline.conversions import reconstruct

        return reconstruct(self, names)

    def basis_images(self) -> NDArray[np.float32]:
        """W as (d, height, width[, channels]), or (d, m) of other matrices."""
        from pipeline.conversions import as_images

        return as_images(self.read("W"), store.open_matrix(self.home))

    @cached_property
    def loss(self) -> NDArray[np.float64]:
        """The objective after each iteration, (n_iter,)."""
        return np.asarray(store.read_array(self.path, "loss"))

    @cached_property
    def iterations(self) -> list[Iteration]:
        """The whole record, an entry an iteration."""
        older = "holdout" not in self.attributes["parameters"]  # and so were the records
        fields = [field for field in Iteration._fields if not (older and field == "holdout_error")]
        columns = [store.read_array(self.path, field).tolist() for field in fields]
        return [Iteration(**dict(zip(fields, values, strict=True))) for values in zip(*columns, strict=True)]


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
    check_name(name)
    return path / "nmf" / name


def check_name(name: str) -> None:
    """Raise ValueError where a name could lead elsewhere."""
    if not NAME.fullmatch(name):
        raise ValueError(f"the name is {name!r}, but must be letters, digits, '.', '_' or '-', and begin with no '.'")


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
    return Factors(group / revision, told(attributes))


def told(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that are there to notice damage."""
    return {key: value for key, value in attributes.items() if key not in ("digest", "digests")}


def groups(path: Folder) -> list[Folder]:
    """Groups of a store below its own: of its factorizations, and of their revisions that are to be whole."""
    below = path / "nmf"
    if not below.exists():
        return []
    begun = [below / name for name in below.entries() if _begun(below / name)]
    found = [below] if begun else []
    for group in begun:
        found.append(group)
        with suppress(store.BadInput):  # who verifies will say that, too
            pointers = store.group_attributes(group)
            named = {pointers.get(pointer) for pointer in ("current", "resume")}
            revisions = [name for name in group.entries() if REVISION.match(name)]
            found += [group / name for name in revisions if name in named or (group / name).read("zarr.json")]
    return found


def _begun(group: Folder) -> bool:
    """Whether a factorization has, or should have, its pointer: before that a run may have made folders only."""
    return group.read("zarr.json") is not None or any(map(REVISION.match, group.entries()))


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
