"""Parts of faces, as Lee & Seung found them (Nature 401, 1999): 49 basis images, each a nose, a mouth, a brow.

    python examples/cbcl.py cbcl_faces_pgm.zip --out parts

It takes any pictures of one size.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline import factorize
from pipeline.ranks import sweep
from pipeline.report.sheets import basis_sheet, panel, save


@click.command()
@click.argument("images", type=click.Path(exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("-d", "d", default=49, show_default=True)
def main(images: str, out: Path, d: int) -> None:
    """Factorize images of faces, and draw what they are made of."""
    out.mkdir(parents=True, exist_ok=True)
    store = out / "faces.zarr"
    with ThreadPoolExecutor() as threads:
        prepare([images], store, Options(decoding=Decoding(mode="L")), threads)
    factors = factorize(store, d).factors
    (rank,) = sweep(store, [d]).ranks
    save(basis_sheet(factors), out / "basis.png")
    save(panel(factors, [0, 1, 2]), out / "panel.png")
    zeros = (factors.read("W") < 1e-3 * factors.read("W").max()).mean()
    print(f"relative error {factors.attributes['relative_error']:.4f}; {zeros:.0%} of W is zero: the rest are parts")
    centres = "needs scikit-learn" if rank.k_means is None else f"{rank.k_means:.4f}"
    print(f"principal components, signs free: {rank.svd_bound:.4f}; vector quantization: {centres}")
    print(f"{out / 'basis.png'}: basis images; {out / 'panel.png'}: image | basis | weights | W H")


if __name__ == "__main__":
    main()
