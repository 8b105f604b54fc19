"""What the sketch is made of: decided from m, n, d and the settings alone, before anything runs.

Neither clocks nor memory have a say, so that the same request is the same computation everywhere.
"""

import math
from dataclasses import dataclass, replace

from data_prep.sample import sample_size
from data_prep.store import StoredMatrix
from pipeline.config import NMFConfig
from pipeline.objective import nearly_all_zero

OVERSAMPLING = 10
ENOUGH, FEW = 200, 100
"""Columns for each component: a sample of so many leaves W within half a percent of the optimum; of fewer, above it."""
RANGE = 10
"""Columns for each component that the range finder begins with."""
SHALLOW = 4
"""Where A has not so many times the rows of the sketch, there is nothing to compress."""
B_NBYTES = 2**30
"""Of B, where it is of more columns than are enough because the stored sample is of too few."""
MAX_PASSES = 4.0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the small problem is."""

    rank: int | None
    """Rows l of the sketch; None where the columns are iterated on as they are."""
    whole: bool
    """Whether it is of all columns, else of the first ones of the stored sample."""
    n_columns: int
    """Of the small problem."""
    share: float
    """Of the columns of A."""
    n_range: int
    """Columns of the sample that the range finder begins with."""
    range_rank: int
    """Singular vectors that the range finder finds of them."""
    passes: float
    """Visits of A before the first iteration."""

    @property
    def kind(self) -> str:
        """What its iterations are on: a `sketch`, a `sample` of columns as they are, or A as it is, `all` of it."""
        return "sketch" if self.rank is not None else "all" if self.whole else "sample"

    @property
    def passes_each(self) -> float:
        """Visits of A that an iteration counts as."""
        return 0.0 if self.kind == "sketch" else self.share

    @property
    def n_read(self) -> int:
        """Columns of the sample that are read."""
        return self.n_range if self.whole else self.n_columns

    def nbytes(self, m: int, d: int, column_nbytes: float) -> int:
        """Bytes of the sample, of B, of three versions of H, and of what has a row a pixel, all in one process."""
        wide, columns = (self.rank or 0) + 3 * d, self.n_columns if self.kind == "all" else self.n_read
        return round(column_nbytes * columns) + 4 * wide * self.n_columns + self.tall_nbytes(m, d)

    def tall_nbytes(self, m: int, d: int) -> int:
        """Bytes of what has a row a pixel."""
        return 4 * (8 * self.range_rank + 5 * d) * m  # the sums of its pass are in float64


def choose(matrix: StoredMatrix, config: NMFConfig) -> Choice | None:
    """Decide on the small problem; None where there is none: another solver, or too few passes."""
    (m, n), d = matrix.shape, config.n_components
    n_sampled = min(matrix.n_ok, sample_size(m, matrix.dtype.itemsize))
    if config.solver != "sketch" or n_sampled == 0 or matrix.norm_squared == 0:
        return None
    rank = config.sketch_rank or 2 * d + OVERSAMPLING
    listed = nearly_all_zero(matrix)
    cheap = listed and config.sketch_rank is None  # a visit of A costs less than one of the sketch would
    worthwhile = not cheap and m >= SHALLOW * rank and n >= 2 * rank and n_sampled >= rank
    few = n_sampled < min(n, FEW * d) and worthwhile and 4 * rank * n <= B_NBYTES
    whole = n <= ENOUGH * d or few
    n_range = min(n_sampled, max(rank, min(RANGE * d, n // 4)))
    before, budget = 2 * n_range / n, config.max_passes or (MAX_PASSES if worthwhile else math.inf)
    if whole and before + 2 <= budget:
        passes = before + 1 if worthwhile else before
        chosen: Choice | None = Choice(
            rank=rank if worthwhile else None,
            whole=True,
            n_columns=n,
            share=1.0,
            n_range=n_range,
            range_rank=rank if worthwhile else n_range,
            passes=passes,
        )
    else:
        chosen = _of_a_sample(n, min(n_sampled, ENOUGH * d), rank if worthwhile else None, d, budget)
    if chosen is None or chosen.rank is not None or not listed:
        return chosen  # beside dense columns as they are, a whole range costs little
    return replace(chosen, range_rank=min(chosen.range_rank, d + OVERSAMPLING))


def _of_a_sample(n: int, n_sampled: int, rank: int | None, d: int, budget: float) -> Choice | None:
    """Sampled columns alone: the range finder visits a part of them twice, then all are visited once."""
    k = int(min(n_sampled, (budget - 1) * n / 3))
    if k < 2 * d:
        return None
    rank = rank if rank is not None and k >= 2 * rank else None
    n_range = min(k, max(rank or 0, RANGE * d))
    passes = (2 * n_range + (k if rank else 0)) / n
    return Choice(
        rank=rank,
        whole=False,
        n_columns=k,
        share=k / n,
        n_range=n_range,
        range_rank=rank or n_range,
        passes=passes,
    )
