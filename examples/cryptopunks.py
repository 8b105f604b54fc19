"""Noise on pictures with transparency, and away again: a small d loses what they show, a large one learns the noise.

    python examples/cryptopunks.py punks_24x24_rgba_png.zip --out punks --n 500 --n 2000 -d 40 -d 160 -d 280

Noise is on colours that are not zero, never on opacity.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np

from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline.noise_experiment import Asked, noise_experiment
from pipeline.report.sheets import noise_sheet, save


@click.command()
@click.argument("images", type=click.Path(exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--sigma", default=0.1, show_default=True, help="Of the noise, where 1 is the largest pixel value.")
@click.option("--n", "counts", multiple=True, default=(500, 2000), show_default=True, help="Numbers of images.")
@click.option("-d", "ranks", multiple=True, default=(5, 20, 40, 80, 120, 160, 200), show_default=True)
def main(images: str, out: Path, sigma: float, counts: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    """Add noise, factorize what is noisy, and see how near W H comes to what it was."""
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as threads:
        made = prepare([images], out / "images.zarr", Options(decoding=Decoding(mode="RGBA")), threads)
    asked = Asked(ranks=sorted(ranks), sigmas=[sigma], counts=sorted(counts))
    for noise in noise_experiment(made.path, asked):
        print(f"{noise.n} images, whose noise is {noise.error:.4f} of them:")
        for fit in noise.fits:
            mark = "" if fit != noise.best else "  <- least" if noise.inside else "  <- least; others may be better"
            print(
                f"  d = {fit.d}: {fit.to_clean:.4f} to those without noise, {fit.to_noisy:.4f} to those with it{mark}"
            )
    same = np.array_equal(noise.noisy[3::4], noise.denoised[3::4])
    save(noise_sheet(made.image_shape, [noise.clean, noise.noisy, noise.denoised]), out / "denoised.png")
    print(
        f"{out / 'denoised.png'}: without noise, with it, and denoised; opacity is {'the same' if same else 'another'}"
    )


if __name__ == "__main__":
    main()
