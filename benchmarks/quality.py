"""Error against passes and against seconds: ours, scikit-learn's and gensim's, side by side, on any store.

    pip install '.[oracle,bench]'
    python -m benchmarks.quality --zarr faces.zarr -d 99 --out docs/quality-faces

It writes OUT.png and OUT.md. Ours work on a copy of the store, and their seconds and passes are those of their record;
before the passes over A the errors of `sketch` are those of its sketch. The others are given A in memory, as
float32 in the order they like best, and their clock stops while their error is computed. A pass is a visit of every
column: an iteration of scikit-learn's solvers, an epoch of the mini-batch ones. The last line sets the whole command
`nmf-batch run`, from its start to its end, against the seconds in which scikit-learn's coordinate descent comes to the
same error.
"""

import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import run
from data_prep import store
from pipeline import factorize, open_factors

ROWS_TOGETHER = 512
Columns = NDArray[np.float32]
"""Aᵀ (n, m), C-contiguous."""


class Point(NamedTuple):
    """Where a method has come to."""

    passes: float
    seconds: float
    error: float


class Setting(NamedTuple):
    """What every method is given."""

    path: Path
    X: Columns
    d: int
    seed: int
    limit_s: float
    max_iter: int
    """Of scikit-learn's NMF, which starts from `init`."""
    init: str


def ours(solver: str, at: Setting) -> Iterator[Point]:
    """Iterations of one of our solvers, from its record."""
    longer: dict[str, Any] = {} if solver == "sketch" else {"max_time": at.limit_s, "max_iter": 2000, "tol": 1e-5}
    made = factorize(at.path, at.d, solver=solver, seed=at.seed, name=solver, fresh=True, **longer)
    for iteration in made.factors.iterations:
        yield Point(iteration.passes, iteration.seconds, iteration.relative_error)


def error_of(X: Columns, H: NDArray[Any], W: NDArray[Any]) -> float:
    """‖X − H W‖ / ‖X‖ from the differences, their squares summed in float64: H is (n, d), W (d, m)."""
    missed = norm = 0.0
    for first in range(0, len(X), ROWS_TOGETHER):
        rows = slice(first, first + ROWS_TOGETHER)
        missed += float(np.square(X[rows] - H[rows] @ W, dtype=np.float64).sum())
        norm += float(np.square(X[rows], dtype=np.float64).sum())
    return float(np.sqrt(missed / norm))


def sklearn_nmf(solver: str, at: Setting) -> Iterator[Point]:
    """scikit-learn's NMF, a few iterations at a time, each from where the last ones ended."""
    from sklearn.decomposition import NMF

    done, seconds, some = 0, 0.0, 5
    H, W = None, None
    while seconds < at.limit_s and done < at.max_iter:
        how = {"init": at.init} if H is None else {"init": "custom"}
        model = NMF(at.d, solver=solver, max_iter=some, tol=0, random_state=at.seed, **how)
        began = time.perf_counter()
        H = model.fit_transform(at.X, W=H, H=W)
        seconds += time.perf_counter() - began
        W, done = model.components_, done + some
        yield Point(done, seconds, error_of(at.X, H, W))
        some = 5 if done < 50 else 25


def sklearn_minibatch(at: Setting) -> Iterator[Point]:
    """scikit-learn's MiniBatchNMF, from its beginning for each number of epochs: it keeps no state between calls."""
    from sklearn.decomposition import MiniBatchNMF

    epochs, seconds = 1, 0.0
    while seconds < at.limit_s and epochs <= 256:
        model = MiniBatchNMF(at.d, max_iter=epochs, tol=0, max_no_improvement=None, random_state=at.seed)
        began = time.perf_counter()
        H = model.fit_transform(at.X)
        seconds = time.perf_counter() - began
        yield Point(epochs, seconds, error_of(at.X, H, model.components_))
        epochs *= 2


def gensim_nmf(at: Setting) -> Iterator[Point]:
    """gensim's Nmf, updated by one epoch after the other; its H is computed when it is asked for, and then counts."""
    from gensim.matutils import Dense2Corpus
    from gensim.models.nmf import Nmf

    corpus = Dense2Corpus(at.X.T)
    names = {k: str(k) for k in range(at.X.shape[1])}
    model = Nmf(num_topics=at.d, id2word=names, normalize=False, random_state=at.seed, eval_every=None)
    seconds = 0.0
    for epoch in range(1, 50):
        began = time.perf_counter()
        model.update(corpus)
        seconds += time.perf_counter() - began
        W = np.ascontiguousarray(model.get_topics(normalize=False), np.float32)
        yield Point(epoch, seconds, error_of(at.X, best_H(at.X, W), W))
        if seconds > at.limit_s:
            return


def best_H(X: Columns, W: Columns) -> Columns:
    """H (n, d) for a fixed W (d, m): many sweeps, so that a method is judged by its basis images."""
    from pipeline.kernels import cold_start, hals

    G, C = W @ W.T, np.ascontiguousarray(W @ X.T)
    return hals(G, C, cold_start(G, C), 100).T


METHODS: Mapping[str, Callable[[Setting], Iterator[Point]]] = {
    "nmf-batch sketch": lambda at: ours("sketch", at),
    "nmf-batch hals": lambda at: ours("hals", at),
    "nmf-batch mu": lambda at: ours("mu", at),
    "scikit-learn cd": lambda at: sklearn_nmf("cd", at),
    "scikit-learn mu": lambda at: sklearn_nmf("mu", at),
    "scikit-learn MiniBatchNMF": sklearn_minibatch,
    "gensim Nmf": gensim_nmf,
}


def table(curves: Mapping[str, list[Point]]) -> list[str]:
    """A row a method: where it ended, and the passes and seconds until it was near the best error of all."""
    best = min(curve[-1].error for curve in curves.values())
    lines = [
        f"| method | error | passes | seconds | within 5 / 2 / 1 % of {best:.4f} after passes | after seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, curve in curves.items():
        first = [next((p for p in curve if p.error <= (1 + share) * best), None) for share in (0.05, 0.02, 0.01)]
        passes, seconds = (" / ".join("–" if p is None else f"{p[k]:.3g}" for p in first) for k in (0, 1))
        last = curve[-1]
        lines.append(f"| {name} | {last.error:.4f} | {last.passes:.3g} | {last.seconds:.1f} | {passes} | {seconds} |")
    return lines


def whole_command(at: Setting, cd: list[Point]) -> str:
    """Compare `nmf-batch run` as a user starts it with the coordinate descent to the same error."""
    ours = Path(sys.executable).parent / "nmf-batch"
    began = time.perf_counter()
    run(ours, "run", "--zarr", at.path, "-d", str(at.d), "--fresh", "--name", "whole")
    wall_s = time.perf_counter() - began
    error = open_factors(at.path, "whole").attributes["relative_error"]
    reached = next((point for point in cd if point.error <= error), None)
    said = f"`nmf-batch run`, all of it: {wall_s:.1f} s to {error:.4f}; scikit-learn's coordinate descent "
    if reached is None:
        return (
            said + f"is at {cd[-1].error:.4f} after {cd[-1].seconds:.0f} s, more than {cd[-1].seconds / wall_s:.1f} ×."
        )
    return said + f"is there after {reached.seconds:.0f} s: {reached.seconds / wall_s:.1f} ×."


def draw(curves: Mapping[str, list[Point]], title: str, path: Path) -> None:
    """Two panels: error against passes and against seconds."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for k, (panel, label) in enumerate(zip(panels, ("passes over A", "seconds"), strict=True)):
        for name, curve in curves.items():
            style = {"linewidth": 2.5} if name.startswith("nmf-batch") else {"linestyle": "--"}
            panel.plot([p[k] for p in curve], [p.error for p in curve], label=name, marker=".", markersize=3, **style)
        panel.set(xscale="log", xlabel=label)
        panel.grid(alpha=0.3)
    best = min(p.error for curve in curves.values() for p in curve)
    panels[0].set(ylabel="relative error ‖A − W H‖ / ‖A‖", ylim=(0.98 * best, 1.6 * best))
    panels[1].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


@click.command()
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("-d", "d", type=int, default=49, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--seconds", "limit_s", type=float, default=90.0, show_default=True, help="For each method.")
@click.option("--max-iter", type=int, default=2000, show_default=True, help="Of scikit-learn's NMF.")
@click.option("--init", default="nndsvda", show_default=True, help="Of scikit-learn's NMF.")
@click.option("--methods", default=",".join(METHODS), show_default=False, help="Some of them, with commas.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Two files: OUT.png and OUT.md.")
def main(path: Path, d: int, seed: int, limit_s: float, max_iter: int, init: str, methods: str, out: Path) -> None:
    warnings.simplefilter("ignore")  # that iterations ended before convergence is what is asked for
    matrix = store.open_matrix(path)
    A = np.asarray(store.open_array(path, "A")[...], np.float32)
    X = np.ascontiguousarray(A.T) * np.float32(matrix.scale)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy.zarr"
        shutil.copytree(path, copy, ignore=shutil.ignore_patterns("nmf"))
        at = Setting(copy, X, d, seed, limit_s, max_iter, init)
        curves: dict[str, list[Point]] = {}
        for name in methods.split(","):
            curves[name] = list(METHODS[name](at))
            click.echo(f"{name}: {curves[name][-1]}", err=True)
        lines = [f"{path.name}: A is {matrix.shape[0]} × {matrix.shape[1]}, d = {d}", "", *table(curves)]
        if "scikit-learn cd" in curves:
            lines += ["", whole_command(at, curves["scikit-learn cd"])]
    draw(curves, lines[0], out.with_suffix(".png"))
    out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
