"""The prep job: images in, the matrix A with its names, checksums and sample out.

One task a chunk: it reads and decodes the chunk's images, writes their columns, and returns only counts and reasons,
so memory does not grow with the collection. What is published last makes all of it visible at once.
"""

import errno
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep import store
from data_prep.columns import RECORDS, Chunk, ChunkResult, Unreadable, write_chunk
from data_prep.decode import Decoding, Mode, decode, mode_of
from data_prep.folders import Folder, Where, folder
from data_prep.lock import only_writer
from data_prep.sample import sample_columns, sample_size, write_sample
from data_prep.sources import Listing, SourceFile, digest, list_sources, printable, read_bytes

ARRAYS = ("A", "image", "ok", "checksum", "sample", "sample_column")
MAX_SKIP = 0.01
AHEAD = 64
"""Tasks that are handed out before others are done."""


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
    new: bool
    """False where the store held all of this already."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to prepare, besides how to decode it."""

    decoding: Decoding
    codec: str = "none"
    limit: int | None = None
    """Take the first so many images only."""
    max_skip: float = MAX_SKIP
    """Share of images that may be unreadable before the whole is refused."""


class Progress(NamedTuple):
    """How far a preparation is."""

    done: int
    total: int
    unreadable: int


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
    existing = _existing(home, files, options, listing)
    if existing is not None:
        _remove_records(home)
        return existing
    mode, image_shape = _first_image(files, options.decoding)
    decoding = Decoding(mode=mode, scale=options.decoding.scale, size=options.decoding.size)
    store.check_vacant(home, expendable=ARRAYS)
    with only_writer(home) as still_ours:
        version = _begin(home, (image_shape, len(files)), options.codec, _settings(options, files))
        chunks = _chunks(home, files, decoding, image_shape)
        results = _run(chunks, executor, on_progress)
        try:
            unreadable = [list(broken) for result in results for broken in result.unreadable]
            _check_share(unreadable, len(files), options.max_skip, home)
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
    return _prepared(home, attributes, (int(np.prod(image_shape)), len(files)), listing, new=True)


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
    known = {"A": checksum.tolist()}
    return {
        "format": store.FORMAT,
        "status": "complete",
        "kind": "images",
        "shape": [store.open_array(path, "A").shape[0], len(files)],
        "norm_squared": sum(result.sum_of_squares for result in results) / 255**2,
        "n_ok": int(ok.sum()),
        "fingerprint": store.fingerprint((store.open_array(path, "A").shape[0], len(files)), checksum),
        "digests": {name: store.digest(path, name, known.get(name)) for name in ARRAYS},
    }


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
    if attributes.get("attempt") == attempt:
        return version
    m = int(np.prod(image_shape))
    _check_disk(path, m * (n + min(n, sample_size(m, 1))) if codec == "none" else 0)
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
    (path / RECORDS).make()
    path.put_on_disk()
    store.publish(path, {**store.group_attributes(path), "attempt": attempt})
    return store.attributes_and_version(path)[1]


def _check_disk(path: Folder, nbytes: int) -> None:
    free = path.free_nbytes()
    if free is not None and free < nbytes:
        raise OSError(
            errno.ENOSPC,
            f"A and its sample need {nbytes:,} bytes, but {free:,} are free; make room",
            str(path),
        )


def _chunks(
    path: Folder, files: list[SourceFile], decoding: Decoding, image_shape: tuple[int, int, int]
) -> list[Chunk]:
    """Say what is to be done for each chunk of A."""
    m, n = int(np.prod(image_shape)), len(files)
    c, attempt = store.chunk_images(m), store.group_attributes(path)["attempt"]
    drawn = np.sort(sample_columns(np.ones(n, np.bool_), sample_size(m, 1)))
    return [
        Chunk(path, k, files[first : first + c], decoding, image_shape, drawn[drawn // c == k], attempt)
        for k, first in enumerate(range(0, n, c))
    ]


def _remove_records(path: Folder) -> None:
    """Remove what a preparation leaves that is killed just after it has published."""
    if RECORDS in path.entries():
        with only_writer(path):
            (path / RECORDS).remove()


def _run(chunks: Sequence[Chunk], executor: Executor, on_progress: Callable[[Progress], None]) -> list[ChunkResult]:
    """Run the tasks, some ahead of those that are done; when one fails, those that wait are not begun."""
    total = sum(len(chunk.files) for chunk in chunks)
    results: list[ChunkResult] = []
    waiting, under_way = iter(chunks), set[Future[ChunkResult]]()
    try:
        while True:
            under_way |= {executor.submit(write_chunk, chunk) for chunk in islice(waiting, AHEAD - len(under_way))}
            if not under_way:
                return sorted(results, key=lambda result: result.number)
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            results += [future.result() for future in done]
            n_done = sum(len(result.ok) for result in results)
            on_progress(Progress(n_done, total, sum(len(result.unreadable) for result in results)))
    finally:  # none is left under way but after a failure or an interrupt
        for future in under_way:
            future.cancel()


def _check_share(unreadable: Sequence[Sequence[str]], n: int, max_skip: float, path: Folder) -> None:
    if len(unreadable) > max_skip * n:
        first = "; ".join(f"{name} ({reason})" for name, reason in unreadable[:3])
        raise store.BadInput(
            f"{len(unreadable)} of {n} images cannot be used, more than --max-skip {100 * max_skip:g}% allows "
            f"for {path}; mend them or raise it: {first}{'; …' if len(unreadable) > 3 else ''}"
        )


def _settings(options: Options, files: Sequence[SourceFile]) -> dict[str, Any]:
    return {
        **asdict(options.decoding),
        "size": None if options.decoding.size is None else list(options.decoding.size),
        "limit": options.limit,
        "codec": options.codec,
        "files": digest(files),
    }


def _existing(path: Folder, files: Sequence[SourceFile], options: Options, listing: Listing) -> Prepared | None:
    """Return what the store holds where it is just what is asked; StoreDiffers where it is complete, but other."""
    if store.group_attributes(path).get("status") != "complete":
        return None
    matrix = store.open_matrix(path)
    stored, asked = dict(matrix.attributes.get("prep", {})), _settings(options, files)
    same_files = stored.pop("files", None) == asked.pop("files")
    different = [f"{key}: {stored.get(key)} → {value}" for key, value in asked.items() if stored.get(key) != value]
    if not same_files:
        different.append(f"the images: {matrix.shape[1]} stored → {len(files)} given, or others, or changed since")
    _check_share(matrix.attributes["unreadable"], len(files), options.max_skip, path)
    if different:
        raise StoreDiffers(f"{path} was prepared otherwise ({'; '.join(different)}); choose another --zarr")
    return _prepared(path, matrix.attributes, matrix.shape, listing, new=False)


def _prepared(path: Folder, attributes: Any, shape: tuple[int, int], listing: Listing, *, new: bool) -> Prepared:
    return Prepared(
        path=path,
        shape=shape,
        image_shape=tuple(attributes["image_shape"]),
        mode=attributes["mode"],
        unreadable=[Unreadable(*broken) for broken in attributes["unreadable"]],
        not_images=listing.not_images,
        new=new,
    )
