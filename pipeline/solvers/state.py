"""What a solver carries from one iteration to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from pipeline.basis import Added, Basis, Sums, ahead_of
from pipeline.kernels import Matrix
from pipeline.one_pass import Also, Improve

WELL = 5e-3
GROWTH, LIMIT_GROWTH, SHRINKAGE = 1.05, 1.01, 1.5


class Momentum(NamedTuple):
    """How far the next iteration goes beyond where the last one came to: X + β (X − X_before).

    The schedule of β and its limit is that of Ang & Gillis, "Accelerating nonnegative matrix factorization algorithms
    using extrapolation", Neural Computation 31(2), 2019.
    """

    W_before: Matrix | None = None
    """(m, d); None where the next iteration starts from W itself."""
    H_before: Sequence[Any] | None = None
    """Parts like those of H; None where H is not extrapolated."""
    beta: float = 0.5
    limit: float = 1.0
    revivals: int = 3
    """How often components that no image uses may still be started again: each costs a visit, and may be in vain."""

    def after_a_gain(self, W: Matrix, H: Sequence[Any] | None) -> "Momentum":
        """Momentum of the next iteration, given the factors that were left behind."""
        beta, limit = min(self.limit, GROWTH * self.beta), min(1.0, LIMIT_GROWTH * self.limit)
        return Momentum(W, H, beta, limit, self.revivals)

    def after_a_loss(self) -> "Momentum":
        """Momentum after an iteration that went too far: none in the next one, and less from then on."""
        return Momentum(None, None, self.beta / SHRINKAGE, self.beta, self.revivals)

    def after_a_revival(self) -> "Momentum":
        """Momentum once W was changed from outside: none in the next iteration."""
        return Momentum(None, None, self.beta, self.limit, self.revivals - 1)

    def ahead(self, W: Basis) -> Basis:
        """W where the next iteration starts."""
        if self.W_before is None:
            return W
        return ahead_of(W.W, self.W_before, self.beta)


@dataclass(frozen=True, kw_only=True)
class State:
    """The factors after an iteration, and how well they fit."""

    W: Basis
    H: Sequence[Any]
    """A part a partition: blocks of H, futures of them, or None where H has no value yet."""
    loss: float = float("inf")
    """The objective of exactly these factors."""
    penalty: float = 0.0
    """What of it is a penalty."""
    relative_error: float | None = None
    """Of exactly these factors, where it is not √(loss / ‖A‖²): see `entrywise.relative_error`."""
    holdout_error: float | None = None
    """See `entrywise.holdout_error`."""
    from_residual: bool = False
    """Whether the loss is a sum of squared differences, not a difference of sums: the two differ by rounding."""
    projected_gradient: float | None = None
    """See `basis.projected_gradient`."""
    momentum: Momentum = Momentum()  # noqa: RUF009  # it is immutable
    sums: Added | None = None
    """Of the visit that made exactly this H, which a rerun needs once there are more columns; None before the first."""

    def fits_well(self, norm_squared: float) -> bool:
        """Whether the relative error is so small that sums of products no longer tell it."""
        return self.loss - self.penalty < WELL**2 * norm_squared


class Matrixlike(Protocol):
    """A, or a sketch of it: whatever offers the two products of a pass."""

    @property
    def norm_squared(self) -> float:
        """‖A‖²."""
        ...

    def visit(
        self,
        W: Basis,
        H: Sequence[Any],
        improve: Improve,
        also: Also = Also(),  # noqa: B008  # it is immutable
    ) -> tuple[Sequence[Any], Sums]:
        """Improve H given W, and return it with the sums that improve W; see `BlockMatrix.visit`."""
        ...

    def worst_fitted(self, W: Basis, H: Sequence[Any], count: int) -> list[Matrix]:
        """What of the columns (m,) with the largest residuals W H misses."""
        ...


M = TypeVar("M", contravariant=True)


class Solver(Protocol[M]):
    """One iteration: everything in which solvers differ."""

    def step(self, A: M, state: State) -> State:
        """Visit A once, improve both factors, and state their loss."""
        ...
