"""nmf-batch prep: images in, a matrix out."""

import json
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import click
from dask.system import CPU_COUNT

from data_prep.columns import Progress
from data_prep.decode import Decoding
from data_prep.folders import Folder
from data_prep.images import MAX_SKIP, Options, Prepared, prepare
from data_prep.store import CODECS
from pipeline.commands import options, progress, values
from pipeline.commands.signals import safe_point

SHOWN = 10


@click.command(context_settings=options.CONTEXT)
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.zarr
@click.option(
    "--mode",
    type=click.Choice(["L", "RGB", "RGBA"]),
    help="Gray, colour, or colour with transparency; what the first image has unless given.",
)
@click.option("--scale", type=float, help="Factor of both sides, rounded down: 178 × 218 at 0.4 becomes 71 × 87.")
@click.option("--size", type=values.Size(), help="Resize every image to this height and width.")
@click.option("--limit", type=click.IntRange(min=1), help="Take the first so many images only.")
@click.option("--max-skip", type=values.Share(), default=MAX_SKIP, help="Share of images that may be unreadable: 0.1%.")
@click.option(
    "--codec", type=click.Choice(list(CODECS)), default="none", help="Compress A, for slow or metered storage."
)
@options.place
@options.as_json
def prep(
    sources: tuple[Path, ...],
    path: Folder,
    limit: int | None,
    max_skip: float,
    codec: str,
    place: options.Place,
    as_json: bool,
    **decoding: Any,
) -> int:
    """Turn images into the matrix A (m, n) of a store, a column an image.

    SOURCES are folders, which are searched to the bottom, zip archives, or single images. An image that cannot be
    read becomes a column of zeros, is counted, and named. Run again, the same command does nothing, goes on where it
    was interrupted, or appends the files that have come since.

    \b
    Example:
      nmf-batch prep photos/ more.zip --zarr faces.zarr --mode L --size 87x71
    """
    with options.as_usage_error():
        wanted = Options(decoding=Decoding(**decoding), limit=limit, max_skip=max_skip, codec=codec)
    shown = progress.Progress("image")

    def on_progress(so_far: Progress) -> None:
        shown(so_far.done, so_far.total, f"{so_far.unreadable} unreadable ")

    with safe_point(), _executor(place) as executor:
        prepared = prepare(sources, path, wanted, executor, on_progress)
    shown.close()
    options.say(json.dumps(_summary(prepared)) if as_json else _text(prepared))
    return 3 if prepared.unreadable else 0


@contextmanager
def _executor(place: options.Place) -> Iterator[Executor]:
    with options.connected(place) as client:
        if client is None:
            # Processes: Pillow's decoders run side by side in threads too, but what surrounds them does not.
            # Not forked: children would share the offset of an archive that is open here.
            with ProcessPoolExecutor(CPU_COUNT, get_context("spawn"), _begin_process) as processes:
                for _ in range(CPU_COUNT):
                    processes.submit(import_module, "data_prep.columns")  # they start while the sources are listed
                yield processes
        else:
            yield client.get_executor(pure=False)


def _begin_process() -> None:
    """Prepare a process: it ends with its parent, however that ends, and keeps Pillow's warnings to itself."""
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    warnings.filterwarnings("ignore", module="PIL")


def _summary(prepared: Prepared) -> dict[str, Any]:
    return {
        "zarr": str(prepared.path),
        "new": prepared.n_new,
        "shape": list(prepared.shape),
        "image_shape": list(prepared.image_shape),
        "mode": prepared.mode,
        "unreadable": [broken._asdict() for broken in prepared.unreadable],
        "not_images": list(prepared.not_images),
    }


def _text(prepared: Prepared) -> str:
    (m, n), (height, width, _) = prepared.shape, prepared.image_shape
    lines = [
        f"{prepared.path}: {n:,} images of {height} × {width} {prepared.mode}, A is {m} × {n}"
        + ("" if prepared.n_new == n else f" ({prepared.n_new or 'nothing'} new)")
    ]
    lines += [f"  unreadable: {name}: {reason}" for name, reason in prepared.unreadable[:SHOWN]]
    if len(prepared.unreadable) > SHOWN:
        lines.append(f"  … {len(prepared.unreadable)} unreadable images in all; --json lists them")
    if prepared.not_images:
        lines.append(f"  {len(prepared.not_images)} files passed over, whose names do not promise an image")
    return "\n".join(lines)
