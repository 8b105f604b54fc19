"""nmf-batch report: what a factorization found, as a page."""

import json
from importlib.util import find_spec
from pathlib import Path

import click

from data_prep.folders import Folder
from pipeline.commands import options, values
from pipeline.commands.signals import safe_point
from pipeline.factors import names, open_factors


@click.command(context_settings=options.CONTEXT)
@options.zarr
@click.option("--name", type=values.Name(), help="Of the factorization: d99; not needed where the store has one only.")
@click.option(
    "--out",
    type=values.NewFile(),
    default="report.html",
    help="The page; its figures are written beside it, as .json.",
)
@click.option("--sheets", type=click.Path(file_okay=False, path_type=Path), help="Folder for the pictures as PNG.")
@options.as_json
def report(path: Folder, name: str | None, out: Path, sheets: Path | None, as_json: bool) -> None:
    """Write a page that shows what a factorization found, how good it is, and what became of the images.

    One file with all pictures in it, which needs no network and holds no script. Rows that are no pixels are told in
    tables. It takes the memory of W and of some chunks, whatever the number of images.

    \b
    Example:
      nmf-batch report --zarr faces.zarr --name d99 --out report.html
    """
    if find_spec("matplotlib") is None or find_spec("jinja2") is None:
        raise click.UsageError(
            "a report is drawn by Matplotlib and Jinja, of which one is not installed: pip install 'nmf-batch[plots]'"
        )
    if out.suffix == ".json":
        raise click.UsageError(f"--out is {out}, but the figures go beside the page under that name; name it .html")
    from pipeline.report.writing import write_report  # here: Matplotlib is an extra

    with safe_point():
        told = write_report(open_factors(path, name or _only_name(path)), out, sheets)
    summary = {"out": str(out), "figures": str(out.with_suffix(".json")), "sheets": sheets and str(sheets)}
    if as_json:
        options.say(json.dumps({**summary, "relative_error": told["result"]["relative_error"]}))
        return
    beside = f"; pictures in {sheets}" if sheets else ""
    options.say(f"{out}: {told['name']} of {path}; its figures are in {out.with_suffix('.json')}{beside}")


def _only_name(path: Folder) -> str:
    known = names(path)
    if len(known) != 1:
        raise click.UsageError(f"{path} has the factorizations {', '.join(known) or 'none'}; say which with --name")
    return known[0]
