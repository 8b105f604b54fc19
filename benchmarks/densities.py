"""One visit of a block of which few entries are present: as a dense block with a mask, and as a sparse one.

    python -m benchmarks.densities -m 9066,6177 -d 10,50

Blocks are as wide as the chunks of a store of so many rows, of float32; the places of their entries are uniform. A
visit is that of the solvers (`EntryVisit`, H warm, one BLAS thread). Times are medians of some rounds in turn, in
milliseconds, dense / sparse: of `amu` for squares and for the divergence; of squares with the solver that is the
default for each, where `hals` fills what is missing of a dense block (a visit of one solver gains something else than
one of the other, so this is no race); and "to make" a block of A and its mask, which one that is streamed costs every
visit. Below the density where the times cross, interpolated between the two rows about it, sparse blocks are faster:
`pipeline.entries.SPARSE` is to be there.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise, product

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import rounds
from data_prep.store import chunk_images
from pipeline.basis import basis_of
from pipeline.config import KULLBACK_LEIBLER
from pipeline.entries import Block, DenseBlock
from pipeline.entry_pass import EntryVisit
from pipeline.objective import FILLINGS, UPDATES
from pipeline.panels import one_blas_thread
from pipeline.sparse_blocks import present_entries
from pipeline.starts import uniform

AMU = EntryVisit(scale=1.0, updates=UPDATES)
HALS = EntryVisit(scale=1.0, updates=FILLINGS, fills=True)
DIVERGENCE = EntryVisit(scale=1.0, loss=KULLBACK_LEIBLER, updates=UPDATES)
VISITS: Mapping[str, tuple[EntryVisit, EntryVisit]] = {
    "amu": (AMU, AMU),
    "amu, divergence": (DIVERGENCE, DIVERGENCE),
    "hals / amu": (HALS, AMU),
}
"""Of a dense and of a sparse block."""
TO_MAKE = "to make"
KINDS: Sequence[Callable[[NDArray[np.float32], NDArray[np.uint8]], Block]] = (DenseBlock, present_entries)
Times = Mapping[str, tuple[float, float]]
"""Milliseconds for a dense and for a sparse block, by what is done."""


def entries(m: int, density: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A chunk of ratings, and what each of its entries is."""
    rng, shape = np.random.default_rng(0), (m, chunk_images(m))
    what = (rng.random(shape, np.float32) < density).astype(np.uint8)
    return (rng.integers(1, 11, shape) / 2 * what).astype(np.float32), what


def visited(visit: EntryVisit, block: Block, d: int) -> Callable[[], object]:
    """One visit, from W and H that are of the size of the entries."""
    m, c = block.shape
    W, H = basis_of(uniform(0, 0, (m, d))), uniform(0, 1, (d, c)) * np.float32(10 / d)
    return lambda: visit([block], [H], W)


def measured(m: int, d: int, density: float, n: int) -> Times:
    """Median milliseconds of every visit of each kind of block, and of making it."""
    A, what = entries(m, density)
    blocks, contenders = [make(A, what) for make in KINDS], dict[str, Callable[[], object]]()
    for k, (block, make) in enumerate(zip(blocks, KINDS, strict=True)):
        contenders |= {f"{name} {k}": visited(visits[k], block, d) for name, visits in VISITS.items()}
        contenders[f"{TO_MAKE} {k}"] = partial(make, A, what)
    medians = {name: 1000 * statistics.median(seconds) for name, seconds in rounds(contenders, n).items()}
    return {name: (medians[f"{name} 0"], medians[f"{name} 1"]) for name in (*VISITS, TO_MAKE)}


def crossing(densities: Sequence[float], ratios: Sequence[float]) -> str:
    """Density where sparse / dense is 1, interpolated in logarithms; or on which side of all of them it is."""
    points = list(zip(densities, ratios, strict=True))
    if ratios[0] >= 1:
        return f"below {densities[0]:.1%}"
    for (low, before), (high, behind) in pairwise(points):
        if before < 1 <= behind:
            share = math.log(1 / before) / math.log(behind / before)
            return f"{low * (high / low) ** share:.1%}"
    return f"above {densities[-1]:.0%}"


def tables(m: int, d: int, densities: Sequence[float], n: int) -> list[str]:
    """A row a density, and where each column crosses."""
    lines = [f"| m = {m}, c = {chunk_images(m)}, d = {d} | {' | '.join((*VISITS, TO_MAKE))} |"]
    lines.append(f"|{'---|' * (len(VISITS) + 2)}")
    rows = [measured(m, d, density, n) for density in densities]
    for density, times in zip(densities, rows, strict=True):
        lines.append(f"| {density:.1%} | {' | '.join(f'{a:.0f} / {b:.0f}' for a, b in times.values())} |")
    crossings = [crossing(densities, [times[name][1] / times[name][0] for times in rows]) for name in VISITS]
    return [*lines, f"| **they cross at** | {' | '.join(crossings)} | – |", ""]


@click.command()
@click.option("-m", "heights", default="9066,6177", show_default=True)
@click.option("-d", "ranks", default="10,50", show_default=True)
@click.option("--percent", default="0.5,1,2,3,5,7,10,15,20", show_default=True)
@click.option("--rounds", "n", type=int, default=5, show_default=True)
def main(heights: str, ranks: str, percent: str, n: int) -> None:
    one_blas_thread()
    densities = [float(one) / 100 for one in percent.split(",")]
    for m, d in product(heights.split(","), ranks.split(",")):
        click.echo("\n".join(tables(int(m), int(d), densities, n)))


if __name__ == "__main__":
    main()
