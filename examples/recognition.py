"""Whose face is it? Weights of a new picture are compared with those of pictures of known people.

    python examples/recognition.py known/ new/ --out faces.zarr

`known/` has a folder for each person, with pictures of one size; `new/` has pictures, or folders like these.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import click

from data_prep.batches import batches
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from data_prep.store import column_names, open_matrix
from pipeline import factorize
from pipeline.match import matches
from pipeline.transform import transformed


@click.command()
@click.argument("known", type=click.Path(exists=True))
@click.argument("new", type=click.Path(exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Store to make.")
@click.option("-d", "d", default=20, show_default=True)
def main(known: str, new: str, out: Path, d: int) -> None:
    """Learn what faces are made of, and find for each new one the known one that is made alike."""
    with ThreadPoolExecutor() as threads:
        prepare([known], out, Options(decoding=Decoding(mode="L")), threads)
        factors, matrix = factorize(out, d).factors, open_matrix(out)
        names = column_names(out, matrix.shape[1])
        for found in transformed(factors, batches(matrix, [new]), threads):
            best = matches(factors, found.H, 1)
            for name, (column,), (score,) in zip(found.names, best.columns, best.scores, strict=True):
                print(f"{name}: {PurePosixPath(names[column]).parent.name} (cosine {score:.3f} with {names[column]})")


if __name__ == "__main__":
    main()
