"""Options that several commands share, each named once."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml

from cluster.connect import connect, version_mismatches
from pipeline.commands import values
from pipeline.config import INITS, LOSSES, MASKS, SOLVERS, NMFConfig
from pipeline.rerun import REFRESH

CONTEXT = {"auto_envvar_prefix": "NMF_BATCH", "show_default": True}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


memory: Decorator = click.option(
    "--memory",
    type=values.Memory(),
    help="What a worker may use, without a cluster this process; 60% of what it has unless given.",
)
zarr: Decorator = click.option(
    "--zarr",
    "path",
    type=values.StoreFolder(),
    required=True,
    envvar="NMF_BATCH_ZARR",
    show_default=False,
    help="The store: a folder, or an address such as s3://bucket/faces.zarr.",
)
as_json: Decorator = click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="NMF_BATCH_JSON",
    help="One JSON object a line on stdout, the summary last.",
)


factorization: Decorator = click.option("--name", type=values.Name(), required=True, help="Of the factorization: d99.")
from_list: Decorator = click.option(
    "--from-list",
    "lists",
    multiple=True,
    help="File that names images or addresses of such, one a line, or with NUL between them; - is standard input.",
)
source: Decorator = click.option(
    "--source",
    "sources",
    multiple=True,
    help="Where the images came from: a folder, an archive, an image. Can be given several times, as to `prep`.",
)
DEFAULTS = {field.name: field.default for field in fields(NMFConfig) if field.default is not MISSING}
REQUEST: tuple[Decorator, ...] = (
    zarr,
    click.option("-d", "--n-components", type=int, required=True, help="Rank: the number of basis images."),
    click.option(
        "--solver",
        type=click.Choice(SOLVERS),
        default=None,
        help="sketch: alternating least squares on a small sketch of A, then a few passes over A; hals: all on A; "
        "amu: several multiplicative updates a visit; mu: those of Lee & Seung to the letter; what suits unless given.",
    ),
    click.option(
        "--loss",
        type=click.Choice(LOSSES),
        default=DEFAULTS["loss"],
        help="Squared distance, or the generalised Kullback-Leibler divergence, for counts.",
    ),
    click.option(
        "--mask",
        type=click.Choice(MASKS),
        default=None,
        help="alpha: the colours of transparent pixels are missing, not black. What a table lacks is missing always.",
    ),
    click.option(
        "--holdout",
        type=values.Share(),
        default=DEFAULTS["holdout"],
        help="Share of the entries, drawn by the seed, to keep out of the fit; each pass reports its error there: 10%.",
    ),
    click.option(
        "--alpha-W",
        "alpha_W",
        type=float,
        default=DEFAULTS["alpha_W"],
        help="Penalty on the weights: scikit-learn's alpha_W, whose W are the weights, our H.",
    ),
    click.option(
        "--alpha-H",
        "alpha_H",
        type=float,
        help="Penalty on the basis images: scikit-learn's alpha_H, whose H are our W; that of --alpha-W unless given.",
    ),
    click.option(
        "--l1-ratio",
        type=float,
        default=DEFAULTS["l1_ratio"],
        help="Share of the penalties that is of absolute values, which makes zeros; the rest is of squares.",
    ),
    click.option(
        "--init",
        type=click.Choice(INITS),
        default=None,
        help="Start of W; random for mu and for few entries, nnsvd_lrc else, unless given.",
    ),
    click.option("--seed", type=int, default=DEFAULTS["seed"], help="Of everything random."),
    click.option(
        "--max-iter",
        type=int,
        default=DEFAULTS["max_iter"],
        help="Iterations at most, on the sketch and on A each, earlier runs included.",
    ),
    click.option("--max-passes", type=float, help="Visits of A at most, those that make the sketch included."),
    click.option("--max-time", type=values.Duration(), help="No iteration begins after so long: 30s, 5min."),
    click.option(
        "--tol",
        type=float,
        default=DEFAULTS["tol"],
        help="Stop once 3 passes lower the loss by less than this fraction of it.",
    ),
    click.option("--sketch-rank", type=int, help="Rows of the sketch; 2 d + 10 unless given."),
    click.option(
        "--polish",
        type=int,
        help="Passes over A after the sketch; until they gain little, and four in all at most, unless given.",
    ),
    click.option(
        "--restarts",
        type=int,
        default=DEFAULTS["restarts"],
        help="Starts on the sketch, from other seeds; the best one is kept.",
    ),
    click.option("--target-error", type=float, help="Stop at this relative error ‖A − WH‖ / ‖A‖."),
    click.option(
        "--name", type=values.Name(), help="Name of the factorization in the store; d99 for -d 99 unless given."
    ),
    click.option(
        "--refresh",
        type=click.Choice(REFRESH),
        default="auto",
        help="Once new images were taken in: visit all again where those are too many and too different, never, or in "
        "any case.",
    ),
    click.option("--fresh", is_flag=True, help="Start over, whatever is stored under the name."),
    memory,
)
PLACE: tuple[Decorator, ...] = (
    click.option(
        "--workers", type=click.IntRange(min=1), help="Run on so many processes, in place of threads of this one."
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS|file:PATH",
        envvar=("NMF_BATCH_SCHEDULER", "DASK_SCHEDULER_ADDRESS"),
        help="Run on a Dask scheduler that is there: tcp://host:8786, or the file it wrote.",
    ),
    click.option("--cluster", metavar="CLASS", help="Start a cluster of this class: dask_jobqueue.SLURMCluster."),
    click.option(
        "--cluster-config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="YAML file with what the class is given.",
    ),
    click.option(
        "--performance-report",
        type=click.Path(dir_okay=False, path_type=Path),
        help="HTML file for Dask's account of what the workers did.",
    ),
)


class Place(NamedTuple):
    """Where the work is asked to run."""

    workers: int | None
    scheduler: str | None
    cluster: str | None
    cluster_config: Path | None
    performance_report: Path | None


def place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the work runs; the command is given them as one `Place`."""

    @wraps(command)
    def gathered(**given: Any) -> Any:
        return command(place=Place(**{name: given.pop(name) for name in Place._fields}), **given)

    return _with(PLACE, gathered)


def request(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to factorize, how, and how far."""
    return _with(REQUEST, command)


def configured(n_components: int, name: str | None, settings: dict[str, Any]) -> tuple[NMFConfig, str]:
    """Return what is asked for and its name; what cannot be meant is a usage error."""
    with as_usage_error():
        return NMFConfig(n_components=n_components, **_said(settings)), name or f"d{n_components}"


def _said(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the choices that were left to the matrix."""
    return {name: value for name, value in settings.items() if value is not None}


def _with(these: Sequence[Decorator], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(these):
        command = option(command)
    return command


@contextmanager
def as_usage_error() -> Iterator[None]:
    """Report the ValueError of a settings class as a mistake in the options, exit code 2."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def say(text: str) -> None:
    """Print a result; that nobody reads it any more, or that a character cannot be shown, does not end the work."""
    try:
        click.echo(text)
    except UnicodeEncodeError as error:
        click.echo(text.encode(error.encoding, "replace").decode(error.encoding))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open until the process ends


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose cells are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def can_say(text: str) -> bool:
    """Whether standard output says that it takes all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def nbytes(count: float) -> str:
    """Write a number of bytes for people: 23.6 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Write a time for people: 35 s, 12 min, 3.5 h."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def connected(place: Place) -> Iterator[Any]:
    """Connect as asked; only what is wrong with the options themselves is a usage error."""
    file = place.cluster_config
    settings = None if file is None else yaml.safe_load(file.read_text(encoding="utf-8"))
    with ExitStack() as stack:
        with as_usage_error():
            if settings is not None and not isinstance(settings, dict):
                raise ValueError(f"{file} must hold names and values, as in `queue: short`")
            where = connect(
                workers=place.workers,
                scheduler=place.scheduler,
                cluster=place.cluster,
                cluster_settings=settings,
                performance_report=place.performance_report,
            )
            client = stack.enter_context(where)
        if client is not None:
            click.echo(f"dashboard: {client.dashboard_link}", err=True)
            for mismatch in version_mismatches(client):
                click.echo(f"warning: {mismatch}", err=True)
        yield client
