"""The record of a run: one entry an iteration, kept with the result."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.store import StoredMatrix
from pipeline.plan import Plan
from pipeline.solvers.state import State


class Iteration(NamedTuple):
    """One iteration; its fields are the arrays (n_iter,) of a revision."""

    loss: float
    """The objective of the factors after it, penalties included."""
    relative_error: float
    """‖A − W H‖ / ‖A‖, or what takes its place for other objectives: see `entrywise.relative_error`."""
    phase: str
    """What was iterated on: `exact` is A itself, `sketch`, `sample` and `all` are the small problems of
    `Choice.kind`, `new` are columns that were appended. The second start's is `sketch 2`, and so on."""
    seconds: float
    """Time so far, that of earlier runs included."""
    passes: float
    """Visits of A so far: columns visited / n, from memory or disk."""
    bytes_read: int
    """Bytes of A read from the store so far."""
    holdout_error: float = math.nan
    """Root of the mean squared error on entries that are held out; NaN where none are."""


EXACT, NEW = "exact", "new"
BEFORE = Iteration(float("inf"), float("inf"), "", 0.0, 0.0, 0)
DTYPES: dict[str, Any] = {"phase": np.dtypes.StringDType(), "bytes_read": np.dtype(np.int64)}


class Recorder:
    """Keeps the record while the loop runs, from what each iteration cost."""

    def __init__(
        self,
        matrix: StoredMatrix,
        earlier: Sequence[Iteration],
        *,
        plan: Plan,
        on_iteration: Callable[[Sequence[Iteration]], None],
    ) -> None:
        self.iterations = list(earlier)
        self.enter(EXACT, matrix.norm_squared)
        self._matrix, self._plan, self._on_iteration = matrix, plan, on_iteration
        self.earlier = earlier[-1] if earlier else BEFORE
        self.n_earlier = len(earlier)
        self._passes, self._bytes_read = self.earlier.passes, self.earlier.bytes_read
        self._cached: set[int] = set()
        self._began = time.perf_counter()

    def enter(self, phase: str, norm_squared: float) -> None:
        """Say what is iterated on from now on, and its ‖·‖²: losses are recorded as shares of it, times ‖A‖²."""
        self.phase, self._norm_squared = phase, norm_squared

    @property
    def n_new(self) -> int:
        """Iterations of this run."""
        return len(self.iterations) - self.n_earlier

    @property
    def passes(self) -> float:
        """Visits of A by this run."""
        return self._passes - self.earlier.passes

    @property
    def seconds(self) -> float:
        """Time so far, that of earlier runs included."""
        return self.earlier.seconds + time.perf_counter() - self._began

    @property
    def bytes_read(self) -> int:
        """Bytes of A read from the store by this run."""
        return self._bytes_read - self.earlier.bytes_read

    def visited(self) -> None:
        """Count a visit of all of A."""
        matrix, partitions = self._matrix, self._plan.partitions
        read = [k for k in range(len(partitions)) if k not in self._cached]
        columns = sum(span.stop - span.start for k in read for span in matrix.columns(partitions[k]))
        self._cached.update(range(self._plan.n_cached))
        self._passes += 1
        self._bytes_read += columns * matrix.shape[0] * matrix.dtype.itemsize

    def visited_sample(self, columns: int, *, visits: int = 1, read: bool = False) -> None:
        """Count visits of some columns of the sample, which is read once and then in memory."""
        self._passes += visits * columns / self._matrix.shape[1]
        self._bytes_read += columns * self._matrix.shape[0] * self._matrix.dtype.itemsize if read else 0

    def __call__(self, state: State) -> list[Iteration]:
        """Add the iteration that led to a state; returns all so far."""
        ours, its = self._matrix.norm_squared, self._norm_squared
        error, held_out = state.relative_error, state.holdout_error
        if error is None:
            error = float(np.sqrt(max(state.loss - state.penalty, 0.0) / its)) if its else 0.0
        self.iterations.append(
            Iteration(
                loss=state.loss if its == ours else state.loss / its * ours,
                relative_error=error,
                phase=self.phase,
                seconds=self.seconds,
                passes=self._passes,
                bytes_read=self._bytes_read,
                holdout_error=math.nan if held_out is None else held_out,
            )
        )
        self._on_iteration(self.iterations)
        return self.iterations


def to_arrays(iterations: Sequence[Iteration]) -> dict[str, NDArray[np.generic]]:
    """One array (n_iter,) a field."""
    columns = zip(Iteration._fields, zip(*iterations, strict=True), strict=True)
    return {field: np.array(list(values), DTYPES.get(field, np.float64)) for field, values in columns}
