"""Very many small images: what listing and preparing them costs, in time and in the driver's memory.

    python -m benchmarks.many_files --files 1000000 --scratch /dev/shm

Makes files of 8 × 8 pixels (a thousand contents, linked), as a folder and as a zip archive, below --scratch.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.measure import measured_command

NAMES = 1000
LISTING = r"""
import json, re, sys, time
from pathlib import Path
from data_prep.sources import list_sources

def resident(which):
    return 1024 * int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

before, began = resident("VmRSS"), time.perf_counter()
files = list_sources([sys.argv[1]]).files
seconds = time.perf_counter() - began
names = sum(map(len, files.names))
print(json.dumps({"n": len(files), "s": seconds, "peak": resident("VmHWM") - before, "names": names}))
"""


def make(folder: Path, n: int) -> None:
    """Make n files: a thousand contents, each linked to from many names."""
    rng = np.random.default_rng(0)
    for k in range(NAMES):
        (folder / f"{k:03d}").mkdir()
        first = folder / f"{k:03d}" / "000000.png"
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(first)
        for j in range(1, -(-n // NAMES)):
            os.link(first, folder / f"{k:03d}" / f"{j:06d}.png")


def pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as file:
        for inside in sorted(folder.iterdir()):
            content = (inside / "000000.png").read_bytes()
            for name in sorted(os.listdir(inside)):
                file.writestr(f"{inside.name}/{name}", content)


def listing(source: Path) -> str:
    done = subprocess.run([sys.executable, "-c", LISTING, source], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    beyond = (found["peak"] - found["names"]) / found["n"]
    return f"{found['n']:,} listed in {found['s']:.1f} s, peak {beyond:.0f} bytes a name beyond the name"


def preparing(source: Path, store: Path) -> str:
    done = measured_command("prep", source, "--zarr", store)
    return f"prepared in {done.seconds:.0f} s, peak of the driver {done.peak_nbytes / 2**20:.0f} MiB; {done.stdout}"


@click.command()
@click.option("--files", "n", type=int, default=1_000_000, show_default=True)
@click.option("--scratch", type=click.Path(path_type=Path, exists=True), default=Path(tempfile.gettempdir()))
def main(n: int, scratch: Path) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        folder, archive = Path(made) / "files", Path(made) / "files.zip"
        folder.mkdir()
        make(folder, n)
        pack(folder, archive)
        for source in (folder, archive):
            click.echo(f"{source.name}: {listing(source)}")
            click.echo(f"{source.name}: {preparing(source, Path(made) / f'{source.name}.zarr')}")
            click.echo(f"{source.name}: again, {preparing(source, Path(made) / f'{source.name}.zarr')}")


if __name__ == "__main__":
    main()
