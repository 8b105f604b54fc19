"""What came from images is made from them again; what follows from A, from A.

Nothing is written that is not, to the bit, what was there: the groups say what the checksums must be.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.chunks import encode_chunk, last_four, put_chunk
from data_prep.columns import decode_all
from data_prep.decode import stored_decoding
from data_prep.folders import Folder
from data_prep.lock import only_writer
from data_prep.sample import read_columns, sample_columns, sample_size
from data_prep.sources import SourceFile, list_sources, printable
from data_prep.verify import Damage

ORDER = ("image", "ok", "A", "checksum", "sample_column", "sample")
"""Each of these can be made from those before it, and from the images."""


class Cannot(Exception):
    """Why a file cannot be mended."""


class Mended(NamedTuple):
    """What became of a damage."""

    damage: Damage
    why_not: str
    """Empty where the file is again what was written."""


def repair(path: Folder, damages: Sequence[Damage], sources: Sequence[Path]) -> list[Mended]:
    """Mend what can be mended of a store.

    Parameters
    ----------
    path
        The store.
    damages
        What `verify` found.
    sources
        Where the images came from; without any, only what follows from A is mended.

    Raises
    ------
    BadInput
        A source does not exist, or holds no images.
    HeldError
        Another process writes the store.
    """
    files = list_sources([source.absolute() for source in sources]).files if sources else []
    mended: list[Mended] = []
    with only_writer(path):
        for damage in damages:
            if damage.at is None:
                mended.append(Mended(damage, _attempt(_mend_metadata, damage)))
            elif damage.group != path:
                mended.append(Mended(damage, "it is part of a result; `nmf-batch run --fresh` computes that again"))
        for name in ORDER:
            of_array = [damage for damage in damages if (damage.group, damage.array) == (path, name) and damage.at]
            mended += _mend_chunks(path, name, of_array, files)
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


def _mend_chunks(path: Folder, name: str, damages: Sequence[Damage], files: Sequence[SourceFile]) -> list[Mended]:
    """Make chunks of an array again; those of A one by one, of the small arrays all that are damaged or none."""
    together = [[damage] for damage in damages] if name == "A" and _checksums(path) is not None else [list(damages)]
    mended = []
    for some in filter(None, together):
        why_not = _attempt(_mend_some, path, name, [damage.at for damage in some], files)
        mended += [Mended(damage, why_not) for damage in some]
    return mended


def _mend_some(path: Folder, name: str, indices: Sequence[tuple[int, ...]], files: Sequence[SourceFile]) -> None:
    array = store.open_array(path, name, mode="r+")
    encoded = {index: encode_chunk(array, index, _values(path, name, index, files)) for index in indices}
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


def _values(path: Folder, name: str, index: tuple[int, ...], files: Sequence[SourceFile]) -> NDArray[Any]:
    """Values of a chunk of an array of a store, made from its images or from A."""
    array, attributes = store.open_array(path, name), store.group_attributes(path)
    c = array.chunks[-1]
    span = slice(index[-1] * c, min((index[-1] + 1) * c, array.shape[-1]))
    if name == "A":
        return _columns(path, span, files)
    if name == "image":
        return np.array([printable(file.name) for file in files[span]], np.dtypes.StringDType())
    if name == "ok":
        unreadable = {broken[0] for broken in attributes.get("unreadable", [])}
        return ~np.isin(_names(path)[span], list(unreadable)) if unreadable else np.ones(span.stop - span.start, bool)
    if name == "checksum":
        A = store.open_array(path, "A")
        return np.array([store.stored_checksum(A, 0, k) for k in range(span.start, span.stop)], np.uint32)
    if name == "sample_column":
        A = store.open_array(path, "A")
        return sample_columns(store.read_array(path, "ok"), sample_size(A.shape[0], A.dtype.itemsize))[span]
    columns = store.read_array(path, "sample_column")[span]
    found = read_columns(path, columns)
    return np.stack([found[int(j)] for j in columns], axis=1)


def _columns(path: Folder, span: slice, files: Sequence[SourceFile]) -> NDArray[np.uint8]:
    """Columns of A, decoded as they were prepared; those that could not be read then are zero again."""
    attributes = store.group_attributes(path)
    if attributes["kind"] != "images" or not files:
        raise Cannot("the images that it was made from are needed; name them with --source")
    named: dict[str, deque[SourceFile]] = defaultdict(deque)
    for file in files:
        named[printable(file.name)].append(file)
    found = [named[name].popleft() if named[name] else None for name in _names(path)[: span.stop]]  # twins keep order
    ok = store.read_array(path, "ok")[span]
    wanted = [(j, file) for j, file in enumerate(found[span]) if ok[j]]
    missing = [_names(path)[span.start + j] for j, file in wanted if file is None]
    if missing:
        raise Cannot(f"the sources have no {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}")
    height, width, channels = attributes["image_shape"]
    readable = [file for _, file in wanted if file]
    rows, _, unreadable = decode_all(readable, stored_decoding(attributes), (height, width, channels))
    if unreadable:
        raise Cannot(f"{unreadable[0].name} cannot be read any more ({unreadable[0].reason})")
    columns = np.zeros((rows.shape[1], span.stop - span.start), np.uint8)
    columns[:, [j for j, _ in wanted]] = rows.T
    return columns


def _names(path: Folder) -> Any:
    return store.read_array(path, "image")
