"""nmf-batch export: pictures, or W and H, as files that other programs read."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from data_prep.folders import Folder
from data_prep.store import StoredMatrix, open_matrix
from pipeline.commands import options, progress, values
from pipeline.commands.signals import SafePoint, safe_point
from pipeline.factors import Factors, open_factors
from pipeline.new_files import NewFolder, new_file
from pipeline.report.pictures import Chosen, Written, write_basis, write_reconstructions
from pipeline.written_out import FORMATS, write_factor

PICTURES, FACTORS = ("basis", "reconstructions"), ("W", "H")


@click.command(context_settings=options.CONTEXT)
@click.argument("what", type=click.Choice([*PICTURES, *FACTORS]))
@options.zarr
@options.factorization
@click.option("--out", required=True, help="Path: a new or empty folder for pictures, a new file for W or H.")
@click.option("--names", "pattern", help="Reconstruct only images of such names: 'faces/0001*'.")
@click.option("--limit", type=click.IntRange(min=1), help="Reconstruct the first so many of them only.")
@options.as_json
def export(what: str, path: Folder, name: str, out: str, pattern: str | None, limit: int | None, as_json: bool) -> None:
    """Write pictures, or the factors themselves, as files that other programs read.

    \b
    basis            a PNG for each column of W, stretched to its maximum: component00.png
    reconstructions  a PNG of W h for each readable image, at its name: x/y.jpg as x/y.png
    W, H             one file, as its name ends: .npy, .csv or .parquet

    Where two names are the same picture, as a.jpg and a.tif, the second has the number of its column in its name, as
    a.tif.17.png. What no file can be called is percent-encoded. A table has a line for each pixel, or row of A, with
    W, and a line for each image, or column of A, with H; its numbers read back as the same float32.

    \b
    Example:
      nmf-batch export reconstructions --zarr faces.zarr --name d99 --out seen/ --limit 100
      nmf-batch export H --zarr faces.zarr --name d99 --out weights.parquet
    """
    if what != "reconstructions" and (pattern or limit):
        raise click.UsageError(f"--names and --limit choose reconstructions, but {what} is asked for; leave them out")
    where = _new_place(what, out)
    factors, matrix = open_factors(path, name), open_matrix(path)
    if what in PICTURES and "image_shape" not in matrix.attributes:
        raise click.UsageError(
            f"{what} would be pictures, but {path} holds no images; use `export W` or `export H`, or `nmf-batch topics`"
        )
    with safe_point() as point:
        if what in PICTURES:
            summary, text = _pictures(what, factors, where, Chosen(pattern or "*", limit), point)
        else:
            summary, text = _factor(what, factors, where, matrix, point)
    about = {"out": str(where), "what": what, **summary, "revision": factors.path.name}
    options.say(json.dumps(about) if as_json else f"{where}: {text}")


def _new_place(what: str, out: str) -> Path:
    """Return where to write; a usage error where that is taken, or cannot be meant."""
    path = Path(out)
    if "://" in out:
        raise click.UsageError(f"--out is {out}, but must be a path of this machine; copy it from there")
    if what in PICTURES:
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise click.UsageError(f"{path} is there, and no empty folder; name a new one")
        return path
    if path.suffix not in FORMATS:
        raise click.UsageError(f"{path} must end in one of {', '.join(FORMATS)}, which says how {what} is written")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise click.UsageError(
            "Parquet is written by PyArrow, which is not installed: pip install 'nmf-batch[tables]'; or write .csv"
        )
    values.NewFile().convert(path, None, None)
    if os.path.lexists(path):
        raise click.UsageError(f"{path} is there already, and is not written over; name a new file")
    return path


def _pictures(what: str, factors: Factors, where: Path, chosen: Chosen, point: SafePoint) -> tuple[dict[str, Any], str]:
    shown, total = progress.Progress("image"), factors.attributes["shape"][1]

    def told(done: int) -> None:
        shown(done, total if what == "reconstructions" else factors.attributes["parameters"]["n_components"])
        point()

    with NewFolder(where) as folder:
        if what == "basis":
            written = write_basis(factors, folder, told)
        else:
            written = write_reconstructions(factors, folder, chosen, told)
    shown.close()
    if not written.pictures + written.unreadable:
        raise click.UsageError(f"no image is called like {chosen.pattern!r}; nothing was written")
    summary = {"n": written.pictures, "nbytes": folder.nbytes}
    if what == "reconstructions":
        summary |= {"unreadable": written.unreadable, "numbered": written.numbered}
    return summary, _told(what, written, folder.nbytes)


def _told(what: str, written: Written, nbytes: int) -> str:
    parts = [f"{written.pictures:,} {'basis images' if what == 'basis' else what} as PNG, {options.nbytes(nbytes)}"]
    if written.unreadable:
        parts.append(f"{written.unreadable:,} more images were unreadable, and have none")
    if written.numbered:
        parts.append(f"{written.numbered:,} have the number of their column, since other names give the same file")
    return "; ".join(parts)


def _factor(
    what: str, factors: Factors, where: Path, matrix: StoredMatrix, point: SafePoint
) -> tuple[dict[str, Any], str]:
    d, (m, n) = factors.attributes["parameters"]["n_components"], factors.attributes["shape"]
    shown = progress.Progress("row" if what == "W" else matrix.noun)

    def told(done: int) -> None:
        shown(done, m if what == "W" else n)
        point()

    with new_file(where) as file:
        write_factor(factors, what, where.suffix, file, told)
    shown.close()
    shape, nbytes = [m, d] if what == "W" else [d, n], where.stat().st_size
    return {"shape": shape, "nbytes": nbytes}, f"{what}, {shape[0]:,} × {shape[1]:,}, {options.nbytes(nbytes)}"
