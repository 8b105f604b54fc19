"""Pictures of a factorization whose components are curves, beside the true ones: what was found, and how.

Figures are made by hand, without pyplot: that keeps each one it makes, and picks a window system.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipeline.report.evolution import Snapshot

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
"""Of components, in every picture; of Okabe & Ito, to be told apart by the colour-blind too."""
INK, FAINT = "#222222", "#BBBBBB"
DPI, FRAME_DPI = 130, 96


@dataclass(frozen=True)
class Fit:
    """What was found, and how. Components are everywhere in the order of the true ones."""

    points: NDArray[np.float64]
    """Where curves are known, (m,)."""
    true: NDArray[np.float64]
    """(m, d)."""
    cosines: NDArray[np.floating[Any]]
    """Of what was found with what is true, (d,)."""
    snapshots: Sequence[Snapshot]
    """Pictures (d, m) of W."""
    errors: NDArray[np.float64]
    """Relative error after each iteration."""


class Rebuilt(NamedTuple):
    """Some samples as W after an iteration makes them."""

    snapshot: Snapshot
    H: NDArray[np.floating[Any]]
    """(d, number of samples)."""


def shapes(fit: Fit) -> Figure:
    """Draw true and found shapes, one over the other."""
    figure = Figure(figsize=(8.5, 4.8), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    found = _unit(fit.snapshots[-1].picture.T)
    for k, (true, curve, colour) in enumerate(zip(_unit(fit.true).T, found.T, COLOURS, strict=True)):
        axes.fill_between(fit.points, true, color=colour, alpha=0.12, linewidth=0)
        axes.plot(fit.points, true, color=colour, alpha=0.45, linewidth=6, label="true" if k == 0 else None)
        axes.plot(fit.points, curve, color=INK, linewidth=1.3, linestyle="--", label="found" if k == 0 else None)
        peak = int(true.argmax())
        label = f"{k + 1}\ncosine {fit.cosines[k]:.4f}"
        axes.annotate(label, (fit.points[peak], true[peak]), (0, 8), textcoords="offset points", ha="center")
    axes.set(xlabel="t", ylabel="shape, of norm 1", xlim=(0, 1), ylim=(0, 1.25 * found.max()))
    axes.set_title("The true shapes, and those found in their mixtures")
    axes.legend(frameon=False, loc="upper left")
    _plain(axes)
    return figure


def samples(fit: Fit, A: NDArray[np.floating[Any]], amounts: NDArray[np.float64], rebuilt: Sequence[Rebuilt]) -> Figure:
    """Draw samples (m, k): their true parts, by amounts (d, k), and what W makes of them after some iterations."""
    rows, columns = A.shape[1], 1 + len(rebuilt)
    figure = Figure(figsize=(3.1 * columns, 2.1 * rows + 0.6), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for j in range(rows):
        _parts(grid[j, 0], fit.points, fit.true * amounts[:, j], A[:, j])
        for axes, (snapshot, H) in zip(grid[j, 1:], rebuilt, strict=True):
            _parts(axes, fit.points, snapshot.picture.T * H[:, j], A[:, j])
        grid[j, 0].set_ylabel(f"sample {j + 1}")
    grid[0, 0].set_title("made of")
    for axes, (snapshot, _) in zip(grid[0, 1:], rebuilt, strict=True):
        axes.set_title(f"iteration {snapshot.number}")
    for axes in grid[-1]:
        axes.set(xlabel="t", xlim=(0, 1), ylim=(0, 1.12 * A.max()))
    handles, labels = grid[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def loss(fit: Fit) -> Figure:
    """Draw the error against the iterations."""
    figure = Figure(figsize=(7, 4.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    _errors(axes, fit)
    axes.set_title("How the loss fell")
    return figure


def evolution(fit: Fit) -> Iterator[Image.Image]:
    """Draw W after each iteration of which there is a snapshot, above where that is on the way down."""
    figure = Figure(figsize=(8.5, 6.6), dpi=FRAME_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=(2.3, 1))
    _errors(below, fit)
    (here,) = below.plot([], [], "o", color=COLOURS[1], markeredgecolor=INK, markersize=8, animated=True, clip_on=False)
    true = _unit(fit.true)
    found = [_unit(snapshot.picture.T) for snapshot in fit.snapshots]
    lines = []
    for curve, colour in zip(true.T, COLOURS, strict=True):
        above.fill_between(fit.points, curve, color=colour, alpha=0.18, linewidth=0)
        lines += above.plot([], [], color=colour, linewidth=2.2, animated=True)
    above.set(xlabel="t", ylabel="shape, of norm 1", xlim=(0, 1), ylim=(0, 1.08 * max(W.max() for W in found)))
    above.set_title("true shapes as areas, found ones as lines")
    number = above.text(0.99, 0.97, "", transform=above.transAxes, ha="right", va="top", animated=True)
    _plain(above)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)  # what does not move is drawn once
    for snapshot, W in zip(fit.snapshots, found, strict=True):
        canvas.restore_region(still)
        for line, curve in zip(lines, W.T, strict=True):
            line.set_data(fit.points, curve)
        here.set_data([snapshot.number], [fit.errors[snapshot.number - 1] ** 2])
        number.set_text(f"iteration {snapshot.number}")
        for artist in (*lines, number, here):
            figure.draw_artist(artist)
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    FigureCanvasAgg(figure).print_png(path)


def _parts(axes: Axes, points: NDArray[np.float64], parts: NDArray[Any], sample: NDArray[Any]) -> None:
    """Draw a sample, the parts (m, d) and their sum."""
    axes.plot(points, sample, color=FAINT, linewidth=5, label="sample")
    for k, (part, colour) in enumerate(zip(parts.T, COLOURS, strict=True)):
        axes.fill_between(points, part, color=colour, alpha=0.15, linewidth=0)
        axes.plot(points, part, color=colour, linewidth=1.6, label=f"part {k + 1}")
    axes.plot(points, parts.sum(axis=1), color=INK, linewidth=1.2, linestyle="--", label="sum of parts")
    _plain(axes)


def _errors(axes: Axes, fit: Fit) -> None:
    iterations = np.arange(1, len(fit.errors) + 1)
    axes.semilogy(iterations, fit.errors**2, color=INK, linewidth=1.6)
    axes.set(xlabel="iteration", ylabel="‖A − W H‖² / ‖A‖²", xlim=(0, len(fit.errors) + 1))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)


def _unit(W: NDArray[Any]) -> NDArray[np.floating[Any]]:
    return W / np.maximum(np.linalg.norm(W, axis=0), np.finfo(np.float32).tiny)
