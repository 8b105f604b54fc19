"""How the benchmarks time: several rounds, the contenders in turn, medians and the ratio of each round."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path


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
