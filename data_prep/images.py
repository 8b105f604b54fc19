"""The prep job: images in, the matrix A with its names, manifest, checksums and sample out.

One task a chunk: it reads and decodes the chunk's images, writes their columns, and returns only counts and reasons,
so memory does not grow with the collection. What is published last makes all of it visible at once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from data_prep import rebuild, store
from data_prep.append import Tasks, append, take_back
from data_prep.changes import changes
from data_prep.columns import (
    RECORDS,
    TIME_LIMIT_S,
    ChunkResult,
    How,
    Progress,
    attempt_of,
    check_room,
    check_share,
    chunks_of,
    recorded_rows,
    sum_of_pixels,
    write_chunks,
)
from data_prep.decode import Decoding, decode, opened, own_mode
from data_prep.derived import FROM
from data_prep.folders import Folder, Where, folder
from data_prep.listing import Files, digest, printable
from data_prep.lock import only_writer
from data_prep.manifest import Unreadable, rendered, rendered_passed, unreadable
from data_prep.remote import Unreachable
from data_prep.sample import sample_size, write_sample
from data_prep.sources import Listing, list_sources, read
from data_prep.sums import create_sums
from data_prep.tails import create_rows, write_tail

ARRAYS = ("A", "image", "ok", "norm", "checksum", "manifest", "skipped", "pixel_sum", "sample", "sample_column")
MAX_SKIP = 0.01


class StoreDiffers(ValueError):
    """The store holds other images or settings: the command ends with exit code 5."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a preparation did."""

    path: Folder
    shape: tuple[int, int]
    image_shape: tuple[int, int, int]
    """(height, width, channels) of every image."""
    mode: str
    unreadable: Sequence[Unreadable]
    not_images: Sequence[str]
    """Files passed over: their names do not promise an image."""
    n_new: int
    """Images that were not in the store before."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to prepare, besides how to decode it."""

    decoding: Decoding
    lists: Sequence[str] = ()
    """Files that name images, a line each; `-` is standard input."""
    codec: str = "none"
    limit: int | None = None
    """Take the first so many images only."""
    max_skip: float = MAX_SKIP
    """Share of images that may be unreadable before the whole is refused."""
    time_limit_s: float = TIME_LIMIT_S
    """For one image."""
    rebuild: bool = False
    """Prepare a store anew whose files are gone or have changed."""


def prepare(
    sources: Sequence[str | os.PathLike[str]],
    path: Where,
    options: Options,
    executor: Executor,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Prepared:
    """Turn images into a store.

    Parameters
    ----------
    sources
        Folders, archives, arrays of images, images, patterns, addresses.
    path
        The store to make. One that holds just this is left alone.
    options
        Mode, size, limit, codec, and how many images may be broken.
    executor
        Runs the tasks: threads, or a Dask client's `get_executor()`.
    on_progress
        Called after each chunk.

    Raises
    ------
    BadInput
        No source, no readable image, or more unreadable ones than max_skip allows.
    StoreDiffers
        The store was prepared from other images, and is not to be rebuilt, or with other settings.
    """
    home, listing = folder(path), list_images(sources, options)
    tasks, status = Tasks(executor, on_progress), store.group_attributes(home).get("status")
    if status == rebuild.STATUS:
        rebuild.go_on(home, ARRAYS)
    if status in ("complete", rebuild.STATUS):
        return _again(home, listing, options, tasks)
    return _anew(home, listing, options, tasks)


def _anew(home: Folder, listing: Listing, options: Options, tasks: Tasks) -> Prepared:
    """Prepare into a store that is not there yet, or was begun."""
    how = first_image(listing.files, options)
    store.check_vacant(home, expendable=ARRAYS)
    with only_writer(home) as still_ours:
        version = _begin(home, listing, how, options)
        results = write_chunks(chunks_of(home, listing.files, how), len(listing.files), *tasks)
        attributes = _finish(home, listing, how, options, results)
        still_ours()
        store.switch(home, attributes, version)
        (home / RECORDS).remove()
    return _prepared(home, attributes, listing, n_new=len(listing.files))


def list_images(sources: Sequence[str | os.PathLike[str]], options: Options) -> Listing:
    """List the files that are asked for; BadInput as above."""
    listing = list_sources(sources, options.lists)
    return listing if options.limit is None else listing._replace(files=listing.files[: options.limit])


def _finish(
    path: Folder, listing: Listing, how: How, options: Options, results: Sequence[ChunkResult]
) -> dict[str, Any]:
    """Write what belongs to A and put everything on disk; returns the attributes to publish.

    Where too many images are unreadable, everything is removed instead.
    """
    ok = np.concatenate([result.ok for result in results])
    first = (broken for result in results for broken in result.unreadable)
    try:
        check_share(int((~ok).sum()), len(ok), options.max_skip, path, first)
    except store.BadInput:
        path.remove()
        raise
    for name in ARRAYS[1:]:  # what an interrupted attempt may have begun
        (path / name).remove()
    files, squares = listing.files, np.concatenate([result.squares for result in results])
    checksum = np.array([result.checksum for result in results], np.uint32)
    names = np.array([printable(name) for name in files.names], np.dtypes.StringDType())
    store.write_array(path, "image", names, ("image",))
    store.write_array(path, "ok", ok, ("image",))
    store.write_array(path, "norm", np.sqrt(squares) / 255, ("image",))
    store.write_array(path, "checksum", checksum, ("chunk",))
    create_rows(path, "manifest", len(ok), "image")
    write_tail(path, "manifest", 0, len(ok), map(rendered, recorded_rows(path, results)))
    create_rows(path, "skipped", len(listing.passed), "file")
    write_tail(path, "skipped", 0, len(listing.passed), [rendered_passed(listing.passed)])
    create_sums(path, sum_of_pixels(results))
    write_sample(path, ok, {j: column for result in results for j, column in result.sampled.items()})
    path.put_on_disk()
    total = int(squares.sum())
    about = store.complete(path, "images", checksums=checksum, ok=ok, norm_squared=total / 255**2, arrays=ARRAYS)
    return {
        **about,
        "sum_of_squares": total,
        "image_shape": list(how.image_shape),
        "mode": how.decoding.mode,
        "prep": _settings(options, listing),
    }


def first_image(files: Files, options: Options) -> How:
    """Mode and shape that all columns share: those of the first image that can be read."""
    decoding, reason = options.decoding, ""
    for file in files:
        try:
            with opened(read(file)) as image:
                mode = decoding.mode or own_mode(image, decoding.background)
                height, width, channels = decode(image, replace(decoding, mode=mode)).pixels.shape
        except Unreachable:
            raise
        except Exception as error:  # as in columns.examine; the chunk's task records it
            reason = reason or f"{printable(file.name)}: {error}"
        else:
            return How(replace(decoding, mode=mode), (height, width, channels), options.time_limit_s)
    raise store.BadInput(f"none of {len(files)} images can be read; the first says {reason}")


def _begin(path: Folder, listing: Listing, how: How, options: Options) -> str | None:
    """Make the empty A, unless this very preparation was begun before; returns the version that says it is begun."""
    settings = {**_settings(options, listing), "files": digest(listing.files)}
    attempt = hashlib.sha256(json.dumps([how.image_shape, settings]).encode()).hexdigest()
    attributes, version = store.attributes_and_version(path)
    begun = (path / RECORDS).read("metadata")  # of A, which nothing else guards before it is published
    if attributes and attempt_of(path) == attempt and begun is not None and begun == (path / "A").read("zarr.json"):
        return version
    m, n = int(np.prod(how.image_shape)), len(listing.files)
    check_room(path, m * (n + min(n, sample_size(m, 1))) if options.codec == "none" else 0)
    store.begin(path, expendable=ARRAYS)
    store.create_array(
        path,
        "A",
        shape=(m, n),
        chunks=(m, store.chunk_images(m)),
        dtype=np.uint8,
        dimension_names=("pixel", "image"),
        codec=options.codec,
        attributes={"scale_factor": 1 / 255},
    )
    path.put_on_disk()
    (path / RECORDS).make()
    (path / RECORDS).replace("metadata", (path / "A").read("zarr.json") or b"")
    (path / RECORDS).replace("attempt", attempt.encode())
    return store.attributes_and_version(path)[1]


def _settings(options: Options, listing: Listing) -> dict[str, Any]:
    """What is recorded of a preparation, and compared with the next one."""
    return {
        **asdict(options.decoding),
        "size": None if options.decoding.size is None else list(options.decoding.size),
        "limit": options.limit,
        "codec": options.codec,
        "appends": [len(listing.files)],
    }


def _again(path: Folder, listing: Listing, options: Options, tasks: Tasks) -> Prepared:
    """Prepare into a store that is complete: nothing is to be done, or files have come and are appended."""
    matrix = store.open_matrix(path)
    if FROM in matrix.attributes:
        raise StoreDiffers(f"{path} was computed from another store, not prepared from files; choose another --zarr")
    stored, asked = dict(matrix.attributes.get("prep", {})), _settings(options, listing)
    del asked["appends"]
    different = [f"{key}: {stored.get(key)} → {value}" for key, value in asked.items() if stored.get(key) != value]
    if different:
        raise StoreDiffers(f"{path} was prepared otherwise ({'; '.join(different)}); choose another --zarr")
    found = changes(matrix, listing.files, tasks.executor)
    if (found.gone or found.changed) and options.rebuild:
        rebuild.rebuild(path, ARRAYS, lambda beside: _anew(beside, listing, options, tasks))
        return _prepared(path, store.group_attributes(path), listing, n_new=len(listing.files))
    if found.gone or found.changed:
        raise StoreDiffers(
            f"{path} holds images that {_told(found.gone, found.changed)}; --rebuild prepares it anew, "
            f"or choose another --zarr"
        )
    _, n = matrix.shape
    check_share(n - matrix.n_ok, n, options.max_skip, path, () if matrix.n_ok == n else unreadable(path, n))
    attributes = matrix.attributes
    if found.new or attributes.get("sampling"):
        attributes = append(matrix, listing._replace(files=found.new), options, tasks)
    elif RECORDS in path.entries():
        take_back(matrix)
    return _prepared(path, attributes, listing, n_new=len(found.new))


def _told(gone: Sequence[str], changed: Sequence[str]) -> str:
    def few(names: Sequence[str]) -> str:
        return f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"

    told = [f"are not there any more: {len(gone)} {few(gone)}"] if gone else []
    return " and ".join([*told, *([f"have changed since: {len(changed)} {few(changed)}"] if changed else [])])


def _prepared(path: Folder, attributes: Mapping[str, Any], listing: Listing, *, n_new: int) -> Prepared:
    m, n = attributes["shape"]
    return Prepared(
        path=path,
        shape=(m, n),
        image_shape=tuple(attributes["image_shape"]),
        mode=attributes["mode"],
        unreadable=unreadable(path, n) if attributes["n_ok"] != n else [],
        not_images=[printable(passed.name) for passed in listing.passed],
        n_new=n_new,
    )
