"""The commands, in this process or in one of their own."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from pipeline.commands import main, tasks

MAIN = "from pipeline.commands import main; main()"


class Shown(NamedTuple):
    """What a command ends with, and says; named as in `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def nmf_batch(*arguments, **environment):
    """Run a command in this process: one of its own, and those that it decodes in, take a second each to load.

    Few claims are about that. Those that are use `process`.
    """
    said = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said[0]), redirect_stderr(said[1]):
        patch.setattr(sys, "argv", ["nmf-batch", *map(str, arguments)])
        patch.setattr(tasks, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(2))
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    return Shown(ended.value.code, *(stream.buffer.getvalue().decode() for stream in said))


def process(*arguments, **environment):
    """Run a command as its users do, to its end."""
    command = [sys.executable, "-W", "error", "-c", MAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)
