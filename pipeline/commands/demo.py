"""nmf-batch demo: the whole way on faces that it draws itself."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from dask.system import CPU_COUNT

from data_prep.decode import Decoding
from data_prep.drawn import draw_faces, save_faces
from data_prep.images import Options, prepare
from data_prep.store import BadInput
from pipeline.commands import options
from pipeline.job import factorize
from pipeline.report.sheets import basis_sheet, panel, save

N_COMPONENTS = 20
PANEL_IMAGES = (0, 1, 2)


@click.command(context_settings=options.CONTEXT)
@click.option("--out", type=click.Path(path_type=Path), default="demo", help="Folder to make.")
@click.option("--images", "n", type=click.IntRange(min=N_COMPONENTS), default=3000, help="How many faces to draw.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the faces and the factorization.")
def demo(out: Path, n: int, seed: int) -> None:
    """Draw faces, prepare them, factorize them, and show the basis images they are made of.

    \b
    Example:
      nmf-batch demo
    """
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty; choose another --out or remove it")
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
