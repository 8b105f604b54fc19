"""nmf-batch prep-matrix: a sparse or dense matrix in, the same as a store out."""

import json
from typing import Any

import click

from data_prep.folders import Folder
from data_prep.made_of import Prepared
from data_prep.matrices import prepare_matrix
from pipeline.commands import options, progress
from pipeline.commands.signals import safe_point


@click.command("prep-matrix", context_settings=options.CONTEXT)
@click.argument("source", metavar="COUNTS.npz|.mtx|.npy")
@options.zarr
@click.option("--vocabulary", help="File with the names of the rows of A, in UTF-8, one a line.")
@click.option("--transpose", is_flag=True, help="The file has a row for each document, not a column.")
@options.as_json
def prep_matrix(source: str, path: Folder, vocabulary: str | None, transpose: bool, as_json: bool) -> int:
    """Turn counts, or any matrix of values 0 or more, into the matrix A (m, n) of a store.

    Rows of A are words, or other features; columns are documents, or other items. The file is what
    scipy.sparse.save_npz writes (csr, csc, coo), a Matrix Market file (.mtx, .mtx.gz) or what numpy.save writes. An
    entry that is not given is zero; one that is given more than once is their sum. Run again, the same command does
    nothing.

    \b
    Example:
      nmf-batch prep-matrix counts.npz --vocabulary words.txt --transpose --zarr counts.zarr
    """
    shown = progress.Progress("column")
    with safe_point():
        prepared = prepare_matrix(source, path, vocabulary, transpose=transpose, on_progress=shown)
    shown.close()
    options.say(json.dumps(_summary(prepared)) if as_json else _text(prepared))
    return 0


def _summary(prepared: Prepared) -> dict[str, Any]:
    about = prepared.attributes
    told = {"shape": about["shape"], "n_nonzero": about["n_nonzero"]}
    return {"zarr": str(prepared.path), "new": prepared.new, **told}


def _text(prepared: Prepared) -> str:
    (m, n), filled = prepared.attributes["shape"], prepared.attributes["n_nonzero"]
    return (
        f"{prepared.path}: {m:,} × {n:,}, {filled:,} entries other than 0, {100 * filled / (m * n):.3g} %"
        f"{'' if prepared.new else ' (nothing new)'}"
    )
