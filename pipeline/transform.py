"""H of images that a factorization has not seen, for W as it is."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Folder
from pipeline import penalties
from pipeline.basis import basis_of
from pipeline.config import NMFConfig
from pipeline.entries import Block
from pipeline.entry_pass import EntryVisit, improve, summed
from pipeline.factors import Factors
from pipeline.kernels import Matrix, cold_start, hals
from pipeline.objective import solver_of
from pipeline.objective import which as which_count
from pipeline.panels import aligned, one_blas_thread, project
from pipeline.penalties import NONE, Weights, penalised
from pipeline.solvers.entrywise import Entrywise
from pipeline.which import Which

ACCURACY = 1e-5
"""Sweeps end where eight of them lower ‖A − W H‖² by less than this share of it; what is left to gain is below 1e-4."""
SWEEPS_TOGETHER, MOST_SWEEPS = 8, 800
UPDATES_TOGETHER, MOST_UPDATES = 50, 2000
AHEAD = 16


class Images(Protocol):
    """Columns that are read where they are needed; data_prep.batches makes such."""

    def __len__(self) -> int: ...

    def __call__(self) -> Any:
        """Return columns (m, c), names, and why an image could not be read."""
        ...


class Found(NamedTuple):
    """What becomes of a batch of images."""

    H: Matrix
    """(d, c); zero where an image could not be read."""
    relative_error: NDArray[np.float64]
    """‖a − W h‖ / ‖a‖ of each image, (c,)."""
    names: Sequence[str]
    reasons: Sequence[str]


@dataclass(frozen=True)
class Transform:
    """The task: from a batch of images to their weights."""

    W: Matrix
    """(m, d)."""
    scale: float
    penalty: Weights = NONE
    """On H, for each entry of a column."""
    entrywise: tuple[EntryVisit, Which] | None = None
    """How H is improved where the objective goes by entries, and which those are."""

    def __call__(self, images: Images) -> Found:
        """Read a batch and solve for its H."""
        one_blas_thread()
        batch = images()
        return Found(*self.weights(batch.columns, batch.present), batch.names, batch.reasons)

    def weights(self, A: NDArray[Any], present: NDArray[np.bool_] | None = None) -> tuple[Matrix, NDArray[np.float64]]:
        """H ≥ 0 (d, c) of columns (m, c) as stored, and the relative error of each (c,)."""
        if self.entrywise is None:
            return weights(self.W, A, self.scale, self.penalty.times(len(self.W)))
        visit, which = self.entrywise
        return entry_weights(self.W, which.block(A, present, np.arange(A.shape[1])), visit)


def transform_of(factors: Factors) -> Transform:
    """Return the task for a factorization: the objective is that which made it, with nothing held out."""
    matrix = store.open_matrix(factors.home)
    config = replace(NMFConfig(**factors.attributes["parameters"]), holdout=0.0)
    W, penalty = factors.read("W"), penalties.of_H(config)
    solver = solver_of(config, matrix)
    if not isinstance(solver, Entrywise):
        return Transform(W, matrix.scale, penalty)
    visit = replace(solver.visit, updates=UPDATES_TOGETHER, cold_updates=UPDATES_TOGETHER)
    return Transform(W, matrix.scale, penalty, (visit, which_count(config, matrix)))


def weights(W: Matrix, A: NDArray[Any], scale: float, penalty: Weights = NONE) -> tuple[Matrix, NDArray[np.float64]]:
    """H ≥ 0 (d, c) with the least ‖A − W H‖², to 1e-4 of it; and the relative error of each column (c,).

    Parameters
    ----------
    W
        Basis images (m, d).
    A
        Columns (m, c), as stored.
    scale
        What stored values are multiplied with.
    penalty
        On H.
    """
    WtA, wide = project(A, aligned(W), scale), A.astype(np.float32)
    G, C = penalised(W.T @ W, WtA, penalty)
    squares = np.einsum("ij,ij->j", wide, wide, dtype=np.float64) * scale**2
    H, before = cold_start(G, C), np.inf
    for _ in range(MOST_SWEEPS // SWEEPS_TOGETHER):
        H = hals(G, C, H, SWEEPS_TOGETHER)
        losses = np.maximum(squares + np.einsum("ij,ij->j", H, G @ H - 2 * C, dtype=np.float64), 0)
        if before - losses.sum() <= ACCURACY * losses.sum():
            break
        before = losses.sum()
    if penalty != NONE:
        losses = np.maximum(squares + np.einsum("ij,ij->j", H, (W.T @ W) @ H - 2 * WtA, dtype=np.float64), 0)
    return H, _relative(losses, squares)


def entry_weights(W: Matrix, A: Block, visit: EntryVisit) -> tuple[Matrix, NDArray[np.float64]]:
    """H ≥ 0 (d, c) with the least objective, and ‖a − W h‖ / ‖a‖ over the entries that are present of each column."""
    basis, H, before = basis_of(W), None, np.inf
    for _ in range(MOST_UPDATES // UPDATES_TOGETHER):
        H = improve(A, basis, H, visit)
        sums = summed(A, W, H, visit)
        loss = sums.loss + sums.penalty_H
        if before - loss <= ACCURACY * abs(loss):
            break
        before = loss
    assert H is not None
    misfits, squares = np.zeros(A.shape[1]), np.zeros(A.shape[1])
    for piece in A.pieces(W, H, visit.scale):
        misfits += np.asarray(piece.spread(np.square(piece.a - piece.x)).sum(axis=0, dtype=np.float64)).ravel()
        if A.zeros:
            of_all = np.einsum("ij,ij->j", H, basis.WtW @ H)
            misfits += of_all - np.asarray(piece.spread(np.square(piece.x)).sum(axis=0, dtype=np.float64)).ravel()
        squares += np.asarray(piece.spread(np.square(piece.a)).sum(axis=0, dtype=np.float64)).ravel()
    return H, _relative(misfits, squares)


def _relative(misfits: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(np.sqrt(misfits), np.sqrt(squares), out=np.zeros_like(misfits), where=squares > 0)


def transformed(factors: Factors, images: Sequence[Images], executor: Executor) -> Iterator[Found]:
    """Weights of batches of images, in their order; some are computed ahead of those that are taken."""
    task = transform_of(factors)
    waiting = iter(images)
    under_way = [executor.submit(task, batch) for batch in islice(waiting, AHEAD)]
    while under_way:
        yield under_way.pop(0).result()
        under_way += [executor.submit(task, batch) for batch in islice(waiting, 1)]


def write_weights(
    path: Folder,
    factors: Factors,
    images: Sequence[Images],
    executor: Executor,
    on_progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write the weights of images as a group of its own; returns how many images could not be read.

    It holds H (d, n), `image` (n,), `ok` (n,) and `relative_error` (n,), and says of which factorization it is.

    Raises
    ------
    BadInput
        The path is taken.
    """
    names = ("H", "image", "ok", "relative_error")
    if store.group_attributes(path).get("status") == "complete":
        raise store.BadInput(f"{path} holds weights already; choose another --out")
    store.begin(path, expendable=names)
    n, d = sum(map(len, images)), factors.attributes["parameters"]["n_components"]
    c = max(map(len, images))
    H = store.create_array(
        path, "H", shape=(d, n), chunks=(d, c), dtype=np.float32, dimension_names=("component", "image")
    )
    found_names: list[str] = []
    ok: list[bool] = []
    errors: list[NDArray[np.float64]] = []
    for found in transformed(factors, images, executor):
        H[:, len(ok) : len(ok) + len(found.names)] = found.H
        ok += [not reason for reason in found.reasons]
        errors.append(found.relative_error)
        found_names += found.names
        on_progress(len(ok))
    store.write_array(path, "image", np.array(found_names, np.dtypes.StringDType()), ("image",))
    store.write_array(path, "ok", np.array(ok, np.bool_), ("image",))
    store.write_array(path, "relative_error", np.concatenate(errors), ("image",))
    path.put_on_disk()
    of = {"revision": factors.path.name, **{key: factors.attributes[key] for key in ("fingerprint", "parameters")}}
    digests = {name: store.digest(path, name) for name in names}
    store.publish(path, {"format": store.FORMAT, "status": "complete", "kind": "weights", "of": of, "digests": digests})
    return ok.count(False)
