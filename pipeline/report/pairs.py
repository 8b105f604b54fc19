"""Which component of one factorization is which of another: they come in any order."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


class Pairs(NamedTuple):
    """One to one, with the largest sum of cosines."""

    order: NDArray[np.intp]
    """For each component of the second, which of the first is its partner."""
    cosines: NDArray[np.floating[Any]]
    """Of each pair, in the order of the second; 0 where a component vanished."""


def pairs(components: NDArray[Any], like: NDArray[Any]) -> Pairs:
    """Pair the components of two arrays (d, …) of one shape."""
    cosines = _unit(like) @ _unit(components).T
    rows, order = linear_sum_assignment(-cosines)
    return Pairs(order, cosines[rows, order])


def _unit(components: NDArray[Any]) -> NDArray[np.floating[Any]]:
    flat = components.reshape(len(components), -1).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)
