"""One pass over A: every block is visited once, and only sums come back.

One task a partition: read its blocks of A once, improve its part of H, and return only sums. What crosses the network
is W out, and (d, m) + (d, d) back, added as a tree in block order, so the result does not depend on how many workers
there are. H stays where it was computed.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline import engine
from pipeline.kernels import Matrix, Sum, gram

Improve = Callable[[Matrix, Matrix, Matrix | None], Matrix]
"""(WᵀW, WᵀA_j, H_j or None at a cold start) → a better H_j."""

Blocks = Iterable[NDArray[Any]]
"""Blocks of consecutive columns: a list in memory, or something that reads them when iterated."""


class Sums(NamedTuple):
    """What a pass returns: the sums over blocks of H_j A_jᵀ (d, m) and H_j H_jᵀ (d, d)."""

    HAt: Sum
    HHt: Sum


class Fixed(NamedTuple):
    """What every block needs of W: Wᵀ (d, m) and WᵀW (d, d)."""

    Wt: Matrix
    WtW: Matrix


@dataclass(frozen=True, kw_only=True)
class BlockMatrix:
    """A as partitions of blocks, stored or in memory; the one thing a solver asks of a matrix is `visit`."""

    partitions: Sequence[Any]
    """Each of Blocks, or a future of them on a cluster."""
    shape: tuple[int, int]
    scale: float
    """What block values are multiplied with."""
    norm_squared: float
    """‖A‖² of the scaled matrix."""

    def visit(self, Wt: Matrix, H: Sequence[Any], improve: Improve) -> tuple[list[Any], Sums]:
        """Improve H given W in one pass, and return it with the sums that improve W.

        Parameters
        ----------
        Wt
            Wᵀ, (d, m).
        H
            One item a partition: its blocks of H, each (d, c), or None where H starts cold.
        improve
            What is done to H_j, given WᵀW, WᵀA_j and H_j.

        Returns
        -------
        list, Sums
            The parts of H, where the engine keeps them, and the sums.
        """
        graph: dict[str, Any] = {"W": (fixed, Wt)}
        for k, (A_k, H_k) in enumerate(zip(self.partitions, H, strict=True)):
            graph[f"visit-{k}"] = (visit_partition, A_k, H_k, "W", improve, self.scale)
            graph[f"H-{k}"] = (_first, f"visit-{k}")
            graph[f"sums-0-{k}"] = (_second, f"visit-{k}")
        total = _add_as_tree(graph, len(self.partitions))
        parts = [f"H-{k}" for k in range(len(self.partitions))]
        return engine.run(graph, keep=parts, bring=total)


def fixed(Wt: Matrix) -> Fixed:
    """Prepare W for a pass; a task of its own, so that a lost copy is computed again like any other."""
    return Fixed(Wt, gram(Wt).astype(np.float32))


def visit_partition(A: Blocks, H: Blocks | None, W: Fixed, improve: Improve, scale: float) -> tuple[list[Matrix], Sums]:
    """Visit the blocks of a partition in order; sums over several blocks are in float64."""
    one_blas_thread()
    scaled: Matrix = W.Wt * np.float32(scale)  # scales the product, at the price of the small factor
    improved: list[Matrix] = []
    total: Sums | None = None
    for A_j, H_j in zip(A, itertools.repeat(None) if H is None else H, strict=H is not None):
        block: Matrix = A_j.astype(np.float32, copy=False)
        H_new = improve(W.WtW, scaled @ block, H_j)
        sums = Sums((H_new * np.float32(scale)) @ block.T, gram(H_new))
        total = sums if total is None else add(total, sums)
        improved.append(H_new)
        del block  # before the next one is made
    if total is None:
        raise ValueError("a partition has no blocks")
    return improved, total


def add(a: Sums, b: Sums) -> Sums:
    """Add the sums of neighbours, in float64."""
    return Sums(np.add(a.HAt, b.HAt, dtype=np.float64), np.add(a.HHt, b.HHt, dtype=np.float64))


@functools.cache
def one_blas_thread() -> None:
    """Give BLAS one thread in this process, once: tasks are the parallelism, and bits depend on the thread count."""
    threadpool_limits(limits=1, user_api="blas")


def _add_as_tree(graph: dict[str, Any], n: int) -> str:
    """Extend the graph by a tree that adds neighbours `sums-0-k` in order; returns the name of its root."""
    level = 0
    while n > 1:
        for k in range(0, n - 1, 2):
            graph[f"sums-{level + 1}-{k // 2}"] = (add, f"sums-{level}-{k}", f"sums-{level}-{k + 1}")
        if n % 2:
            graph[f"sums-{level + 1}-{n // 2}"] = f"sums-{level}-{n - 1}"
        n = -(-n // 2)
        level += 1
    return f"sums-{level}-0"


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]
