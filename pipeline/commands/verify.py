"""nmf-batch verify: read everything once, and name what is damaged."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
from dask.system import CPU_COUNT

from data_prep import store
from data_prep.columns import RECORDS
from data_prep.folders import Folder
from data_prep.verify import Damage, image_names
from data_prep.verify import verify as find_damages
from pipeline import factors
from pipeline.commands import options, progress

SHOWN = 5
DAMAGED = 4


@click.command(context_settings=options.CONTEXT)
@options.zarr
@options.as_json
def verify(path: Folder, as_json: bool) -> int:
    """Read everything in a store once, and name every damaged or missing file and the images in it.

    Ends with exit code 4 where there is one.

    \b
    Example:
      nmf-batch verify --zarr faces.zarr
    """
    damages = damages_of(path)
    for damage in damages:
        names = image_names(path, damage.columns)
        options.say(json.dumps(summary(damage, names)) if as_json else text(damage, names))
    if as_json:
        options.say(json.dumps({"zarr": str(path), "damaged": len(damages)}))
    elif not damages:
        options.say(f"{path}: everything is as it was written")
    return DAMAGED if damages else 0


def damages_of(path: Folder) -> list[Damage]:
    """Find what is damaged in a store and its factorizations; BadInput where there is no complete store."""
    if path.read("zarr.json") is None or _unfinished(path):
        store.open_matrix(path)  # says what is wrong
    if RECORDS in path.entries():
        raise store.BadInput(f"images are being appended to {path}, or were until it was interrupted; run `prep` again")
    shown = progress.Progress("chunk")
    with ThreadPoolExecutor(CPU_COUNT) as threads:
        damages = find_damages([path, *factors.groups(path)], threads, shown)
    shown.close()
    return damages


def _unfinished(path: Folder) -> bool:
    try:
        return store.group_attributes(path).get("status") != "complete"
    except store.BadInput:
        return False  # a damage as any other


def summary(damage: Damage, names: Sequence[str]) -> dict[str, Any]:
    """Say it to a program."""
    columns = None if damage.columns is None else [damage.columns.start, damage.columns.stop - 1]
    return {"file": damage.file, "what": damage.what, "columns": columns, "images": list(names)}


def text(damage: Damage, names: Sequence[str]) -> str:
    """Say it to a person."""
    about = "" if damage.columns is None else f", columns {damage.columns.start} to {damage.columns.stop - 1}"
    more = f" … {names[-1]}, {len(names)} in all; --json lists them" if len(names) > SHOWN else ""
    images = f": {', '.join(names[:SHOWN])}{more}" if names else ""
    return f"{damage.file} {damage.what}{about}{images}"
