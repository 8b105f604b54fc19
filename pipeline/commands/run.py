"""nmf-batch run: factorize a prepared matrix."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_prep import store
from data_prep.folders import Folder
from pipeline.checkpoints import Every
from pipeline.commands import options, progress, values
from pipeline.commands.info import how_good, how_it_grew
from pipeline.commands.signals import safe_point
from pipeline.job import Result, factorize
from pipeline.loop import trailing
from pipeline.record import Iteration

if TYPE_CHECKING:
    from pipeline.report.evolution import Snapshot, Snapshots

UNCHANGED = 99
"""Exit code where nothing was to be done, for those who ask for it."""


@click.command(context_settings=options.CONTEXT)
@options.request
@click.option(
    "--checkpoint-every",
    type=values.CheckpointEvery(),
    default="5min",
    help="How often the state is stored for an interrupted run to go on from: 5min or 50it.",
)
@click.option(
    "--grace", type=values.Duration(), default="25s", help="After a signal: time to end the iteration and store it."
)
@click.option(
    "--lock-timeout", type=values.Duration(), default="0s", help="How long to wait for another run of the same."
)
@click.option(
    "--animate",
    type=values.NewFile(),
    help="GIF of how the basis images develop over this run's iterations; written when it ends by itself, not after a "
    "signal. Takes up to 300 MB more.",
)
@click.option("--exit-if-unchanged", is_flag=True, help="End with exit code 99 where there is nothing to do.")
@options.place
@options.as_json
def run(
    path: Folder,
    n_components: int,
    name: str | None,
    fresh: bool,
    refresh: str,
    exit_if_unchanged: bool,
    animate: Path | None,
    memory: int | None,
    checkpoint_every: Every,
    grace: float,
    lock_timeout: float,
    place: options.Place,
    as_json: bool,
    **settings: Any,
) -> int:
    """Factorize A ≈ W H with W, H ≥ 0, minimising ‖A − W H‖².

    W (m, d) holds d basis images, H (d, n) how much of each is in every image. They are written to the store, with
    the loss after each iteration. Run again, the same command does nothing; after an interruption, or with a higher
    --max-iter or a smaller --tol, it goes on from where it was, to the bits it would have had. Images that were
    appended since are taken in, at the cost of those alone.

    \b
    Example:
      nmf-batch run --zarr faces.zarr -d 99
    """
    config, name = options.configured(n_components, name, settings)
    snapshots = None if animate is None else _snapshots(path)
    shown = progress.Progress("iteration")

    with safe_point(grace) as point, options.connected(place):
        result = factorize(
            path,
            n_components,
            name=name,
            fresh=fresh,
            refresh=refresh,
            memory_nbytes=memory,
            on_iteration=partial(_show, shown, config.max_iter, as_json, point),
            on_factors=snapshots or (lambda W: None),
            checkpoint_every=checkpoint_every,
            lock_timeout_s=lock_timeout,
            **{name: value for name, value in asdict(config).items() if name != "n_components"},
        )
    shown.close()
    options.say(json.dumps(_summary(result)) if as_json else _text(result, path))
    if animate and snapshots:
        _animate(snapshots.until(result.factors), animate)
    return UNCHANGED if exit_if_unchanged and result.n_new == 0 else 0


def _snapshots(path: Folder) -> "Snapshots":
    from pipeline.report.evolution import Snapshots, tiles  # here: it takes memory, which is counted where a run is

    shape = store.open_matrix(path).attributes.get("image_shape")
    if shape is None:
        raise click.UsageError(f"--animate draws images, but {path} does not hold any; leave it out")
    return Snapshots(tiles(tuple(shape)))


def _animate(snapshots: "Sequence[Snapshot]", file: Path) -> None:
    from pipeline.report.evolution import frames, save_gif

    if not snapshots:
        click.echo(f"{file} was not written: there are no iterations to draw; --fresh makes them again", err=True)
        return
    save_gif(frames(snapshots), file)
    click.echo(f"{file}: how W developed, in {len(snapshots)} pictures", err=True)


def _show(
    shown: progress.Progress, max_iter: int, as_json: bool, point: Callable[[], None], iterations: Sequence[Iteration]
) -> None:
    if as_json:
        options.say(json.dumps({"iteration": len(iterations), **_told(iterations[-1])}))
    shown(len(trailing(iterations, iterations[-1].phase)), max_iter, _where(iterations[-1]))
    point()


def _where(last: Iteration) -> str:
    held_out = "" if math.isnan(last.holdout_error) else f", {last.holdout_error:.4f} on what is held out"
    return f"{last.phase}  {last.passes:.3g} passes  relative error {last.relative_error:.4f}{held_out} "


def _told(last: Iteration) -> dict[str, Any]:
    """Return an iteration as JSON knows it, which has no NaN."""
    return {name: None if value != value else value for name, value in last._asdict().items()}


def _summary(result: Result) -> dict[str, Any]:
    return {
        "revision": str(result.factors.path),
        "new_iterations": result.n_new,
        "why_stopped": str(result.stop),
        **result.factors.attributes,
    }


def _text(result: Result, path: Folder) -> str:
    attributes, name = result.factors.attributes, result.factors.path.parent.name
    did = "nothing new" if result.n_new == 0 else f"{result.n_new} iterations"
    lines = [
        f"{path}/nmf/{name}: {did}; relative error {attributes['relative_error']:.4f} after {attributes['n_iter']} "
        f"iterations, {attributes['passes']:.3g} passes, {attributes['seconds']:.1f} s. {result.stop}",
        *how_good(attributes),
        *how_it_grew(attributes),
    ]
    return "\n".join(lines)
