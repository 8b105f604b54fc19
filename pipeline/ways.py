"""How a run goes about what it is asked for."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.checkpoints import Every
from pipeline.kernels import Matrix
from pipeline.record import Iteration
from pipeline.starts import Given


class Ways(NamedTuple):
    """Nothing of this changes what is asked for; see `factorize`."""

    fresh: bool
    memory_nbytes: int | None
    start: Given | None
    on_iteration: Callable[[Sequence[Iteration]], None]
    on_factors: Callable[[Matrix], None]
    checkpoint_every: Every
    still_ours: Callable[[], None]
    refresh: str
