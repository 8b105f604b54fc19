"""nmf-batch prep-table: ratings in long form in, a matrix with missing entries out."""

import json
from importlib.util import find_spec
from typing import Any

import click

from data_prep.folders import Folder
from data_prep.table_files import Names
from data_prep.tables import PreparedTable, prepare_table
from pipeline.commands import options, progress
from pipeline.commands.signals import safe_point


@click.command("prep-table", context_settings=options.CONTEXT)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@options.zarr
@click.option("--rows", required=True, help="Column of the files whose labels become the rows of A.")
@click.option("--columns", required=True, help="Column of the files whose labels become the columns of A.")
@click.option("--values", required=True, help="Column of the files that holds the values: finite, 0 or more.")
@options.as_json
def prep_table(sources: tuple[str, ...], path: Folder, as_json: bool, **named: str) -> int:
    """Turn tables in long form, an entry a line, into the matrix A (m, n) of a store.

    SOURCES are CSV or Parquet files. A has a row for each distinct label in the column --rows, and a column for each in
    --columns, numbers in the order of numbers. Entries that no line gives are missing, which is not the same as zero:
    a factorization leaves them out. Run again, the same command does nothing.

    \b
    Example:
      nmf-batch prep-table ratings.csv --rows movieId --columns userId --values rating --zarr ratings.zarr
    """
    if find_spec("pyarrow") is None:
        raise click.UsageError("tables are read by PyArrow, which is not installed: pip install 'nmf-batch[tables]'")
    names = Names(**named)
    if len(set(names)) < len(names):
        raise click.UsageError(f"--rows, --columns and --values are {', '.join(names)}; name three different columns")
    shown = progress.Progress("column")
    with safe_point():
        prepared = prepare_table(sources, path, names, shown)
    shown.close()
    options.say(json.dumps(_summary(prepared)) if as_json else _text(prepared, names))
    return 0


def _summary(prepared: PreparedTable) -> dict[str, Any]:
    shape, n_entries = list(prepared.shape), prepared.n_entries
    return {"zarr": str(prepared.path), "new": prepared.new, "shape": shape, "n_entries": n_entries}


def _text(prepared: PreparedTable, names: Names) -> str:
    m, n = prepared.shape
    return (
        f"{prepared.path}: {prepared.n_entries:,} entries of {m:,} {names.rows} × {n:,} {names.columns}, "
        f"{100 * prepared.n_entries / (m * n):.3g} % present{'' if prepared.new else ' (nothing new)'}"
    )
