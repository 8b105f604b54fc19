"""W (m, d) and H (d, n) as files that others read: .npy, CSV and Parquet, a part at a time.

In a table a line is a row of W, or a column of H, with its name. PyArrow comes with the extra `tables` and is imported
where it is used: nothing else here needs it.
"""

import codecs
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.store import StoredMatrix
from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.labels import labels, of_columns

FORMATS = (".npy", ".csv", ".parquet")
ROWS_TOGETHER = 2**14
Told = Callable[[int], None]


class Part(NamedTuple):
    """Lines of a table."""

    labels: Mapping[str, Sequence[Any] | NDArray[Any]]
    """Columns that say what the lines are of."""
    weights: Matrix
    """(d, lines)."""


def write_factor(factors: Factors, name: str, form: str, file: BinaryIO, on_progress: Told = lambda done: None) -> None:
    """Write W or H.

    Parameters
    ----------
    factors
        Where they are.
    name
        `W` or `H`.
    form
        One of FORMATS: an .npy file holds the factor as it is; a table has the names of rows of A (or where their
        pixels are) before W, of columns before H, and then a column for each component.
    file
        New, and open for writing.
    on_progress
        Told how many lines are written; of an .npy file how many columns of H.
    """
    if form == ".npy":
        (_npy_of_W if name == "W" else _npy_of_H)(factors, file, on_progress)
        return
    parts = (_parts_of_W if name == "W" else _parts_of_H)(factors)
    {".csv": _csv, ".parquet": _parquet}[form](parts, file, on_progress)


def _npy_of_W(factors: Factors, file: BinaryIO, on_progress: Told) -> None:
    W = factors.read("W")
    np.save(file, W)
    on_progress(len(W))


def _npy_of_H(factors: Factors, file: BinaryIO, on_progress: Told) -> None:
    """Write the chunks of H where they belong in rows, by writes: a full disk kills who writes to a map of memory."""
    d, n = factors.attributes["parameters"]["n_components"], factors.attributes["shape"][1]
    header = {"descr": "<f4", "fortran_order": False, "shape": (d, n)}
    np.lib.format.write_array_header_1_0(file, header)
    first = file.tell()
    for span, H in factors.chunks_of_H():
        for k, h in enumerate(H.astype("<f4", copy=False)):
            file.seek(first + 4 * (k * n + span.start))
            file.write(np.ascontiguousarray(h).data)
        on_progress(span.stop)


def _parts_of_W(factors: Factors) -> Iterator[Part]:
    W, matrix = factors.read("W"), store.open_matrix(factors.home)
    named = _pixels(matrix) if "image_shape" in matrix.attributes else _features(matrix)
    for first in range(0, len(W), ROWS_TOGETHER):
        span = slice(first, min(len(W), first + ROWS_TOGETHER))
        yield Part(named(span), np.ascontiguousarray(W[span].T))


def _pixels(matrix: StoredMatrix) -> Callable[[slice], dict[str, NDArray[np.intp]]]:
    """Return where the pixels of a span of rows are."""
    shape = tuple(matrix.attributes["image_shape"])
    return lambda span: dict(
        zip(("row", "column", "channel"), np.unravel_index(np.arange(span.start, span.stop), shape), strict=True)
    )


def _features(matrix: StoredMatrix) -> Callable[[slice], dict[str, list[str]]]:
    names = labels(matrix, "feature")
    return lambda span: {"feature": names(span)}


def _parts_of_H(factors: Factors) -> Iterator[Part]:
    matrix = store.open_matrix(factors.home)
    array = of_columns(matrix)
    names = labels(matrix, array)
    for span, H in factors.chunks_of_H():
        yield Part({array: names(span)}, H)


def _csv(parts: Iterator[Part], file: BinaryIO, on_progress: Told) -> None:
    """Write UTF-8 with nine digits a number: it reads back as the same float32, even by way of a float64."""
    lines = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
    done, first = 0, next(parts)
    d = len(first.weights)
    lines.writerow([*first.labels, *_components(d)])
    numbers = "%.9g " * d
    for part in chain([first], parts):
        for *names, weights in zip(*part.labels.values(), part.weights.T, strict=True):
            lines.writerow([*names, *(numbers % tuple(weights.tolist())).split()])
        done += part.weights.shape[1]
        on_progress(done)


def _parquet(parts: Iterator[Part], file: BinaryIO, on_progress: Told) -> None:
    """Write a row group a part."""
    import pyarrow as pa
    from pyarrow import parquet

    done, first = 0, next(parts)
    kinds = [(name, pa.array(values).type) for name, values in first.labels.items()]
    schema = pa.schema([*kinds, *((name, pa.float32()) for name in _components(len(first.weights)))])
    with parquet.ParquetWriter(file, schema, use_dictionary=False) as writer:  # hardly any value comes twice
        for part in chain([first], parts):
            columns = [pa.array(values) for values in (*part.labels.values(), *part.weights)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=part.weights.shape[1])
            done += part.weights.shape[1]
            on_progress(done)


def _components(d: int) -> list[str]:
    return [f"component{k}" for k in range(d)]
