"""The whole command against a whole scikit-learn script, imports included.

    python -m benchmarks.against_sklearn --zarr cbcl.zarr -d 49 --max-iter 500

Both do multiplicative updates for the same number of iterations from a random start, both in float32; the script reads
the same store.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.measure import rounds, run, table

SCRIPT = """
import sys, numpy as np, zarr
from sklearn.decomposition import NMF
A = zarr.open_array(sys.argv[1], path="A", mode="r")[...].astype(np.float32) / 255
model = NMF(int(sys.argv[2]), init="random", solver="mu", max_iter=int(sys.argv[3]), tol=0, random_state=0)
H = model.fit_transform(A.T)
np.savez(sys.argv[4], W=model.components_.T, H=H.T)
"""


@click.command()
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("-d", "d", type=int, default=49, show_default=True)
@click.option("--max-iter", type=int, default=500, show_default=True)
@click.option("--rounds", "n", type=int, default=5, show_default=True)
def main(path: Path, d: int, max_iter: int, n: int) -> None:
    ours = Path(sys.executable).parent / "nmf-batch"
    options = [
        "-d",
        str(d),
        "--max-iter",
        str(max_iter),
        "--tol",
        "0",
        "--solver",
        "mu",
        "--name",
        "benchmark",
        "--fresh",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy.zarr"
        shutil.copytree(path, copy)
        contenders = {
            "scikit-learn script": lambda: run(
                sys.executable, "-W", "ignore", "-c", SCRIPT, copy, str(d), str(max_iter), Path(scratch) / "theirs.npz"
            ),
            "nmf-batch run": lambda: run(ours, "run", "--zarr", copy, *options),
        }
        click.echo(f"{path.name}, d = {d}, {max_iter} iterations of MU\n")
        click.echo(table(rounds(contenders, n), "scikit-learn script"))


if __name__ == "__main__":
    main()
