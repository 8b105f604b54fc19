"""How the benchmarks time: several rounds, the contenders in turn, medians and the ratio of each round."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

COMMAND = r"""
import re, sys
from pathlib import Path
from pipeline.commands import main

try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]), file=sys.stderr)
"""


def rounds(contenders: Mapping[str, Callable[[], object]], n: int) -> dict[str, list[float]]:
    """Time each contender n times, in turn, after one round that does not count; seconds by name."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(n + 1):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            if k:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def table(seconds: Mapping[str, list[float]], reference: str) -> str:
    """A row a contender: median, spread, and the median of its ratios to the reference round by round."""
    lines = [f"| {'':44} | median s | min – max | ratio to {reference} |", "|---|---|---|---|"]
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[reference], strict=True))
        lines.append(
            f"| {name:44} | {statistics.median(times):.4f} | {min(times):.4f} – {max(times):.4f} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def run(*command: str | Path) -> None:
    """Run a command to its end, without its output; an error is an error here."""
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, env=os.environ)


class Measured(NamedTuple):
    """What a command took, as a whole process."""

    seconds: float
    peak_nbytes: int
    """Of its resident memory."""
    stdout: str


def measured_command(*arguments: str | Path) -> Measured:
    """Run `nmf-batch` with some arguments to its end, and say what it took."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(time.perf_counter() - began, int(done.stderr.splitlines()[-1]), done.stdout.strip())
