"""One pass over A: every block is visited once, and only sums come back.

One task a partition: read its blocks of A once, improve its part of H, and return only sums. What crosses the network
is W out, and (m, d) + (d, d) back, added as a tree in block order, so the result does not depend on how many workers
there are. H stays where it was computed.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.basis import Added, Basis, Sums, squares
from pipeline.blocks import like, read_ahead
from pipeline.kernels import Matrix, gram
from pipeline.panels import BackProjection, Columns, aligned, one_blas_thread, project, residuals, squared_residual
from pipeline.penalties import NONE, Weights, penalised
from pipeline.sparse import lists_entries

S = TypeVar("S", bound=Added)

ELSEWHERE = np.zeros(0)
"""In the sums of a block in place of A Hᵀ, which `BackProjection` sums for a partition."""

Improve = Callable[[Matrix, Matrix, Matrix | None], Matrix]
"""(WᵀW, WᵀA_j, H_j or None at a cold start) → a better H_j."""

Blocks = Iterable[Columns]
"""Blocks of consecutive columns: a list in memory, or something that reads them when iterated."""


class Also(NamedTuple):
    """What a visit is asked for besides the sums that improve W."""

    residual: bool = False
    """To sum ‖A_j − W H_j‖² too, which costs a third product."""
    gradient: bool = False
    """To sum the squares of the projected gradient of H."""
    ahead: tuple[Sequence[Any], float] | None = None
    """To start from H + β (H − H_before), given the parts of H_before and β."""
    penalty: Weights = NONE
    """On H, which its gradient knows of; its sum is returned where the penalty is of that."""


class Parts(list[Any]):
    """H, a part a partition, and from which stored H it was made: that one stays as long as this one is in use."""

    def __init__(self, parts: Iterable[Any], since: str | None = None) -> None:
        super().__init__(parts)
        self.since = since


class Spill(Protocol):
    """Where tasks of a visit store H."""

    @property
    def name(self) -> str:
        """Of the stored array."""
        ...

    def __call__(self, k: int, visited: "tuple[list[Matrix], Added]") -> Any:
        """(partition, result of its visit) → what the next pass reads its H from."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlockMatrix:
    """A as partitions of blocks, stored or in memory; what a solver asks of a matrix is a visit."""

    partitions: Sequence[Any]
    """Each of Blocks, or a future of them on a cluster."""
    shape: tuple[int, int]
    scale: float
    """What block values are multiplied with."""
    norm_squared: float
    """‖A‖² of the scaled matrix."""
    spill: Callable[[str | None], Spill | None] = lambda in_use: None
    """Asked before each visit, with the name of the stored H that is in use: where tasks store theirs, if they do."""
    on_visit: Callable[[], None] = lambda: None
    """Told of each visit."""

    def visit(
        self,
        W: Basis,
        H: Sequence[Any],
        improve: Improve,
        also: Also = Also(),  # noqa: B008  # it is immutable
    ) -> tuple[Sequence[Any], Sums]:
        """Improve H given W in one pass, and return it with the sums that improve W.

        Parameters
        ----------
        W
            The fixed factor.
        H
            One item a partition: its blocks of H, each (d, c), or None where H starts cold.
        improve
            What is done to H_j, given WᵀW, WᵀA_j and H_j.
        also
            What else is asked for.

        Returns
        -------
        Sequence, Sums
            The parts of H, where the engine keeps them or as blocks that tasks stored, and the sums.
        """
        how = Arithmetic(self.scale, also.residual, also.gradient, also.penalty)
        if also.ahead is not None:
            before, beta = also.ahead
            H = Parts([(extrapolated, H_k, before[k], beta) for k, H_k in enumerate(H)], getattr(H, "since", None))
        return self.run(Visit(improve, how), W, H)

    def run(
        self, visit: "Callable[[Any, Any, Basis], tuple[list[Matrix], S]]", W: Basis, H: Sequence[Any]
    ) -> tuple[Sequence[Any], S]:
        """Run a pass, whatever is done in it.

        Parameters
        ----------
        visit
            (blocks of a partition, its blocks of H or None, W) → its new blocks of H, and sums.
        W, H
            As for a visit.

        Returns
        -------
        Sequence, sums
            The parts of H, where the engine keeps them or as blocks that tasks stored, and the sums of all partitions.
        """
        self.on_visit()
        spill = self.spill(getattr(H, "since", None))
        graph: dict[str, Any] = {"W": (Basis, *W)}  # a task, so that a worker's lost copy is made again
        for k, (A_k, H_k) in enumerate(zip(self.partitions, H, strict=True)):
            graph[f"visit-{k}"] = (visit, A_k, H_k, "W")
            graph[f"H-{k}"] = (_first, f"visit-{k}") if spill is None else (spill, k, f"visit-{k}")
        total = _add_as_tree(graph, len(self.partitions))
        parts = [f"H-{k}" for k in range(len(self.partitions))]
        if spill is None:
            H_new, (sums,) = engine.run(graph, keep=parts, bring=[total])
        else:
            _, (sums, *H_new) = engine.run(graph, keep=[], bring=[total, *parts])
        since = getattr(H, "since", None) if spill is None else spill.name
        return Parts(H_new, since), each_array(aligned, sums)

    def worst_fitted(self, W: Basis, H: Sequence[Any], count: int) -> list[Matrix]:
        """What of the columns (m,) with the largest residuals W H misses, in order; costs a pass.

        Parameters
        ----------
        W, H
            As for a visit; H is not cold.
        count
            How many columns, where there are so many.
        """
        self.on_visit()
        parts = zip(self.partitions, H, strict=True)
        found = engine.call_each(worst_of_partition, [(A_k, H_k, W.W, count, self.scale) for A_k, H_k in parts])
        return [missed for _, missed in sorted(itertools.chain(*found), key=lambda one: -one[0])[:count]]


class Arithmetic(NamedTuple):
    """How blocks are computed with."""

    scale: float
    """What stored values are multiplied with."""
    residual: bool = False
    """Whether the residual is summed."""
    gradient: bool = False
    """Whether the projected gradient of H is summed."""
    penalty: Weights = NONE
    """On H."""


@dataclass(frozen=True)
class Visit:
    """The task of a visit."""

    improve: Improve
    how: Arithmetic

    def __call__(self, A: Blocks, H: Blocks | None, W: Basis) -> tuple[list[Matrix], Sums]:
        """Visit the blocks of a partition."""
        return visit_partition(A, H, W, self.improve, self.how)


def visit_partition(
    A: Blocks, H: Blocks | None, W: Basis, improve: Improve, how: Arithmetic
) -> tuple[list[Matrix], Sums]:
    """Visit the blocks of a partition in order; sums over several are in float64, but A Hᵀ goes out in float32."""
    one_blas_thread()
    W_aligned, WtW = aligned(W.W), W.WtW.astype(np.float32)
    lengths = np.sqrt(W.WtW.diagonal())[:, None]
    per_length = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    improved: list[Matrix] = []
    AHt, total = BackProjection(how.scale), None
    for A_j, H_j in like(read_ahead(A), H):
        WtA = project(A_j, W_aligned, how.scale)
        H_new = improve(WtW, WtA, None if H_j is None else aligned(H_j))
        missed = squared_residual(A_j, W_aligned, H_new, how.scale) if how.residual else None
        gradient = _gradient(*penalised(WtW, WtA, how.penalty), H_new, per_length) if how.gradient else None
        total_H = float(H_new.sum(dtype=np.float64)) if how.penalty.l1 else None
        AHt.add(A_j, H_new)
        sums = Sums(ELSEWHERE, gram(H_new), missed, gradient, total_H)
        total = sums if total is None else accumulate(total, sums)
        improved.append(H_new)
    if total is None:
        raise ValueError("a partition has no blocks")
    return improved, total._replace(AHt=AHt.total())


def _gradient(G: Matrix, C: Matrix, H: Matrix, per_length: NDArray[np.float64]) -> NDArray[np.float64]:
    return squares(H, G @ H - C, C, per_length)


def extrapolated(H: Blocks, before: Blocks, beta: float) -> list[Matrix]:
    """H + β (H − H_before), block by block, and zero where that is negative."""
    pairs = ((aligned(H_j), aligned(H_before)) for H_j, H_before in zip(H, before, strict=True))
    return [np.maximum(H_j + np.float32(beta) * (H_j - H_before), 0) for H_j, H_before in pairs]


def worst_of_partition(A: Blocks, H: Blocks, W: Matrix, count: int, scale: float) -> list[tuple[float, Matrix]]:
    """Squared residuals of the worst fitted columns of a partition, and what is missed of each (m,)."""
    one_blas_thread()
    worst: list[tuple[float, Matrix]] = []
    for A_j, H_j in like(read_ahead(A), map(aligned, H)):
        assert H_j is not None  # since H is not
        errors = sum(np.square(part).sum(axis=0, dtype=np.float64) for part in residuals(A_j, aligned(W), H_j, scale))
        chosen = np.argsort(-errors, kind="stable")[:count]
        columns = A_j[:, chosen].toarray() if lists_entries(A_j) else A_j[:, chosen]
        missed = columns * np.float32(scale) - aligned(W) @ H_j[:, chosen]
        worst += [(float(errors[j]), image) for j, image in zip(chosen, missed.T, strict=True)]
        worst = sorted(worst, key=lambda one: -one[0])[:count]
    return worst


def add(a: S, b: S) -> S:
    """Add the sums of neighbours, in float64."""
    return accumulate(each_array(lambda values: values.astype(np.float64), a), b)


def accumulate(total: S, sums: S) -> S:
    """Add sums to a total, whose arrays are overwritten where they are in float64 already; what one lacks, it lacks."""
    return type(total)(*(_plus(a, b) for a, b in zip(total, sums, strict=True)))


def _plus(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    if not isinstance(a, np.ndarray):
        return a + b
    wide = a.astype(np.float64, copy=False)
    wide += b
    return wide


def each_array(function: Callable[[NDArray[Any]], NDArray[Any]], sums: S) -> S:
    """Sums with a function applied to those that are arrays."""
    fields: Any = (function(one) if isinstance(one, np.ndarray) else one for one in sums)
    return type(sums)(*fields)


def _add_as_tree(graph: dict[str, Any], n: int) -> str:
    """Extend the graph by a tree that adds the sums of `visit-k` in order; returns the name of its root."""
    for k in range(0, n - 1, 2):
        graph[f"sums-1-{k // 2}"] = (_add_visits, f"visit-{k}", f"visit-{k + 1}")
    if n % 2:
        graph[f"sums-1-{n // 2}"] = (_second, f"visit-{n - 1}")
    n, level = -(-n // 2), 1
    while n > 1:
        for k in range(0, n - 1, 2):
            graph[f"sums-{level + 1}-{k // 2}"] = (add, f"sums-{level}-{k}", f"sums-{level}-{k + 1}")
        if n % 2:
            graph[f"sums-{level + 1}-{n // 2}"] = f"sums-{level}-{n - 1}"
        n = -(-n // 2)
        level += 1
    return f"sums-{level}-0"


def _add_visits(a: tuple[Any, S], b: tuple[Any, S]) -> S:
    return add(a[1], b[1])


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]
