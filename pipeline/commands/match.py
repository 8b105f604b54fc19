"""nmf-batch match: which stored images are like new ones."""

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import click

from data_prep import store
from data_prep.batches import batches
from data_prep.folders import Folder
from pipeline.commands import options
from pipeline.commands.signals import safe_point
from pipeline.commands.tasks import executor_at
from pipeline.factors import Factors, open_factors
from pipeline.match import dominant, matches
from pipeline.report.sheets import match_sheet, save
from pipeline.transform import transformed

ROWS_OF_A_SHEET = 20


@click.command(context_settings=options.CONTEXT)
@click.argument("sources", nargs=-1)
@options.zarr
@options.from_list
@options.factorization
@click.option("--top", type=click.IntRange(min=1), default=5, help="How many stored images for each one.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="PNG of images beside those like them.")
@click.option("--clusters", is_flag=True, help="Count the stored images by the component that puts most into each.")
@options.place
@options.as_json
def match(
    sources: tuple[str, ...],
    path: Folder,
    lists: tuple[str, ...],
    name: str,
    top: int,
    sheet: Path | None,
    clusters: bool,
    place: options.Place,
    as_json: bool,
) -> int:
    """Find the stored images, or documents, that are most like each of some others, by their weights.

    The score is the cosine of their weights, each component counted with the norm of its basis image: 1 is the same
    mixture. The search is exact, and of equal scores the image that comes first in the store comes first.

    \b
    Example:
      nmf-batch match visitor.jpg --zarr faces.zarr --name d99 --top 5 --sheet found.png
    """
    factors = open_factors(path, name)
    if clusters:
        _say_clusters(factors, as_json)
        return 0
    if not sources and not lists:
        raise click.UsageError("no images are given, or documents; name a folder or files, or give --from-list")
    warnings.filterwarnings("ignore", module="PIL")  # it warns of files on stderr, which have a reason each here
    matrix, broken = store.open_matrix(path), 0
    if sheet is not None and "image_shape" not in matrix.attributes:
        raise click.UsageError(f"--sheet draws images, but {path} does not hold any; leave it out")
    images, names = batches(matrix, sources, lists), store.column_names(path, factors.attributes["shape"][1])
    rows: list[tuple[Any, list[int]]] = []
    with safe_point(), executor_at(place, sum(map(len, images))) as executor:
        for batch, found in zip(images, transformed(factors, images, executor), strict=True):
            best = matches(factors, found.H, top)
            pixels = batch().columns if sheet is not None and len(rows) < ROWS_OF_A_SHEET else None
            for j, (image, reason) in enumerate(zip(found.names, found.reasons, strict=True)):
                known = [(int(k), float(s)) for k, s in zip(best.columns[j], best.scores[j], strict=True) if s >= 0]
                alike = [] if reason else [{"image": names[k], "score": score} for k, score in known]
                _say(image, reason, alike, as_json)
                broken += bool(reason)
                if pixels is not None and not reason and len(rows) < ROWS_OF_A_SHEET:
                    rows.append((pixels[:, j], [k for k, _ in known]))
    if sheet is not None and rows:
        save(match_sheet(factors, rows), sheet)
    return 3 if broken else 0


def _say(image: str, reason: str, alike: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        options.say(json.dumps({"image": image, "matches": alike, **({"unreadable": reason} if reason else {})}))
    elif reason:
        options.say(f"{image}: unreadable: {reason}")
    else:
        options.say("\n".join([f"{image}:", *(f"  {one['score']:.4f}  {one['image']}" for one in alike)]))


def _say_clusters(factors: Factors, as_json: bool) -> None:
    found = dominant(factors)
    if as_json:
        names = store.column_names(factors.home, len(found))
        for image, component in zip(names, found.tolist(), strict=True):
            options.say(json.dumps({"image": image, "component": component}))
        return
    noun = store.open_matrix(factors.home).noun
    for component, count in sorted(Counter(found.tolist()).items(), key=lambda one: (-one[1], one[0])):
        which = "none" if component < 0 else f"component {component}"
        options.say(f"{which}: {count:,} {noun}s, {count / len(found):.1%}")
