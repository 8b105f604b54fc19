"""Images have come since: H for them alone, and W from kept sums, so that the columns of before are not visited.

With a result stay A Hᵀ and H Hᵀ of its columns. The new columns are visited once, for their H and their sums; W is
improved from all sums together. What W H misses of the new columns, against what it missed of the old ones, is the
drift: it says whether they are like those.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.store import StoredMatrix
from pipeline import basis, engine, penalties
from pipeline.basis import EntrySums, Sums, basis_of
from pipeline.blocks import StoredBlocks
from pipeline.config import NMFConfig
from pipeline.factors import Factors
from pipeline.kept_sums import read_sums
from pipeline.kernels import Matrix
from pipeline.loop import Stop
from pipeline.objective import is_entrywise, solver_of
from pipeline.one_pass import Also, BlockMatrix, add
from pipeline.opening import as_objective_needs
from pipeline.plan import Plan
from pipeline.solvers import hals
from pipeline.solvers.entrywise import Entrywise, relative_error
from pipeline.solvers.state import State

REFRESH = ("auto", "never", "full")
OUTGROWN = 0.02
"""From which on all columns are visited again: the mean over all columns of how far those that were taken in since have
drifted, so that few images that differ much count as little as many that hardly do."""
W_SWEEPS = 8
REPLACING = 100
"""Updates of H of new columns, whose W stays: they are not improved again."""
KEPT = ("refresh", "drift", "outgrown", "lineage", "cosines")
"""Attributes of a rerun, which a checkpoint hands on."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A factorization with the new columns in it."""

    state: State
    """With parts of H as in `parts`."""
    parts: Sequence[range]
    """Chunks of each part of H."""
    drift: float
    """Relative error of W H on the new columns, before W was improved, over that on the old ones, less 1. Either sign
    says that they are other images than the old ones."""
    outgrown: float
    """See `OUTGROWN`."""


def extends(previous: Factors, matrix: StoredMatrix) -> bool:
    """Whether a matrix is the one of a result with columns appended to it."""
    about, c = previous.attributes, matrix.chunk_images
    m, n = about["shape"]
    if m != matrix.shape[0] or not n < matrix.shape[1] or not about.get("keeps_sums"):  # which older versions did not
        return False
    checksums = store.read_checksums(matrix)[: -(-n // c)]
    checksums[-1] = about["last_checksum"]  # the chunk may have grown since
    return store.fingerprint((m, n), checksums) == about["fingerprint"]


def take_in(matrix: StoredMatrix, config: NMFConfig, previous: Factors, plan: Plan) -> Taken:
    """Visit the columns that a result has not seen, and improve W from all sums where that tells the objective."""
    n_old, c = previous.attributes["shape"][1], matrix.chunk_images
    first, new = n_old // c, _of_new_columns(matrix, n_old, plan)
    A_new = BlockMatrix(
        partitions=as_objective_needs([blocks for _, blocks in new], config, matrix),
        shape=(matrix.shape[0], matrix.shape[1] - n_old),
        scale=matrix.scale,
        norm_squared=_norm_squared(matrix, n_old),
    )
    together = _by_entries if is_entrywise(config, matrix) else _by_products
    state, new_error = together(A_new, matrix, config, previous)
    H_new = list(state.H)
    old_parts = [part for part in (_until(part, first) for part in plan.partitions) if part]
    H_old = [StoredBlocks(previous.path, "H", part) for part in old_parts]
    if n_old % c:
        (H_new[0],) = engine.keep_each(_with_old_columns, [(H_new[0], previous, first, n_old)])
    drift = new_error / _at_least(previous) - 1
    return Taken(
        state=replace(state, H=[*H_old, *H_new]),
        parts=[*old_parts, *(part for part, _ in new)],
        drift=drift,
        outgrown=_outgrown(previous, matrix, drift),
    )


def _by_products(A_new: BlockMatrix, matrix: StoredMatrix, config: NMFConfig, previous: Factors) -> tuple[State, float]:
    """Return the factors with H of the new columns alone, and the relative error of these before W was improved."""
    W, old = basis_of(previous.read("W")), read_sums(previous)
    for_H, for_W = penalties.of_H(config).times(matrix.shape[0]), penalties.of_W(config).times(matrix.n_ok)
    cold = [None] * len(A_new.partitions)
    H, sums = A_new.visit(W, cold, partial(hals.improve, penalty=for_H), Also(residual=True, penalty=for_H))
    assert isinstance(old, Sums)  # `extends` has seen to it
    together = add(old, sums)
    improved, inner = basis.improve(W, together, partial(hals.improve_W, sweeps=W_SWEEPS, penalty=for_W))
    penalty = basis.penalty_of(for_W, improved, for_H, together)
    loss = basis.squared_error(matrix.norm_squared, W, improved, together, inner) + penalty
    return (
        State(W=improved, H=H, loss=loss, penalty=penalty, sums=together),
        _relative_error(sums.residual or 0.0, A_new.norm_squared),
    )


def _by_entries(A_new: BlockMatrix, matrix: StoredMatrix, config: NMFConfig, previous: Factors) -> tuple[State, float]:
    """Return the same for an objective that goes by entries, where only a visit of all could tell that of another W."""
    W, old, solver = basis_of(previous.read("W")), read_sums(previous), solver_of(config, matrix)
    assert isinstance(solver, Entrywise)
    assert isinstance(old, EntrySums)
    visit = replace(solver.visit, cold_updates=REPLACING)
    H, sums = A_new.run(visit, W, [None] * len(A_new.partitions))
    together = add(old, sums)
    if not visit.masked:
        together = together._replace(row_counts=np.full_like(together.row_counts, matrix.n_ok))
    return solver.state(W, H, together), relative_error(sums, config.loss)


def lineage_of(previous: Factors) -> list[dict[str, Any]]:
    """What a result came from, and itself, oldest first."""
    about = previous.attributes
    own = {key: about[key] for key in ("relative_error", "passes", "seconds", "stop", "ended")}
    told = {"revision": previous.path.name, "n": about["shape"][1], **own}
    more = {key: about[key] for key in ("refresh", "drift", "outgrown") if key in about}
    return [*about.get("lineage", []), told | more]


def cosines(W: Matrix, before: Matrix) -> dict[str, float]:
    """How far components have turned: the least and the mean cosine of each with what it was."""
    lengths = np.linalg.norm(W, axis=0) * np.linalg.norm(before, axis=0)
    found = np.divide((W * before).sum(axis=0), lengths, out=np.zeros(len(lengths), np.float32), where=lengths > 0)
    return {"min": float(found.min()), "mean": float(found.mean())}


def n_new(previous: Factors, matrix: StoredMatrix) -> int:
    """Columns that a result has not seen."""
    return int(matrix.shape[1] - previous.attributes["shape"][1])


def _of_new_columns(matrix: StoredMatrix, n_old: int, plan: Plan) -> list[tuple[range, StoredBlocks]]:
    """Chunks with new columns, a task each partition of them, and blocks of the new columns alone."""
    first, checksums = n_old // matrix.chunk_images, store.read_checksums(matrix).tolist()
    parts = [part for part in (range(max(part.start, first), part.stop) for part in plan.partitions) if part]
    return [
        (
            part,
            StoredBlocks(
                matrix.path,
                "A",
                part,
                checksums[part.start : part.stop],
                matrix.shape[1],
                skip=n_old - part.start * matrix.chunk_images if part.start == first else 0,
            ),
        )
        for part in parts
    ]


def _outgrown(previous: Factors, matrix: StoredMatrix, drift: float) -> float:
    before = previous.attributes["outgrown"] if previous.attributes["stop"] == Stop.EXTENDED.name else 0.0
    return (before * previous.attributes["shape"][1] + abs(drift) * n_new(previous, matrix)) / matrix.shape[1]


def _until(part: range, end: int) -> range:
    return range(part.start, min(part.stop, end))


def _norm_squared(matrix: StoredMatrix, n_old: int) -> float:
    """‖·‖² of the new columns, from what was kept of each."""
    return float(np.square(store.read_array(matrix.path, "norm", matrix.shape[1])[n_old:]).sum())


def _with_old_columns(H: Iterable[Matrix], previous: Factors, chunk: int, n_old: int) -> list[NDArray[Any]]:
    """Blocks of H whose first one lacks the columns that were in its chunk before."""
    (before,) = StoredBlocks(previous.path, "H", range(chunk, chunk + 1), n=n_old)
    blocks = iter(H)
    return list(itertools.chain([np.concatenate([before, next(blocks)], axis=1)], blocks))


def _at_least(previous: Factors) -> float:
    """Relative error of a result; one that is exact is taken for one that is exact to rounding."""
    return max(previous.attributes["relative_error"], float(np.finfo(np.float32).eps))


def _relative_error(loss: float, norm_squared: float) -> float:
    return float(np.sqrt(loss / norm_squared)) if norm_squared else 0.0
