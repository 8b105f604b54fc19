"""nmf-batch transform: weights of images that the factorization has not seen."""

import json
import sys
import warnings
from typing import Any

import click

from data_prep.batches import batches
from data_prep.folders import Folder, folder
from data_prep.store import open_matrix
from pipeline.commands import options, progress
from pipeline.commands.signals import safe_point
from pipeline.commands.tasks import executor_at
from pipeline.factors import open_factors
from pipeline.transform import Found, transformed, write_weights

STDOUT = "-"


@click.command(context_settings=options.CONTEXT)
@click.argument("sources", nargs=-1)
@options.zarr
@options.from_list
@options.factorization
@click.option("--out", required=True, help="Where to write H and the names: a path, an address, or - for stdout.")
@options.place
@options.as_json
def transform(
    sources: tuple[str, ...],
    path: Folder,
    lists: tuple[str, ...],
    name: str,
    out: str,
    place: options.Place,
    as_json: bool,
) -> int:
    """Find the weights H ≥ 0 of images, or documents, for the W of a factorization, which stays as it is.

    SOURCES are what `prep` takes, or `prep-text`, and read as the store's own were; or another prepared store. The
    weights are those with the least ‖A − W H‖², to 1e-4 of it. `--out -` writes CSV, with --json an object a line.

    \b
    Example:
      nmf-batch transform more/ --zarr faces.zarr --name d99 --out weights.zarr
    """
    if not sources and not lists:
        raise click.UsageError("no images are given, or documents; name a folder or files, or give --from-list")
    warnings.filterwarnings("ignore", module="PIL")  # it warns of files on stderr, which have a reason each here
    factors, matrix = open_factors(path, name), open_matrix(path)
    images, noun = batches(matrix, sources, lists), matrix.noun
    n, shown = sum(map(len, images)), progress.Progress(noun)
    with safe_point(), executor_at(place, n) as executor:
        if out == STDOUT:
            broken = sum(
                _print(found, as_json, k == 0) for k, found in enumerate(transformed(factors, images, executor))
            )
        else:
            with options.as_usage_error():
                where = folder(out)
            broken = write_weights(where, factors, images, executor, lambda done: shown(done, n))
            summary = {"out": str(where), "n": n, "unreadable": broken, "revision": factors.path.name}
            text = f"{where}: weights of {n:,} {noun}s{f', {broken} of them unreadable' if broken else ''}"
            options.say(json.dumps(summary) if as_json else text)
    shown.close()
    return 3 if broken else 0


def _print(found: Found, as_json: bool, first: bool) -> int:
    """Write weights, a line an image; returns how many images could not be read, which stderr names."""
    if first and not as_json:
        options.say(",".join(["image", "relative_error", *(f"component{k}" for k in range(len(found.H)))]))
    for name, reason, error, h in zip(found.names, found.reasons, found.relative_error, found.H.T, strict=True):
        if reason:
            sys.stderr.write(f"unreadable: {name}: {reason}\n")
        elif as_json:
            told: dict[str, Any] = {"image": name, "relative_error": float(error), "weights": h.tolist()}
            options.say(json.dumps(told))
        else:
            quoted = '"' + name.replace('"', '""') + '"'
            options.say(",".join([quoted, f"{error:.6g}", *(f"{weight:.6g}" for weight in h)]))
    return sum(1 for reason in found.reasons if reason)
