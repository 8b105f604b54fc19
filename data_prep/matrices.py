"""The matrix job: a file with a sparse or dense matrix in, A (m, n) out; what the file does not give is zero.

The file is read once, a batch of entries at a time, which wait in a file a chunk. Then each chunk is made dense and
written. What is held is a batch, the entries of one chunk, and that chunk.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep import market_files, npy_files, store
from data_prep.dense import Entries, nothing, write_summed
from data_prep.folders import Folder, Where, folder
from data_prep.input_files import digest, readable
from data_prep.made_of import Prepared, prepare, prepared_before
from data_prep.matrix_store import LARGEST

FILES = "an .npz, .npy or Matrix Market file"
MOST_ROWS, MOST_COLUMNS = 2**24, 2**27
"""Of A: a chunk holds whole columns, and some numbers are held for each."""
MOST_VOCABULARY_NBYTES = 2**28
CONTENTS = {"file": "the file has another content", "vocabulary": "the vocabulary is another one"}
Reader = Callable[[Path], AbstractContextManager[tuple[tuple[int, int], Iterator[Entries]]]]
READERS: dict[bytes, Reader] = {
    b"PK": npy_files.sparse,
    b"\x93N": npy_files.dense,
    b"%%": market_files.market,
    market_files.GZIP: market_files.market,
}
"""By the first two bytes of a file."""


def prepare_matrix(
    source: str | os.PathLike[str],
    path: Where,
    vocabulary: str | os.PathLike[str] | None = None,
    *,
    transpose: bool = False,
    on_progress: Callable[[int, int], None] = nothing,
) -> Prepared:
    """Turn a file with a matrix into a store; entries that are given more than once are summed.

    Parameters
    ----------
    source
        What `scipy.sparse.save_npz` writes as csr, csc or coo, a Matrix Market file, or what `numpy.save` writes.
    path
        The store to make. One that holds just this is left alone.
    vocabulary
        File with a word a line, the names of the rows of A.
    transpose
        Whether the rows of the file are the columns of A.
    on_progress
        Called with the number of columns of A that are written and of all.

    Raises
    ------
    BadInput
        The file is none of these, is damaged or holds what cannot be factorized; the vocabulary has not a word for each
        row; the path is taken.
    StoreDiffers
        The store was made from another file, or with other options.
    """
    home, file = folder(path), Path(source)
    words = None if vocabulary is None else Path(vocabulary)
    told = None if words is None else list(digest(words, "a file with a word a line"))
    made_of = {"transpose": transpose, "file": list(digest(file, FILES)), "vocabulary": told}
    before = prepared_before(home, "matrix", made_of, CONTENTS)
    if before is not None:
        return Prepared(home, before, new=False)
    attributes = prepare(home, made_of, lambda: _write(home, _Given(file, words, transpose), on_progress))
    return Prepared(home, attributes, new=True)


class _Given(NamedTuple):
    file: Path
    vocabulary: Path | None
    transpose: bool


def _write(home: Folder, given: _Given, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Read the file and write A; returns the attributes to publish."""
    with ExitStack() as stack:
        with _damage_named(given.file):
            shape, entries = stack.enter_context(_reader(given.file)(given.file))
        _check_shape(given, shape)
        m, n = (shape[1], shape[0]) if given.transpose else shape
        words = None if given.vocabulary is None else _read_vocabulary(given.vocabulary, (m, n))
        about = {"kind": "matrix", "shape": (m, n), "features": words}
        return write_summed(home, about, _checked(given, shape, entries), on_progress)


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Say which file it is that cannot be read."""
    try:
        yield
    except store.BadInput:  # which is a ValueError, as some of the others are
        raise
    except (*npy_files.BROKEN, *market_files.BROKEN) as error:
        raise store.BadInput(f"{file} is damaged or cut off ({error}); get it again") from error


def _reader(file: Path) -> Reader:
    with readable(file, FILES), file.open("rb") as content:
        head = content.read(2)
    if head not in READERS:
        raise store.BadInput(f"{file} is neither .npz, .npy nor a Matrix Market file; save it as one of these")
    return READERS[head]


def _check_shape(given: _Given, shape: tuple[int, int]) -> None:
    """Raise BadInput where a matrix has no entries, or more rows or columns than are ever held."""
    rows, columns = (MOST_COLUMNS, MOST_ROWS) if given.transpose else (MOST_ROWS, MOST_COLUMNS)
    if not (0 < shape[0] <= rows and 0 < shape[1] <= columns):
        raise store.BadInput(
            f"{given.file} is {shape[0]:,} × {shape[1]:,}, but must have 1 to {rows:,} rows and 1 to {columns:,} "
            f"columns; leave out what is not needed{'' if given.transpose else ', or turn it with --transpose'}"
        )


def _checked(given: _Given, shape: tuple[int, int], entries: Iterator[Entries]) -> Iterator[Entries]:
    """Entries of A; BadInput names the first one of the file that is outside of it or cannot be factorized."""
    with _damage_named(given.file):
        for i, j, values in entries:
            outside = (i < 0) | (i >= shape[0]) | (j < 0) | (j >= shape[1])
            wrong = np.flatnonzero(outside | ~((values >= 0) & (values <= LARGEST)))  # NaN is neither
            if len(wrong):
                k = wrong[0]
                where = f"{given.file}: the entry of row {i[k]} and column {j[k]}, counted from 0, is "
                what = "outside of {:,} × {:,}; save it again".format(*shape) if outside[k] else _wrong(values[k])
                raise store.BadInput(where + what)
            yield Entries(j, i, values) if given.transpose else Entries(i, j, values)


def _wrong(value: float) -> str:
    return f"{value:g}, but must be finite, 0 or more, and at most {LARGEST:g}; mend it or leave it out"


def _read_vocabulary(file: Path, shape: tuple[int, int]) -> list[str]:
    """Names of the rows; BadInput unless there are as many."""
    if file.stat().st_size > MOST_VOCABULARY_NBYTES:
        raise store.BadInput(f"{file} is larger than {MOST_VOCABULARY_NBYTES:,} bytes, so it is no list of words")
    try:
        words = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise store.BadInput(f"{file} is not UTF-8 ({error}); write it as such, a word a line") from error
    m, n = shape
    if len(words) != m:
        turned = "; is the matrix to be turned with --transpose, or not?" if len(words) == n else "; name each, a line"
        raise store.BadInput(f"{file} has {len(words):,} lines, but A has {m:,} rows (and {n:,} columns){turned}")
    return words
