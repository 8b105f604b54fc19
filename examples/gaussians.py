"""Four Gaussians, of which nobody is told, found in 16,000 mixtures of them.

    python examples/gaussians.py

`nmf-batch demo --kind gaussians` draws how they are found.
"""

import tempfile
from pathlib import Path

import click

from data_prep.arrays import write_matrix
from data_prep.mixed import mix_gaussians
from pipeline import factorize
from pipeline.report.pairs import pairs


@click.command()
@click.option("--samples", default=16_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(samples: int, seed: int) -> None:
    """Mix, factorize, and compare components with what was mixed."""
    mixture = mix_gaussians(samples, seed)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "mixed.zarr"
        write_matrix(store, mixture.A)
        factors = factorize(store, mixture.shapes.shape[1], seed=seed).factors
        W = factors.read("W")
    order, cosines = pairs(W.T, like=mixture.shapes.T)
    for k, (component, cosine) in enumerate(zip(order, cosines, strict=True)):
        peak, found = mixture.shapes[:, k].argmax(), W[:, component].argmax()
        print(f"Gaussian {k}: component {component}, cosine {cosine:.4f}, peak at {found} for {peak}")
    print(f"relative error {factors.attributes['relative_error']:.2g}")


if __name__ == "__main__":
    main()
