"""What it costs to take new images in, how good that is, and how fast weights of unseen images are found.

    python -m benchmarks.reruns celeba.zip -d 99

From an archive of images: a run on the first 3,000 and a rerun with 1,000 more beside a cold run on all; ten appends of
100 in a row; an append of other images (middles, enlarged); `transform` of all beside `prep` of all. Seconds of runs
are those that they record, without start-up.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import click
from PIL import Image

COMMAND = Path(sys.executable).parent / "nmf-batch"


def call(*arguments: object) -> dict[str, Any]:
    """Call nmf-batch with --json; returns its summary."""
    command = [str(COMMAND), *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def timed(*arguments: object) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def told(name: str, about: dict[str, Any]) -> None:
    drift = f", drift {about['drift']:+.3f}" if "drift" in about else ""
    click.echo(
        f"{name}: relative error {about['relative_error']:.4f}, {about['outcome']['passes']:.2f} passes, "
        f"{about['outcome']['seconds']:.2f} s{drift}"
    )


class Collection:
    """Images that arrive in lots in a folder, and are prepared into a store."""

    def __init__(self, home: Path, images: list[Path], prep: tuple[str, ...]) -> None:
        self.home, self.store, self.waiting, self._prep = home, home / "a.zarr", images, prep
        (home / "images").mkdir(parents=True)

    def arrive(self, count: int) -> None:
        """Let the next so many images come."""
        for path in self.waiting[:count]:
            shutil.copy(path, self.home / "images" / path.name)
        self.waiting = self.waiting[count:]
        call("prep", self.home / "images", "--zarr", self.store, *self._prep)

    def others_arrive(self, count: int) -> None:
        """Middles of images, enlarged to their size."""
        for k, path in enumerate(sorted((self.home / "images").iterdir())[:count]):
            with Image.open(path) as image:
                width, height = image.size
                middle = (width // 3, height // 3, 2 * width // 3, 2 * height // 3)
                image.resize(image.size, box=middle).save(self.home / "images" / f"other{k:06d}.jpg")
        call("prep", self.home / "images", "--zarr", self.store, *self._prep)

    def run(self, d: int, *more: str) -> dict[str, Any]:
        """Factorize; returns what is recorded."""
        return call("run", "--zarr", self.store, "-d", d, *more)


def reruns(home: Path, images: list[Path], d: int, first: int, prep: tuple[str, ...]) -> None:
    """One large append, ten small ones, and one of other images, beside a cold run on all."""
    at_once, in_ten, more = (
        Collection(home / "1", images, prep),
        Collection(home / "10", images, prep),
        len(images) - first,
    )
    for collection in (at_once, in_ten):
        collection.arrive(first)
        about = collection.run(d)
    told(f"{first:,} images", about)
    at_once.arrive(more)
    rerun, cold = at_once.run(d), at_once.run(d, "--name", "cold")
    told(f"{more:,} more", rerun)
    told("all of them, cold", cold)
    share = rerun["outcome"]["seconds"] / cold["outcome"]["seconds"]
    click.echo(f"the rerun takes {share:.3f} of the cold run's time, its error is {above(rerun, cold):+.2f}% of that")
    for _ in range(10):
        in_ten.arrive(more // 10)
        ten = in_ten.run(d)
    told(f"{more // 10} more, the tenth time", ten)
    click.echo(f"the error is {above(ten, cold):+.2f}% of the cold run's")
    at_once.others_arrive(more // 2)
    told(f"{more // 2} other ones", at_once.run(d))


def above(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Percent by which an error is above another."""
    return 100 * (one["relative_error"] / other["relative_error"] - 1)


def transforms(home: Path, archive: Path, d: int, prep: tuple[str, ...]) -> None:
    """Images a second, of all but the first tenth: start-up aside."""
    few = home / "few.zip"
    with zipfile.ZipFile(archive) as file, zipfile.ZipFile(few, "w") as part:
        names = sorted(name for name in file.namelist() if not name.endswith("/"))
        for name in names[: len(names) // 10]:
            part.writestr(name, file.read(name))
    between, store = len(names) - len(names) // 10, home / "1" / "a.zarr"
    rates = {}
    for what in ("prep", "transform"):
        seconds = []
        for k, source in enumerate((few, archive, few, archive, few, archive)):
            out = home / f"{what}{k}.zarr"
            more = ("--zarr", out, *prep) if what == "prep" else ("--zarr", store, "--name", f"d{d}", "--out", out)
            seconds.append(timed(what, source, *more))
        rates[what] = between / (statistics.median(seconds[1::2]) - statistics.median(seconds[::2]))
    click.echo(
        f"transform: {rates['transform']:.0f} images/s, {rates['transform'] / rates['prep']:.2f} of the "
        f"{rates['prep']:.0f} that prep decodes and writes"
    )


@click.command()
@click.argument("archive", type=click.Path(path_type=Path, exists=True))
@click.option("-d", default=99, show_default=True)
@click.option("--first", default=3000, show_default=True, help="Images before the others come.")
@click.option("--mode", default="L", show_default=True)
@click.option("--scale", default="0.4", show_default=True)
def main(archive: Path, d: int, first: int, mode: str, scale: str) -> None:
    prep = ("--mode", mode, "--scale", scale)
    with tempfile.TemporaryDirectory() as made:
        with zipfile.ZipFile(archive) as file:
            file.extractall(Path(made) / "all")
        images = sorted(path for path in (Path(made) / "all").rglob("*") if path.is_file())
        reruns(Path(made), images, d, first, prep)
        transforms(Path(made), archive, d, prep)


if __name__ == "__main__":
    main()
