"""One visit of a block of which few entries are present: as a dense block with a mask, and as a sparse one.

    python -m benchmarks.densities -m 9066,6177 -d 10,50

Blocks are as wide as the chunks of a store of so many rows, of float32; the places of their entries are uniform. A
visit is that of the solvers (`EntryVisit`, H warm, one BLAS thread): `amu` for squares and for the divergence, and
`hals`, which fills what is missing. Times are medians of some rounds in turn, in milliseconds, dense / sparse; "to
make" is what it takes to make each kind of block of A and its mask, which a block that is streamed costs every visit.
The last column sets the faster way for squares in one form against that in the other. Below the density where the times
cross, interpolated between the two rows about it, sparse blocks are faster: `pipeline.entries.SPARSE` is to be there.
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
from pipeline.config import FROBENIUS, KULLBACK_LEIBLER
from pipeline.entries import Block, DenseBlock, sparse_block
from pipeline.entry_pass import EntryVisit
from pipeline.objective import FILLINGS, UPDATES
from pipeline.panels import one_blas_thread
from pipeline.starts import uniform

VISITS: Mapping[str, EntryVisit] = {
    "amu": EntryVisit(scale=1.0, updates=UPDATES),
    "hals": EntryVisit(scale=1.0, updates=FILLINGS, fills=True),
    "amu, divergence": EntryVisit(scale=1.0, loss=KULLBACK_LEIBLER, updates=UPDATES),
}
TO_MAKE = "to make"
KINDS: Mapping[str, Callable[[NDArray[np.float32], NDArray[np.uint8]], Block]] = {
    "dense": DenseBlock,
    "sparse": sparse_block,
}
Times = Mapping[str, float]
"""Milliseconds by the kind of block and what is done."""


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
    """Median milliseconds of making each kind of block, and of every visit of it."""
    A, what = entries(m, density)
    contenders: dict[str, Callable[[], object]] = {}
    for kind, make in KINDS.items():
        contenders[f"{kind} {TO_MAKE}"] = partial(make, A, what)
        for name, visit in VISITS.items():
            contenders[f"{kind} {name}"] = visited(visit, make(A, what), d)
    return {name: 1000 * statistics.median(seconds) for name, seconds in rounds(contenders, n).items()}


def best_of_squares(times: Times, kind: str) -> float:
    return min(times[f"{kind} {name}"] for name, visit in VISITS.items() if visit.loss == FROBENIUS)


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
    names = [*VISITS, TO_MAKE]
    lines = [f"| m = {m}, c = {chunk_images(m)}, d = {d} | {' | '.join(names)} | squares, best |"]
    lines.append(f"|{'---|' * (len(names) + 2)}")
    ratios: list[list[float]] = []
    for density in densities:
        times = measured(m, d, density, n)
        pairs = [(times[f"dense {name}"], times[f"sparse {name}"]) for name in names]
        pairs.append((best_of_squares(times, "dense"), best_of_squares(times, "sparse")))
        ratios.append([sparse / dense for dense, sparse in pairs])
        lines.append(f"| {density:.1%} | {' | '.join(f'{dense:.0f} / {sparse:.0f}' for dense, sparse in pairs)} |")
    crossings = [crossing(densities, of_one) for of_one in zip(*ratios, strict=True)]
    crossings[-2] = "–"  # to make the dense one is nothing
    return [*lines, f"| **they cross at** | {' | '.join(crossings)} |", ""]


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
