"""nmf-batch sweep: several ranks, and which one to take."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from data_prep.folders import Folder
from pipeline.commands import options, progress, values
from pipeline.commands.signals import safe_point
from pipeline.ranks import Rank, Swept
from pipeline.ranks import sweep as sweep_ranks
from pipeline.record import Iteration

HEADINGS = ("d", "error", "SVD bound", "k-means", "held out", "stability", "least", "seconds")
NOTHING = "–"


@click.command(context_settings=options.CONTEXT)
@options.zarr
@click.option(
    "-d", "ranks", type=values.Counts("ranks"), required=True, help="Ranks to compare: 10,25,49,99, or 10,20,...,100."
)
@click.option("--seed", type=click.IntRange(min=0), default=options.DEFAULTS["seed"], help="Of everything random.")
@click.option(
    "--keep", is_flag=True, help="Polish each factorization on A, and write it as `run` would, as d10, d25, …"
)
@click.option("--plot", type=values.Chart(), help="PNG of the errors against d; needs the extra plots.")
@options.memory
@options.place
@options.as_json
def sweep(
    path: Folder,
    ranks: Sequence[int],
    seed: int,
    keep: bool,
    plot: Path | None,
    memory: int | None,
    place: options.Place,
    as_json: bool,
) -> None:
    """Compare ranks d, and say which one to take and why.

    One sketch serves all of them, and each starts from the one before. Beside the error ‖A − W H‖ / ‖A‖ stand that of
    the best approximation of any signs (SVD bound), that of k-means with d centres, that on entries of a part of the
    sample which no fit has seen (held out), and how alike the components of other starts are (stability, and the least
    of them: cosines). The rank to take is the smallest whose error on what is held out is as good as the least.

    \b
    Example:
      nmf-batch sweep --zarr faces.zarr -d 10,25,49,99,200,500
    """
    shown = progress.Progress("rank")

    def show(d: int, iterations: Sequence[Iteration]) -> None:
        shown(ranks.index(d) + 1, len(ranks), f"d = {d}  relative error {iterations[-1].relative_error:.4f} ")
        point()

    with safe_point() as point, options.connected(place):
        swept = sweep_ranks(path, ranks, seed=seed, keep=keep, memory_nbytes=memory, on_iteration=show)
    shown.close()
    if find_spec("sklearn") is None:
        click.echo("k-means is left out: scikit-learn is not installed; pip install 'nmf-batch[text]'", err=True)
    for line in _json(swept) if as_json else _table(swept):
        options.say(line)
    if plot:
        from pipeline.report.rank_chart import save_chart  # here: Matplotlib is an extra

        save_chart(swept, plot)
        click.echo(f"{plot}: errors against d", err=True)


def _json(swept: Swept) -> list[str]:
    advice = swept.advice
    summary: dict[str, Any] = {
        "recommended": advice and advice.d,
        "why": advice and advice.why,
        "above_noise": advice and advice.above_noise,
        "holdout_errors": advice and advice.errors,
        "seconds": swept.seconds,
        "passes": swept.passes,
    }
    return [json.dumps(one) for one in (*(rank._asdict() for rank in swept.ranks), summary)]


def _table(swept: Swept) -> list[str]:
    rows = [HEADINGS, *(_cells(rank) for rank in swept.ranks)]
    return [*options.in_columns(rows), *_said(swept)]


def _said(swept: Swept) -> list[str]:
    advice, last = swept.advice, swept.ranks[-1]
    of = "A itself" if last.phase == "exact" else f"the {last.phase}, which --keep makes exact"
    took = f"errors are of {of}; {swept.passes:.3g} passes, {swept.seconds:.1f} s"
    kept = [rank.kept for rank in swept.ranks if rank.kept]
    return [
        took,
        *([f"kept: {', '.join(kept)}"] if kept else []),
        advice.why if advice else "no d is recommended: A is too small for entries of it to be held out",
    ]


def _cells(rank: Rank) -> tuple[str, ...]:
    shares = (rank.error, rank.svd_bound, rank.k_means, rank.holdout_error)
    cosines = (rank.cosine, rank.least_cosine)
    return (
        str(rank.d),
        *(NOTHING if share is None else f"{share:.4f}" for share in shares),
        *(NOTHING if cosine is None else f"{cosine:.3f}" for cosine in cosines),
        f"{rank.seconds:.1f}",
    )
