"""nmf-batch prep: images in, a matrix out."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
from dask.system import CPU_COUNT

from data_prep.as_matrix import as_matrix as prepare_as_matrix
from data_prep.columns import TIME_LIMIT_S, Progress
from data_prep.decode import Decoding
from data_prep.dry_run import Estimate, estimate
from data_prep.folders import Folder
from data_prep.images import MAX_SKIP, Options, Prepared, list_images, prepare
from data_prep.manifest import duplicates
from data_prep.store import CODECS
from pipeline.commands import options, progress, values
from pipeline.commands.signals import safe_point
from pipeline.commands.tasks import executor_at

SHOWN = 10


@click.command(context_settings=options.CONTEXT)
@click.argument("sources", nargs=-1)
@options.zarr
@options.from_list
@click.option(
    "--mode",
    type=click.Choice(["L", "RGB", "RGBA"]),
    help="Gray, colour, or colour with transparency; what the first image has unless given.",
)
@click.option("--scale", type=float, help="Factor of both sides, rounded down: 178 × 218 at 0.4 becomes 71 × 87.")
@click.option("--size", type=values.Size(), help="Resize every image to this height and width.")
@click.option(
    "--fit",
    type=click.Choice(["stretch", "crop", "pad"]),
    default="stretch",
    help="Where an image has other proportions than --size: stretch it, cut out its middle, or add a border.",
)
@click.option(
    "--background", help="Colour below what is transparent, and of borders: white, #ff8800; black unless given."
)
@click.option("--limit", type=click.IntRange(min=1), help="Take the first so many images only.")
@click.option("--max-skip", type=values.Share(), default=MAX_SKIP, help="Share of images that may be unreadable: 0.1%.")
@click.option(
    "--image-timeout",
    "time_limit_s",
    type=values.Duration(),
    default=f"{TIME_LIMIT_S:g}s",
    help="An image that takes longer is unreadable.",
)
@click.option("--dedupe", is_flag=True, help="Report images whose files are the same to the byte.")
@click.option(
    "--codec", type=click.Choice(list(CODECS)), default="none", help="Compress A, for slow or metered storage."
)
@click.option("--as-matrix", is_flag=True, help="Take one image as the matrix itself: its columns are those of A.")
@click.option("--rebuild", is_flag=True, help="Where files are gone or have changed, prepare the store anew.")
@click.option("--dry-run", is_flag=True, help="List, try some images, and estimate; nothing is written.")
@options.place
@options.as_json
def prep(
    sources: tuple[str, ...],
    path: Folder,
    lists: tuple[str, ...],
    dedupe: bool,
    dry_run: bool,
    as_matrix: bool,
    place: options.Place,
    as_json: bool,
    **settings: Any,
) -> int:
    """Turn images into the matrix A (m, n) of a store, a column an image.

    SOURCES are folders, which are searched to the bottom, zip and tar archives, .npy files and Zarr arrays of images,
    single images, patterns such as 'photos/**/*.jpg', or addresses of any of these. An image that cannot be read
    becomes a column of zeros, is counted, and named. Run again, the same command does nothing, goes on where it was
    interrupted, or appends the files that have come since.

    \b
    Example:
      nmf-batch prep photos/ more.zip --zarr faces.zarr --mode L --size 87x71
    """
    if not sources and not lists:
        raise click.UsageError("nothing is to be prepared; name a folder, an archive or an image, or give --from-list")
    with options.as_usage_error():
        decoding = Decoding(**{name: settings.pop(name) for name in ("mode", "scale", "size", "fit", "background")})
        wanted = Options(decoding=decoding, lists=lists, **settings)
    warnings.filterwarnings("ignore", module="PIL")  # it warns of files on stderr, which have a reason each here
    if as_matrix:
        shape = prepare_as_matrix(sources, path, wanted)
        told = f"{path}: A is {shape[0]} × {shape[1]}, the pixels of one image"
        options.say(json.dumps({"zarr": str(path), "shape": shape}) if as_json else told)
        return 0
    if dry_run:
        found = estimate(path, list_images(sources, wanted), wanted)
        options.say(json.dumps(asdict(found)) if as_json else _estimated(path, found))
        return 0
    with safe_point(), executor_at(place) as executor, _progress() as on_progress:
        prepared = prepare(sources, path, wanted, executor, on_progress)
    twins = duplicates(path, prepared.shape[1]) if dedupe else None
    options.say(json.dumps(_summary(prepared, twins)) if as_json else _text(prepared, twins))
    return 3 if prepared.unreadable else 0


@contextmanager
def _progress() -> Iterator[Any]:
    shown = progress.Progress("image")

    def on_progress(so_far: Progress) -> None:
        speed = f"{so_far.done / shown.seconds:,.0f} images/s, {options.nbytes(so_far.nbytes)}"
        shown(so_far.done, so_far.total, f"{speed}, {so_far.unreadable} unreadable ")

    yield on_progress
    shown.close()


def _summary(prepared: Prepared, twins: list[list[str]] | None) -> dict[str, Any]:
    return {
        "zarr": str(prepared.path),
        "new": prepared.n_new,
        "shape": list(prepared.shape),
        "image_shape": list(prepared.image_shape),
        "mode": prepared.mode,
        "unreadable": [broken._asdict() for broken in prepared.unreadable],
        "not_images": list(prepared.not_images),
        **({} if twins is None else {"duplicates": twins}),
    }


def _text(prepared: Prepared, twins: list[list[str]] | None) -> str:
    (m, n), (height, width, _) = prepared.shape, prepared.image_shape
    lines = [
        f"{prepared.path}: {n:,} images of {height} × {width} {prepared.mode}, A is {m} × {n}"
        + ("" if prepared.n_new == n else f" ({prepared.n_new or 'nothing'} new)")
    ]
    lines += [f"  unreadable: {name}: {reason}" for name, reason in prepared.unreadable[:SHOWN]]
    if len(prepared.unreadable) > SHOWN:
        lines.append(f"  … {len(prepared.unreadable)} unreadable images in all; --json lists them")
    if prepared.not_images:
        lines.append(f"  {len(prepared.not_images)} files passed over; `skipped` in the store lists them with reasons")
    lines += [f"  the same to the byte: {', '.join(names)}" for names in (twins or [])[:SHOWN]]
    if twins is not None:
        more = f" in {len(twins)} groups; --json lists them" if len(twins) > SHOWN else ""
        lines.append(f"  {sum(map(len, twins)) - len(twins)} images are exact duplicates of earlier ones{more}")
    return "\n".join(lines)


def _estimated(path: Folder, found: Estimate) -> str:
    (m, n), (height, width, _) = found.shape, found.image_shape
    free = "" if found.free_nbytes is None else f", {options.nbytes(found.free_nbytes)} are free"
    lines = [
        f"{path} would hold {n:,} images ({options.nbytes(found.nbytes)}) of {height} × {width} {found.mode}: "
        f"A is {m} × {n}, with its sample {options.nbytes(found.store_nbytes)}{free}",
        f"  {found.tried} images tried: {found.images_per_s:,.0f} a second in one process; "
        f"with {CPU_COUNT}, about {n / found.images_per_s / CPU_COUNT:,.0f} s for all",
    ]
    lines += [f"  {count:,} files would be passed over: {why}" for why, count in found.why_passed.items()]
    lines += [f"  unreadable: {name}: {reason}" for name, reason in found.unreadable[:SHOWN]]
    if len(found.unreadable) > SHOWN:
        lines.append(f"  … {len(found.unreadable)} of {found.tried} tried are unreadable")
    return "\n".join(lines)
