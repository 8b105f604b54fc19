"""What it gains that blocks of A list their few entries that are not zero: the same store as it is, and as if dense.

    python -m benchmarks.mostly_zero
    python -m benchmarks.mostly_zero --shape 3000x4000 -d 50

The matrix has the shape of the articles of a lexicon: words × articles of which each has few words. There are d topics,
each with its own weights of words whose frequencies fall as Zipf has it; an article mixes a few topics, its length is
lognormal, and its counts are Poisson. Articles are drawn one by one, from the seed and their number, so that one in
--one-in entries is not zero on average, and put into a CSR file, which `nmf-batch prep-matrix --transpose` prepares.

Every run is `factorize` in a process of its own, on all cores. For the dense one `pipeline.objective.SPARSE` is 0
before: the plan, the sketch, the blocks and the objective all ask there, and the process ends in error unless its
matrix is then said to be dense. Its iterations are made the same ones, with as few sweeps; the default has its own.
"iterations s" are those between the first and the last entry of the record, thus without the start and without what
the first iteration has to read; "whole s" is the last entry's. Both are to come to the same error, that of the record:
‖A − W H‖ / ‖A‖, or the share of the divergence.

Peaks are VmHWM, the largest resident size that the system saw. The second table sets the one of the sparse run, less
that of a process that factorizes 400 × 300 of the same kind in the same way, against the size of what it cannot do
without: A as a CSC matrix of float32 (8 bytes an entry that is not zero, 4 a column), and the factors, 4 d (m + n).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, save_npz

from benchmarks.measure import run
from data_prep import store
from data_prep.store import StoredMatrix

MEBI = 2**20
SMALL = (400, 300)
PILOTS = 1000
"""Articles that the length of all is found from."""

RUN = r"""
import json, re, sys
from pathlib import Path
from data_prep.store import open_matrix
from pipeline import factorize, objective

path, d, dense, settings = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "dense", json.loads(sys.argv[4])
if dense:
    objective.SPARSE = 0
    objective.WARM_SWEEPS, objective.LEAST_LEFT = objective.LISTED_SWEEPS, objective.LEFT_OF_COUNTS
assert objective.nearly_all_zero(open_matrix(path)) is not dense
iterations = factorize(path, d, fresh=True, **settings).factors.iterations
first, last = iterations[0], iterations[-1]
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps([len(iterations), last.seconds - first.seconds, last.seconds, last.relative_error, peak]))
"""


class Run(NamedTuple):
    """What a process says of its factorization."""

    n: int
    """Iterations."""
    iterations_s: float
    whole_s: float
    error: float
    peak_nbytes: int


class Method(NamedTuple):
    """A solver three times: sparse, dense, and on a small matrix."""

    name: str
    sparse: Run
    dense: Run
    small: Run


class Articles:
    """Columns of counts, each drawn from the seed and its number."""

    def __init__(self, m: int, n_topics: int, one_in: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        frequencies = 1 / (np.arange(m) + 10)
        weights = frequencies * rng.gamma(0.2, size=(n_topics, m))
        self.seed = seed
        self.topics = weights / weights.sum(axis=1, keepdims=True)
        self.length = self._suitable(m / one_in)

    def column(self, j: int, length: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Words of article j, and how often it has each, where articles are so long on average."""
        rng = np.random.default_rng((self.seed, j))
        chosen = rng.choice(len(self.topics), min(3, len(self.topics)), replace=False)
        words = rng.dirichlet(np.full(len(chosen), 0.5)) @ self.topics[chosen]
        n_words = rng.poisson(length * rng.lognormal(-0.32, 0.8))  # of mean 1
        drawn = np.searchsorted(np.cumsum(words), rng.random(n_words))
        rows, counts = np.unique(np.minimum(drawn, len(words) - 1), return_counts=True)
        return rows.astype(np.int32), counts.astype(np.int32)

    def _suitable(self, n_rows: float) -> float:
        """Mean length at which articles have so many different words on average."""
        length = n_rows
        for _ in range(8):
            length *= n_rows / statistics.fmean(len(self.column(j, length)[0]) for j in range(PILOTS))
        return length


def write_articles(path: Path, shape: tuple[int, int], articles: Articles) -> None:
    """Write counts, a row an article, as `scipy.sparse.save_npz` does."""
    m, n = shape
    drawn = [articles.column(j, articles.length) for j in range(n)]
    starts = np.cumsum([0, *(len(rows) for rows, _ in drawn)])
    rows, counts = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    save_npz(path, csr_array((counts, rows, starts), shape=(n, m)), compressed=False)


def prepared(scratch: Path, shape: tuple[int, int], n_topics: int, one_in: float, seed: int) -> Path:
    """Make the store of a drawn matrix."""
    counts, path = scratch / "counts.npz", scratch / f"{shape[0]}x{shape[1]}.zarr"
    write_articles(counts, shape, Articles(shape[0], n_topics, one_in, seed))
    command = (sys.executable, "-c", "from pipeline.commands import main; main()", "prep-matrix")
    run(*command, counts, "--transpose", "--zarr", path)
    counts.unlink()
    return path


def factorized(path: Path, d: int, how: str, settings: dict[str, Any]) -> Run:
    """Factorize in a process of its own, `sparse` or `dense`."""
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(path), str(d), how, json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return Run(*json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout))


def settings_of(iterations: str, with_default: bool) -> dict[str, dict[str, Any]]:
    """Solvers by name, each with so many iterations and no other reason to stop."""
    named: dict[str, dict[str, Any]] = {
        "mu": {"solver": "mu"},
        "hals": {"solver": "hals"},
        "amu, divergence": {"solver": "amu", "loss": "kullback-leibler"},
    }
    for settings, n in zip(named.values(), iterations.split(","), strict=True):
        if int(n) < 2:
            raise click.BadParameter(f"--iterations is {iterations}, but the first one of each is left out: 2 or more")
        settings |= {"max_iter": int(n), "tol": 0}
    return named | ({"default": {}} if with_default else {})


def measured(name: str, settings: dict[str, Any], path: Path, small: Path, d: int) -> Method:
    """All three runs of a solver."""
    sparse, dense = (factorized(path, d, how, settings) for how in ("sparse", "dense"))
    method = Method(name, sparse, dense, factorized(small, min(d, min(SMALL)), "sparse", settings))
    click.echo(row(method))  # at once: the next one may take minutes
    return method


def both(one: float, other: float, form: str) -> str:
    """Two figures, once where they are the same."""
    return " / ".join(dict.fromkeys(f"{value:{form}}" for value in (one, other)))


def row(method: Method) -> str:
    sparse, dense = method.sparse, method.dense
    cells = [method.name, both(sparse.n, dense.n, "d")]
    for one, other in ((sparse.iterations_s, dense.iterations_s), (sparse.whole_s, dense.whole_s)):
        cells += [f"{one:.2f}", f"{other:.2f}", f"{other / one:.1f}"]
    cells += [both(sparse.error, dense.error, ".5f"), *(f"{run.peak_nbytes / MEBI:.0f}" for run in (sparse, dense))]
    return f"| {' | '.join(cells)} |"


HEADINGS = (
    *("solver", "iterations", "iterations s, sparse", "dense", "ratio", "whole s, sparse", "dense", "ratio"),
    *("error, sparse / dense", "peak MiB, sparse", "dense"),
)


def table(headings: Iterable[str], rows: Iterable[str]) -> list[str]:
    headings = list(headings)
    return ["", f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}", *rows]


def of_memory(methods: Iterable[Method], matrix: StoredMatrix, d: int) -> list[str]:
    """The second table: what a sparse run takes beyond a small one, beside A and the factors."""
    (m, n), nonzero = matrix.shape, matrix.n_nonzero or 0
    listed, factors = (8 * nonzero + 4 * (n + 1)) / MEBI, 4 * d * (m + n) / MEBI
    lines = []
    for method in methods:
        peak, small = method.sparse.peak_nbytes / MEBI, method.small.peak_nbytes / MEBI
        more = peak - small
        ratios = f"{more / (3 * listed + factors):.2f} | {more / (3 * (listed + factors)):.2f}"
        lines.append(f"| {method.name} | {peak:.0f} | {small:.0f} | {more:.0f} | {ratios} |")
    headings = ("solver", "peak MiB", "of 400 × 300", "more", "/ (3 A + factors)", "/ 3 (A + factors)")
    said = f"Memory of the sparse runs; A is {listed:.1f} MiB as a list, the factors are {factors:.1f} MiB:"
    return ["", said, *table(headings, lines)]


def verdict(methods: list[Method]) -> str:
    """The least and the largest gain, and whether as many iterations come to the same error."""
    gains = [(m.dense.iterations_s / m.sparse.iterations_s, m.dense.whole_s / m.sparse.whole_s) for m in methods]
    iterations, whole = (f"{min(one):.1f} to {max(one):.1f} ×" for one in zip(*gains, strict=True))
    apart = max((abs(m.sparse.error / m.dense.error - 1) for m in methods if m.sparse.n == m.dense.n), default=0.0)
    return (
        f"As lists, iterations are {iterations} as fast as on dense blocks, runs {whole}; "
        f"errors after as many iterations are within {apart:.0e} of each other."
    )


@click.command()
@click.option("--shape", default="15276x30991", show_default=True, help="Words × articles.")
@click.option("--one-in", type=float, default=200, show_default=True, help="So many entries one is not zero.")
@click.option("-d", "d", type=int, default=200, show_default=True)
@click.option("--iterations", default="5,5,2", show_default=True, help="2 or more: of mu, hals, the divergence.")
@click.option("--default", "with_default", is_flag=True, help="Also the default solver, until it stops by itself.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--scratch", type=click.Path(path_type=Path, exists=True), help="Where the store is for a while.")
def main(
    shape: str, one_in: float, d: int, iterations: str, with_default: bool, seed: int, scratch: Path | None
) -> None:
    m, n = map(int, shape.split("x"))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        began = time.perf_counter()
        path, small = (prepared(Path(folder), size, d, one_in, seed) for size in ((m, n), SMALL))
        made_s, matrix = time.perf_counter() - began, store.open_matrix(path)
        share = (matrix.n_nonzero or 0) / (m * n)
        click.echo(f"A is {m} words × {n} articles of {matrix.dtype}, {matrix.n_nonzero:,} entries not zero: one in")
        click.echo(f"{1 / share:.0f}, {matrix.nbytes / MEBI:.0f} MiB; d = {d}; made and prepared in {made_s:.0f} s")
        wanted = settings_of(iterations, with_default).items()
        click.echo("\n".join(table(HEADINGS, ())))
        methods = [measured(name, settings, path, small, d) for name, settings in wanted]
    click.echo("\n".join([*of_memory(methods, matrix, d), "", verdict(methods)]))


if __name__ == "__main__":
    main()
