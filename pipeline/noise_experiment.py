"""What noise a factorization removes: noise is added to images that are clean, and W H compared with both.

A small d does not learn what the images are made of, a large one learns the noise; and the more images there are, the
less of it. All ranks of one number of images and one level of noise are found on one sketch of the noisy images, and H
is solved for on these themselves.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_prep import store
from data_prep.folders import Where
from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.config import NMFConfig
from pipeline.kernels import Matrix
from pipeline.ladder import Ladder
from pipeline.noisy_stores import Pair, Squares, drawn, noisy_images, scratch, some_images
from pipeline.objective import settled
from pipeline.opening import check_reachable
from pipeline.plan import check_rank
from pipeline.small import ordered

SHOWN = 8
"""Images that are kept for pictures."""


class Fit(NamedTuple):
    """One factorization of noisy images."""

    d: int
    to_clean: float
    """‖A − W H‖ / ‖A‖, A being the images without noise."""
    to_noisy: float
    """‖A_noisy − W H‖ / ‖A‖."""
    psnr: float
    """Of the colours of W H as pictures, against those without noise, in dB."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A level of noise, and what becomes of it with so many images."""

    sigma: float
    n: int
    error: float
    """‖A_noisy − A‖ / ‖A‖."""
    psnr: float
    """Of the noisy pictures."""
    fits: Sequence[Fit]
    """By ascending d."""
    clean: NDArray[np.uint8]
    """Some images as stored, (m, k)."""
    noisy: NDArray[np.uint8]
    denoised: NDArray[np.uint8]
    """By the best d."""

    @property
    def best(self) -> Fit:
        """The one whose W H is nearest to the images without noise."""
        return min(self.fits, key=lambda fit: fit.to_clean)

    @property
    def inside(self) -> bool:
        """Whether smaller and larger d were tried: else the best may lie beyond."""
        return self.fits[0].d < self.best.d < self.fits[-1].d


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be tried."""

    ranks: Sequence[int]
    """Values of d, ascending."""
    sigmas: Sequence[float]
    """Levels of noise: standard deviations, where 1 is the largest pixel value."""
    counts: Sequence[int] = ()
    """Numbers of images, drawn at random, fewer of them among more; all images where none is given."""
    seed: int = 0
    """Of the noise and of everything else that is random."""
    memory_nbytes: int | None = None
    """What a worker may use; a share of what it has unless given."""


def noise_experiment(
    path: Where,
    asked: Asked,
    on_fit: Callable[[float, int, Fit], None] = lambda sigma, n, fit: None,
    enough: Callable[[Sequence[Fit]], bool] = lambda fits: False,
) -> list[Noise]:
    """Add noise to images, factorize them, and compare; on the active Dask client, or on threads.

    Copies of the images are in the store meanwhile: twice the largest number of them.

    Parameters
    ----------
    path
        A store of images without noise.
    asked
        Levels of noise, numbers of images, ranks.
    on_fit
        Called after each factorization.
    enough
        Whether larger ranks need not be tried, given what was found of smaller ones.

    Raises
    ------
    BadInput
        The store does not hold images, or fewer than are asked for.
    RefusedPlan
        A rank is above the number of images or of pixels, or the memory does not do.
    HeldError
        Another such experiment is made with this store.
    """
    matrix = store.open_matrix(path)
    check_images(matrix)
    counts = asked.counts or [matrix.n_ok]
    if max(counts) > matrix.n_ok:
        raise store.BadInput(f"{path} holds {matrix.n_ok:,} images, but --n asks for {max(counts):,}; ask for fewer")
    check_reachable(matrix)
    engine.give_back_large_arrays()
    found = []
    with threadpool_limits(limits=1, user_api="blas"), scratch(matrix) as home:
        for n in counts:
            columns = drawn(matrix, n)
            clean = some_images(matrix, home / "clean", columns)
            check_rank(clean, max(asked.ranks))
            for sigma in asked.sigmas:
                pair = noisy_images(clean, home / "noisy", columns, sigma, asked.seed)
                found.append(_level(pair, sigma, asked, on_fit, enough))
    return found


def check_images(matrix: StoredMatrix) -> None:
    """Raise BadInput where a store does not hold images, or none that is not black."""
    if "image_shape" not in matrix.attributes:
        raise store.BadInput(
            f"{matrix.path} does not hold images (kind: {matrix.attributes['kind']}), but noise is removed from these; "
            f"of other matrices `nmf-batch run` and `nmf-batch export` give W and H"
        )
    if not matrix.norm_squared:
        raise store.BadInput(f"{matrix.path} holds zeros alone, which have no noise")


def _level(
    pair: Pair,
    sigma: float,
    asked: Asked,
    on_fit: Callable[[float, int, Fit], None],
    enough: Callable[[Sequence[Fit]], bool],
) -> Noise:
    """Try all ranks on one number of images and one level of noise."""
    fits, best, least = list[Fit](), None, math.inf
    for fit, W in _fits(pair, asked):
        fits.append(fit)
        if fit.to_clean < least:
            best, least = W, fit.to_clean
        on_fit(sigma, pair.clean.shape[1], fit)
        if enough(fits):
            break
    assert best is not None
    clean, noisy, denoised = pair.shown(best, SHOWN)
    added = pair.noise()
    return Noise(
        sigma=sigma,
        n=pair.clean.shape[1],
        error=math.sqrt(added.clean / pair.clean.norm_squared),
        psnr=_psnr(added),
        fits=fits,
        clean=clean,
        noisy=noisy,
        denoised=denoised,
    )


def _fits(pair: Pair, asked: Asked) -> Iterator[tuple[Fit, Matrix]]:
    """Each rank, with its W (m, d)."""
    configs = {d: settled(NMFConfig(n_components=d, seed=asked.seed), pair.noisy) for d in asked.ranks}
    ladder = Ladder(pair.noisy, configs, memory_nbytes=asked.memory_nbytes)
    for rung in ladder.rungs():
        with ladder.place():
            W = ordered(rung.state)
        began, squares = time.perf_counter(), pair.measure(W)
        clean, noisy = (math.sqrt(one / pair.clean.norm_squared) for one in (squares.clean, squares.noisy))
        seconds = rung.seconds + time.perf_counter() - began
        yield Fit(rung.d, clean, noisy, _psnr(squares), seconds), W


def _psnr(squares: Squares) -> float:
    """10 log₁₀(1 / mean of the squares), in dB; infinite where nothing differs."""
    return 10 * math.log10(squares.n_seen / squares.pictures) if squares.pictures else math.inf
