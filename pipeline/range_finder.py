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
from pipeline.blocks import side_by_side
from pipeline.kernels import Matrix
from pipeline.one_pass import Also, BlockMatrix, Improve
from pipeline.panels import Columns, aligned, back_project, one_blas_thread, project

ROUNDING = 1e-10
"""Share of the largest eigenvalue of C Cᵀ, of float32 products, below which one is rounding."""


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
        also: Also = Also(),  # noqa: B008  # it is immutable
    ) -> tuple[Sequence[Any], Sums]:
        """Improve H given W; see `BlockMatrix.visit`."""
        QtW = transposed_product(self.Q, W.W)
        inner = Basis(QtW, W.WtW)
        H_new, sums = self.B.visit(inner, H, improve, also)
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


def find_range(sample: Columns, rank: int, seed: int, scale: float) -> Range:
    """Range finder on a sample of columns, with one power iteration.

    Parameters
    ----------
    sample
        Columns of A as they are stored, (m, k), k ≥ rank.
    rank
        Columns l of Q.
    seed
        Of the random test matrix.
    scale
        What stored values are multiplied with.

    References
    ----------
    Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 53, 2011.
    """
    test = np.random.default_rng([seed, 0]).standard_normal((rank, sample.shape[1]), dtype=np.float32)
    Q = orthonormal(back_project(sample, test, scale))
    B = project(sample, Q, scale)
    U, s, Vt = np.linalg.svd(B, full_matrices=False)
    return Range(orthonormal(back_project(sample, B, scale)), Q @ U, s, Vt)


class Sketch(NamedTuple):
    """A ≈ Q B."""

    Q: Matrix
    """(m, l)."""
    B: list[Any]
    """(l, n), a list of blocks a partition."""
    s: NDArray[np.float64]
    """Singular values of B, (l,), descending: nearly those of A."""


def sketch(A: BlockMatrix, Q: Matrix, *, bring: bool) -> Sketch:
    """Sketch A in one pass, given a basis (m, l) of about its range, such as that of a sample of its columns.

    The pass gives C = QᵀA, and A Cᵀ with it, which is a power iteration on Q. A's projection on the rows of C is
    A Cᵀ(C Cᵀ)⁻¹ C: no further pass is needed for B.

    Parameters
    ----------
    A
        What is visited.
    Q
        Orthonormal columns (m, l).
    bring
        Whether B comes to this process; else it stays where the engine keeps it.

    References
    ----------
    Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 53, 2011, sections 4.5 and 5.5.
    """
    C, sums = A.visit(Basis(Q, np.eye(Q.shape[1])), [None] * len(A.partitions), _projection)
    values, vectors = np.linalg.eigh(sums.HHt)
    told = values > ROUNDING * values[-1]
    vectors = vectors[:, told] / np.sqrt(values[told])
    better, R = np.linalg.qr(sums.AHt.astype(np.float64) @ vectors)
    U, s, Vt = np.linalg.svd(R)
    take = engine.call_each if bring else engine.keep_each
    to_B = ((s[:, None] * Vt) @ vectors.T).astype(np.float32)
    B = take(_rows_of_part, [(to_B, part) for part in C])
    return Sketch((better @ U).astype(np.float32), B, s)


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


def _rows_of_part(to_B: Matrix, blocks: Sequence[Matrix]) -> list[Matrix]:
    one_blas_thread()
    return [to_B @ aligned(block) for block in side_by_side(blocks)]
