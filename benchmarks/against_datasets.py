"""Images a second of `nmf-batch prep`, beside Hugging Face datasets doing the same: read, gray, resize, store.

    python -m benchmarks.against_datasets photos/ --size 87x71

Both get as many processes as there are cores, and are timed as whole commands, three times in turn; what they write is
a matrix with a column an image here, Arrow files of a row an image there. Needs the package `datasets`.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from dask.system import CPU_COUNT

from benchmarks.measure import run

THEIRS = r"""
import sys
import numpy as np
from PIL import Image
from datasets import load_dataset

folder, height, width, processes, out = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]

def column(row):
    return {"column": np.asarray(row["image"].convert("L").resize((width, height), Image.Resampling.BILINEAR)).ravel()}

if __name__ == "__main__":
    found = load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=out)
    found.map(column, num_proc=processes, remove_columns=found.column_names, writer_batch_size=500)
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--size", default="87x71", show_default=True)
@click.option("--python", default=sys.executable, help="Interpreter that has the package `datasets`.")
def main(folder: Path, size: str, python: str) -> None:
    n = sum(1 for path in folder.rglob("*") if path.is_file())
    seconds: dict[str, list[float]] = {"nmf-batch prep": [], "datasets": []}
    for _ in range(3):
        for name in seconds:
            with tempfile.TemporaryDirectory() as out:
                began = time.perf_counter()
                if name == "datasets":
                    height, width = size.split("x")
                    script = Path(out) / "theirs.py"  # a file: its processes import it
                    script.write_text(THEIRS, encoding="utf-8")
                    subprocess.run(
                        [python, script, folder, height, width, str(CPU_COUNT), out], check=True, capture_output=True
                    )
                else:
                    command = Path(sys.executable).parent / "nmf-batch"
                    run(command, "prep", folder, "--zarr", Path(out) / "a.zarr", "--mode", "L", "--size", size)
                seconds[name].append(time.perf_counter() - began)
    for name, times in seconds.items():
        click.echo(
            f"{name}: {statistics.median(times):.1f} s for {n:,} images, {n / statistics.median(times):.0f} a second"
        )
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    click.echo(f"datasets takes {ratio:.2f} × as long")


if __name__ == "__main__":
    main()
