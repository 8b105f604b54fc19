"""How near W H is to images with and without noise, against d: a panel a level of noise, a colour a number of them."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.noise_experiment import Noise
from pipeline.report.curves import COLOURS, FAINT, INK

DPI = 130


def save_noise_chart(noises: Sequence[Noise], file: Path) -> None:
    """Draw it as PNG."""
    FigureCanvasAgg(noise_chart(noises)).print_png(file)


def noise_chart(noises: Sequence[Noise]) -> Figure:
    """Draw errors to the clean images, with the least one marked, and to the noisy ones."""
    sigmas = sorted({noise.sigma for noise in noises})
    counts = sorted({noise.n for noise in noises})
    figure = Figure(figsize=(4.2 * len(sigmas) + 0.6, 4.4), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(sigmas), sharey=True, squeeze=False)[0]
    for axes, sigma in zip(panels, sigmas, strict=True):
        for noise in (one for one in noises if one.sigma == sigma):
            _curves(axes, noise, COLOURS[counts.index(noise.n) % len(COLOURS)])
        axes.set(title=f"σ = {sigma:g}", xlabel="d", xscale="log")
        ranks = [fit.d for fit in noises[0].fits]
        shown = [d for k, d in enumerate(ranks) if k == 0 or d >= 1.4 * ranks[k - 1] or k % 4 == 3]
        axes.set_xticks(shown, [str(d) for d in shown])
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    panels[0].set(ylabel="error / ‖A‖", ylim=(0, None))  # once all is drawn: the panels share it
    panels[0].plot([], [], color=INK, label="to the clean images; ● least")
    panels[0].plot([], [], "--", color=INK, label="to the noisy images")
    panels[0].legend(frameon=False)
    return figure


def _curves(axes: Axes, noise: Noise, colour: str) -> None:
    ranks = [fit.d for fit in noise.fits]
    axes.plot(ranks, [fit.to_clean for fit in noise.fits], color=colour, label=f"{noise.n:,} images")
    axes.plot(ranks, [fit.to_noisy for fit in noise.fits], "--", color=colour, linewidth=1)
    axes.plot([noise.best.d], [noise.best.to_clean], "o", color=colour, markersize=7)
