"""nmf-batch repair: make again what is damaged, from where it came from."""

import json

import click

from data_prep.folders import Folder
from data_prep.repair import Mended
from data_prep.repair import repair as mend
from data_prep.verify import image_names
from pipeline.commands import options
from pipeline.commands.verify import DAMAGED, damages_of, summary, text


@click.command(context_settings=options.CONTEXT)
@options.zarr
@options.source
@options.from_list
@options.as_json
def repair(path: Folder, sources: tuple[str, ...], lists: tuple[str, ...], as_json: bool) -> int:
    """Find what `verify` finds, and make it again: chunks of A from their images, the rest from A.

    Only the images of damaged chunks are read. What is written is what was there, to the bit, or nothing. Results
    cannot be mended; `nmf-batch run --fresh` computes them again. Ends with exit code 4 where damage is left.

    \b
    Example:
      nmf-batch repair --zarr faces.zarr --source photos/ --source more.zip
    """
    mended = mend(path, damages_of(path), sources, lists)
    for one in mended:
        options.say(_json(path, one) if as_json else _text(path, one))
    left = sum(1 for one in mended if one.why_not)
    if as_json:
        options.say(json.dumps({"zarr": str(path), "mended": len(mended) - left, "left": left}))
    elif not mended:
        options.say(f"{path}: nothing is damaged")
    return DAMAGED if left else 0


def _json(path: Folder, one: Mended) -> str:
    names = image_names(path, one.damage.columns)
    return json.dumps({**summary(one.damage, names), "mended": not one.why_not, "why_not": one.why_not})


def _text(path: Folder, one: Mended) -> str:
    said = text(one.damage, image_names(path, one.damage.columns))
    return f"{f'not mended ({one.why_not})' if one.why_not else 'mended'}: {said}"
