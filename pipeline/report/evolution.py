"""How W developed: what it looked like after some of the iterations, and the GIF of that.

A picture of W is an array whose first axis is the component: for images (tiles, height, width, channels), see `tiles`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.record import Iteration
from pipeline.report.pairs import pairs
from pipeline.report.sheets import basis_picture, grid

MOST = 48
"""Snapshots, the last one included."""
MOST_TILES, TILE_PIXELS = 100, 96
"""Basis images of a snapshot, and pixels a side of each, at most."""
FRAME_PIXELS, STRIP_PIXELS, LETTER_PIXELS = 960, 40, 20
FRAME_MS, LAST_MS = 80, 2000
"""A GIF counts in hundredths of a second: 12.5 frames in one."""


class Snapshot(NamedTuple):
    """What W looked like after an iteration."""

    number: int
    """Of the iteration in the record, from 1."""
    iteration: Iteration
    picture: NDArray[Any]


class Snapshots:
    """Keeps pictures of W while it is iterated on: of the first iteration, of every k-th after it, and of the last.

    Whenever there are too many, every second one is dropped and k is doubled, so that they are evenly spread, and
    never more than `MOST`, whatever the number of iterations. Of images they take 48 × 100 × 96² × 3 bytes = 133 MB at
    most (a third of it where the images are gray), whatever the size of W. Writing the GIF takes as much again.

    Parameters
    ----------
    picture
        From W (m, d) to a picture that does not share its memory.
    """

    def __init__(self, picture: Callable[[Matrix], NDArray[Any]]) -> None:
        self._picture = picture
        self._kept: dict[int, NDArray[Any]] = {}
        self._every, self._n_told = 1, 0

    def __call__(self, W: Matrix) -> None:
        """Look at W (m, d) after an iteration; `factorize` calls this as its `on_factors`."""
        if self._n_told % self._every == 0:
            self._kept[self._n_told] = self._picture(W)
        self._n_told += 1
        if len(self._kept) == MOST:
            self._every *= 2
            self._kept = {k: picture for k, picture in self._kept.items() if k % self._every == 0}

    def until(self, result: Factors) -> list[Snapshot]:
        """Return the snapshots in order, that of the last iteration from the result; none where there were none.

        W of the last iteration is that of the result, so that none has to be kept only because it may be the last.
        """
        if not self._n_told:
            return []
        record, last = result.iterations, self._n_told - 1
        before = len(record) - self._n_told
        kept = self._kept if last in self._kept else {**self._kept, last: self._picture(result.read("W"))}
        return [Snapshot(before + k + 1, record[before + k], picture) for k, picture in kept.items()]


def tiles(shape: tuple[int, int, int]) -> Callable[[Matrix], NDArray[np.uint8]]:
    """Return what draws the first basis images small; one at a time, so that it needs little memory beside W."""
    channels = 1 if shape[2] == 1 else 3

    def picture(W: Matrix) -> NDArray[np.uint8]:
        return np.stack([_tile(basis_picture(w, shape)[..., :3])[..., :channels] for w in W.T[:MOST_TILES]])

    return picture


def _tile(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(colours)
    image.thumbnail((TILE_PIXELS, TILE_PIXELS))  # it never enlarges
    return np.asarray(image)


def steady(snapshots: Sequence[Snapshot]) -> list[NDArray[np.intp]]:
    """Return for each snapshot the order of its components in which one stays in its place.

    Components are put in order, and starts are changed, where a phase ends: those before are paired with those after.
    """
    after = snapshots[-1]
    orders = [np.arange(len(after.picture))]
    for snapshot in reversed(snapshots[:-1]):
        same = snapshot.iteration.phase == after.iteration.phase
        orders.append(orders[-1] if same else pairs(snapshot.picture, after.picture[orders[-1]]).order)
        after = snapshot
    return orders[::-1]


def frames(snapshots: Sequence[Snapshot]) -> Iterator[Image.Image]:
    """Draw each snapshot as a sheet of basis images below a line that says of which iteration it is."""
    for snapshot, order in zip(snapshots, steady(snapshots), strict=True):
        sheet = Image.fromarray(grid(list(snapshot.picture[order]), FRAME_PIXELS).squeeze())
        width = max(sheet.width, FRAME_PIXELS // 2)
        frame = Image.new(sheet.mode, (width, sheet.height + STRIP_PIXELS), "white")
        frame.paste(sheet, ((width - sheet.width) // 2, STRIP_PIXELS))
        font = ImageFont.load_default(size=LETTER_PIXELS)
        ImageDraw.Draw(frame).text((12, STRIP_PIXELS // 2), _told(snapshot), fill="black", font=font, anchor="lm")
        yield frame


def _told(snapshot: Snapshot) -> str:
    """Say of which iteration a snapshot is."""
    last = snapshot.iteration
    return f"iteration {snapshot.number}   {last.phase}   relative error {last.relative_error:.4f}"


def save_gif(pictures: Iterable[Image.Image], path: Path) -> None:
    """Write pictures of one size as a GIF that repeats, and rests on the last one."""
    first, *others = (picture.quantize(dither=Image.Dither.NONE) for picture in pictures)  # a byte a pixel from here on
    durations = [FRAME_MS] * len(others) + [LAST_MS]
    first.save(path, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)
