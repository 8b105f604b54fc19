"""A matrix that is in memory already, as a store."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.folders import Where, folder
from data_prep.matrix_store import ARRAYS as ARRAYS  # "as": for those who write the same arrays themselves
from data_prep.matrix_store import EXPENDABLE, LARGEST, Block, Matrix, check_largest, sampled_columns, write_blocks

Values = NDArray[np.floating] | NDArray[np.integer]


def write_matrix(
    path: Where,
    A: Values,
    scale: float = 1.0,
    *,
    present: NDArray[np.bool_] | None = None,
    features: Sequence[str] | None = None,
    items: Sequence[str] | None = None,
) -> None:
    """Write A (m, n) ≥ 0, a column an item, as a store that `factorize` takes; its values stay as they are.

    uint8 stays uint8, everything else becomes float32. What is factorized is `scale` times that.

    Parameters
    ----------
    path
        The store to make.
    A
        The matrix, (m, n).
    scale
        What stored values are multiplied with.
    present
        False where an entry is missing, (m, n); what A holds there is ignored. None: nothing is missing.
    features, items
        Names of the rows, (m,), and of the columns, (n,).

    Raises
    ------
    BadInput
        A is not two-dimensional, is empty, or holds no real numbers, or a negative, NaN or infinite one, or only ones
        too small for float32; `present` or names do not fit it, or nothing is present; or the path is taken.
    """
    home = folder(path)
    _check_form(A, present, {"features": (features, 0), "items": (items, 1)})
    check_largest(max(_largest(A, present, span) for span in _spans(*A.shape)))
    if store.group_attributes(home).get("status") == "complete":
        raise store.BadInput(f"{path} holds a matrix already; choose another path")
    m, n = A.shape
    matrix = Matrix(
        kind="matrix",
        shape=(m, n),
        dtype=np.dtype(np.uint8 if A.dtype == np.uint8 else np.float32),
        n_present=A.size if present is None else int(present.sum()),
        n_filled=sum(int(np.count_nonzero(_known(A, present, span))) for span in _spans(m, n)),
        scale=scale,
        features=features,
        items=items,
    )
    store.begin(home, expendable=EXPENDABLE)
    columns = sampled_columns(matrix)
    blocks = _blocks(A, present, matrix, _spans(m, n))
    sample = _blocks(A, present, matrix, [columns[span] for span in _spans(m, len(columns))])
    store.publish(home, write_blocks(home, matrix, blocks, sample))


def _check_form(
    A: Values, present: NDArray[np.bool_] | None, names: dict[str, tuple[Sequence[str] | None, int]]
) -> None:
    """Raise BadInput where A, or what goes with it, has not the shape or type that it must have."""
    if A.ndim != 2 or A.size == 0:
        raise store.BadInput(f"the matrix has shape {A.shape}, but must have rows and columns")
    if A.dtype.kind not in "buif":
        raise store.BadInput(f"the matrix holds {A.dtype}, but must hold real numbers")
    if present is not None and (present.shape != A.shape or present.dtype != np.bool_):
        raise store.BadInput(
            f"present is {present.dtype} {present.shape}, but must be bool {A.shape}: True where A holds an entry"
        )
    if present is not None and not present.any():
        raise store.BadInput("no entry of A is present, but at least one must be; is `present` turned around?")
    for what, (given, axis) in names.items():
        if given is not None and len(given) != A.shape[axis]:
            raise store.BadInput(f"{len(given)} {what} are named, but A has {A.shape[axis]}; name each")


def _spans(m: int, n: int) -> list[slice]:
    """Columns of each chunk."""
    c = store.chunk_images(m)
    return [slice(first, min(n, first + c)) for first in range(0, n, c)]


def _largest(A: Values, present: NDArray[np.bool_] | None, span: slice) -> float:
    """Largest value of some columns; BadInput where one cannot be factorized."""
    block = _known(A, present, span)
    wrong = ~(np.isfinite(block) & (block >= 0) & (block <= LARGEST))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise store.BadInput(
            f"A[{i}, {span.start + j}] is {block[i, j]}, but every value must be finite, 0 or more, "
            f"and at most {LARGEST:g}, whose squares float32 can sum; scale A, or leave such values out"
        )
    return float(block.max())


def _known(A: Values, present: NDArray[np.bool_] | None, columns: slice | NDArray[np.int64]) -> Values:
    """Columns of A, 0 where an entry is missing."""
    block = A[:, columns]
    return block if present is None else np.where(present[:, columns], block, block.dtype.type(0))


def _blocks(
    A: Values, present: NDArray[np.bool_] | None, matrix: Matrix, parts: Sequence[slice | NDArray[np.int64]]
) -> Iterator[Block]:
    """Parts of the columns of A as they are stored."""
    for columns in parts:
        mask = present[:, columns] if present is not None and matrix.masked else None
        yield Block(_known(A, present, columns).astype(matrix.dtype), mask)
