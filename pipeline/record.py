"""The record of a run: one entry an iteration, kept with the result."""

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
    """The objective of the factors after it: ‖A − W H‖² for frobenius."""
    relative_error: float
    """‖A − W H‖ / ‖A‖."""
    phase: str
    """What was iterated on: `exact` is A itself."""
    seconds: float
    """Time so far, that of earlier runs included."""
    passes: float
    """Visits of A so far: columns visited / n, from memory or disk."""
    bytes_read: int
    """Bytes of A read from the store so far."""


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
        self._matrix, self._plan, self._on_iteration = matrix, plan, on_iteration
        self.earlier = earlier[-1] if earlier else BEFORE
        self._n_earlier = len(earlier)
        self._began = time.perf_counter()

    @property
    def n_new(self) -> int:
        """Iterations of this run."""
        return len(self.iterations) - self._n_earlier

    def __call__(self, state: State) -> list[float]:
        """Add the iteration that led to a state; returns the losses so far."""
        matrix, last = self._matrix, self.iterations[-1] if self.iterations else BEFORE
        streamed = self._plan.partitions[self._plan.n_cached if self.n_new else 0 :]
        columns = sum(span.stop - span.start for part in streamed for span in matrix.columns(part))
        self.iterations.append(
            Iteration(
                loss=state.loss,
                relative_error=float(np.sqrt(state.loss / matrix.norm_squared)) if matrix.norm_squared else 0.0,
                phase="exact",
                seconds=self.earlier.seconds + time.perf_counter() - self._began,
                passes=last.passes + 1,
                bytes_read=last.bytes_read + columns * matrix.shape[0] * matrix.dtype.itemsize,
            )
        )
        self._on_iteration(self.iterations)
        return [iteration.loss for iteration in self.iterations]


def to_arrays(iterations: Sequence[Iteration]) -> dict[str, NDArray[np.generic]]:
    """One array (n_iter,) a field."""
    columns = zip(Iteration._fields, zip(*iterations, strict=True), strict=True)
    return {field: np.array(list(values), DTYPES.get(field, np.float64)) for field, values in columns}
