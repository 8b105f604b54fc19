"""What came from images is made from them again; what follows from A, from A.

Nothing is written that is not, to the bit, what was there: the groups say what the checksums must be.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, last_four, put_chunk
from data_prep.columns import How, decode_all, examine
from data_prep.decode import stored_decoding
from data_prep.derived import FROM
from data_prep.folders import Folder
from data_prep.listing import listed, original_bytes, positions_of, printable
from data_prep.lock import only_writer
from data_prep.manifest import Status, read_rows, rendered, rendered_passed
from data_prep.sample import read_columns, sample_columns, sample_size
from data_prep.sources import Listing, list_sources
from data_prep.verify import Damage


class Cannot(Exception):
    """Why a file cannot be mended."""


class Mended(NamedTuple):
    """What became of a damage."""

    damage: Damage
    why_not: str
    """Empty where the file is again what was written."""


def repair(
    path: Folder, damages: Sequence[Damage], sources: Sequence[str | os.PathLike[str]], lists: Sequence[str] = ()
) -> list[Mended]:
    """Mend what can be mended of a store.

    Parameters
    ----------
    path
        The store.
    damages
        What `verify` found.
    sources, lists
        Where the images came from; without any, only what follows from A is mended.

    Raises
    ------
    BadInput
        A source does not exist, or holds no images.
    HeldError
        Another process writes the store.
    """
    listing = list_sources(sources, lists) if sources or lists else Listing(listed([]), [])
    mended: list[Mended] = []
    with only_writer(path):
        for damage in damages:
            if damage.at is None:
                mended.append(Mended(damage, _attempt(_mend_metadata, damage)))
            elif damage.group != path:
                mended.append(Mended(damage, "it is part of a result; `nmf-batch run --fresh` computes that again"))
        for name in MAKE:
            of_array = [damage for damage in damages if (damage.group, damage.array) == (path, name) and damage.at]
            mended += _mend_chunks(path, name, of_array, listing)
    return mended


def _attempt(mend: Callable[..., None], *what: Any) -> str:
    """Return why it could not be done, or nothing."""
    try:
        mend(*what)
    except Cannot as error:
        return str(error)
    except store.BadInput as error:
        return f"it needs another file that is damaged: {error}"
    return ""


def _mend_metadata(damage: Damage) -> None:
    if not damage.array:
        raise Cannot("nothing else says what it was; restore the file, or make the store or the factorization again")
    expected = store.group_attributes(damage.group)["digests"][damage.array]["metadata"]
    home = damage.group / damage.array
    home.make()
    home.replace("zarr.json", expected.encode())


def _mend_chunks(path: Folder, name: str, damages: Sequence[Damage], listing: Listing) -> list[Mended]:
    """Make chunks of an array again; those of A one by one, of the small arrays all that are damaged or none."""
    together = [[damage] for damage in damages] if name == "A" and _checksums(path) is not None else [list(damages)]
    mended = []
    for some in filter(None, together):
        why_not = _attempt(_mend_some, path, name, [damage.at for damage in some], listing)
        mended += [Mended(damage, why_not) for damage in some]
    return mended


def _mend_some(path: Folder, name: str, indices: Sequence[tuple[int, ...]], listing: Listing) -> None:
    array = store.open_array(path, name, mode="r+")
    encoded = {index: encode_chunk(array, index, _values(path, name, index, listing)) for index in indices}
    checksums = _checksums(path) if name == "A" else None
    if checksums is not None:
        same = all(last_four(content) == checksums[index[-1]] for index, content in encoded.items())
    else:
        now = [
            last_four(encoded[index]) if index in encoded else store.stored_checksum(array, *index)
            for index in np.ndindex(array.cdata_shape)
        ]
        same = store.digest_of_chunks(now) == store.group_attributes(path)["digests"][name]["chunks"]
    if not same:
        raise Cannot("what can be made now is not what was there: the sources have changed")
    for index, content in encoded.items():
        put_chunk(array, index, content)
    (path / name).put_on_disk()


def _checksums(path: Folder) -> NDArray[np.uint32] | None:
    """Checksums of the chunks of A, where they are whole."""
    try:
        return store.read_checksums(store.open_matrix(path))
    except store.BadInput:
        return None


def _values(path: Folder, name: str, index: tuple[int, ...], listing: Listing) -> NDArray[Any]:
    """Values of a chunk of an array of a store, made from its images or from A."""
    array = store.open_array(path, name)
    c = array.chunks[-1]
    span = slice(index[-1] * c, min((index[-1] + 1) * c, array.shape[-1]))
    return MAKE[name](path, span, listing)


def _image(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    try:
        names = [row.image for row in islice(read_rows(path, span.stop), span.start, None)]
    except store.BadInput:  # of the first lot, names stand in the order of the files
        names = [printable(name) for name in listing.files.names[span]]
    return np.array(names, np.dtypes.StringDType())


def _manifest(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    positions, how = _positions(path, span, listing), _how(path)
    _check_all_found(path, span, positions)
    return rendered(examine(listing.files[int(k)], how)[0] for k in positions)


def _skipped(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    return rendered_passed(listing.passed[span])


def _ok(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    if "manifest" not in store.group_attributes(path)["digests"]:  # a matrix that was in memory
        return np.ones(span.stop - span.start, np.bool_)
    rows = islice(read_rows(path, span.stop), span.start, None)
    return np.array([row.status == Status.OK for row in rows], np.bool_)


def _columns(path: Folder, span: slice, listing: Listing) -> NDArray[np.uint8]:
    """Columns of A, decoded as they were prepared; those that could not be read then are zero again."""
    positions, ok = _positions(path, span, listing), store.read_array(path, "ok")[span]
    _check_all_found(path, span, np.where(ok, positions, 0))
    rows, found = decode_all(listing.files.take(positions[ok]), _how(path))
    broken = [row for row in found if row.status != Status.OK]
    if broken:
        raise Cannot(f"{broken[0].image} cannot be read any more ({broken[0].reason})")
    columns = np.zeros((rows.shape[1], len(ok)), np.uint8)
    columns[:, ok] = rows.T
    return columns


def _norm(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    columns = read_columns(path, np.arange(span.start, span.stop))
    squares = [np.square(columns[j], dtype=np.int64).sum() for j in range(span.start, span.stop)]
    return np.sqrt(np.array(squares, np.int64)) / 255


def _checksum(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    A = store.open_array(path, "A")
    return np.array([store.stored_checksum(A, 0, k) for k in range(span.start, span.stop)], np.uint32)


def _pixel_sum(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    appends = store.group_attributes(path)["prep"]["appends"]
    first, (m, c) = sum(appends[: span.start]), store.open_array(path, "A").chunks
    sums = np.zeros((m, 1), np.int64)
    for start in range(first, first + appends[span.start], c):
        columns = np.arange(start, min(start + c, first + appends[span.start]))
        sums[:, 0] += sum(column.astype(np.int64) for column in read_columns(path, columns).values())
    return sums


def _sample_column(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    A = store.open_array(path, "A")
    return sample_columns(store.read_array(path, "ok"), sample_size(A.shape[0], A.dtype.itemsize))[span]


def _sample(path: Folder, span: slice, listing: Listing, of: str = "A") -> NDArray[Any]:
    columns = store.read_array(path, "sample_column")[span]
    found = read_columns(path, columns, of)
    return np.stack([found[int(j)] for j in columns], axis=1)


def _given(path: Folder, span: slice, listing: Listing) -> NDArray[Any]:
    raise Cannot("nothing here says what it was; make the store again from what it was made of")


MAKE: dict[str, Callable[[Folder, slice, Listing], NDArray[Any]]] = {
    "image": _image,
    "manifest": _manifest,
    "skipped": _skipped,
    "ok": _ok,
    "A": _columns,
    "norm": _norm,
    "checksum": _checksum,
    "pixel_sum": _pixel_sum,
    "sample_column": _sample_column,
    "sample": _sample,
    "mask": _given,
    "sample_mask": partial(_sample, of="mask"),
    "feature": _given,
    "item": _given,
    "idf": _given,
}
"""How each array is made, from those before it and from the images."""


def _how(path: Folder) -> How:
    attributes = store.group_attributes(path)
    height, width, channels = attributes["image_shape"]
    return How(stored_decoding(attributes), (height, width, channels))


def _positions(path: Folder, span: slice, listing: Listing) -> NDArray[np.int64]:
    """Position of the file that each column was made from, −1 where it is missing."""
    if FROM in store.group_attributes(path):
        raise Cannot("it was computed from another store; remove this one, and compute it again")
    if store.group_attributes(path)["kind"] != "images" or not listing.files:
        raise Cannot(
            "the images that it was made from are needed; name them with --source"
            if store.group_attributes(path)["kind"] == "images"
            else "it is not made from images; prepare the store again from its files"
        )
    names = [original_bytes(str(name)) for name in store.read_array(path, "image")[: span.stop]]
    return np.array(list(positions_of(listing.files, names))[span], np.int64)  # all of them: twins keep their order


def _check_all_found(path: Folder, span: slice, positions: NDArray[np.int64]) -> None:
    missing = store.read_array(path, "image")[span][positions < 0]
    if len(missing):
        raise Cannot(f"the sources have no {', '.join(map(str, missing[:3]))}{' …' if len(missing) > 3 else ''}")
