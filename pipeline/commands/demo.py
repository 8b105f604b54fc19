"""nmf-batch demo: the whole way on data that it makes itself, so that what is true is known."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from dask.system import CPU_COUNT

from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.drawn import draw_faces, save_faces
from data_prep.images import Options, prepare
from data_prep.mixed import Mixture, mix_gaussians, points
from data_prep.store import BadInput
from pipeline.commands import options
from pipeline.factors import Factors
from pipeline.job import factorize
from pipeline.report.evolution import Snapshots, save_gif
from pipeline.report.pairs import pairs
from pipeline.report.sheets import basis_sheet, panel, save
from pipeline.transform import weights

N_COMPONENTS = 20
PANEL_IMAGES = (0, 1, 2)
N = {"faces": 3000, "gaussians": 16_000}
SLOWLY: dict[str, Any] = {"solver": "mu", "init": "random", "max_iter": 360}
"""Such that there is something to see: the default is there at once, and `hals` after seven iterations."""
N_SAMPLES, STAGES = 3, (0, 2, 6)
"""Samples that are drawn, and after which snapshots, besides the last one."""


@click.command(context_settings=options.CONTEXT)
@click.option(
    "--kind",
    type=click.Choice(tuple(N)),
    default="faces",
    help="Faces drawn from parts, or samples mixed from four Gaussians, which are found again one by one.",
)
@click.option("--out", type=click.Path(path_type=Path), default="demo", help="Folder to make.")
@click.option(
    "--images",
    "n",
    type=click.IntRange(min=N_COMPONENTS),
    help="How many faces to draw or samples to mix; 3000 faces or 16000 samples unless given.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of what is made and of the factorization.")
def demo(kind: str, out: Path, n: int | None, seed: int) -> None:
    """Make data from known parts, factorize them, and show the parts that were found.

    \b
    Example:
      nmf-batch demo
      nmf-batch demo --kind gaussians --out gaussians
    """
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty; choose another --out or remove it")
    (_faces if kind == "faces" else _gaussians)(out, n or N[kind], seed)


def _faces(out: Path, n: int, seed: int) -> None:
    images, store = out / "images", out / "faces.zarr"
    click.echo(f"drawing {n} faces of 48 × 40 pixels in {images}", err=True)
    save_faces(draw_faces(n, seed), images)
    click.echo(f"nmf-batch prep {images} --zarr {store}", err=True)
    with ThreadPoolExecutor(CPU_COUNT) as threads:
        prepare([images], store, Options(decoding=Decoding()), threads)
    click.echo(f"nmf-batch run --zarr {store} -d {N_COMPONENTS} --seed {seed}", err=True)
    result = factorize(store, N_COMPONENTS, seed=seed)
    save(basis_sheet(result.factors), out / "basis.png")
    save(panel(result.factors, PANEL_IMAGES), out / "panel.png")
    about = result.factors.attributes
    options.say(
        f"{out / 'basis.png'}: the {N_COMPONENTS} basis images that {n} faces are made of\n"
        f"{out / 'panel.png'}: image | basis | weights | W H\n"
        f"relative error {about['relative_error']:.4f} after {about['passes']:.3g} passes and "
        f"{about['n_iter']} iterations; `nmf-batch info --zarr {store}` says more"
    )


def _gaussians(out: Path, n: int, seed: int) -> None:
    if find_spec("matplotlib") is None:
        raise click.UsageError("curves are drawn by Matplotlib, which is not installed: pip install 'nmf-batch[plots]'")
    store, mixture = out / "gaussians.zarr", mix_gaussians(n, seed)
    d = mixture.shapes.shape[1]
    click.echo(f"mixing {n} samples of {len(mixture.A)} points from {d} Gaussians in {store}", err=True)
    write_matrix(store, mixture.A)
    how = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in SLOWLY.items())
    click.echo(f"nmf-batch run --zarr {store} -d {d} {how} --seed {seed}", err=True)
    snapshots = Snapshots(lambda W: W.T.copy())
    result = factorize(store, d, seed=seed, on_factors=snapshots, **SLOWLY)
    cosines = _drawn(mixture, result.factors, snapshots, out)
    about = result.factors.attributes
    options.say(
        f"{out / 'shapes.png'}: the shapes that were found over the true ones; cosines of each pair: "
        f"{', '.join(f'{cosine:.4f}' for cosine in cosines)}\n"
        f"{out / 'samples.png'}: samples, their true parts, and what W made of them after some iterations\n"
        f"{out / 'loss.png'}: the loss after each iteration\n"
        f"{out / 'evolution.gif'}: how W developed\n"
        f"relative error {about['relative_error']:.4f} after {about['n_iter']} iterations; "
        f"`nmf-batch info --zarr {store}` says more"
    )


def _drawn(mixture: Mixture, factors: Factors, snapshots: Snapshots, out: Path) -> list[float]:
    """Draw what was found beside what is true; returns the cosine of each true shape with its partner."""
    from pipeline.report import curves  # here: Matplotlib is an extra

    order, cosines = pairs(factors.read("W").T, mixture.shapes.T)
    shots = [shot._replace(picture=shot.picture[order]) for shot in snapshots.until(factors)]
    errors = np.array([iteration.relative_error for iteration in factors.iterations])
    fit = curves.Fit(points(), mixture.shapes, cosines, shots, errors)
    telling = np.argsort(-np.count_nonzero(mixture.amounts, axis=0), kind="stable")[:N_SAMPLES]  # of many parts
    A = mixture.A[:, telling]
    stages = [shots[k] for k in STAGES if k < len(shots) - 1] + [shots[-1]]
    rebuilt = [curves.Rebuilt(shot, weights(np.ascontiguousarray(shot.picture.T), A, 1.0)[0]) for shot in stages]
    curves.save(curves.shapes(fit), out / "shapes.png")
    curves.save(curves.samples(fit, A, mixture.amounts[:, telling], rebuilt), out / "samples.png")
    curves.save(curves.loss(fit), out / "loss.png")
    save_gif(curves.evolution(fit), out / "evolution.gif")
    return [float(cosine) for cosine in cosines]
