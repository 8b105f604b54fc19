"""The prep job: images in, the matrix A with its names, checksums and sample out.

One task a chunk: it reads and decodes the chunk's images, writes their columns, and returns only counts and reasons,
so memory does not grow with the collection. What is published last makes all of it visible at once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import store
from data_prep.append import Tasks, append, since, take_back
from data_prep.columns import (
    RECORDS,
    ChunkResult,
    Progress,
    Unreadable,
    attempt_of,
    check_room,
    check_share,
    chunks_of,
    write_chunks,
)
from data_prep.decode import Decoding, Mode, decode, mode_of
from data_prep.folders import Folder, Where, folder
from data_prep.lock import only_writer
from data_prep.sample import sample_size, write_sample
from data_prep.sources import Listing, SourceFile, digest, list_sources, printable, read_bytes

ARRAYS = ("A", "image", "ok", "checksum", "sample", "sample_column")
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
    codec: str = "none"
    limit: int | None = None
    """Take the first so many images only."""
    max_skip: float = MAX_SKIP
    """Share of images that may be unreadable before the whole is refused."""


def prepare(
    sources: Sequence[Path],
    path: Where,
    options: Options,
    executor: Executor,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Prepared:
    """Turn images into a store.

    Parameters
    ----------
    sources
        Folders, zip archives, images.
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
        The store was prepared from other images or with other settings.
    """
    home, listing = folder(path), list_sources([source.absolute() for source in sources])
    files = listing.files[: options.limit]
    if store.group_attributes(home).get("status") == "complete":
        return _again(home, files, options, listing, Tasks(executor, on_progress))
    mode, image_shape = _first_image(files, options.decoding)
    decoding = Decoding(mode=mode, scale=options.decoding.scale, size=options.decoding.size)
    store.check_vacant(home, expendable=ARRAYS)
    with only_writer(home) as still_ours:
        version = _begin(home, (image_shape, len(files)), options.codec, _settings(options, files))
        results = write_chunks(chunks_of(home, files, decoding, image_shape), executor, on_progress)
        try:
            unreadable = [list(broken) for result in results for broken in result.unreadable]
            check_share(unreadable, len(files), options.max_skip, home)
        except store.BadInput:
            home.remove()
            raise
        attributes = _finish(home, files, results)
        attributes |= {
            "unreadable": unreadable,
            "image_shape": list(image_shape),
            "mode": mode,
            "prep": _settings(options, files),
        }
        still_ours()
        store.switch(home, attributes, version)
        (home / RECORDS).remove()
    return _prepared(home, attributes, (int(np.prod(image_shape)), len(files)), listing, n_new=len(files))


def _finish(path: Folder, files: Sequence[SourceFile], results: Sequence[ChunkResult]) -> dict[str, Any]:
    """Write what belongs to A and put everything on disk; returns attributes for its publication."""
    ok = np.concatenate([result.ok for result in results])
    checksum = np.array([result.checksum for result in results], np.uint32)
    names = np.array([printable(file.name) for file in files], np.dtypes.StringDType())
    for name in ARRAYS[1:]:  # what an interrupted attempt may have begun
        (path / name).remove()
    store.write_array(path, "image", names, ("image",))
    store.write_array(path, "ok", ok, ("image",))
    store.write_array(path, "checksum", checksum, ("chunk",))
    write_sample(path, ok, {j: column for result in results for j, column in result.sampled.items()})
    path.put_on_disk()
    squares = sum(result.sum_of_squares for result in results)
    about = store.complete(path, "images", checksums=checksum, ok=ok, norm_squared=squares / 255**2, arrays=ARRAYS)
    return {**about, "sum_of_squares": squares}


def _first_image(files: Sequence[SourceFile], decoding: Decoding) -> tuple[Mode, tuple[int, int, int]]:
    """Mode and shape that all columns share: those of the first image that can be read."""
    reason = ""
    for file in files:
        try:
            raw = read_bytes(file)
            mode = decoding.mode or mode_of(raw)
            height, width, channels = decode(raw, Decoding(mode=mode, scale=decoding.scale, size=decoding.size)).shape
        except Exception as error:  # as in write_chunk; the chunk's task records it
            reason = reason or f"{printable(file.name)}: {error}"
        else:
            return mode, (height, width, channels)
    raise store.BadInput(f"none of {len(files)} images can be read; the first says {reason}")


def _begin(
    path: Folder, shape: tuple[tuple[int, int, int], int], codec: str, settings: Mapping[str, Any]
) -> str | None:
    """Make the empty A, unless this very preparation was begun before; returns the version that says it is begun."""
    image_shape, n = shape
    attempt = hashlib.sha256(json.dumps([image_shape, n, settings]).encode()).hexdigest()
    attributes, version = store.attributes_and_version(path)
    begun = (path / RECORDS).read("metadata")  # of A, which nothing else guards before it is published
    if attributes and attempt_of(path) == attempt and begun is not None and begun == (path / "A").read("zarr.json"):
        return version
    m = int(np.prod(image_shape))
    check_room(path, m * (n + min(n, sample_size(m, 1))) if codec == "none" else 0)
    store.begin(path, expendable=ARRAYS)
    store.create_array(
        path,
        "A",
        shape=(m, n),
        chunks=(m, store.chunk_images(m)),
        dtype=np.uint8,
        dimension_names=("pixel", "image"),
        codec=codec,
        attributes={"scale_factor": 1 / 255},
    )
    path.put_on_disk()
    (path / RECORDS).make()
    (path / RECORDS).replace("metadata", (path / "A").read("zarr.json") or b"")
    (path / RECORDS).replace("attempt", attempt.encode())
    return store.attributes_and_version(path)[1]


def _settings(options: Options, files: Sequence[SourceFile]) -> dict[str, Any]:
    return {
        **asdict(options.decoding),
        "size": None if options.decoding.size is None else list(options.decoding.size),
        "limit": options.limit,
        "codec": options.codec,
        "appends": [[len(files), digest(files)]],
    }


def _again(path: Folder, files: Sequence[SourceFile], options: Options, listing: Listing, tasks: Tasks) -> Prepared:
    """Prepare into a store that is complete: nothing is to be done, or files have come and are appended."""
    matrix = store.open_matrix(path)
    stored, asked = dict(matrix.attributes.get("prep", {})), _settings(options, files)
    appends = stored.pop("appends", [])
    del asked["appends"]
    different = [f"{key}: {stored.get(key)} → {value}" for key, value in asked.items() if stored.get(key) != value]
    new, gone = since(matrix, appends, files)
    if gone:
        different.append(f"the images: of {matrix.shape[1]} stored some are not there, or have changed since")
    if different:
        raise StoreDiffers(f"{path} was prepared otherwise ({'; '.join(different)}); choose another --zarr")
    check_share(matrix.attributes["unreadable"], matrix.shape[1], options.max_skip, path)
    attributes = matrix.attributes
    if new or attributes.get("sampling"):
        attributes = append(matrix, new, options.max_skip, tasks)
    elif RECORDS in path.entries():
        take_back(matrix)
    return _prepared(path, attributes, tuple(attributes["shape"]), listing, n_new=len(new))


def _prepared(path: Folder, attributes: Any, shape: tuple[int, int], listing: Listing, *, n_new: int) -> Prepared:
    return Prepared(
        path=path,
        shape=shape,
        image_shape=tuple(attributes["image_shape"]),
        mode=attributes["mode"],
        unreadable=[Unreadable(*broken) for broken in attributes["unreadable"]],
        not_images=listing.not_images,
        n_new=n_new,
    )
