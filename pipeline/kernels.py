"""The arithmetic of one block, in NumPy alone.

A (m, n) ≈ W (m, d) H (d, n). Every update below improves H given G = WᵀW and C = WᵀA. The same function improves W,
since Aᵀ ≈ HᵀWᵀ is the same problem: then G = HHᵀ, C = HAᵀ, and what is improved is Wᵀ.
"""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

ROWS_TOGETHER = 16
FLUSHED, LEAST_SHARE = np.float32(1e-20), np.float32(1e-6)
TINY = np.float32(np.finfo(np.float32).tiny)


def mu(G: Matrix, C: Matrix, H: Matrix, l1: float = 0.0, l2: float = 0.0) -> Matrix:
    """One multiplicative update H ∘ C / (G H + l1 + l2 H), which never raises ‖A − W H‖² / 2 + l1 ΣH + l2 ‖H‖² / 2.

    Parameters
    ----------
    G
        Gram matrix of the fixed factor, (d, d).
    C
        Data projected on the fixed factor, (d, n).
    H
        Current factor, (d, n). Not modified. Its zeros stay zero.
    l1, l2
        Weights of the penalty.

    Returns
    -------
    Matrix
        New factor, (d, n), non-negative.

    References
    ----------
    Lee & Seung, "Algorithms for non-negative matrix factorization", NIPS 2000.
    """
    denominator = G @ H
    if l1 or l2:
        denominator += np.float32(l1) + np.float32(l2) * H
    return multiplied(H, C, denominator)


def hals(G: Matrix, C: Matrix, H: Matrix, sweeps: int) -> Matrix:
    """Rounds of hierarchical alternating least squares over the rows of H.

    Minimises ‖A − W H‖² over H ≥ 0, one row at a time, given only G = WᵀW and C = WᵀA. Rows are taken 16 at a time:
    one product gives the gradient of all 16, and each row then adds only what the rows before it have changed.

    Parameters
    ----------
    G
        Gram matrix of the fixed factor, (d, d).
    C
        Data projected on the fixed factor, (d, n).
    H
        Current factor, (d, n). Not modified.
    sweeps
        How often each row is improved.

    Returns
    -------
    Matrix
        New factor, (d, n), non-negative, whose loss is no higher than H's.

    References
    ----------
    Cichocki & Phan, "Fast local algorithms for large scale nonnegative matrix
    and tensor factorizations", IEICE Trans. E92-A(3), 2009.
    """
    curvature = G.diagonal()[:, None].copy()
    curvature[curvature == 0] = np.inf  # a dead component has no direction: it stays
    G, C, H = G / curvature, C / curvature, H.copy()
    change, most = (np.empty((min(ROWS_TOGETHER, len(H)), H.shape[1]), np.float32) for _ in range(2))
    together = [slice(first, first + ROWS_TOGETHER) for first in range(0, len(H), ROWS_TOGETHER)]
    within = [_lower(G[rows, rows]) for rows in together]
    for _ in range(sweeps):
        for rows, among in zip(together, within, strict=True):
            _improve_rows((G[rows], C[rows], among), H, rows, change[: len(among)], most[: len(among)])
    return H


def _lower(G: Matrix) -> Matrix:
    """What the rows before each of a few rows have changed of its gradient, with its own change as it is."""
    among = -np.tril(G, -1)
    np.fill_diagonal(among, 1)
    return among


def _improve_rows(given: tuple[Matrix, Matrix, Matrix], H: Matrix, rows: slice, change: Matrix, most: Matrix) -> None:
    """One exact minimisation of each of a few rows of H, in place, in order; rows of G and C are divided by curvature.

    Two operations a row: its change is what the gradient asks for, less what the rows before it have changed already,
    and at most so far down that nothing is left of it.
    """
    G, C, among = given
    np.matmul(G, H, out=change)
    np.subtract(C, change, out=change)
    np.negative(H[rows], out=most)
    wanted = np.empty_like(change[0])
    for k, row in enumerate(change):
        np.dot(among[k, : k + 1], change[: k + 1], out=wanted)
        np.maximum(wanted, most[k], out=row)
    H[rows] += change


def multiplied(X: Matrix, up: NDArray[np.floating], down: NDArray[np.floating]) -> Matrix:
    """X ∘ up / down, where no entry grows more than a millionfold and what has all but vanished becomes zero.

    Products of numbers below 1.2e-38, which have fewer digits in float32, take ten times as long.
    """
    change = up / np.maximum(down, np.maximum(up * LEAST_SHARE, TINY))
    new: Matrix = np.multiply(X, change, dtype=np.float32)
    new[new < FLUSHED] = 0
    return new


def cold_start(G: Matrix, C: Matrix) -> Matrix:
    """Return the least squares solution with its negative entries cut off: where H starts when only W is known.

    G is (d, d), C is (d, n); the result (d, n) minimises ‖A − W H‖² + λ‖H‖² with λ = 1e-6 tr(G)/d before the cut.
    """
    d = len(G)
    ridge = 1e-6 * max(float(G.trace()) / d, float(np.finfo(np.float32).tiny))
    H = np.linalg.solve(G.astype(np.float64) + ridge * np.eye(d), C)
    return np.maximum(H, 0).astype(np.float32)


def gram(H: Matrix) -> NDArray[np.float64]:
    """H Hᵀ (d, d) of a factor (d, n), in float64: the terms of the loss nearly cancel once the fit is good."""
    wide = H.astype(np.float64)
    return wide @ wide.T
