"""How well entries that no fit has seen are filled in, on a small part of A; and what of it stands out of noise.

References
----------
Wold, "Cross-validatory estimation of the number of components in factor and principal components models",
Technometrics 20(4), 1978. Gavish & Donoho, "The optimal hard threshold for singular values is 4/√3", IEEE Trans. IT
60(8), 2014.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.sample import read_sample_as
from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.basis import basis_of
from pipeline.blocks import side_by_side
from pipeline.entries import HELD_OUT, PRESENT, DenseBlock
from pipeline.entry_pass import EntryVisit
from pipeline.kernels import Matrix
from pipeline.one_pass import BlockMatrix
from pipeline.range_finder import find_range
from pipeline.solvers.entrywise import Entrywise
from pipeline.solvers.state import State
from pipeline.starts import OVERSAMPLING, nnsvd_lrc, revive
from pipeline.which import is_held_out

MAX_ROWS, MAX_COLUMNS = 1_000, 2_000
"""Of the part: all ranks together cost little, and a row or a column has far more entries than a rank has numbers."""
SHARE = 0.1
TOGETHER = 512
MOST, LEAST, WORK = 40, 8, 1.5e11
"""Iterations of a fit at most and at least, and in between the multiplications of all of them."""
SETTLED, WINDOW = 1e-3, 5
"""A fit ends once so many iterations lower its loss by less than this share."""


def part_of(matrix: StoredMatrix, seed: int) -> Matrix:
    """Some rows of some columns of the stored sample, (≤ 1,000, ≤ 2,000), scaled; for a seed the same ones always."""
    m = matrix.shape[0]
    drawn = np.random.default_rng([seed, 1]).choice(m, min(m, MAX_ROWS), replace=False)
    rows = np.sort(drawn)
    blocks = read_sample_as(matrix, MAX_COLUMNS, lambda block: block[rows])
    values: Matrix = np.concatenate(blocks, axis=1).astype(np.float32)
    values *= np.float32(matrix.scale)
    return values


def above_noise(part: Matrix) -> int:
    """Singular values above the threshold for white noise of a level that is not known, ω(β) times their median."""
    wide = (part if part.shape[0] <= part.shape[1] else part.T).astype(np.float64)
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T), 0))
    beta = wide.shape[0] / wide.shape[1]
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    return int((s > omega * np.median(s)).sum())


@dataclass(frozen=True)
class Misses:
    """What a fit misses of the entries that it has not seen."""

    squares: NDArray[np.float64]
    """By column, (k,)."""
    power: float
    """Sum of the squares of these entries."""

    @property
    def error(self) -> float:
        """Relative, over all of them."""
        return float(np.sqrt(self.squares.sum() / self.power)) if self.power else 0.0


class HeldOut:
    """A part of A, a tenth of whose entries no fit sees: those that a hash of their place and the seed draws."""

    def __init__(self, part: Matrix, seed: int) -> None:
        r, k = part.shape
        self.part, self.seed = part, seed
        self.held = is_held_out(np.arange(r), np.arange(k), SHARE, seed)
        what = np.where(self.held, HELD_OUT, PRESENT).astype(np.uint8)
        spans = [slice(first, first + TOGETHER) for first in range(0, k, TOGETHER)]
        self.matrix = BlockMatrix(
            partitions=[[DenseBlock(np.ascontiguousarray(part[:, span]), what[:, span])] for span in spans],
            shape=part.shape,
            scale=1.0,
            norm_squared=float(np.square(part, dtype=np.float64).sum()),
        )
        seen = ~self.held
        mean = part.sum(axis=1, keepdims=True, where=seen) / np.maximum(seen.sum(axis=1, keepdims=True), 1)
        self._filled = np.where(seen, part, mean).astype(np.float32)

    def misses(self, d: int) -> Misses | None:
        """What a rank-d fit misses; None where the part is too small for one."""
        if d >= min(self.part.shape):
            return None
        state = self._fit(d)
        H = np.concatenate([side_by_side(blocks)[0] for blocks in state.H], axis=1)
        squares = np.square(self.part - state.W.W @ H, dtype=np.float64).sum(axis=0, where=self.held)
        power = np.square(self.part, dtype=np.float64).sum(where=self.held)
        return Misses(squares, float(power))

    def _fit(self, d: int) -> State:
        r, k = self.part.shape
        rank = min(d // 2 + 1 + OVERSAMPLING, r, k)
        W = revive(nnsvd_lrc(find_range(self._filled, rank, self.seed, 1.0), d), self.seed)
        state = State(W=basis_of(W), H=[None] * len(self.matrix.partitions))
        visit = EntryVisit(scale=1.0, masked=True, fills=True, updates=1, cold_updates=4)
        solver, losses = Entrywise(visit=visit, extrapolates=True), [np.inf]
        with engine.here():
            for _ in range(_iterations(r, k, d)):
                state = solver.step(self.matrix, state)
                losses.append(state.loss)
                if losses[-WINDOW:][0] - losses[-1] < SETTLED * losses[-1] and len(losses) > WINDOW:
                    break
        return state


def _iterations(r: int, k: int, d: int) -> int:
    """How many a fit has at most."""
    each = 8 * r * k * d + 24 * d * d * (r + k)
    return int(min(MOST, max(LEAST, WORK / each)))
