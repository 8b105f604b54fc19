"""The Kullback–Leibler divergence against time and memory: ours, and scikit-learn's multiplicative updates.

    python -m benchmarks.divergence cbcl.zarr -d 49

The error is D(A ‖ W H) / D(A ‖ a 1ᵀ), with a the means of the rows: 1 is the mean image. Ours is the default solver of
this loss until it stops by itself, and its errors and seconds are those of its record; its first iteration is shown
after whatever it and the start visit. scikit-learn's NMF starts from nndsvda, with tol=0, so that its clock holds no
computing of errors; it is given the same values as float32, filled in chunk by chunk before the clock starts, and stops
at each number of iterations for the error, after which the next ones go on from there. Each works in a process of its
own; its peak is VmHWM, the largest resident size that the system saw, A as it holds it included.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import click

from data_prep import store

MEBI = 2**20

OURS = r"""
import json, re, sys
from pathlib import Path
from pipeline import factorize

made = factorize(sys.argv[1], int(sys.argv[2]), loss="kullback-leibler", name="divergence", fresh=True)
points = [(one.passes, one.seconds, one.relative_error) for one in made.factors.iterations]
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({"points": points, "peak": peak}))
"""

THEIRS = r"""
import json, re, sys, time
import numpy as np, zarr
from pathlib import Path
from sklearn.decomposition import NMF

def divergence(X, H, W):
    # A few rows at a time, in float64.
    total = 0.0
    for first in range(0, len(X), 256):
        a, x = X[first : first + 256].astype(np.float64), H[first : first + 256].astype(np.float64) @ W
        logs = np.log(np.divide(a, np.maximum(x, np.finfo(np.float32).eps)), out=np.zeros_like(a), where=a > 0)
        total += float((a * logs - a + x).sum())
    return total

A = zarr.open_array(sys.argv[1], path="A", mode="r")
X = np.empty(A.shape[::-1], np.float32)
for first in range(0, len(X), A.chunks[1]):
    X[first : first + A.chunks[1]] = A[:, first : first + A.chunks[1]].T
    X[first : first + A.chunks[1]] *= np.float32(float(sys.argv[3]))
of_mean = divergence(X, np.ones((len(X), 1)), X.mean(axis=0, dtype=np.float64)[np.newaxis])
how = {"solver": "mu", "beta_loss": "kullback-leibler", "tol": 0, "random_state": 0}
done, seconds, W, H, points = 0, 0.0, None, None, []
for at in map(int, sys.argv[4].split(",")):
    model = NMF(int(sys.argv[2]), init="custom" if done else "nndsvda", max_iter=at - done, **how)
    began = time.perf_counter()
    H = model.fit_transform(X, W=H, H=W)
    seconds += time.perf_counter() - began
    W, done = model.components_, at
    points.append((done, seconds, divergence(X, H, W) / of_mean))
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({"points": points, "peak": peak}))
"""


class Point(NamedTuple):
    """Where a method has come to."""

    passes: float
    seconds: float
    error: float


class Course(NamedTuple):
    """What a process says of its method."""

    points: list[Point]
    peak_nbytes: int


def course(script: str, *arguments: object) -> Course:
    """Run a script in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    return Course([Point(*point) for point in said["points"]], said["peak"])


def after(points: list[Point], passes: float) -> Point | None:
    """Return the last point at most so many passes on, the first one where that took more; None beyond the end."""
    within = [point for point in points if point.passes <= passes + 1e-9]
    return (within or points)[-1 if within else 0] if points[-1].passes >= passes else None


def row(name: str, point: Point, peak_nbytes: int) -> str:
    cells = f"{point.passes:.4g} | {point.seconds:.2f} | {point.error:.5f} | {peak_nbytes / MEBI:.0f}"
    return f"| {name} | {cells} |"


def table(ours: Course, theirs: Course, asked: list[float]) -> list[str]:
    """A row a method and number of passes."""
    lines = ["| method | passes | seconds | D(A ‖ WH) / D(A ‖ mean) | peak MiB |", "|---|---|---|---|---|"]
    shown = [point for point in (after(ours.points, passes) for passes in asked) if point is not None]
    lines += [row("nmf-batch", point, ours.peak_nbytes) for point in dict.fromkeys([*shown, ours.points[-1]])]
    return lines + [row("scikit-learn mu", point, theirs.peak_nbytes) for point in theirs.points]


def verdict(ours: Course, theirs: Course) -> str:
    """When ours is where theirs ends."""
    end = theirs.points[-1]
    said = f"scikit-learn is at {end.error:.5f} after {end.passes:.0f} iterations, {end.seconds:.2f} s; "
    reached = next((point for point in ours.points if point.error <= end.error), None)
    if reached is None:
        return said + f"nmf-batch never is: it ends at {ours.points[-1].error:.5f}."
    faster = f"{end.seconds / reached.seconds:.1f} × sooner"
    return said + f"nmf-batch is there after {reached.passes:.4g} passes, {reached.seconds:.2f} s: {faster}."


@click.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path, exists=True))
@click.option("-d", "d", type=int, default=49, show_default=True)
@click.option("--passes", default="1,12", show_default=True, help="At which ours are shown, besides their end.")
@click.option("--iterations", default="12,100,400", show_default=True, help="At which scikit-learn's are shown.")
def main(path: Path, d: int, passes: str, iterations: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        shutil.copytree(path, copy, ignore=shutil.ignore_patterns("nmf"))
        matrix = store.open_matrix(copy)
        ours = course(OURS, copy, d)
        theirs = course(THEIRS, copy, d, matrix.scale, iterations)
    click.echo(f"{path.name}: A is {matrix.shape[0]} × {matrix.shape[1]}, d = {d}\n")
    click.echo("\n".join([*table(ours, theirs, [float(one) for one in passes.split(",")]), "", verdict(ours, theirs)]))


if __name__ == "__main__":
    main()
