"""nmf-batch denoise: noise away from images, or on them to see what of it goes away."""

import json
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import click

from data_prep.folders import Folder, folder
from data_prep.store import open_matrix
from pipeline.commands import options, progress, values
from pipeline.commands.signals import Interrupted, SafePoint, safe_point
from pipeline.denoised import check_out, write_denoised
from pipeline.denoising_rank import Recommended, recommend_rank
from pipeline.factors import Factors, open_factors
from pipeline.job import factorize
from pipeline.noise_experiment import Asked, Fit, Noise, noise_experiment
from pipeline.record import Iteration
from pipeline.report.sheets import noise_sheet, save

HEADINGS = ("sigma", "images", "d", "to clean", "to noisy", "PSNR", "seconds")


@click.command(context_settings=options.CONTEXT)
@options.zarr
@click.option("-d", "ranks", type=values.Counts("ranks"), help="Rank; of an experiment all: 5,10,20, or 5,10,...,200.")
@click.option("--out", help="Store to write images to from which noise is removed: a path, or an address.")
@click.option("--name", type=values.Name(), help="With --out: a factorization that is there, in place of -d.")
@click.option("--sigma", "sigmas", type=values.Levels(), help="Experiment: levels of noise to add: 0.05,0.1,0.2.")
@click.option("--n", "counts", type=values.Counts("numbers"), help="Experiment: numbers of images: 500,2000; or all.")
@click.option("--plot", type=values.Chart(), help="Experiment: PNG of errors against d; needs the extra plots.")
@click.option("--sheet", type=values.NewFile(), help="Experiment: PNG of images with noise, and without it again.")
@click.option("--seed", type=click.IntRange(min=0), default=options.DEFAULTS["seed"], help="Of everything random.")
@options.memory
@options.place
@options.as_json
def denoise(
    path: Folder,
    ranks: Sequence[int] | None,
    out: str | None,
    name: str | None,
    sigmas: Sequence[float] | None,
    counts: Sequence[int] | None,
    plot: Path | None,
    sheet: Path | None,
    seed: int,
    memory: int | None,
    place: options.Place,
    as_json: bool,
) -> None:
    """Remove noise from images; or add noise to images without it, and see which d removes most.

    With --out the images are factorized as `run` would do it, and W H is written as a store of its own, whose opacity,
    and colour of what is transparent, are those of the images. Without -d that rank is taken from which the least
    error is to be expected; for this more noise is added, as strong as what is found.

    With --sigma Gaussian noise is added to all colours that are not zero. Errors are ‖A − W H‖ / ‖A‖ to the clean
    images A, and ‖A_noisy − W H‖ / ‖A‖; PSNR is of the colours of W H as pictures.

    \b
    Example:
      nmf-batch denoise --zarr noisy.zarr --out clean.zarr
      nmf-batch denoise --zarr punks.zarr --sigma 0.05,0.1,0.2 -d 5,10,20,40,80,120,160,200 --n 500,2000,10000
    """
    if (out is None) == (sigmas is None):
        raise click.UsageError(
            "give --out STORE to remove noise from images that have it, or --sigma 0.05,0.1 to add it to those without"
        )
    ways = _Ways(seed, memory, place, as_json)
    if out is not None:
        _check_alone("--out", {"--n": counts, "--plot": plot, "--sheet": sheet})
        with options.as_usage_error():
            where = folder(out)
        _remove(path, where, _one_of(ranks, name), name, ways)
    if sigmas is not None:
        _check_alone("--sigma", {"--name": name})
        if ranks is None:
            raise click.UsageError("-d is missing: ranks to try, such as 5,10,20,40,80,120,200")
        asked = Asked(ranks=ranks, sigmas=sigmas, counts=counts or (), seed=seed, memory_nbytes=memory)
        _try(path, asked, ways, plot, sheet)


class _Ways(NamedTuple):
    """How, besides what."""

    seed: int
    memory: int | None
    place: options.Place
    as_json: bool


def _check_alone(flag: str, others: dict[str, Any]) -> None:
    for other, given in others.items():
        if given is not None:
            raise click.UsageError(f"{other} and {flag} do not go together; leave one of them out")


def _one_of(ranks: Sequence[int] | None, name: str | None) -> int | None:
    """The rank that is asked for, where one is."""
    if ranks is not None and name is not None:
        raise click.UsageError("--name is of a factorization that is there, so that its d is known; leave out -d")
    if ranks is not None and len(ranks) != 1:
        raise click.UsageError("--out takes one rank: -d 64; without -d one is recommended")
    return ranks[0] if ranks else None


def _remove(path: Folder, out: Folder, d: int | None, name: str | None, ways: _Ways) -> None:
    """Remove noise, by a factorization that is there, or by one of a rank that is given or found."""
    check_out(out)
    summary: dict[str, Any] = {}
    with safe_point() as point, options.connected(ways.place):
        if name is None and d is None:
            found = _recommended(path, ways, point)
            d, summary = found.d, {"sigma": found.sigma, "expected_errors": found.errors}
        factors = open_factors(path, name) if name else _factorized(path, d, ways, point)
        shown, total = progress.Progress("chunk"), open_matrix(path).n_chunks

        def tell(done: int) -> None:
            shown(done, total)
            point()

        made = write_denoised(factors, out, tell)
    shown.close()
    d = factors.attributes["parameters"]["n_components"]
    summary |= {"out": str(out), "n": made.n, "d": d, "changed": made.changed, "revision": factors.path.name}
    text = f"{out}: {made.n:,} images, d = {d}; colours have changed by {made.changed:.4f} of their range (RMS)"
    options.say(json.dumps(summary) if ways.as_json else text)


def _recommended(path: Folder, ways: _Ways, point: SafePoint) -> Recommended:
    shown = progress.Progress("rank")

    def tried(done: int, total: int) -> None:
        shown(done, total)
        point()

    found = recommend_rank(path, seed=ways.seed, memory_nbytes=ways.memory, on_rank=tried)
    shown.close()
    click.echo(found.why, err=True)
    return found


def _factorized(path: Folder, d: int | None, ways: _Ways, point: SafePoint) -> Factors:
    assert d is not None  # it was given, or recommended
    shown = progress.Progress("iteration")

    def show(iterations: Sequence[Iteration]) -> None:
        last = iterations[-1]
        shown(len(iterations), max_iter, f"{last.phase}  relative error {last.relative_error:.4f} ")
        point()

    max_iter = options.DEFAULTS["max_iter"]
    factors = factorize(path, d, seed=ways.seed, memory_nbytes=ways.memory, on_iteration=show).factors
    shown.close()
    return factors


def _try(path: Folder, asked: Asked, ways: _Ways, plot: Path | None, sheet: Path | None) -> None:
    """Make the experiment."""
    shown, done = progress.Progress("factorization"), count(1)
    total = len(asked.ranks) * len(asked.sigmas) * max(1, len(asked.counts))

    def show(sigma: float, n: int, fit: Fit) -> None:
        shown(next(done), total, f"sigma {sigma:g}, {n:,} images, d = {fit.d}  {fit.to_clean:.4f} to the clean ones ")
        point()

    with safe_point() as point, options.connected(ways.place):
        try:
            found = noise_experiment(path, asked, show)
        except Interrupted as error:
            error.add_note("nothing is kept of an experiment; the same command begins it again")
            raise
    shown.close()
    for line in _json(found) if ways.as_json else _table(found):
        options.say(line)
    if plot:
        from pipeline.report.noise_chart import save_noise_chart  # here: Matplotlib is an extra

        save_noise_chart(found, plot)
        click.echo(f"{plot}: errors against d", err=True)
    if sheet:
        most = [noise for noise in found if noise.n == found[-1].n]
        lots = [most[0].clean, *(lot for noise in most for lot in (noise.noisy, noise.denoised))]
        save(noise_sheet(tuple(open_matrix(path).attributes["image_shape"]), lots), sheet)
        click.echo(f"{sheet}: images, then those with noise and without it again, for each sigma", err=True)


def _json(found: Sequence[Noise]) -> list[str]:
    """An object a factorization, then one for each number of images and level of noise."""
    fits = [{"sigma": one.sigma, "n": one.n, **_told(fit)} for one in found for fit in one.fits]
    levels = [
        {
            "sigma": one.sigma,
            "n": one.n,
            "best": _told(one.best),
            "inside": one.inside,
            "noise": one.error,
            "noise_psnr": _finite(one.psnr),
        }
        for one in found
    ]
    return [json.dumps(one) for one in [*fits, {"levels": levels}]]


def _told(fit: Fit) -> dict[str, Any]:
    return fit._asdict() | {"psnr": _finite(fit.psnr)}


def _finite(psnr: float) -> float | None:
    """PSNR as JSON knows it, which has no infinity: None where nothing differs."""
    return psnr if math.isfinite(psnr) else None


def _table(found: Sequence[Noise]) -> list[str]:
    rows = [HEADINGS, *(_cells(noise, fit) for noise in found for fit in noise.fits)]
    return [*options.in_columns(rows), *map(_best, found)]


def _cells(noise: Noise, fit: Fit) -> tuple[str, ...]:
    errors = (f"{one:.4f}" for one in (fit.to_clean, fit.to_noisy))
    return (f"{noise.sigma:g}", f"{noise.n:,}", str(fit.d), *errors, f"{fit.psnr:.1f}", f"{fit.seconds:.1f}")


def _best(noise: Noise) -> str:
    best = noise.best
    beyond = "" if noise.inside else "; it is at the end of those that were tried, so that others may be better"
    return (
        f"sigma = {noise.sigma:g}, {noise.n:,} images: d = {best.d} is best, {best.to_clean:.4f} to the clean images "
        f"where the noisy ones are {noise.error:.4f}, PSNR {best.psnr:.1f} dB where they have {noise.psnr:.1f}{beyond}"
    )
