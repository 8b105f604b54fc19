"""W between passes: it is improved here from the sums of a pass, in blocks of pixels side by side.

Rows of W do not depend on one another given the sums, so a block of them is the same small problem as a block of H.
The blocks are a function of m alone and their terms are added in order: the threads that do them change no bit.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from pipeline.kernels import Matrix, gram

PIXELS_TOGETHER = 1024
TOLD_BY_SUMS = 1e-8
"""Share of ‖A‖² below which sums of float32 products do not tell ‖A − W H‖²; the next pass sums the residual."""

Update = Callable[[Matrix, Matrix, Matrix], Matrix]
"""(HHᵀ, HAᵀ, Wᵀ) → a better Wᵀ, for any block of its columns."""


class Basis(NamedTuple):
    """W, as passes use it."""

    W: Matrix
    """(m, d)."""
    WtW: NDArray[np.float64]
    """WᵀW, (d, d), in float64: it is a term of the loss."""


class Sums(NamedTuple):
    """What a pass returns: the sums over blocks of A_j H_jᵀ (m, d) and H_j H_jᵀ (d, d)."""

    AHt: NDArray[np.floating[Any]]
    HHt: NDArray[np.floating[Any]]
    residual: float | None = None
    """‖A − W H‖² of the pass's W, where it was asked for."""


def basis_of(W: Matrix) -> Basis:
    """Basis of a given W (m, d)."""
    blocks = (np.ascontiguousarray(W[k : k + PIXELS_TOGETHER].T) for k in range(0, len(W), PIXELS_TOGETHER))
    return Basis(W, sum(map(gram, blocks), np.zeros((W.shape[1],) * 2)))  # to the bits of `improve`: a run may resume


def improve(old: Basis, sums: Sums, update: Update) -> tuple[Basis, float]:
    """Improve W from the sums of a pass; also returns ⟨W, AHᵀ⟩, a term of the loss."""
    m, d = old.W.shape
    HHt = sums.HHt.astype(np.float32)
    W = np.empty((m, d), np.float32)

    def improve_block(first: int) -> tuple[NDArray[np.float64], float]:
        pixels = slice(first, first + PIXELS_TOGETHER)
        AHt = sums.AHt[pixels]
        HAt = np.ascontiguousarray(AHt.astype(np.float32).T)
        block = update(HHt, HAt, np.ascontiguousarray(old.W[pixels].T))
        W[pixels] = block.T
        return gram(block), float(np.vdot(W[pixels].astype(np.float64), AHt.astype(np.float64, copy=False)))

    blocks = range(0, m, PIXELS_TOGETHER)
    terms = list((_threads().map if len(blocks) > 1 else map)(improve_block, blocks))
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


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CPU_COUNT)
