"""CSV and Parquet files in long form, an entry a line, read a batch at a time.

PyArrow comes with the extra `tables` and is imported where it is used: nothing else here needs it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.groups import BadInput
from data_prep.input_files import readable
from data_prep.matrix_store import LARGEST

FILES = "CSV or Parquet files"
PARQUET = b"PAR1"
BLOCK_NBYTES = 4 * 2**20
"""Of a CSV file that are parsed at once; a line must fit."""
BATCH_ENTRIES = 2**18
"""Of a Parquet file that are read at once."""
HEAD_NBYTES = 4096


class Names(NamedTuple):
    """Columns of the files."""

    rows: str
    columns: str
    values: str


class Labels(NamedTuple):
    """Labels of the entries of a batch."""

    distinct: list[str]
    codes: NDArray[np.integer]
    """Position in `distinct`, (entries,)."""


class Batch(NamedTuple):
    """Entries that stand together in a file."""

    rows: Labels
    columns: Labels
    values: NDArray[np.float64]
    """(entries,), checked."""


def batches(file: Path, names: Names) -> Iterator[Batch]:
    """Entries of a file, in order.

    Raises
    ------
    BadInput
        The file is missing, is neither CSV nor Parquet, or has not the columns; a label is empty, or a value is no
        number that can be factorized.
    """
    import pyarrow as pa

    broken = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)
    first = 1
    with _as_bad_input(file, broken):
        for rows, columns, values in _parquet(file, names) if _is_parquet(file) else _csv(file, names):
            if not len(values):
                continue
            yield Batch(
                _labels(rows, f"{file}: {names.rows}", first),
                _labels(columns, f"{file}: {names.columns}", first),
                _numbers(values, f"{file}: {names.values}", first),
            )
            first += len(values)


@contextmanager
def _as_bad_input(file: Path, broken: tuple[type[Exception], ...]) -> Iterator[None]:
    """Say which file it is that is missing or broken."""
    try:
        with readable(file, FILES):
            yield
    except BadInput:  # which is a ValueError, as some of the others are
        raise
    except broken as error:
        raise BadInput(f"{file} cannot be read as a table ({error}); mend it") from error
    except OSError as error:
        if error.errno is not None:  # of the disk, and none of PyArrow's own
            raise
        raise BadInput(f"{file} cannot be read as a table ({error}); mend it") from error


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(len(PARQUET)) == PARQUET


def _parquet(file: Path, names: Names) -> Iterator[list[Any]]:
    """Labels and values of a Parquet file."""
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        _check_names(file, names, opened.schema_arrow.names)
        for batch in opened.iter_batches(BATCH_ENTRIES, columns=list(names)):
            yield [batch.column(name) for name in names]


def _csv(file: Path, names: Names) -> Iterator[list[Any]]:
    """Labels and values of a CSV file, all as the text that stands there; a .tsv has tabs, a .gz is decompressed."""
    import pyarrow as pa
    from pyarrow import csv

    with pa.input_stream(str(file), compression="detect") as head:
        if b"\0" in head.read(HEAD_NBYTES):
            raise BadInput(f"{file} is neither CSV nor Parquet; name a table in long form, an entry a line")
    reading: dict[str, Any] = {
        "read_options": csv.ReadOptions(use_threads=False, block_size=BLOCK_NBYTES),  # one thread: errors name the line
        "parse_options": csv.ParseOptions(delimiter="\t" if ".tsv" in file.suffixes else ",", newlines_in_values=True),
    }
    with csv.open_csv(str(file), **reading) as opened:
        _check_names(file, names, opened.schema.names)
    wanted = csv.ConvertOptions(include_columns=list(names), column_types=dict.fromkeys(names, pa.string()))
    with csv.open_csv(str(file), convert_options=wanted, **reading) as opened:
        for batch in opened:
            yield [batch.column(name) for name in names]


def _check_names(file: Path, names: Names, there: Sequence[str]) -> None:
    """Raise BadInput unless a file has each of the columns once."""
    for name in names:
        if there.count(name) != 1:
            has = "no column" if name not in there else "more than one column"
            raise BadInput(f"{file} has {has} {name!r}, but {', '.join(there)}; name one of these")


def _labels(column: Any, what: str, first: int) -> Labels:
    """Return what stands in a column of labels; BadInput names the first entry that has none."""
    import pyarrow as pa
    from pyarrow import compute

    encoded = compute.fill_null(compute.cast(column, pa.string()), "").dictionary_encode()
    distinct, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    empty = [k for k, label in enumerate(distinct) if not label.strip()]
    if empty:
        k = int(np.flatnonzero(np.isin(codes, empty))[0])
        raise BadInput(f"{what} of entry {first + k} is empty, but must name a row or column; mend or leave it out")
    return Labels(distinct, codes)


def _numbers(column: Any, what: str, first: int) -> NDArray[np.float64]:
    """Return a column of values; BadInput names the first entry that cannot be factorized."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = compute.utf8_trim_whitespace(column)
    try:
        numbers = compute.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        numbers = np.array([_number(value) for value in column])
    wrong = ~((numbers >= 0) & (numbers <= LARGEST))  # NaN is neither
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        given = column[k].as_py()
        told = "empty" if given is None or given == "" else repr(given) if isinstance(given, str) else f"{given}"
        raise BadInput(
            f"{what} of entry {first + k} is {told}, but must be a number, 0 or more, and at most {LARGEST:g}; "
            f"mend it or leave the entry out"
        )
    return numbers


def _number(value: Any) -> float:
    """Return a value as a number as PyArrow reads it, NaN where it is none."""
    import pyarrow as pa

    try:
        found = value.cast(pa.float64()).as_py()
    except pa.ArrowInvalid:
        found = None
    return np.nan if found is None else float(found)
