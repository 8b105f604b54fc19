"""How long a pass would take: told from a second of the work itself, on a few chunks, where the engine runs now."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from data_prep.store import StoredMatrix
from pipeline import engine
from pipeline.basis import basis_of
from pipeline.blocks import StoredBlocks
from pipeline.config import NMFConfig
from pipeline.objective import settled, solver_of
from pipeline.one_pass import BlockMatrix
from pipeline.opening import as_objective_needs
from pipeline.plan import Plan
from pipeline.solvers.state import State
from pipeline.starts import uniform

TIME_S = 0.4
"""For each of the two sizes that are timed."""


class Estimate(NamedTuple):
    """Seconds of a pass, if reading and arithmetic do not hold each other up."""

    arithmetic_s: float
    reading_s: float
    """Of what is read again each pass."""
    chunks: int
    """How many it was told from."""


def estimate(matrix: StoredMatrix, config: NMFConfig, plan: Plan) -> Estimate:
    """Time iterations over a few chunks, one a task and then two, and say what all chunks would take.

    What a pass costs once (W, sums between tasks, the round trip) is what two chunks take less than twice of one.
    """
    place = engine.place()
    tasks = min(place.workers * place.threads, matrix.n_chunks)
    chosen = [k * matrix.n_chunks // tasks for k in range(tasks)]
    of_A = [StoredBlocks(matrix.path, "A", range(k, k + 1), n=matrix.shape[1]) for k in chosen]
    config = settled(config, matrix)
    stored = [(blocks,) for blocks in as_objective_needs(of_A, config, matrix)]
    reading_s = _shortest(lambda: engine.call_each(_read, stored))
    one, two = (_iteration_s(matrix, config, engine.keep_each(repeated, stored)) for repeated in (_once, _twice))
    each = max(two - one, one / 10)
    rounds = matrix.n_chunks / tasks
    return Estimate(max(one - each, 0) + each * rounds, reading_s * rounds * (1 - plan.cached_share), tasks)


def _iteration_s(matrix: StoredMatrix, config: NMFConfig, partitions: list[Any]) -> float:
    A = BlockMatrix(
        partitions=partitions, shape=matrix.shape, scale=matrix.scale, norm_squared=max(matrix.norm_squared, 1.0)
    )
    W, solver = uniform(0, 0, (matrix.shape[0], config.n_components)), solver_of(config, matrix)
    state = solver.step(A, State(W=basis_of(W), H=[None] * len(partitions)))
    return _shortest(lambda: solver.step(A, state))


def _shortest(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of several runs, at least two."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < TIME_S:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _read(blocks: Iterable[Any]) -> int:
    return sum(block.shape[1] for block in blocks)


def _once(blocks: Iterable[Any]) -> list[Any]:
    return list(blocks)


def _twice(blocks: Iterable[Any]) -> list[Any]:
    return list(blocks) * 2
