"""Where a factorization stands: what a run of it would begin with, and what is left to do."""

import math
from typing import NamedTuple

from data_prep.store import StoredMatrix
from pipeline import starts
from pipeline.config import NMFConfig, differences
from pipeline.factors import Factors, current, newest
from pipeline.loop import Stop, small_is_over, stop_reason, trailing
from pipeline.objective import settled
from pipeline.plan import Plan, make_plan
from pipeline.record import EXACT
from pipeline.rerun import extends, n_new
from pipeline.sketching import MAX_PASSES, Choice, choose


class ParametersDiffer(ValueError):
    """Parameters or data differ from the stored run's: the command ends with exit code 5."""


class Standing(NamedTuple):
    """What a run begins with."""

    previous: Factors | None = None
    """A result or a checkpoint of the same matrix, which it goes on from."""
    reason: Stop | None = None
    """Why it need not."""
    older: Factors | None = None
    """A result that new columns are to be taken in, or all are to be visited again."""


def planned(
    matrix: StoredMatrix, name: str, config: NMFConfig, memory_nbytes: int | None, *, fresh: bool, refresh: str = "auto"
) -> Plan:
    """Plan what `factorize` would do; ParametersDiffer where another factorization has that name."""
    config = settled(config, matrix)
    standing = Standing() if fresh else where_it_stands(matrix, name, config, refresh)
    choice = small_problem(matrix, config, standing.previous)
    passes = passes_to_make(matrix, config, choice, standing, refresh)
    return make_plan(matrix, config, memory_nbytes, choice, passes)


def small_problem(matrix: StoredMatrix, config: NMFConfig, previous: Factors | None) -> Choice | None:
    """What is to be iterated on before A, unless that is over."""
    choice = choose(matrix, config)
    if choice is None or previous is None or previous.attributes["phase"] != EXACT:
        return choice
    over = small_is_over(previous.iterations, config, choice.passes_each)
    return None if over or not previous.complete else choice


def passes_left(matrix: StoredMatrix, config: NMFConfig, choice: Choice | None, previous: Factors | None) -> float:
    """Passes that a run makes at most."""
    made = 0.0 if previous is None else previous.iterations[-1].passes
    if choice is not None:
        few = config.max_iter if choice.kind == "all" else max(1, math.floor(MAX_PASSES - choice.passes))
        most = choice.passes + choice.passes_each * config.max_iter * config.restarts + (config.polish or few)
    elif previous is None:
        most = config.max_iter + 2 * starts.columns_of_sample(matrix, config) / matrix.shape[1]
    else:
        most = config.max_iter - len(trailing(previous.iterations, EXACT))
    return max(0.0, min(most, (config.max_passes or math.inf) - made))


def passes_to_make(
    matrix: StoredMatrix, config: NMFConfig, choice: Choice | None, standing: Standing, refresh: str
) -> float:
    """Passes that a run makes at most, those over new columns included."""
    if standing.reason is not None:
        return 0.0
    most = passes_left(matrix, config, choice, standing.previous)
    if standing.older is None:
        return most
    return n_new(standing.older, matrix) / matrix.shape[1] + (0.0 if refresh == "never" else most)


def where_it_stands(matrix: StoredMatrix, name: str, config: NMFConfig, refresh: str = "auto") -> Standing:
    """Find out what a run begins with; ParametersDiffer where another factorization has that name."""
    previous = newest(matrix.path, name)
    if previous is None:
        return Standing()
    different = differences(previous.attributes["parameters"], config)
    if not different and previous.attributes["fingerprint"] != matrix.fingerprint:
        older = previous if previous.complete else current(matrix.path, name)  # a checkpoint would be no use
        if older is not None and not differences(older.attributes["parameters"], config) and extends(older, matrix):
            return Standing(older=older)
        old, new = (f"{m} × {n}" for m, n in (previous.attributes["shape"], matrix.shape))
        different.append(f"the matrix: {old} → {new}, or other values")
    if different:
        raise ParametersDiffer(
            f"{name} was made with other parameters ({'; '.join(different)}); "
            f"give this one another --name, or start {name} over with --fresh"
        )
    if previous.complete and previous.attributes["stop"] == Stop.EXTENDED.name:
        return Standing(older=previous) if refresh == "full" else Standing(previous, Stop.EXTENDED)
    if previous.complete and small_problem(matrix, config, previous) is not None:
        return Standing(previous)
    return Standing(previous, stop_reason(previous.iterations, config))
