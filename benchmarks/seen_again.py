"""How well images are known by their weights: copies are found, weights are exact, and other images drift.

    python -m benchmarks.seen_again celeba.zip --zarr celeba.zarr --name d99

The store was prepared from the archive. 400 of its images are looked for again: as they are, 15 % brighter, shifted by
a pixel, and as JPEG of quality 50. Weights of 128 images are compared with scipy's exact non-negative least squares.
Drift is told of images like those of the store and of others: their middles enlarged, and upside down.
"""

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import nnls

from data_prep import store
from pipeline import open_factors
from pipeline.transform import weights

COPIES = 400


def shifted(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(image), 1, axis=1))


def brighter(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * 1.15, 0, 255).astype(np.uint8))


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "brighter": (brighter, 95),
    "shifted by a pixel": (shifted, 95),
    "JPEG of quality 50": (lambda image: image, 50),
}


def found_first(archive: Path, path: Path, name: str) -> None:
    """Share of copies whose original is the first match."""
    with zipfile.ZipFile(archive) as file, tempfile.TemporaryDirectory() as scratch:
        names = sorted(one for one in file.namelist() if not one.endswith("/"))[-COPIES:]
        for change in ("as they are", *CHANGES):
            home = Path(scratch) / change.replace(" ", "-")
            home.mkdir()
            for one in names:
                raw = file.read(one)
                if change == "as they are":
                    (home / Path(one).name).write_bytes(raw)
                else:
                    alter, quality = CHANGES[change]
                    with Image.open(io.BytesIO(raw)) as image:
                        alter(image).save(home / Path(one).name, "JPEG", quality=quality)
            nmf_batch = Path(sys.executable).parent / "nmf-batch"
            command = [str(part) for part in (nmf_batch, "match", home, "--zarr", path, "--name", name, "--json")]
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows = [json.loads(line) for line in shown.splitlines()]
            right = np.mean([Path(row["matches"][0]["image"]).name == row["image"] for row in rows])
            one, two = (np.mean([row["matches"][k]["score"] for row in rows]) for k in (0, 1))
            click.echo(f"{change}: {right:.1%} found first; cosine of the first {one:.4f}, of the second {two:.4f}")


def exactness(path: Path, name: str) -> None:
    """Squared error of weights over that of exact ones, less 1."""
    W, A, scale = of_store(path, name)
    H, _ = weights(W, A, scale)
    some = range(0, A.shape[1], max(1, A.shape[1] // 128))
    exact = np.stack([nnls(W.astype(float), A[:, j] * scale)[0] for j in some], axis=1)
    ours, theirs = (np.linalg.norm(A[:, some] * scale - W @ X) ** 2 for X in (H[:, some], exact))
    click.echo(f"squared error of the weights of {len(some)} images: {ours / theirs - 1:.1e} above exact ones")


def drifts(path: Path, name: str) -> None:
    """Relative error of some images over that of the collection, less 1."""
    (W, A, scale), factors = of_store(path, name), open_factors(path, name)
    height, width, channels = store.open_matrix(path).attributes["image_shape"]
    images = A.T.reshape(-1, height, width, channels).squeeze()
    box = (width // 3, height // 3, 2 * width // 3, 2 * height // 3)
    middles = np.stack([np.asarray(Image.fromarray(x).resize((width, height), box=box)) for x in images])
    for what, these in {"like the others": images, "middles": middles, "upside down": images[:, ::-1]}.items():
        columns = np.ascontiguousarray(these.reshape(len(these), -1).T)
        _, errors = weights(W, columns, scale)
        squares = np.square(columns * scale).sum(axis=0)
        error = np.sqrt((errors**2 * squares).sum() / squares.sum())
        click.echo(f"drift of {len(these)} {what}: {error / factors.attributes['relative_error'] - 1:+.3f}")


def of_store(path: Path, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8], float]:
    """W, the first chunk of A, and its scale."""
    matrix = store.open_matrix(path)
    return open_factors(path, name).read("W"), store.read_chunk(store.open_array(path, "A"), 0, 0), matrix.scale


@click.command()
@click.argument("archive", type=click.Path(path_type=Path, exists=True))
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--name", default="d99", show_default=True)
def main(archive: Path, path: Path, name: str) -> None:
    found_first(archive, path, name)
    exactness(path, name)
    drifts(path, name)


if __name__ == "__main__":
    main()
