"""`pipeline.NMF` beside scikit-learn's, on the same X in memory: seconds of `fit`, error, and peak memory.

    python -m benchmarks.estimator celeba.zarr -d 99 --max-iter 1000

X is Aᵀ of a store of images: float32 from 0 to 1 for both, and bytes as they are for ours once more. Each is a process
of its own, one after the other; the peak is less what the process had before `fit`, X included.
"""

import multiprocessing
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from data_prep import store
from pipeline.engine import peak_nbytes


class Fitted(NamedTuple):
    """What a fit took, and how good it is."""

    seconds: float
    error: float
    n_iter: int
    nbytes: int


def fit(name: str, path: Path, d: int, settings: dict[str, Any], as_bytes: bool) -> Fitted:
    array = store.open_array(path, "A")
    A = np.concatenate([store.read_chunk(array, 0, k) for k in range(array.cdata_shape[1])], axis=1)
    X = np.ascontiguousarray(A.T)
    if not as_bytes:
        X = X.astype(np.float32)
        X /= 255
    home = import_module("pipeline" if name == "ours" else "sklearn.decomposition")
    before, began = peak_nbytes(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = home.NMF(d, random_state=0, **settings).fit(X)
    seconds, took = time.perf_counter() - began, peak_nbytes() - before
    norm = np.sqrt(sum(float(np.square(row, dtype=np.float64).sum()) for row in X))
    return Fitted(seconds, model.reconstruction_err_ / norm, model.n_iter_, took)


@click.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path, exists=True))
@click.option("-d", "d", default=49, show_default=True)
@click.option("--max-iter", default=1000, show_default=True, help="Of scikit-learn's coordinate descent.")
def main(path: Path, d: int, max_iter: int) -> None:
    """Compare."""
    contenders: dict[str, tuple[str, dict[str, Any], bool]] = {
        "pipeline.NMF": ("ours", {}, False),
        "pipeline.NMF, bytes": ("ours", {}, True),
        "scikit-learn": ("theirs", {"init": "nndsvda", "max_iter": max_iter}, False),
    }
    click.echo("| | seconds | relative error | iterations | peak beyond X, MiB |\n|---|---|---|---|---|")
    for name, (whose, settings, as_bytes) in contenders.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(fit, (whose, path, d, settings, as_bytes))
        cells = f"{found.seconds:.1f} | {found.error:.4f} | {found.n_iter} | {found.nbytes / 2**20:.0f}"
        click.echo(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
