"""Peak memory of runs while the number of images grows, beside the plan's figure and beside scikit-learn.

    python -m benchmarks.memory --memory 600MiB --images 20000 --times 1,4,16

Every run is two iterations of MU on a store of noise, in processes of its own; a peak is VmHWM, the largest resident
size that the system saw of one process. scikit-learn gets the same values as float32, filled in chunk by chunk, for two
iterations, in a process that may map --cap of address space; "died" is a MemoryError there.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from dask.utils import parse_bytes

from benchmarks.measure import run
from data_prep import store
from data_prep.arrays import write_matrix

MEBI = 2**20

OURS = r"""
import json, re, sys
from pathlib import Path
from cluster.connect import connect
from data_prep.store import open_matrix
from pipeline import factorize
from pipeline.config import NMFConfig
from pipeline.plan import make_plan

def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

if __name__ == "__main__":
    path, d, memory, workers = sys.argv[1], *map(int, sys.argv[2:5])
    with connect(workers=workers or None) as client:
        plan = make_plan(open_matrix(Path(path)), NMFConfig(n_components=d), memory)
        factorize(path, d, solver="mu", init="random", max_iter=2, tol=0, fresh=True, memory_nbytes=memory)
        peaks = {"driver": peak(), "workers": list(client.run(peak).values()) if client else []}
    planned = {"driver": plan.driver_nbytes, "worker": plan.worker_nbytes, "cached_share": plan.cached_share}
    print(json.dumps({**peaks, "planned": planned}))
"""

THEIRS = r"""
import json, re, sys
import numpy as np, zarr
from sklearn.decomposition import NMF
A = zarr.open_array(sys.argv[1], path="A", mode="r")
X = np.empty(A.shape[::-1], np.float32)
for first in range(0, len(X), A.chunks[1]):
    X[first : first + A.chunks[1]] = A[:, first : first + A.chunks[1]].T
    X[first : first + A.chunks[1]] /= 255
NMF(int(sys.argv[2]), init="random", solver="mu", max_iter=2, tol=0, random_state=0).fit_transform(X)
print(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]))
"""


def make_stores(scratch: Path, m: int, images: int, times: Sequence[int]) -> list[Path]:
    """Stores of uniform noise, so many times the images."""
    base = scratch / "base.zarr"
    write_matrix(base, np.random.default_rng(0).integers(0, 256, (m, images), dtype=np.uint8))
    stores = []
    for factor in times:
        stores.append(scratch / f"{factor}.zarr")
        tile = (sys.executable, "-m", "benchmarks.tiled", "--zarr", base)
        run(*tile, "--times", str(factor), "--out", stores[-1])
    return stores


def ours(path: Path, d: int, memory_nbytes: int, workers: int) -> dict[str, Any]:
    """Peaks and plan of a run, on threads of its process where workers is 0."""
    script = path.parent / "ours.py"  # a file: the workers' processes import it
    script.write_text(OURS, encoding="utf-8")
    command = [sys.executable, script, path, d, memory_nbytes, workers]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True, env=environment)
    return json.loads(said.stdout)


def theirs(path: Path, d: int, cap: int) -> str:
    """Peak of scikit-learn, or "died"."""

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))

    command = [sys.executable, "-W", "ignore", "-c", THEIRS, str(path), str(d)]
    shown = subprocess.run(command, capture_output=True, text=True, preexec_fn=confine)
    if shown.returncode and "MemoryError" not in shown.stderr:
        raise RuntimeError(f"scikit-learn ended with {shown.returncode}: {shown.stderr[-500:]}")
    return "died" if shown.returncode else mib(int(shown.stdout))


def mib(nbytes: int) -> str:
    """Mebibytes, rounded."""
    return f"{nbytes / MEBI:.0f}"


def row(path: Path, d: int, memory_nbytes: int, cap: int) -> str:
    """Both ways to run, and scikit-learn, on one store."""
    matrix = store.open_matrix(path)
    alone, spread = ours(path, d, memory_nbytes, 0), ours(path, d, memory_nbytes, 2)
    cells = [
        *(f"{matrix.shape[1]:,}", mib(matrix.nbytes), f"{alone['planned']['cached_share']:.0%}"),
        *(mib(alone["driver"]), mib(alone["planned"]["driver"]), f"{spread['planned']['cached_share']:.0%}"),
        *(" and ".join(mib(peak) for peak in spread["workers"]), mib(spread["planned"]["worker"])),
        *(mib(spread["driver"]), mib(spread["planned"]["driver"]), theirs(path, d, cap)),
    ]
    return f"| {' | '.join(cells)} |"


HEADINGS = (
    *("images", "A MiB", "cached", "this process MiB", "planned", "cached by 2 workers"),
    *("each worker MiB", "planned", "their driver MiB", "planned", "scikit-learn MiB"),
)


@click.command()
@click.option("--memory", default="600MiB", show_default=True)
@click.option("--images", type=int, default=20_000, show_default=True)
@click.option("--times", default="1,4,16", show_default=True)
@click.option("-m", "m", type=int, default=6177, show_default=True)
@click.option("-d", "d", type=int, default=99, show_default=True)
@click.option("--cap", default="8GiB", show_default=True)
def main(memory: str, images: int, times: str, m: int, d: int, cap: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        stores = make_stores(Path(scratch), m, images, [int(factor) for factor in times.split(",")])
        click.echo(f"m = {m}, d = {d}, --memory {memory}, scikit-learn within {cap}\n")
        click.echo(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
        for path in stores:
            click.echo(row(path, d, parse_bytes(memory), parse_bytes(cap)))


if __name__ == "__main__":
    main()
