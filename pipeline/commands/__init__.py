"""The commands: parse, call, say where the result is."""

import errno
import os
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import click

FULL = {errno.ENOSPC, errno.EDQUOT}
"""What a full disk says: as with errors that pass, the same command can be run again."""
GOES_ON = "the same command goes on from what is stored"
COMMANDS = (
    "prep",
    "prep-table",
    "prep-matrix",
    "prep-text",
    "plan",
    "sweep",
    "run",
    "info",
    "transform",
    "match",
    "topics",
    "denoise",
    "report",
    "export",
    "verify",
    "repair",
    "demo",
)
EXIT_CODES = """\b
Exit codes:
    0  done, or nothing to do
    2  usage, or a refused plan
    3  done, images skipped within --max-skip
    4  bad input, or a damaged store
    5  parameters or data differ from the stored run
   11  another process is writing this
   75  temporary: run again
   99  nothing new, with --exit-if-unchanged
  130, 143  interrupted by Ctrl-C, by SIGTERM; 75 by SIGUSR1
"""


class Commands(click.Group):
    """Imports a command when it is used, so that `--help` and mistakes answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find `pipeline/commands/NAME.py` and its function NAME; `-` in a name is `_` there."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"pipeline.commands.{name}"), name)
        assert isinstance(command, click.Command)
        return command


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Read defaults from a file; its keys are the names of options, and one that no command has is refused."""
    if path is None:
        return
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.BadParameter(f"{path} is not TOML: {error}") from error
    group = ctx.command
    assert isinstance(group, click.Group)
    for table, values in tables.items():
        command = group.get_command(ctx, table)
        if command is None or not isinstance(values, dict):
            raise click.BadParameter(f"{path} has [{table}], but the commands are {', '.join(COMMANDS)}")
        names = {flag.lstrip("-").replace("-", "_"): p.name for p in command.params for flag in p.opts}
        values = {key.replace("-", "_"): value for key, value in values.items()}
        unknown = values.keys() - names.keys()
        if unknown:
            raise click.BadParameter(f"{path} sets {sorted(unknown)[0]!r} in [{table}], which is no option of it")
        wrong = [key for key, value in values.items() if not isinstance(value, str | int | float)]
        if wrong:
            raise click.BadParameter(f"{path} sets {wrong[0]!r} in [{table}] to a {type(values[wrong[0]]).__name__}")
        defaults = {str(names[key]): v if isinstance(v, bool) else str(v) for key, v in values.items()}
        ctx.default_map = {**(ctx.default_map or {}), table: defaults}


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nmf-batch")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    help="TOML file with a table a command: [run] max_iter = 500. Options and NMF_BATCH_* variables come first.",
)
def cli() -> None:
    """Factorize image collections that do not fit in memory: A ≈ W H with W, H ≥ 0."""


def main() -> None:
    """Run a command; an expected error is one line and an exit code, a bug keeps its traceback."""
    from pipeline.commands.signals import Interrupted

    try:
        code = _run()
    except Interrupted as error:
        click.echo("; ".join(["interrupted", *getattr(error, "__notes__", [GOES_ON])]), err=True)
        sys.stdout.flush()
        os._exit(error.exit_code)  # threads may be in the middle of something that takes long, or hangs
    sys.exit(code)


def _exit_codes() -> dict[type[Exception], int]:
    from cluster.connect import SchedulerUnreachable
    from data_prep.images import StoreDiffers
    from data_prep.lock import HeldError
    from data_prep.remote import Forbidden, Unreachable
    from data_prep.store import BadInput
    from pipeline.engine import NoWorkersError
    from pipeline.job import ParametersDiffer
    from pipeline.objective import Unsuitable
    from pipeline.plan import RefusedPlan

    return {
        RefusedPlan: 2,
        Unsuitable: 2,
        BadInput: 4,
        ParametersDiffer: 5,
        StoreDiffers: 5,
        HeldError: 11,
        SchedulerUnreachable: 75,
        NoWorkersError: 75,
        Unreachable: 75,
        Forbidden: 4,
    }


def _run() -> int:
    from data_prep.folders import PASSING

    codes = _exit_codes()
    try:
        result: Any = cli(standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"nmf-batch: {error.format_message()}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"interrupted; {GOES_ON}", err=True)
        return 130
    except tuple(codes) as error:
        click.echo("; ".join([f"nmf-batch: {error}", *getattr(error, "__notes__", [])]), err=True)
        return next(code for kind, code in codes.items() if isinstance(error, kind))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        notes = getattr(error, "__notes__", ["what was complete is as it was"])
        click.echo("; ".join([f"nmf-batch: {error.strerror or error}{where}", *notes]), err=True)
        return 75 if error.errno in PASSING | FULL else 4
    return result if isinstance(result, int) else 0
