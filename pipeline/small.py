"""The small problem: a sketch of A, or a sample of its columns, on which the default solver finds W.

It is a matrix to the loop like A is. Its columns are all of A's or some of them; where it is a sketch, Q B stands for
them.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.blocks import StoredBlocks, side_by_side
from pipeline.config import NMFConfig
from pipeline.factors import Factors
from pipeline.kernels import Matrix, gram
from pipeline.one_pass import BlockMatrix
from pipeline.opening import sampled
from pipeline.panels import Columns, squared_norm
from pipeline.plan import Plan
from pipeline.range_finder import Compressed, find_range, sketch
from pipeline.record import Recorder
from pipeline.sketching import Choice
from pipeline.solvers.state import Matrixlike, State
from pipeline.starts import basis_images

SAMPLE_BLOCK = 2048

OpenA = Callable[[], BlockMatrix]
"""Opens A, which is not done before it is needed: what is kept of it takes memory."""


@dataclass(frozen=True, kw_only=True)
class Small:
    """The small problem, ready to be iterated on."""

    matrix: Matrixlike
    parts: Sequence[range]
    """Chunks of its columns that each task has: those of A, or blocks of the sample."""
    W: Matrix | None = None
    """Where the first start begins; None where it has begun already."""
    svd_bound: float | None = None
    """Relative error of the best rank-d approximation of any signs: a little above that of A as a sketch of all columns
    tells it, a little below as one of a sample does; None where there is no sketch."""


def make(
    matrix: StoredMatrix, open_A: OpenA, config: NMFConfig, choice: Choice, plan: Plan, recorder: Recorder
) -> Small:
    """Make the small problem from A or its sample.

    Parameters
    ----------
    matrix, open_A
        What is factorized, as it is stored and as it is visited.
    config, choice, plan
        What is asked for, what the small problem is to be, and whether it is brought to this process.
    recorder
        Is told what was visited.
    """
    sample = sampled(matrix, config, choice.n_read)
    first = sample[:, : choice.n_range]
    found = find_range(first, min(choice.range_rank, *first.shape), config.seed, matrix.scale)
    recorder.visited_sample(sample.shape[1], visits=0, read=True)
    recorder.visited_sample(first.shape[1], visits=2)
    W = basis_images(config, found, matrix.shape[0])
    if choice.whole:
        S, parts = replace(open_A(), spill=lambda _: None), plan.partitions
    else:
        S, parts = _of_sample(sample, matrix.scale, recorder), _blocks_of_sample(sample.shape[1])
    if choice.rank is None:
        bring = choice.whole and plan.sketch_here and not engine.place().in_process
        return Small(matrix=_brought(S) if bring else S, parts=parts, W=W)
    with nullcontext() if choice.whole else engine.here():
        Q, B, s = sketch(S, found.Q, bring=plan.sketch_here)
    beyond = S.norm_squared - float((s[: config.n_components] ** 2).sum())
    return Small(
        matrix=_compressed(Q, B, S.norm_squared, S.norm_squared - float((s**2).sum())),
        parts=parts,
        W=W,
        svd_bound=float(np.sqrt(max(beyond, 0.0) / S.norm_squared)),
    )


def stored(previous: Factors, choice: Choice, plan: Plan) -> Small:
    """Take a sketch from a checkpoint: it took passes to make."""
    about = previous.attributes["small"]
    parts = plan.partitions if choice.whole else _blocks_of_sample(choice.n_columns)
    B = read_parts(previous, "sketch", parts)
    Q = previous.read("sketch_range")
    return Small(
        matrix=_compressed(Q, B, about["norm_squared"], about["missed"]),
        parts=parts,
        svd_bound=previous.attributes["svd_bound"],
    )


def read_parts(previous: Factors, name: str, parts: Sequence[range]) -> list[Any]:
    """Blocks of a checkpoint's array, as wide as they were, where the engine keeps them."""
    return engine.keep_each(side_by_side, [(StoredBlocks(previous.path, name, part),) for part in parts])


def ordered(state: State, *, unit: bool = True) -> Matrix:
    """W of unit columns, those first that explain most: ‖h_k‖² ‖w_k‖² of the small problem.

    The rows of H are comparable then: each says how much of the norm of an image is of that component. Where a penalty
    depends on how W and H share their scale, the columns stay as long as they are.
    """
    squares = state.W.WtW.diagonal()
    energy = sum(engine.call_each(_energy, [(part,) for part in state.H])) * squares
    lengths = np.sqrt(np.where(squares > 0, squares, 1)).astype(np.float32)
    order = np.argsort(-energy, kind="stable")
    W = state.W.W / lengths if unit else state.W.W
    return np.ascontiguousarray(W[:, order])


def _compressed(Q: Matrix, B: Sequence[Any], norm_squared: float, missed: float) -> Compressed:
    rows = BlockMatrix(partitions=B, shape=(Q.shape[1], 0), scale=1.0, norm_squared=norm_squared)
    return Compressed(Q=Q, B=rows, missed=max(missed, 0.0))


def _brought(A: BlockMatrix) -> BlockMatrix:
    """A with its blocks in this process."""
    return replace(A, partitions=engine.call_each(list, [(part,) for part in A.partitions]))


def _of_sample(sample: Columns, scale: float, recorder: Recorder) -> BlockMatrix:
    """Sampled columns as a matrix of their own, in this process."""
    k = sample.shape[1]
    blocks = [sample[:, j : j + SAMPLE_BLOCK] for j in range(0, k, SAMPLE_BLOCK)]
    return BlockMatrix(
        partitions=[[block] for block in blocks],
        shape=sample.shape,
        scale=scale,
        norm_squared=sum(squared_norm(block, scale) for block in blocks),
        on_visit=lambda: recorder.visited_sample(k),
    )


def _blocks_of_sample(k: int) -> list[range]:
    return [range(j, j + 1) for j in range(-(-k // SAMPLE_BLOCK))]


def _energy(blocks: Sequence[Matrix]) -> Any:
    return sum(gram(block).diagonal() for block in blocks)
