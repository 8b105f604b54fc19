"""What k-means makes of the columns of A: vector quantization, where H has one 1 in a column and zeros else."""

import math
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline import engine
from pipeline.blocks import side_by_side
from pipeline.kernels import Matrix
from pipeline.one_pass import BlockMatrix

MAX_COLUMNS, MAX_ITER = 10_000, 10
"""What k-means is bounded to, since it is there to compare with."""


def is_installed() -> bool:
    """Whether k-means can be computed: scikit-learn is an extra."""
    return find_spec("sklearn") is not None


def columns_of(B: BlockMatrix) -> Matrix:
    """Columns (l, k) of a sketch, evenly from all its partitions, as many as k-means is computed of."""
    share = -(-MAX_COLUMNS // len(B.partitions))
    return np.concatenate(engine.call_each(_evenly, [(part, share) for part in B.partitions]), axis=1)


def error(columns: Matrix, n: int, d: int, norm_squared: float, missed: float, seed: int) -> float | None:
    """‖A − W H‖ / ‖A‖ of k-means with d centres; None where there are fewer columns than centres.

    Parameters
    ----------
    columns
        What centres are found for, (l, k): coordinates of columns of A.
    n
        How many columns they stand for.
    d, seed
        Centres, and what they are drawn by at first.
    norm_squared, missed
        ‖A‖², and what of it coordinates do not tell, which no centre explains.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    k = columns.shape[1]
    if k < d:
        return None
    means = KMeans(d, n_init=1, max_iter=MAX_ITER, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(limits=1):  # sums of several threads come in any order
        warnings.simplefilter("ignore", ConvergenceWarning)  # columns may be alike
        inertia = float(means.fit(np.ascontiguousarray(columns.T)).inertia_)
    return math.sqrt((inertia * n / k + missed) / norm_squared)


def _evenly(blocks: Sequence[Any], count: int) -> Matrix:
    columns = np.concatenate(side_by_side(blocks), axis=1)
    return np.ascontiguousarray(columns[:, :: -(-columns.shape[1] // count)], np.float32)
