"""What of added noise W H, truncated SVD, and non-local means remove: PSNR and SSIM of the same pictures.

    python -m benchmarks.denoising punks.zarr --sigma 0.05,0.1,0.2

Noise is added as `nmf-batch denoise --sigma` adds it, to all images of a store. `nmf-batch denoise --out` removes it
with the rank that it recommends. Truncated SVD is of the noisy A, of the same rank and of the one that is best for it,
which only those know who have the clean images. Non-local means (scikit-image) is told the level of noise, and has the
best of the filter strengths 0.4, 0.6, 0.8, 1 and 1.2 times it, likewise. Opacity, and what is transparent, are those of
the noisy images with all of them. PSNR is of the colours that can be seen, SSIM of all, a mean over images each.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means

from benchmarks.measure import measured_command
from data_prep import store
from data_prep.folders import folder
from pipeline.advice import advise
from pipeline.held_out import HeldOut, above_noise, part_of
from pipeline.noise import ALPHA, seen, to_pixels
from pipeline.noisy_stores import drawn, noisy_images

RANKS, STRENGTHS = (5, 10, 20, 40, 60, 80, 120, 160, 200, 300), (0.4, 0.6, 0.8, 1.0, 1.2)
Images = Any
"""(m, k), uint8."""


def columns(path: Path) -> Images:
    array = store.open_array(path, "A")
    return np.concatenate([store.read_chunk(array, 0, k) for k in range(array.cdata_shape[1])], axis=1)


class Compared:
    """Pictures without noise, and those with it."""

    def __init__(self, clean: Images, noisy: Images, shape: tuple[int, int, int]) -> None:
        self.clean, self.noisy, self.shape = clean, noisy, shape
        self.seen = seen(clean, shape[2])

    def quality(self, found: Images) -> tuple[float, float]:
        """PSNR and SSIM of pictures (m, k), with the opacity and transparent colours of the noisy ones."""
        kept: Images = np.where(self.seen, found, self.noisy)
        errors = np.where(self.seen, (kept.astype(float) - self.clean) / 255, 0)
        psnr = -10 * np.log10(np.maximum(np.square(errors).sum(axis=0) / self.seen.sum(axis=0), 1e-12))
        pairs = zip(self.pictures(kept), self.pictures(self.clean), strict=True)
        ssim = [structural_similarity(a, b, channel_axis=-1, data_range=1.0) for a, b in pairs]
        return float(psnr.mean()), float(np.mean(ssim))

    def pictures(self, values: Images) -> Images:
        """Colours as (k, height, width, channels), 0 to 1."""
        images = values.T.reshape(-1, *self.shape) / 255
        return images[..., :3] if self.shape[2] == ALPHA else images


def svd(A: Images, chosen: Any) -> Callable[[int], Images]:
    """Truncated SVD of all images, of which some are returned, by rank."""
    wide = A.astype(np.float32) / 255
    _, U = np.linalg.eigh(wide @ wide.T)
    return lambda d: to_pixels(U[:, ::-1][:, :d] @ (U[:, ::-1][:, :d].T @ wide[:, chosen]))


def non_local_means(compared: Compared, sigma: float, strength: float) -> Images:
    found = np.zeros_like(compared.noisy.T.reshape(-1, *compared.shape))
    for image, picture in zip(found, compared.pictures(compared.noisy), strict=True):
        means = denoise_nl_means(
            picture, patch_size=3, patch_distance=7, h=strength * sigma, sigma=sigma, fast_mode=False, channel_axis=-1
        )
        image[..., : means.shape[2]] = to_pixels(means)
    return found.reshape(len(found), -1).T


@click.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path, exists=True))
@click.option("--sigma", "sigmas", default="0.05,0.1,0.2", show_default=True)
@click.option("--images", default=500, show_default=True, help="How many of them are compared.")
def main(path: Path, sigmas: str, images: int) -> None:
    """Compare."""
    matrix = store.open_matrix(path)
    clean, numbers = columns(path), drawn(matrix, matrix.n_ok)
    chosen = np.linspace(0, matrix.n_ok - 1, images).astype(int)
    click.echo("| sigma | method | PSNR, dB | SSIM |\n|---|---|---|---|")
    for sigma in map(float, sigmas.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            noisy_images(matrix, folder(scratch) / "noisy.zarr", numbers, sigma, 0)
            A, out = columns(Path(scratch) / "noisy.zarr"), Path(scratch) / "clean.zarr"
            done = measured_command("denoise", "--zarr", Path(scratch) / "noisy.zarr", "--out", out, "--json")
            told, denoised = json.loads(done.stdout), columns(out)[:, chosen]
            part = part_of(store.open_matrix(folder(scratch) / "noisy.zarr"), 0)
            advice = advise(HeldOut(part, 0), RANKS, above_noise(part))
        d = told["d"]
        click.echo(
            f"sigma {sigma:g}, found as {told['sigma']:.3f}: {done.seconds:.0f} s, peak {done.peak_nbytes / 2**20:.0f} "
            f"MiB; entries held out say d = {advice and advice.d}, {above_noise(part)} values stand out of white noise",
            err=True,
        )
        compared, truncated = Compared(clean[:, chosen], A[:, chosen], matrix.attributes["image_shape"]), svd(A, chosen)
        by_rank = {rank: compared.quality(truncated(rank)) for rank in RANKS}
        best = max(by_rank, key=lambda rank: by_rank[rank])
        means = {one: compared.quality(non_local_means(compared, sigma, one)) for one in STRENGTHS}
        strength = max(means, key=lambda one: means[one])
        for name, found in (
            ("the noisy images", compared.quality(A[:, chosen])),
            (f"`nmf-batch denoise`, d = {d} as recommended", compared.quality(denoised)),
            (f"truncated SVD, d = {d}", compared.quality(truncated(d))),
            (f"truncated SVD, d = {best}, its best", by_rank[best]),
            (f"non-local means, h = {strength} σ, its best", means[strength]),
        ):
            click.echo(f"| {sigma:g} | {name} | {found[0]:.1f} | {found[1]:.3f} |")


if __name__ == "__main__":
    main()
