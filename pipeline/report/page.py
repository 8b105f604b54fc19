"""The report as one page that needs nothing else: no script, no network, pictures inside, every name escaped."""

import base64
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep import store
from data_prep.sample import read_columns
from pipeline.factors import Factors
from pipeline.report.account import Account
from pipeline.report.charts import Charts, as_svg
from pipeline.report.sheets import Picture, basis_picture, image_shape, panel_parts, to_picture
from pipeline.report.survey import Survey, columns_of_H

MOST_SHOWN = 100
"""Components on the page, those of most energy; `report.json` has all."""
PANELS = 3
TILE_PIXELS, USER_PIXELS, PANEL_PIXELS = 160, 96, 320
"""Pictures with more pixels a side are made smaller; the page enlarges those with fewer."""
SMALL_PIXELS = 64
"""Of pictures with fewer the page shows each pixel as a square."""


def page(account: Account, pictures: Mapping[str, Any], drawn: Charts) -> str:
    """Fill in the page.

    Parameters
    ----------
    account
        The figures.
    pictures
        What `pictures_of` returns; empty where columns are no images.
    drawn
        What draws each chart.
    """
    here = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=here, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "nbytes": _nbytes, "percent": _percent, "when": _when, "zip": zip}
    svg = {name: _inlined(as_svg(draw), "image/svg+xml") for name, draw in drawn.items()}
    return environment.get_template("page.html").render(account=account, pictures=pictures, charts=svg, most=MOST_SHOWN)


def pictures_of(factors: Factors, found: Survey) -> dict[str, Any]:
    """Return pictures as data addresses: of the panel, the basis, the images that use it, and reconstructions."""
    shape, matrix = image_shape(factors), store.open_matrix(factors.home)
    order, users = found.components.order[:MOST_SHOWN], found.components.users[:MOST_SHOWN]
    shown = np.concatenate([*found.shown.values()])
    stored = read_columns(matrix.path, np.unique(np.concatenate([users[users >= 0], shown])))

    def original(column: np.integer[Any]) -> Picture:
        return to_picture(stored[int(column)].astype(np.float32) * np.float32(matrix.scale), shape)

    return {
        "pixelated": max(shape[:2]) < SMALL_PIXELS,
        "panel": [
            [_tile(part, PANEL_PIXELS) for part in parts]
            for parts in panel_parts(factors, found.shown["random"][:PANELS].tolist(), order)
        ],
        "basis": [_tile(basis_picture(found.W[:, k], shape), TILE_PIXELS) for k in order],
        "users": [[_tile(original(j), USER_PIXELS) for j in of if j >= 0] for of in users],
        "reconstructions": {
            kind: [
                (_tile(original(j), TILE_PIXELS), _tile(to_picture(x, shape), TILE_PIXELS))
                for j, x in zip(columns, (found.W @ columns_of_H(factors, columns)).T, strict=True)
            ]
            for kind, columns in found.shown.items()
        },
    }


def _tile(picture: NDArray[np.uint8], pixels: int) -> str:
    """Return a picture as an address, with no more pixels a side than so many."""
    image = Image.fromarray(picture).convert("RGB")
    gray = image.getchannel("R")
    if all(image.getchannel(channel).tobytes() == gray.tobytes() for channel in "GB"):
        image = gray
    image.thumbnail((pixels, pixels))  # it never enlarges
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return _inlined(file.getvalue(), "image/png")


def _inlined(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _number(value: float, digits: int = 4) -> str:
    """Write a figure so that it can be read: 0.1579, 3.5, 1,234,567."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{digits}g}"


def _nbytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _percent(share: float) -> str:
    shown = f"{100 * share:.1f}" if share == 0 or share >= 0.001 else f"{100 * share:.1g}"
    return f"{shown}\N{NO-BREAK SPACE}%"


def _when(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S %Z")
