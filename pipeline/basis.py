"""W between passes: it is improved here from the sums of a pass, in blocks of pixels side by side.

Rows of W do not depend on one another given the sums, so a block of them is the same small problem as a block of H.
The blocks are a function of m alone and their terms are added in order: the threads that do them change no bit.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from pipeline.kernels import Matrix, gram
from pipeline.penalties import NONE, Weights

PIXELS_TOGETHER = 1024
TOLD_BY_SUMS = 1e-8
"""Share of ‖A‖² below which sums of float32 products do not tell ‖A − W H‖²; the next pass sums the residual."""

T = TypeVar("T")
Update = Callable[[Matrix, Matrix, Matrix], Matrix]
"""(HHᵀ, HAᵀ, Wᵀ) → a better Wᵀ, for any block of its columns."""


class Basis(NamedTuple):
    """W, as passes use it."""

    W: Matrix
    """(m, d). Where a pass is made from an extrapolated one, its entries may be negative."""
    WtW: NDArray[np.float64]
    """WᵀW, (d, d), in float64: it is a term of the loss."""


class Sums(NamedTuple):
    """What a pass returns: the sums over blocks of A_j H_jᵀ (m, d) and H_j H_jᵀ (d, d)."""

    AHt: NDArray[np.floating[Any]]
    HHt: NDArray[np.float64]
    residual: float | None = None
    """‖A − W H‖² of the pass's W, where it was asked for."""
    gradient: NDArray[np.float64] | None = None
    """Squares (2,) of the projected gradient of H and of WᵀA, for W of unit columns, where they were asked for."""
    total_H: float | None = None
    """Sum of all entries of H, where a penalty is of that."""

    def kept(self) -> "Sums":
        """Return what is kept of them with a result: of the sums alone, the large one in float32."""
        return Sums(self.AHt.astype(np.float32), self.HHt, total_H=self.total_H)


class EntrySums(NamedTuple):
    """What a pass returns whose objective is a sum over entries: over those that are present, and not held out."""

    AHt: NDArray[np.floating[Any]]
    """What pulls W up, (m, d): (A / W H) Hᵀ for the divergence, A Hᵀ or (A − W H) Hᵀ for squares."""
    HHt: NDArray[np.float64]
    """H Hᵀ, (d, d)."""
    MHt: NDArray[np.floating[Any]]
    """What pulls W down, (m, d): 1 Hᵀ for the divergence, (W H) Hᵀ for squares; (1, d) where all rows have the same."""
    row_counts: NDArray[np.float64]
    """Entries of each row, (m, 1)."""
    row_sums: NDArray[np.float64]
    """Of these entries, (m, 1); zero for squares, which are measured against `power`."""
    loss: float
    """The objective, without penalties."""
    power: float
    """Sum of a² for squares, of a log a for the divergence."""
    penalty_H: float
    """Of the objective, that of H."""
    held_out: NDArray[np.float64]
    """Sum of squared errors on entries that are held out, and their number, (2,)."""

    def kept(self) -> "EntrySums":
        """Return what is kept of them with a result: the large ones in float32."""
        return self._replace(AHt=self.AHt.astype(np.float32), MHt=self.MHt.astype(np.float32))


Added = Sums | EntrySums


def basis_of(W: Matrix) -> Basis:
    """Basis of a given W (m, d)."""
    grams = by_pixels(lambda pixels: gram(np.ascontiguousarray(W[pixels].T)), len(W))
    return Basis(W, sum(grams, np.zeros((W.shape[1],) * 2)))  # to the bits of `improve`: a run may resume


def ahead_of(W: Matrix, W_before: Matrix, beta: float) -> Basis:
    """W + β (W − W_before), whose Gram matrix is of float32 products: no term of a loss."""
    ahead = np.empty_like(W)

    def of_block(pixels: slice) -> Matrix:
        block = np.subtract(W[pixels], W_before[pixels], out=ahead[pixels])
        block *= np.float32(beta)
        block += W[pixels]
        return block.T @ block

    return Basis(ahead, np.sum(by_pixels(of_block, len(W)), axis=0, dtype=np.float64))


def improve(old: Basis, sums: Sums, update: Update) -> tuple[Basis, float]:
    """Improve W from the sums of a pass; also returns ⟨W, AHᵀ⟩, a term of the loss."""
    m, d = old.W.shape
    HHt = sums.HHt.astype(np.float32)
    W = np.empty((m, d), np.float32)

    def improve_block(pixels: slice) -> tuple[NDArray[np.float64], float]:
        AHt = sums.AHt[pixels]
        HAt = np.ascontiguousarray(AHt.astype(np.float32).T)
        block = update(HHt, HAt, np.ascontiguousarray(old.W[pixels].T))
        W[pixels] = block.T
        return gram(block), float(np.vdot(W[pixels].astype(np.float64), AHt.astype(np.float64, copy=False)))

    terms = by_pixels(improve_block, m)
    return Basis(W, sum((WtW for WtW, _ in terms), np.zeros((d, d)))), sum(inner for _, inner in terms)


def squared_error(norm_squared: float, old: Basis, new: Basis, sums: Sums, inner: float) -> float:
    """‖A − W H‖² of the new W.

    From the sums alone it is ‖A‖² − 2⟨W, AHᵀ⟩ + ⟨WᵀW, HHᵀ⟩, which loses its digits as the fit gets good. Where the
    pass summed the residual for the old W, it is that and the change −2⟨ΔW, AHᵀ − W HHᵀ⟩ + ⟨ΔWᵀΔW, HHᵀ⟩.
    """
    if sums.residual is None:
        return max(norm_squared - 2 * inner + float(np.vdot(new.WtW, sums.HHt)), TOLD_BY_SUMS * norm_squared)
    change = new.W.astype(np.float64) - old.W
    gradient = sums.AHt - old.W.astype(np.float64) @ sums.HHt
    rise = -2 * float(np.vdot(change, gradient)) + float(np.vdot(change.T @ change, sums.HHt))
    return max(sums.residual + rise, 0.0)  # a sum of squares, but for the rounding of its last change


def projected_gradient(new: Basis, sums: Sums, penalty: Weights = NONE) -> float | None:
    """How far from a stationary point: 0 there, and 1 where the gradient is as large as at W = H = 0.

    It is √(‖∇H‖² + ‖∇W‖²) / √(‖WᵀA‖² + ‖A Hᵀ‖²), where of a gradient counts what non-negativity does not hold back,
    for W of unit columns. ∇H is that of the pass, ∇W = W HHᵀ − A Hᵀ that of its improved W.
    """
    if sums.gradient is None:
        return None
    lengths = np.sqrt(new.WtW.diagonal())

    def of_block(pixels: slice) -> NDArray[np.float64]:
        W, AHt = new.W[pixels], sums.AHt[pixels] - np.float32(penalty.l1)
        return squares(W, W @ sums.HHt.astype(np.float32) + np.float32(penalty.l2) * W - AHt, AHt, lengths)

    free, full = sum(by_pixels(of_block, len(new.W)), sums.gradient)
    return float(np.sqrt(free / full)) if full else 0.0


def squares(factor: Matrix, gradient: NDArray[Any], at_zero: NDArray[Any], scale: NDArray[Any]) -> NDArray[np.float64]:
    """‖·‖² of what of a gradient is free, and of what it is at zero, (2,), after scaling; scale is broadcast."""
    free = np.where(factor > 0, gradient, np.minimum(gradient, 0)) * scale
    return np.array([np.square(free, dtype=np.float64).sum(), np.square(at_zero * scale, dtype=np.float64).sum()])


def penalty_of(of_W: Weights, W: Basis, of_H: Weights, sums: Sums) -> float:
    """What penalties on both factors add to ‖A − W H‖²: twice what they are meant for, as that is."""
    total_W = float(W.W.sum(dtype=np.float64)) if of_W.l1 else 0.0
    absolute = of_W.l1 * total_W + of_H.l1 * (sums.total_H or 0.0)
    return 2 * absolute + float(of_W.l2 * W.WtW.trace() + of_H.l2 * sums.HHt.trace())


def by_pixels(function: Callable[[slice], T], m: int) -> list[T]:
    """Call a function for each block of pixels, on threads where there are several; results in order."""
    blocks = [slice(first, first + PIXELS_TOGETHER) for first in range(0, m, PIXELS_TOGETHER)]
    return list((_threads().map if len(blocks) > 1 else map)(function, blocks))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CPU_COUNT)
