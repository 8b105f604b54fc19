"""The report as one page that needs nothing else: no script, no network, pictures inside, every name escaped."""

import base64
import io
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from dask.utils import format_bytes
from numpy.typing import NDArray
from PIL import Image

from data_prep import store
from data_prep.sample import read_columns
from pipeline.factors import Factors
from pipeline.report.account import Account
from pipeline.report.charts import Charts, as_svg
from pipeline.report.sheets import basis_picture, grid, image_shape, shown_weights, to_picture, weights_grid
from pipeline.report.survey import Survey, columns_of_H

MOST_SHOWN = 100
"""Components on the page, those of most energy; `report.json` has all."""
PANELS = 3
TILE_PIXELS, USER_PIXELS, CELL_PIXELS, PANEL_PIXELS = 160, 96, 64, 320
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
    environment.filters |= {"number": _number, "nbytes": format_bytes, "percent": _percent, "when": _when, "zip": zip}
    svg = {name: _address(as_svg(draw), "image/svg+xml") for name, draw in drawn.items()}
    return environment.get_template("page.html").render(account=account, pictures=pictures, charts=svg, most=MOST_SHOWN)


def pictures_of(factors: Factors, found: Survey) -> dict[str, Any]:
    """Return pictures as data addresses: of the panel, the basis, the images that use it, and reconstructions.

    Images are made small as they are read, since hundreds of large ones would not fit in memory.
    """
    shape, order = image_shape(factors), found.components.order[:MOST_SHOWN]
    users, shown = found.components.users[:MOST_SHOWN], np.concatenate([*found.shown.values()])
    originals, rebuilt = _originals(factors, shown, TILE_PIXELS), _rebuilt(factors, found, shown)
    of_users = _originals(factors, users[users >= 0], USER_PIXELS)
    return {
        "pixelated": max(shape[:2]) < SMALL_PIXELS,
        "panel": [
            (originals[j], basis, weights, rebuilt[j])
            for j, (basis, weights) in zip(found.shown["random"], _panels(factors, found, order), strict=False)
        ],
        "basis": [_inlined(_small(basis_picture(found.W[:, k], shape), TILE_PIXELS)) for k in order],
        "users": [[of_users[j] for j in of if j >= 0] for of in users],
        "reconstructions": {kind: [(originals[j], rebuilt[j]) for j in of] for kind, of in found.shown.items()},
    }


def _originals(factors: Factors, columns: NDArray[np.int64], pixels: int) -> dict[int, str]:
    """Some images as addresses, by number; a chunk of A is read at a time."""
    shape, matrix = image_shape(factors), store.open_matrix(factors.home)
    numbers, tiles = np.unique(columns), {}
    for chunk in np.unique(numbers // matrix.chunk_images):
        read = read_columns(matrix.path, numbers[numbers // matrix.chunk_images == chunk])
        for j, column in read.items():
            picture = to_picture(column.astype(np.float32) * np.float32(matrix.scale), shape)
            tiles[j] = _inlined(_small(picture, pixels))
    return tiles


def _rebuilt(factors: Factors, found: Survey, columns: NDArray[np.int64]) -> dict[int, str]:
    shape, H = image_shape(factors), columns_of_H(factors, columns)
    pictures = (to_picture(found.W @ h, shape) for h in H.T)
    return {int(j): _inlined(_small(one, TILE_PIXELS)) for j, one in zip(columns, pictures, strict=True)}


def _panels(factors: Factors, found: Survey, order: NDArray[np.intp]) -> Iterator[tuple[str, str]]:
    """Sheets of the basis, and of the weights that some images have."""
    shape = image_shape(factors)
    cells = [np.asarray(_small(basis_picture(found.W[:, k], shape), CELL_PIXELS).convert("RGB")) for k in order]
    basis = _inlined(_small(grid(cells, PANEL_PIXELS), PANEL_PIXELS))
    H = columns_of_H(factors, found.shown["random"][:PANELS])
    for weights in shown_weights(found.W, H)[order].T:
        yield basis, _inlined(_small(weights_grid(weights, cells[0].shape), PANEL_PIXELS))


def _small(picture: NDArray[np.uint8], pixels: int) -> Image.Image:
    """Return a picture with no more pixels a side than so many, and one channel where it is gray."""
    image = Image.fromarray(picture.squeeze()).convert("RGB")
    image.thumbnail((pixels, pixels))  # it never enlarges
    gray = image.getchannel("R")
    return gray if all(image.getchannel(channel).tobytes() == gray.tobytes() for channel in "GB") else image


def _inlined(image: Image.Image) -> str:
    """Return an image as an address."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return _address(file.getvalue(), "image/png")


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _number(value: float, digits: int = 4) -> str:
    """Write a figure so that it can be read: 0.1579, 3.5, 1,234,567."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{digits}g}"


def _percent(share: float) -> str:
    shown = f"{100 * share:.1f}" if share == 0 or share >= 0.001 else f"{100 * share:.1g}"
    return f"{shown}\N{NO-BREAK SPACE}%"


def _when(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S %Z")
