"""One small problem for several ranks: a sketch with rows for the largest, of which the others take the first ones.

Rows of B are in the order of its singular values, so that what the rows that are left out hold is known exactly.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.store import StoredMatrix
from pipeline import engine, range_finder, small
from pipeline.basis import basis_of
from pipeline.config import NMFConfig
from pipeline.kernels import Matrix, gram
from pipeline.one_pass import BlockMatrix
from pipeline.opening import sampled
from pipeline.plan import Plan
from pipeline.range_finder import Compressed, find_range, transposed_product
from pipeline.record import Recorder
from pipeline.sketching import OVERSAMPLING, Choice
from pipeline.small import OpenA
from pipeline.solvers.state import Matrixlike, State
from pipeline.starts import basis_images, revive


class OneSketch:
    """What all ranks are iterated on, and what its singular values say."""

    def __init__(self, matrix: StoredMatrix, config: NMFConfig, choice: Choice, plan: Plan) -> None:
        self.matrix, self.config, self.choice, self.plan = matrix, config, choice, plan
        """`config` and `choice` are those of the largest rank."""

    def place(self) -> AbstractContextManager[None]:
        """Where its iterations run: in this process where it is not large."""
        return engine.here() if self.plan.sketch_here else nullcontext()

    def make(self, open_A: OpenA, recorder: Recorder) -> None:
        """Make it, in the visits of A that a run of the largest rank would make."""
        made = small.make(self.matrix, open_A, self.config, self.choice, self.plan, recorder)
        self.whole, self.parts = made.matrix, made.parts
        sample = sampled(self.matrix, self.config, self.choice.n_range)
        d = self.config.n_components
        enough = d // 2 + 1 if isinstance(self.whole, Compressed) else 2 * d  # for starts alone, and for B
        rows = min(enough + OVERSAMPLING, *sample.shape)
        self._found = find_range(sample, rows, self.config.seed, self.matrix.scale)
        recorder.visited_sample(sample.shape[1], visits=2)
        if isinstance(self.whole, Compressed):
            self.Q, self.B = self.whole.Q, self.whole.B
        else:
            assert isinstance(self.whole, BlockMatrix)  # what `make` makes of columns as they are
            with self.place():
                Q, B, _ = range_finder.sketch(self.whole, self._found.Q, bring=self.plan.sketch_here)
            self.Q, self.B = Q, replace(self.whole, partitions=B, shape=(Q.shape[1], self.choice.n_columns), scale=1.0)
        with self.place():
            energies = engine.call_each(_energies, [(part,) for part in self.B.partitions])
        self.squares: NDArray[np.float64] = sum(energies[1:], energies[0])

    @property
    def norm_squared(self) -> float:
        """‖·‖² of its columns."""
        return self.whole.norm_squared

    @property
    def missed(self) -> float:
        """What of it no row of B holds."""
        return max(self.norm_squared - float(self.squares.sum()), 0.0)

    def svd_bound(self, d: int) -> float:
        """Relative error of the best rank-d approximation of any signs."""
        return float(np.sqrt(max(self.norm_squared - float(self.squares[:d].sum()), 0.0) / self.norm_squared))

    def of_rank(self, d: int) -> Matrixlike:
        """What rank d is iterated on: as many rows as a sketch of its own would have, or columns as they are."""
        rows = 2 * d + OVERSAMPLING
        if not isinstance(self.whole, Compressed) or rows >= len(self.squares):
            return self.whole
        parts = engine.keep_each(_first_rows, [(part, rows) for part in self.B.partitions])
        Q = np.ascontiguousarray(self.Q[:, :rows])
        missed = self.missed + float(self.squares[rows:].sum())
        return Compressed(Q=Q, B=replace(self.B, partitions=parts, shape=(rows, 0)), missed=missed)

    def cold(self, d: int) -> State:
        """Start as a run of rank d alone would."""
        config = replace(self.config, n_components=d)
        return self.of(basis_images(config, self._found, self.matrix.shape[0]))

    def grown(self, state: State, d: int) -> State:
        """Start rank d from a smaller one: its W, and both signs of what leads in what that misses."""
        W = state.W.W
        count = d - W.shape[1]
        missed = self._missed_directions(state, -(-count // 2))
        both = np.stack([np.maximum(missed, 0), np.maximum(-missed, 0)], axis=2).reshape(len(W), -1)
        new = np.zeros((len(W), count), np.float32)
        new[:, : both.shape[1]] = both[:, :count]
        lengths = np.maximum(np.linalg.norm(W, axis=0), np.finfo(np.float32).tiny)
        return self.of(revive(np.hstack([W / lengths, new]), self.config.seed))

    def _missed_directions(self, state: State, count: int) -> Matrix:
        """Leading left singular vectors (m, ≤ count) of A − W H, as the sketch knows it."""
        with self.place():
            _, sums = self.whole.visit(state.W, state.H, _as_it_is)
        QtAHt = transposed_product(self.Q, sums.AHt.astype(np.float32)).astype(np.float64)
        QtW = transposed_product(self.Q, state.W.W).astype(np.float64)
        cross = QtAHt @ QtW.T
        missed = np.diag(self.squares) - cross - cross.T + QtW @ sums.HHt @ QtW.T
        _, vectors = np.linalg.eigh(missed)
        return self.Q @ vectors[:, ::-1][:, :count].astype(np.float32)

    def of(self, W: Matrix) -> State:
        """State before the first iteration, from a given W (m, d)."""
        return State(W=basis_of(np.ascontiguousarray(W, np.float32)), H=[None] * len(self.parts))


def _as_it_is(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    assert H is not None  # what was iterated on has one
    return H


def _energies(blocks: Sequence[Matrix]) -> NDArray[np.float64]:
    """‖·‖² of each row."""
    return np.sum([gram(block).diagonal() for block in blocks], axis=0)


def _first_rows(blocks: Sequence[Any], rows: int) -> list[Matrix]:
    return [np.ascontiguousarray(block[:rows]) for block in blocks]
