"""Charts of a report: how the error fell, how it is distributed, how components are used and go together.

They are SVG whose lines and letters follow the light or dark setting of whoever looks at it, and PNG for sheets.
Figures are made by hand, without pyplot: that keeps each one it makes, and picks a window system.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.report.curves import COLOURS

INK, FAINT, LINE = "#222222", "#bbbbbb", "#0072b2"
"""As they are in PNG; the page's style has the same names."""
STYLE = """<style>svg{--ink:#222222;--faint:#bbbbbb;--line:#0072b2}
@media (prefers-color-scheme:dark){svg{--ink:#e4e6ea;--faint:#4a4f57;--line:#59b4e8}}</style>"""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nmf-batch",
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.labelcolor": INK,
}
PHASES = (LINE, *COLOURS[1:])
WIDTH = 4.8
"""Inches. On a phone its letters are still of a size to be read."""
PNG_DPI = 150
TOLD = {"iteration": "iteration", "passes": "passes over A", "seconds": "seconds"}

Charts = Mapping[str, Callable[[], Figure]]


def charts(account: Mapping[str, Any], map_weights: NDArray[np.float32]) -> Charts:
    """Return what draws each chart, by name: of the figures of a report and the weights (d, c) of its heat map."""
    drawn: dict[str, Callable[[], Figure]] = {
        f"progress_{along}": partial(_progress, account["iterations"], along) for along in TOLD
    }
    if account["errors"]["examined"]:
        drawn["errors"] = lambda: _histogram(account["errors"], account["matrix"]["noun"])
        drawn["weights"] = lambda: _weights(map_weights, account["matrix"]["noun"])
    drawn["cosines"] = lambda: _pairs(account["cosines"], "cosines of basis images", "magma", 0)
    drawn["correlations"] = lambda: _pairs(account["correlations"], "correlations of weights", "RdBu_r", -1)
    return drawn


def as_svg(draw: Callable[[], Figure]) -> bytes:
    """Draw a chart as SVG without a background, in the colours of whoever looks at it."""
    with mpl.rc_context(SETTINGS):
        file, figure = io.BytesIO(), draw()
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    for name, colour in (("ink", INK), ("faint", FAINT), ("line", LINE)):
        text = text.replace(colour, f"var(--{name})")
    head = text.index(">") + 1
    return (text[:head] + STYLE + text[head:]).encode()


def save_png(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a chart on white, and write it as PNG."""
    with mpl.rc_context({**SETTINGS, "figure.dpi": PNG_DPI}):
        FigureCanvasAgg(draw()).print_png(path)


def _progress(record: Mapping[str, list[Any]], along: str) -> Figure:
    """Error and loss against iterations, passes or seconds, a colour a phase."""
    figure = _figure(4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = range(1, len(record["loss"]) + 1) if along == "iteration" else record[along]
    colours: dict[str, str] = {}
    for phase, span in _runs(record["phase"]):
        label = None if phase in colours else phase
        colour = colours.setdefault(phase, PHASES[len(colours) % len(PHASES)])
        marker = "o" if span.stop - span.start == 1 else None
        for axes, values in ((above, record["relative_error"]), (below, record["loss"])):
            axes.plot(x[span], values[span], color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)
            axes.axvline(x[span.start], color=FAINT, linewidth=0.8, linestyle=":")
    for axes, name in ((above, "relative error"), (below, "loss")):
        values = record[name.replace(" ", "_")]
        if 0 < 10 * min(values) < max(values):  # within one power of ten there are hardly any marks on such an axis
            axes.set_yscale("log")
        axes.set_ylabel(name)
        _plain(axes)
    below.set_xlabel(TOLD[along])
    above.legend(frameon=False, loc="upper right")
    return figure


def _runs(phases: list[str]) -> Iterator[tuple[str, slice]]:
    """Each phase, and the iterations of it that follow one another."""
    first = 0
    for phase, group in groupby(phases):
        count = len(list(group))
        yield phase, slice(first, first + count)
        first += count


def _histogram(errors: Mapping[str, Any], noun: str) -> Figure:
    figure = _figure(3.2)
    axes = figure.add_subplot()
    axes.stairs(errors["histogram"]["counts"], errors["histogram"]["edges"], fill=True, color=LINE, alpha=0.75)
    for name, label in (("lower_5_percent", "5 %"), ("median", "median"), ("upper_5_percent", "95 %")):
        at = errors["quantiles"][name]
        axes.axvline(at, color=INK, linewidth=1, linestyle="--")
        axes.annotate(label, (at, 1), (3, -10), xycoords=("data", "axes fraction"), textcoords="offset points")
    axes.set(xlabel="relative error ‖a − W h‖ / ‖a‖", ylabel=f"{noun}s", xlim=(0, None))
    _plain(axes)
    return figure


def _weights(parts: NDArray[np.float32], noun: str) -> Figure:
    figure = _figure(4.2)
    axes = figure.add_subplot()
    image = axes.imshow(np.sqrt(parts), aspect="auto", cmap="magma", interpolation="none")
    axes.set(xlabel=f"{noun}s, by their largest component", ylabel="component, by energy", xticks=[])
    figure.colorbar(image, ax=axes, label="square root of the part's norm")
    return figure


def _pairs(values: list[list[float]], title: str, colours: str, least: float) -> Figure:
    """Draw what each component has with each other one."""
    figure = _figure(4.0)
    axes = figure.add_subplot()
    image = axes.imshow(np.array(values), vmin=least, vmax=1, cmap=colours, interpolation="none")
    axes.set(title=title, xlabel="component, by energy", ylabel="component, by energy")
    figure.colorbar(image, ax=axes)
    return figure


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
