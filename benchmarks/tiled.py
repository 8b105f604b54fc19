"""Make a large store of a prepared one: its images over and over, each time with other noise.

python -m benchmarks.tiled --zarr celeba.zarr --times 64 --out large.zarr
"""

from pathlib import Path

import click
import numpy as np

from data_prep import store
from data_prep.arrays import ARRAYS
from data_prep.folders import folder
from data_prep.sample import write_sample

NOISE = 8


@click.command()
@click.option("--zarr", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--times", type=int, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(path: Path, times: int, out: Path, seed: int) -> None:
    source, rng = store.open_matrix(path), np.random.default_rng(seed)
    images = np.asarray(store.open_array(path, "A")[...])
    home = folder(out)
    (m, n), c = source.shape, source.chunk_images
    shape = (m, times * n)
    store.begin(home, expendable=ARRAYS)
    A = store.create_array(
        home,
        "A",
        shape=shape,
        chunks=(m, c),
        dtype=np.uint8,
        dimension_names=("pixel", "image"),
        attributes={"scale_factor": 1 / 255},
    )
    sum_of_squares = 0
    for first in range(0, shape[1], c):
        columns = np.arange(first, min(first + c, shape[1])) % n
        noise = rng.integers(-NOISE, NOISE + 1, (m, len(columns)), dtype=np.int16)
        block = np.clip(images[:, columns] + noise, 0, 255).astype(np.uint8)
        A[:, first : first + len(columns)] = block
        sum_of_squares += int(np.square(block, dtype=np.uint32).sum(dtype=np.uint64))
    checksum = np.array([store.stored_checksum(A, 0, k) for k in range(A.cdata_shape[1])], np.uint32)
    ok = np.ones(shape[1], np.bool_)
    store.write_array(home, "ok", ok, ("image",))
    store.write_array(home, "checksum", checksum, ("chunk",))
    write_sample(home, ok, {})
    norm_squared = sum_of_squares / 255**2
    about = store.complete(home, "images", checksums=checksum, ok=ok, norm_squared=norm_squared, arrays=ARRAYS)
    store.publish(out, {**source.attributes, **about})


if __name__ == "__main__":
    main()
