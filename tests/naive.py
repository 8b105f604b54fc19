"""Slow, obvious references: formulas written down once more, an element at a time where that helps."""

import numpy as np


def mu(G, C, H):
    new = np.empty_like(H, dtype=np.float64)
    for k in range(H.shape[0]):
        for j in range(H.shape[1]):
            new[k, j] = H[k, j] * C[k, j] / sum(G[k, i] * H[i, j] for i in range(len(G)))
    return new


def hals_sweep(G, C, H):
    H = H.astype(np.float64)
    for k in range(len(H)):
        if G[k, k]:
            H[k] = np.maximum(0, H[k] + (C[k] - G[k] @ H) / G[k, k])
    return H


def squared_error(A, W, H):
    return sum((A[i, j] - W[i] @ H[:, j]) ** 2 for i in range(A.shape[0]) for j in range(A.shape[1]))


def matched_cosine(found, true):
    """Mean cosine between columns, paired one to one by the best total."""
    from scipy.optimize import linear_sum_assignment

    cosines = (found / np.linalg.norm(found, axis=0)).T @ (true / np.linalg.norm(true, axis=0))
    return cosines[linear_sum_assignment(-cosines)].mean()


def nnls_columns(W, A):
    """Exact non-negative least squares, a column at a time: H with the least ‖A − W H‖²."""
    from scipy.optimize import nnls

    return np.stack([nnls(W, column)[0] for column in A.T], axis=1)


def read_pgm(raw):
    """Binary PGM of 8 bits without comments: (height, width)."""
    fields, at = [], 0
    while len(fields) < 4:
        end = next(i for i in range(at, len(raw)) if raw[i : i + 1].isspace())
        fields.append(raw[at:end])
        at = end + 1
    magic, width, height, largest = fields
    assert (magic, largest) == (b"P5", b"255")
    return np.frombuffer(raw[at:], np.uint8).reshape(int(height), int(width))
