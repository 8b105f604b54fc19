"""Topics of documents × words: ours, scikit-learn's and gensim's, in squares and in the divergence.

    pip install '.[oracle,bench]'
    python -m benchmarks.words counts.npz --vocabulary words.txt -d 20

The file is what `scipy.sparse.save_npz` writes, a row a document; `nmf-batch prep-matrix --transpose` makes the store,
whose seconds are shown apart. Each fit is a process of its own, which ends by writing W (words, d), H (d, documents);
from these one function here computes both errors of every method, in float64, over all entries and without making them:
‖A − W H‖ / ‖A‖, and D(A ‖ W H) / D(A ‖ a 1ᵀ), with a the means of the rows of A, and W H at least the eps of float32
where A is not zero (as scikit-learn has it).

"fit s" is the record's for `nmf-batch`, which counts from reading the store to the last iteration; for the others that
of the fit alone, the matrix in memory: scikit-learn is given it as a CSR matrix of float32, gensim its `Sparse2Corpus`
and, so that no time goes into it, no evaluation on the way. gensim's W is what `get_topics(normalize=False)` says, its
H what `get_document_topics(…, normalize=False)` then says of each document: "H s". "whole s" is the process from start
to end, imports, reading and writing included: for `nmf-batch run` the whole command line. "error of best H" is the one
in squares where H is solved for anew, to its end, from W alone: what a basis is worth, whoever solves for H. "passes"
are visits of all of A, or iterations of scikit-learn. Peaks are VmHWM, the largest resident size that the system saw.
Errors are means over the seeds ± half of largest less smallest; seconds are medians, peaks the largest.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import find, load_npz

from benchmarks.measure import run
from benchmarks.quality import best_H
from pipeline import open_factors

MEBI = 2**20
ENTRIES_TOGETHER = 2**17

PEAK = r"""
import re
from pathlib import Path

def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""

OURS = r"""
import atexit, sys
from pipeline.commands import main

told, sys.argv = Path(sys.argv[1]), ["nmf-batch", *sys.argv[2:]]
atexit.register(lambda: told.write_text(str(peak())))
main()
"""

SKLEARN = r"""
import json, sys, time
import numpy as np
from scipy.sparse import load_npz
from sklearn.decomposition import NMF

X = load_npz(sys.argv[1]).tocsr().astype(np.float32)
model = NMF(int(sys.argv[3]), random_state=int(sys.argv[4]), **json.loads(sys.argv[5]))
began = time.perf_counter()
H = model.fit_transform(X)
fit_s, at_most = time.perf_counter() - began, peak()
np.savez(sys.argv[2], W=model.components_.T, H=H.T)
print(json.dumps({"fit_s": fit_s, "H_s": 0.0, "passes": model.n_iter_, "peak_nbytes": at_most}))
"""

GENSIM = r"""
import json, sys, time
import numpy as np
from gensim.matutils import Sparse2Corpus, corpus2dense
from gensim.models.nmf import Nmf
from scipy.sparse import load_npz

X, d, passes = load_npz(sys.argv[1]).tocsr(), int(sys.argv[3]), int(sys.argv[5])
words = Path(sys.argv[6]).read_text(encoding="utf-8").split("\n")
corpus = Sparse2Corpus(X, documents_columns=False)
began = time.perf_counter()
model = Nmf(corpus, d, dict(enumerate(words[: X.shape[1]])), passes=passes, normalize=False, eval_every=None,
            random_state=int(sys.argv[4]))
fit_s, began = time.perf_counter() - began, time.perf_counter()
H = corpus2dense((model.get_document_topics(one, normalize=False) for one in corpus), d, X.shape[0])
H_s, at_most = time.perf_counter() - began, peak()
np.savez(sys.argv[2], W=model.get_topics(normalize=False).T, H=H)
print(json.dumps({"fit_s": fit_s, "H_s": H_s, "passes": passes, "peak_nbytes": at_most}))
"""


class Given(NamedTuple):
    """What every method is given."""

    counts: Path
    vocabulary: Path
    zarr: Path
    """A of the same counts."""
    d: int
    scratch: Path


class Fit(NamedTuple):
    """What a process made, and what it cost."""

    W: NDArray[Any]
    H: NDArray[Any]
    fit_s: float
    H_s: float
    """Of H after the fit, where that does not make it."""
    whole_s: float
    passes: float
    peak_nbytes: int


class Errors(NamedTuple):
    """Of W H, each as a share."""

    squares: float
    divergence: float
    best_H: float
    """In squares, of the best H for that W."""


Method = Callable[[Given, int], Fit]
"""Of a seed."""


def process(script: str, *arguments: object) -> tuple[str, float]:
    """Run a script in a process of its own; what it prints, and its seconds from start to end."""
    command = [sys.executable, "-W", "ignore", "-c", PEAK + script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    began = time.perf_counter()
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True).stdout
    return said, time.perf_counter() - began


def ours(loss: str, at: Given, seed: int) -> Fit:
    """`nmf-batch run`."""
    told, name = at.scratch / "peak", f"{loss}-{seed}"
    options = ("--loss", loss, "--seed", seed, "--name", name)
    whole_s = process(OURS, told, "run", "--zarr", at.zarr, "-d", at.d, *options)[1]
    factors = open_factors(at.zarr, name)
    last = factors.iterations[-1]
    return Fit(factors.read("W"), factors.read("H"), last.seconds, 0.0, whole_s, last.passes, int(told.read_text()))


def others(script: str, arguments: Sequence[object], at: Given, seed: int) -> Fit:
    """A method that is given the file."""
    made = at.scratch / "made.npz"
    said, whole_s = process(script, at.counts, made, at.d, seed, *arguments, at.vocabulary)
    with np.load(made) as factors:
        return Fit(factors["W"], factors["H"], whole_s=whole_s, **json.loads(said))


def sklearn_nmf(**how: object) -> Method:
    return partial(others, SKLEARN, [json.dumps(how)])


def gensim_nmf(passes: int) -> Method:
    return partial(others, GENSIM, [passes])


SQUARES: Mapping[str, Method] = {
    "nmf-batch": partial(ours, "frobenius"),
    "scikit-learn cd, nndsvda": sklearn_nmf(solver="cd", init="nndsvda", tol=1e-4, max_iter=400),
    "scikit-learn cd, nndsvd": sklearn_nmf(solver="cd", init="nndsvd", tol=1e-4, max_iter=400),
    "gensim Nmf, passes=5": gensim_nmf(5),
    "gensim Nmf, passes=20": gensim_nmf(20),
}
KL = {"solver": "mu", "beta_loss": "kullback-leibler", "init": "nndsvda", "tol": 0}
DIVERGENCE: Mapping[str, Method] = {
    "nmf-batch --loss kullback-leibler": partial(ours, "kullback-leibler"),
    "scikit-learn mu, max_iter=100": sklearn_nmf(**KL, max_iter=100),
    "scikit-learn mu, max_iter=400": sklearn_nmf(**KL, max_iter=400),
}


def at_entries(
    W: NDArray[np.float64], H: NDArray[np.float64], rows: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.float64]:
    """W H at some entries."""
    x = np.empty(len(rows))
    for first in range(0, len(x), ENTRIES_TOGETHER):
        some = slice(first, first + ENTRIES_TOGETHER)
        x[some] = np.einsum("kd,dk->k", W[rows[some]], H[:, columns[some]])
    return x


def shares(A: Any, W: NDArray[Any], H: NDArray[Any]) -> tuple[float, float]:
    """‖A − W H‖ / ‖A‖ and D(A ‖ W H) / D(A ‖ means of rows): the entries that are 0 are in the sums of W H alone."""
    rows, columns, a = find(A.astype(np.float64))
    W, H = W.astype(np.float64), H.astype(np.float64)
    x = at_entries(W, H, rows, columns)
    missed = float((a * (a - 2 * x)).sum() + ((W.T @ W) * (H @ H.T)).sum())
    logs = np.log(a / np.maximum(x, np.finfo(np.float32).eps))
    divergence = float((a * logs - a).sum() + W.sum(axis=0) @ H.sum(axis=1))
    means = np.bincount(rows, a, A.shape[0]) / A.shape[1]
    of_means = float((a * np.log(a / means[rows])).sum())  # its sum over all entries is that of A
    return float(np.sqrt(max(missed, 0.0) / np.square(a).sum())), divergence / of_means


def errors(A: Any, fit: Fit) -> Errors:
    """Errors of what a process made."""
    H = best_H(A.T.astype(np.float32), np.ascontiguousarray(fit.W.T, np.float32)).T
    return Errors(*shares(A, fit.W, fit.H), shares(A, fit.W, H)[0])


def spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4f} ± {(max(values) - min(values)) / 2:.4f}"


def median(row: "Row", field: str) -> float:
    return statistics.median(float(getattr(fit, field)) for fit in row.fits)


def mean(row: "Row", objective: str) -> float:
    return statistics.fmean(float(getattr(one, objective)) for one in row.errors)


class Row(NamedTuple):
    """A method over all seeds."""

    name: str
    fits: list[Fit]
    errors: list[Errors]

    def __str__(self) -> str:
        squares, divergence, best = (spread(values) for values in zip(*self.errors, strict=True))
        costs = f"{median(self, 'fit_s'):.2f} | {median(self, 'H_s'):.2f} | {median(self, 'whole_s'):.2f}"
        peak = max(fit.peak_nbytes for fit in self.fits) / MEBI
        return (
            f"| {self.name} | {median(self, 'passes'):.4g} | {costs} | {squares} | {best} | {divergence} | {peak:.0f} |"
        )


HEADINGS = (
    *("method", "passes", "fit s", "H s", "whole s"),
    *("‖A − WH‖ / ‖A‖", "error of best H", "D(A ‖ WH) / D(A ‖ mean)", "peak MiB"),
)


def measured(name: str, method: Method, at: Given, A: Any, seeds: int) -> Row:
    """All seeds of a method; factors are not kept, since each may be large."""
    row = Row(name, [], [])
    for seed in range(seeds):
        fit = method(at, seed)
        row.errors.append(errors(A, fit))
        row.fits.append(fit._replace(W=np.empty(0), H=np.empty(0)))
    click.echo(row)  # at once: the next one may take minutes
    return row


def verdict(rows: Sequence[Row], objective: str) -> str:
    """Ours, which is first, beside the best of the others."""
    mine, best = rows[0], min(rows[1:], key=lambda row: mean(row, objective))
    error, theirs = mean(mine, objective), mean(best, objective)
    seconds, whole = (median(mine, field) / median(best, field) for field in ("fit_s", "whole_s"))
    return (
        f"{objective}: {mine.name} {error:.4f}, the best of the others {theirs:.4f} ({best.name}): "
        f"{error / theirs:.4f} × its error in {seconds:.2f} × its seconds of the fit, {whole:.2f} × those of the whole."
    )


@click.command()
@click.argument("counts", type=click.Path(path_type=Path, exists=True))
@click.option("--vocabulary", type=click.Path(path_type=Path, exists=True), required=True, help="A word a line.")
@click.option("-d", "d", type=int, default=20, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
def main(counts: Path, vocabulary: Path, d: int, seeds: int) -> None:
    A = load_npz(counts).T.tocsc()
    with tempfile.TemporaryDirectory() as scratch:
        at = Given(counts, vocabulary, Path(scratch) / "counts.zarr", d, Path(scratch))
        prep = ("prep-matrix", counts, "--transpose", "--vocabulary", vocabulary, "--zarr", at.zarr)
        began = time.perf_counter()
        run(sys.executable, "-c", "from pipeline.commands import main; main()", *prep)
        prep_s = time.perf_counter() - began
        click.echo(
            f"{counts.name}: A is {A.shape[0]} words × {A.shape[1]} documents, {A.nnz / np.prod(A.shape):.2%} not"
        )
        click.echo(f"zero, d = {d}, {seeds} seeds; prep-matrix, the whole command: {prep_s:.1f} s")
        for objective, methods in (("squares", SQUARES), ("divergence", DIVERGENCE)):
            click.echo(f"\n| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
            rows = [measured(name, method, at, A, seeds) for name, method in methods.items()]
            click.echo(f"\n{verdict(rows, objective)}")


if __name__ == "__main__":
    main()
