"""Images have come since: H for them alone, and W from kept sums, so that the columns of before are not visited.

With a result stay A Hᵀ and H Hᵀ of its columns. The new columns are visited once, for their H and their sums; W is
improved from all sums together. What W H misses of the new columns, against what it missed of the old ones, is the
drift: it says whether they are like those.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.store import StoredMatrix
from pipeline import basis, engine
from pipeline.basis import Sums, basis_of
from pipeline.blocks import StoredBlocks
from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.loop import Stop
from pipeline.one_pass import Also, BlockMatrix
from pipeline.plan import Plan
from pipeline.solvers import hals
from pipeline.solvers.state import State

REFRESH = ("auto", "never", "full")
OUTGROWN = 0.02
"""From which on all columns are visited again: the mean over all columns of how far those that were taken in since have
drifted, so that few images that differ much count as little as many that hardly do."""
W_SWEEPS = 8
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


def take_in(matrix: StoredMatrix, previous: Factors, plan: Plan) -> Taken:
    """Visit the columns that a result has not seen, and improve W from all sums."""
    n_old, c = previous.attributes["shape"][1], matrix.chunk_images
    W, first = basis_of(previous.read("W")), n_old // c
    new = _of_new_columns(matrix, n_old, plan)
    A_new = BlockMatrix(
        partitions=[blocks for _, blocks in new],
        shape=(matrix.shape[0], matrix.shape[1] - n_old),
        scale=matrix.scale,
        norm_squared=_norm_squared(matrix, n_old),
    )
    visited, sums = A_new.visit(W, [None] * len(new), partial(hals.improve), Also(residual=True))
    together = _added(_kept_sums(previous), sums)
    improved, inner = basis.improve(W, together, partial(hals.improve_W, sweeps=W_SWEEPS))
    loss = basis.squared_error(matrix.norm_squared, W, improved, together, inner)
    H_new = list(visited)
    old_parts = [part for part in (_until(part, first) for part in plan.partitions) if part]
    H_old = [StoredBlocks(previous.path, "H", part) for part in old_parts]
    if n_old % c:
        (H_new[0],) = engine.keep_each(_with_old_columns, [(H_new[0], previous, first, n_old)])
    drift = _relative_error(sums.residual or 0.0, A_new.norm_squared) / _at_least(previous) - 1
    return Taken(
        state=State(W=improved, H=[*H_old, *H_new], loss=loss, sums=together),
        parts=[*old_parts, *(part for part, _ in new)],
        drift=drift,
        outgrown=_outgrown(previous, matrix, drift),
    )


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


def _kept_sums(previous: Factors) -> Sums:
    """A Hᵀ and H Hᵀ of a result."""
    return Sums(previous.read("AHt"), previous.read_square("HHt"))


def _added(old: Sums, new: Sums) -> Sums:
    """Sums over all columns; no residual is known of the old ones."""
    return Sums(old.AHt.astype(np.float64) + new.AHt, old.HHt + new.HHt)


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
