"""What a solver carries from one iteration to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.basis import Basis
from pipeline.one_pass import BlockMatrix

WELL = 5e-3


@dataclass(frozen=True, kw_only=True)
class State:
    """The factors after an iteration, and how well they fit."""

    W: Basis
    H: Sequence[Any]
    """A part a partition: blocks of H, futures of them, or None where H has no value yet."""
    loss: float = float("inf")
    """‖A − W H‖² of exactly these factors."""

    def fits_well(self, norm_squared: float) -> bool:
        """Whether the relative error is so small that sums of products no longer tell it."""
        return self.loss < WELL**2 * norm_squared


class Solver(Protocol):
    """One iteration: everything in which solvers differ."""

    def step(self, A: BlockMatrix, state: State) -> State:
        """Visit A once, improve both factors, and state their loss."""
        ...
