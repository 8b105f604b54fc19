"""The errors of a sweep against d, with the rank that it recommends."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.ranks import Swept
from pipeline.report.curves import COLOURS, FAINT, INK

DPI = 150


def save_chart(swept: Swept, file: Path) -> None:
    """Draw it as PNG."""
    FigureCanvasAgg(chart(swept)).print_png(file)


def chart(swept: Swept) -> Figure:
    """Draw error, bound, k-means and the error on held out entries."""
    figure = Figure(figsize=(7, 4.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    ranks = swept.ranks
    advised = {} if swept.advice is None else swept.advice.errors
    _line(axes, [(rank.d, rank.k_means) for rank in ranks], COLOURS[3], "k-means")
    _line(axes, sorted(advised.items()), COLOURS[1], "NMF, on entries held out")
    _line(axes, [(rank.d, rank.error) for rank in ranks], INK, "NMF, ‖A − W H‖ / ‖A‖")
    _line(axes, [(rank.d, rank.svd_bound) for rank in ranks], COLOURS[0], "SVD bound", dashed=True)
    if swept.advice is not None:
        axes.axvline(swept.advice.d, color=COLOURS[2], linewidth=1.2)
        axes.annotate(
            f"recommended: d = {swept.advice.d}",
            (swept.advice.d, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color=COLOURS[2],
        )
    axes.set(xscale="log", xlabel="d", ylabel="relative error", ylim=(0, None))
    axes.set_xticks([rank.d for rank in ranks], [str(rank.d) for rank in ranks])
    axes.set_xticks([], minor=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    axes.legend(frameon=False)
    return figure


def _line(
    axes: Axes, points: Sequence[tuple[int, float | None]], colour: str, label: str, *, dashed: bool = False
) -> None:
    known = [(d, error) for d, error in points if error is not None]
    if known:
        style = "--" if dashed else "-"
        axes.plot(*zip(*known, strict=True), style, color=colour, marker="o", markersize=4, label=label)
