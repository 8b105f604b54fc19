"""A ≈ Q B with few rows in B: a sketch that the factorization is iterated on in place of A.

Q (m, l) has orthonormal columns, B = QᵀA is (l, n). W stays in pixel space: C = WᵀA becomes (QᵀW)ᵀB, and A Hᵀ becomes
Q (B Hᵀ), so an iteration costs l / m of what one on A costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.basis import Basis, Sums, by_pixels
from pipeline.kernels import Matrix, gram
from pipeline.one_pass import Ahead, BlockMatrix, Improve, back_project, project


class Range(NamedTuple):
    """What a sample of columns (m, k) says of the range of A."""

    Q: Matrix
    """Orthonormal columns (m, l)."""
    U: Matrix
    """Left singular vectors (m, l), with s (l,) and Vᵀ (l, k)."""
    s: NDArray[np.float32]
    Vt: Matrix


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Q B in place of A: it offers the same visit."""

    Q: Matrix
    """(m, l), orthonormal columns."""
    B: BlockMatrix
    """(l, n), with the norm of A."""
    missed: float
    """‖A − Q B‖², which no W and H can win back here."""

    @property
    def norm_squared(self) -> float:
        """‖A‖²."""
        return self.B.norm_squared

    def visit(
        self,
        W: Basis,
        H: Sequence[Any],
        improve: Improve,
        *,
        residual: bool = False,
        gradient: bool = False,
        ahead: Ahead | None = None,
    ) -> tuple[Sequence[Any], Sums]:
        """Improve H given W; see `BlockMatrix.visit`."""
        QtW = transposed_product(self.Q, W.W)
        inner = Basis(QtW, W.WtW)
        H_new, sums = self.B.visit(inner, H, improve, residual=residual, gradient=gradient, ahead=ahead)
        AHt = product(self.Q, sums.AHt.astype(np.float32))
        if sums.residual is None:
            return H_new, sums._replace(AHt=AHt)
        wide = QtW.astype(np.float64)
        outside = float(np.vdot(W.WtW - wide.T @ wide, sums.HHt))  # what of W H is not in the range of Q
        return H_new, sums._replace(AHt=AHt, residual=sums.residual + max(outside, 0.0) + self.missed)

    def worst_fitted(self, W: Basis, H: Sequence[Any], count: int) -> list[Matrix]:
        """What of the columns of Q B with the largest residuals W H misses."""
        inside = Basis(transposed_product(self.Q, W.W), W.WtW)
        return [self.Q @ missed for missed in self.B.worst_fitted(inside, H, count)]


def find_range(sample: NDArray[Any], l: int, seed: int, scale: float) -> Range:
    """Range finder on a sample of columns, with one power iteration.

    Parameters
    ----------
    sample
        Columns of A as they are stored, (m, k), k ≥ l.
    l
        Columns of Q.
    seed
        Of the random test matrix.
    scale
        What stored values are multiplied with.

    References
    ----------
    Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 53, 2011.
    """
    test = np.random.default_rng([seed, 0]).standard_normal((l, sample.shape[1]), dtype=np.float32)
    Q = orthonormal(back_project(sample, test, scale))
    B = project(sample, Q, scale)
    U, s, Vt = np.linalg.svd(B, full_matrices=False)
    return Range(orthonormal(back_project(sample, B, scale)), Q @ U, s, Vt)


def better_range(A: BlockMatrix, Q: Matrix) -> Matrix:
    """Orthonormal basis of A AᵀQ (m, l): a power iteration, in one pass."""
    _, sums = A.visit(Basis(Q, np.eye(Q.shape[1])), [None] * len(A.partitions), _projection)
    return orthonormal(sums.AHt.astype(np.float32))


def singular_values(parts: Sequence[Any]) -> NDArray[np.float64]:
    """Singular values (l,) of B, descending, from B Bᵀ in float64."""
    BBt = sum(engine.call_each(_gram_of_part, [(part,) for part in parts]))
    return np.sqrt(np.maximum(np.linalg.eigvalsh(BBt)[::-1], 0))


def orthonormal(Y: Matrix) -> Matrix:
    """Orthonormal basis (m, l) of the columns of Y; those of no length stay without."""
    return np.linalg.qr(Y)[0]


def product(Q: Matrix, X: Matrix) -> Matrix:
    """Q X (m, d), in blocks of pixels."""
    out = np.empty((len(Q), X.shape[1]), np.float32)

    def of_block(pixels: slice) -> None:
        np.matmul(Q[pixels], X, out=out[pixels])

    by_pixels(of_block, len(Q))
    return out


def transposed_product(Q: Matrix, W: Matrix) -> Matrix:
    """QᵀW (l, d), summed over blocks of pixels in order."""
    terms = by_pixels(lambda pixels: Q[pixels].T @ W[pixels], len(Q))
    return sum(terms[1:], terms[0])


def _projection(WtW: Matrix, WtA: Matrix, H: Matrix | None) -> Matrix:
    return WtA


def _gram_of_part(blocks: Sequence[Matrix]) -> NDArray[np.float64]:
    return sum(map(gram, blocks), np.zeros((blocks[0].shape[0],) * 2))
