"""Which rank removes most noise from images that nobody knows without it.

To images y whose noise has the standard deviation σ some more is added, y₁ = y + α σ z; with y₂ = y − σ z / α that of
y₁ and that of y₂ are independent. So what W H of y₁ misses of y₂ is on average what it misses of the images without
noise, and a number that does not depend on W H. Without y₂, which is not made: ‖y − W H‖² + (‖y − W H‖² −
‖y₁ − W H‖²) / α² is on average the square of what W H misses.

References
----------
Oliveira, Lei & Tibshirani, "Unbiased risk estimation in the normal means problem via coupled bootstrap techniques",
arXiv:2111.09447, 2021. Pang, Zheng, Quan & Ji, "Recorrupted-to-Recorrupted", CVPR 2021.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from data_prep import store
from data_prep.folders import Where
from data_prep.store import StoredMatrix
from pipeline.noise_experiment import Asked, Fit, check_images, noise_experiment
from pipeline.noise_level import noise_level
from pipeline.noisy_stores import sampled_images

LADDER = (5, 7, 10, 14, 20, 28, 40, 60, 80, 120, 160, 200, 240, 280)
"""Ranks that are tried, up to half of the smaller side of A."""
ALPHA = 0.5
OTHER_SEED = 2**40
"""Is added to the seed: images that the experiment made noisy hold the noise of the seed itself."""
MOST_IMAGES = 5_000
"""That are looked at."""
WORSE = 2
"""So many ranks in turn that are worse than the best end the search."""


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """A rank, and why."""

    d: int
    sigma: float
    """Noise of the images as they tell it themselves, where 1 is the largest pixel value."""
    n: int
    """Images that were looked at."""
    errors: Mapping[int, float]
    """‖A − W H‖ / ‖A_noisy‖ to be expected, by rank, A being the images without noise."""
    why: str


def recommend_rank(
    path: Where,
    *,
    seed: int = 0,
    memory_nbytes: int | None = None,
    on_rank: Callable[[int, int], None] = lambda done, total: None,
) -> Recommended:
    """Recommend a rank for images that are noisy; on the active Dask client, or on threads.

    Parameters
    ----------
    path
        A store of noisy images.
    seed
        Of everything random.
    memory_nbytes
        What a worker may use; a share of what it has unless given.
    on_rank
        Called with how many ranks were tried, and of how many at most.

    Raises
    ------
    BadInput
        The store does not hold images, or no noise is found in them.
    HeldError
        Another process looks at the noise of this store.
    """
    matrix = store.open_matrix(path)
    check_images(matrix)
    sigma = noise_level(matrix)
    if not sigma:
        raise store.BadInput(f"no noise is found in {path}, so nothing says which d removes it; give -d")
    n = min(sampled_images(matrix), MOST_IMAGES)
    ranks = [d for d in LADDER if 2 * d <= min(matrix.shape[0], n)] or [1]
    asked = Asked(ranks=ranks, sigmas=[ALPHA * sigma], counts=[n], seed=seed + OTHER_SEED, memory_nbytes=memory_nbytes)
    done = iter(range(1, len(ranks) + 1))
    [found] = noise_experiment(path, asked, lambda *_: on_rank(next(done), len(ranks)), _passed)
    squares = {fit.d: _expected(fit) for fit in found.fits}
    d = min(squares, key=lambda d: squares[d])
    errors = {rank: math.sqrt(max(one, 0.0)) for rank, one in squares.items()}
    return Recommended(d=d, sigma=sigma, n=n, errors=errors, why=_why(matrix, d, sigma, n, errors, ranks))


def _expected(fit: Fit) -> float:
    """Square of the error to be expected, relative to the noisy images. See the head of this module."""
    return fit.to_clean**2 + (fit.to_clean**2 - fit.to_noisy**2) / ALPHA**2


def _passed(fits: Sequence[Fit]) -> bool:
    """Whether the best rank is behind."""
    return len(fits) > WORSE and all(_expected(one) > _expected(fits[-1 - WORSE]) for one in fits[-WORSE:])


def _why(matrix: StoredMatrix, d: int, sigma: float, n: int, errors: Mapping[int, float], ranks: Sequence[int]) -> str:
    of = f"{n:,} images" if n == matrix.n_ok else f"{n:,} of {matrix.n_ok:,} images, so that a larger d may do better"
    more = "; it still falls there, so that a larger d may do better" if d == ranks[-1] else ""
    return (
        f"d = {d}: noise of {sigma:.3f} of the range of a pixel is found, and W H is expected to be nearest to the "
        f"images without it ({errors[d]:.4f} of the norm of those with it){more}; from {of}"
    )
