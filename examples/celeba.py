"""Cost against rank: the larger d, the better faces are rebuilt, and the more numbers W and H hold.

    python examples/celeba.py celeba_178x218_first4000.zip --out celeba --scale 0.4 -d 10 -d 49 -d 99

It takes any pictures of one size.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np

from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from data_prep.sample import read_columns
from pipeline import factorize
from pipeline.report.sheets import basis_sheet, image_shape, noise_sheet, save

SHOWN = 6


@click.command()
@click.argument("images", type=click.Path(exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--scale", default=1.0, show_default=True, help="Of the images.")
@click.option("-d", "ranks", multiple=True, default=(10, 49, 99), show_default=True)
def main(images: str, out: Path, scale: float, ranks: tuple[int, ...]) -> None:
    """Factorize faces with several ranks, and draw some of them, rebuilt by each."""
    out.mkdir(parents=True, exist_ok=True)
    store = out / "faces.zarr"
    with ThreadPoolExecutor() as threads:
        path = prepare([images], store, Options(decoding=Decoding(mode="L", scale=scale)), threads).path
    found = read_columns(path, np.arange(SHOWN))
    rows = [np.stack([found[j] for j in range(SHOWN)], axis=1)]
    for d in sorted(ranks):
        factors = factorize(store, d).factors
        (m, n), error = factors.attributes["shape"], factors.attributes["relative_error"]
        print(f"d = {d}: relative error {error:.4f}, one number for {m * n / (d * (m + n)):.1f} of A")
        WH = factors.read("W") @ factors.H[:, :SHOWN].compute()
        rows.append(np.rint(255 * np.clip(WH, 0, 1)).astype(np.uint8))
    save(noise_sheet(image_shape(factors), rows), out / "rebuilt.png")
    save(basis_sheet(factors), out / "basis.png")
    print(f"{out / 'rebuilt.png'}: faces, and below them as rebuilt with each d; {out / 'basis.png'}: basis images")


if __name__ == "__main__":
    main()
