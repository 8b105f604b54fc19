"""The table of docs/scaling.md: what a pass takes at sizes nobody has here, by arithmetic from measured inputs.

    python -m benchmarks.projection --rate-mb-s 79 --task-ms 1.5 --link-mb-s 1250

Partitions, the cached share and memory are the product's own plan, for workers of one thread that do not exist; the
formulas of the rest are in `project` below and on the page.
"""

from typing import NamedTuple
from unittest.mock import patch

import click
import numpy as np
from dask.utils import parse_bytes

from data_prep.folders import folder
from data_prep.store import StoredMatrix, chunk_images
from pipeline import engine
from pipeline.config import NMFConfig
from pipeline.engine import Place
from pipeline.plan import RefusedPlan, make_plan, partitions


class Inputs(NamedTuple):
    """What was measured or assumed."""

    m: int
    d: int
    memory_nbytes: int
    rate: float
    """Bytes of A that a worker multiplies a second."""
    task_s: float
    link: float
    """Bytes a second into or out of a worker."""


HEADINGS = (
    *("images", "workers", "A GB", "partitions", "cached", "read a pass GB", "W out GB", "sums GB"),
    *("compute s", "network s", "scheduler s", "bound by", "worker GB", "driver GB", "W MB", "H GB"),
)


def imagined(m: int, n: int) -> StoredMatrix:
    """Return the description of a store of n images."""
    return StoredMatrix(
        path=folder("nowhere"),
        shape=(m, n),
        dtype=np.dtype(np.uint8),
        chunk_images=chunk_images(m),
        scale=1 / 255,
        norm_squared=1.0,
        n_ok=n,
        fingerprint="",
        attributes={},
    )


def project(n: int, workers: int, given: Inputs) -> list[str]:
    """Cells of a row."""
    m, d = given.m, given.d
    A, H = imagined(m, n), 4 * d * n
    place = Place(workers=workers, threads=1, memory_nbytes=given.memory_nbytes, in_process=False)
    try:
        with patch.object(engine, "place", lambda: place):
            plan = make_plan(A, NMFConfig(n_components=d), given.memory_nbytes)
    except RefusedPlan as refused:
        needed = str(refused).split("needs ")[1].split(" for")[0]
        return [f"{n:.0e}", str(workers), f"{A.nbytes / 1e9:.1f}", f"refused: a worker needs {needed}"]
    count = len(plan.partitions)
    W_out = workers * (4 * m * d + 8 * d * d)
    sums = (count - 1) * (1 - 1 / workers) * (8 * m * d + 8 * d * d)
    seconds = {
        "compute": A.nbytes * -(-count // workers) / count / given.rate,
        "network": (W_out + sums) / workers / given.link,
        "scheduler": 3 * count * given.task_s,
    }
    return [
        *(f"{n:.0e}", str(workers), f"{A.nbytes / 1e9:.1f}", str(count), f"{plan.cached_share:.0%}"),
        *(f"{A.nbytes * (1 - plan.cached_share) / 1e9:.1f}", f"{W_out / 1e9:.3f}", f"{sums / 1e9:.2f}"),
        *(f"{one:.3g}" for one in seconds.values()),
        *(max(seconds, key=seconds.__getitem__), f"{plan.worker_nbytes / 1e9:.2f}", f"{plan.driver_nbytes / 1e9:.2f}"),
        *(f"{4 * m * d / 1e6:.2f}", f"{H / 1e9:.2f}"),
    ]


@click.command()
@click.option("--images", default="1e6,1e7,1e8", show_default=True)
@click.option("--workers", default="1,10,100,1000", show_default=True, help="Not above ten for each partition.")
@click.option("-m", "m", type=int, default=6177, show_default=True)
@click.option("-d", "d", type=int, default=99, show_default=True)
@click.option("--memory", default="8GiB", show_default=True)
@click.option("--rate-mb-s", type=float, required=True, help="A multiplied by a worker: of benchmarks.scaling.")
@click.option("--task-ms", type=float, required=True, help="Of benchmarks.overhead.")
@click.option("--link-mb-s", type=float, default=1250, show_default=True, help="Of a worker's network: assumed.")
def main(images: str, workers: str, m: int, d: int, memory: str, **measured: float) -> None:
    rate, task_s, link = measured["rate_mb_s"] * 1e6, measured["task_ms"] / 1e3, measured["link_mb_s"] * 1e6
    given = Inputs(m, d, int(parse_bytes(memory)), rate, task_s, link)
    click.echo(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for n in (int(float(number)) for number in images.split(",")):
        for count in (int(number) for number in workers.split(",")):
            if count <= 10 * len(partitions(imagined(m, n))):
                cells = project(n, count, given)
                click.echo(f"| {' | '.join(cells + [''] * (len(HEADINGS) - len(cells)))} |")


if __name__ == "__main__":
    main()
