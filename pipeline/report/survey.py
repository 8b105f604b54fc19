"""What a report says of components and columns: H is read in chunks, and of A as much as is worth it.

A component's part of A is w_k h_kᵀ, whose size does not depend on how W and H share their scale.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_prep import store
from data_prep.sample import read_columns, read_sample, read_sample_columns, read_sample_mask
from data_prep.store import StoredMatrix
from pipeline.blocks import StoredBlocks, read_ahead
from pipeline.config import NMFConfig
from pipeline.entries import PRESENT
from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.objective import which
from pipeline.panels import panel, panels
from pipeline.which import Which

WORTHWHILE = 2**36
"""Multiplications for the errors of columns: seconds. Where A would take more, those of its stored sample are told."""
USERS, EACH = 3, 4
"""Columns told of each component, and of each kind of reconstruction."""
COMPARED = 200
"""Components that are compared with each other, those of most energy: d² n multiplications."""
MAP_COLUMNS = 240
"""Columns of the weights' heat map."""
TOGETHER = 1024


class Components(NamedTuple):
    """What each of the d components is in all columns, in the order of their energy."""

    order: NDArray[np.intp]
    """Numbers of the components, (d,): most energy first. All else here is in that order."""
    energy: NDArray[np.float64]
    """‖w_k h_kᵀ‖² as a share of the sum of these, (d,)."""
    users: NDArray[np.int64]
    """Numbers of the columns that use it most, (d, ≤ USERS); −1 where there are not so many."""
    cosines: NDArray[np.float64]
    """Of the columns of W, of the first COMPARED components with each other."""
    correlations: NDArray[np.float64]
    """Of the rows of H, over the columns of A that could be read, likewise."""


class Errors(NamedTuple):
    """How well columns are met."""

    columns: NDArray[np.int64]
    """Their numbers, (q,), ascending."""
    relative: NDArray[np.float64]
    """‖a − w h‖ / ‖a‖ over the entries that are present, (q,)."""
    whole: bool
    """Whether these are all columns that hold anything, else those of the stored sample."""

    def of(self, columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Errors of some of these columns."""
        return self.relative[np.searchsorted(self.columns, columns)]


@dataclass(frozen=True)
class Survey:
    """All of it."""

    W: Matrix
    components: Components
    errors: Errors
    shown: Mapping[str, NDArray[np.int64]]
    """Columns whose reconstructions are shown: the best, those about the median, the worst, and random ones."""
    map_columns: NDArray[np.int64]
    """Columns of the heat map, those together whose largest part is of the same component."""
    map_weights: Matrix
    """Norms of the parts that the components have in these, (d, ≤ MAP_COLUMNS), in the order of energy."""


def survey(factors: Factors) -> Survey:
    """Look at a factorization. Takes the memory of W, of a chunk of A and of H and of the stored sample."""
    matrix = store.open_matrix(factors.home)
    with threadpool_limits(limits=1, user_api="blas"):  # the same figures on every machine of a kind
        W = factors.read("W")
        ok = store.read_array(matrix.path, "ok", factors.attributes["shape"][1])
        components = _components(factors, W, ok)
        errors = _errors(factors, matrix, W, ok)
        columns = errors.columns[_evenly(len(errors.columns), MAP_COLUMNS)]
        H, order = columns_of_H(factors, columns), components.order
        parts = (H * np.linalg.norm(W, axis=0)[:, np.newaxis])[order]
        together = np.lexsort((-parts.max(axis=0, initial=0), parts.argmax(axis=0)))
    shown = _shown(errors, factors.attributes["seed"])
    return Survey(W, components, errors, shown, columns[together], parts[:, together])


def columns_of_H(factors: Factors, columns: NDArray[np.int64]) -> Matrix:
    """Some columns of H, (d, k)."""
    found = read_columns(factors.path, columns, "H")
    d = factors.attributes["parameters"]["n_components"]
    return np.stack([found[int(j)] for j in columns], axis=1) if len(columns) else np.zeros((d, 0), np.float32)


def present_in(factors: Factors, A: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Which entries of some columns of A are present (m, c), those held out included; None where all are.

    Parameters
    ----------
    factors
        Whose objective it is that may leave entries out.
    A
        As stored, (m, c).
    mask
        The stored mask of these columns, (m, c), where there is one.
    """
    counted = _counted(factors)
    if not counted.masked:
        return None
    return counted.what(A, mask, np.arange(A.shape[1])) == PRESENT


def _counted(factors: Factors) -> Which:
    config = replace(NMFConfig(**factors.attributes["parameters"]), holdout=0.0)
    return which(config, store.open_matrix(factors.home))


def _components(factors: Factors, W: Matrix, ok: NDArray[np.bool_]) -> Components:
    d, norms = W.shape[1], np.linalg.norm(W, axis=0).astype(np.float64)
    squares, users, most = np.zeros(d), np.zeros((d, 0), np.int64), np.zeros((d, 0), np.float32)
    for span, H in factors.chunks_of_H():
        squares += np.einsum("kj,kj->k", H, H, dtype=np.float64)
        first = _largest(H)
        users = np.hstack([users, first + span.start])
        most = np.hstack([most, np.take_along_axis(H, first, axis=1)])
        best = _largest(most)
        users, most = np.take_along_axis(users, best, axis=1), np.take_along_axis(most, best, axis=1)
    energies = norms**2 * squares
    order = np.argsort(-energies, kind="stable")
    shown = W[:, order[:COMPARED]].astype(np.float64)
    return Components(
        order=order,
        energy=energies[order] / max(energies.sum(), np.finfo(np.float64).tiny),
        users=np.where(most > 0, users, -1)[order],
        cosines=_normed(shown.T @ shown),
        correlations=_normed(_covariances(factors, order[:COMPARED], max(int(ok.sum()), 1))),
    )


def _covariances(factors: Factors, rows: NDArray[np.intp], n: int) -> NDArray[np.float64]:
    """Covariances of some rows of H over n columns, the only ones that are not zero."""
    HHt, sums = np.zeros((len(rows), len(rows))), np.zeros(len(rows))
    for H in (H[rows] for _, H in factors.chunks_of_H()):
        HHt += H @ H.T
        sums += H.sum(axis=1, dtype=np.float64)
    return HHt / n - np.outer(sums / n, sums / n)


def _largest(H: Matrix) -> NDArray[np.intp]:
    """Places of the largest weights of each row, (d, ≤ USERS), the largest first; of equals the first."""
    left, found = H.copy(), []
    for _ in range(min(USERS, H.shape[1])):
        found.append(left.argmax(axis=1))
        left[np.arange(len(left)), found[-1]] = -1
    return np.stack(found, axis=1)


def _normed(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of vectors as if they had norm 1, (d, d); 0 with those that vanish."""
    norms = np.sqrt(np.maximum(products.diagonal(), 0))
    scales = np.outer(norms, norms)
    return np.clip(np.divide(products, scales, out=np.zeros_like(products), where=scales > 0), -1, 1)


def _errors(factors: Factors, matrix: StoredMatrix, W: Matrix, ok: NDArray[np.bool_]) -> Errors:
    m, n = factors.attributes["shape"]
    affordable = WORTHWHILE // (m * W.shape[1])
    whole = affordable >= n
    source = _all_columns(factors, matrix) if whole else _sampled_columns(factors, matrix, affordable)
    numbers, relative = [], []
    for columns, A, mask, H in source:
        misfits, squares = _misfits(W, H, A, present_in(factors, A, mask), matrix.scale)
        told = ok[columns] & (squares > 0)
        numbers.append(columns[told])
        relative.append(np.sqrt(misfits[told] / squares[told]))
    columns = np.concatenate(numbers)
    order = np.argsort(columns)
    return Errors(columns[order], np.concatenate(relative)[order], whole)


class _Columns(NamedTuple):
    """Some columns of A, as stored, with their mask where there is one, and of H."""

    columns: NDArray[np.int64]
    A: NDArray[Any]
    mask: NDArray[np.bool_] | None
    H: Matrix


def _all_columns(factors: Factors, matrix: StoredMatrix) -> Iterator[_Columns]:
    n = factors.attributes["shape"][1]
    chunks = range(-(-n // matrix.chunk_images))
    A = read_ahead(StoredBlocks(matrix.path, "A", chunks, n=matrix.shape[1]))
    masks = repeat(None) if matrix.n_present is None else StoredBlocks(matrix.path, "mask", chunks, n=matrix.shape[1])
    for A_j, mask, (span, H) in zip(A, masks, factors.chunks_of_H(), strict=False):
        c = span.stop - span.start  # since then, an append may have filled the last chunk
        yield _Columns(np.arange(span.start, span.stop), A_j[:, :c], None if mask is None else mask[:, :c], H)


def _sampled_columns(factors: Factors, matrix: StoredMatrix, affordable: int) -> Iterator[_Columns]:
    k = max(TOGETHER, affordable)
    columns, A = read_sample_columns(matrix, k), read_sample(matrix, k)
    mask = None if matrix.n_present is None else read_sample_mask(matrix, k)
    known = np.flatnonzero(columns < factors.attributes["shape"][1])
    H = columns_of_H(factors, columns[known])
    for first in range(0, len(known), TOGETHER):
        those = slice(first, first + TOGETHER)
        at = known[those]
        yield _Columns(columns[at], A[:, at], None if mask is None else mask[:, at], H[:, those])


def _misfits(
    W: Matrix, H: Matrix, A: NDArray[Any], present: NDArray[np.bool_] | None, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """‖a − W h‖² and ‖a‖² of each column (c,), over its entries that are present.

    The difference is made entry by entry: of sums alone, as a pass has them, little is left where the fit is good.
    """
    misfits, squares = np.zeros(A.shape[1]), np.zeros(A.shape[1])
    for rows in panels(A):
        a = panel(A, rows) * np.float32(scale)
        difference = a - W[rows] @ H
        if present is not None:
            a, difference = a * present[rows], difference * present[rows]
        misfits += np.einsum("ij,ij->j", difference, difference, dtype=np.float64)
        squares += np.einsum("ij,ij->j", a, a, dtype=np.float64)
    return misfits, squares


def _shown(errors: Errors, seed: int) -> dict[str, NDArray[np.int64]]:
    q = len(errors.columns)
    ranked = errors.columns[np.argsort(errors.relative, kind="stable")]
    first = max(0, (q - EACH) // 2)
    drawn = np.random.default_rng(seed).choice(q, min(EACH, q), replace=False)
    return {
        "best": ranked[:EACH],
        "median": ranked[first : first + EACH],
        "worst": ranked[::-1][:EACH],
        "random": errors.columns[np.sort(drawn)],
    }


def _evenly(q: int, most: int) -> NDArray[np.intp]:
    """At most so many of q places, evenly spread."""
    return np.unique(np.linspace(0, q - 1, min(q, most)).round().astype(np.intp)) if q else np.zeros(0, np.intp)
