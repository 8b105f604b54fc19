"""The job: open the matrix, decide what is left to do, solve, publish."""

import math
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from data_prep import store
from data_prep.folders import Where
from data_prep.lock import only_writer
from data_prep.store import StoredMatrix
from pipeline import engine, starts
from pipeline.checkpoints import Checkpoints, Every
from pipeline.config import NMFConfig, differences
from pipeline.factors import Factors, named, newest
from pipeline.loop import Stop, small_is_over, solve, stop_reason, trailing
from pipeline.one_pass import BlockMatrix
from pipeline.opening import check_reachable, open_blocks, remove_scratch
from pipeline.plan import Plan, check_rank, make_plan
from pipeline.provenance import plan_and_outcome, provenance, told_of_state
from pipeline.publishing import Finished, Wide, publish_revision
from pipeline.record import EXACT, Iteration, Recorder
from pipeline.sketching import MAX_PASSES, Choice, choose
from pipeline.small_run import SmallRun
from pipeline.solvers.hals import HALS
from pipeline.solvers.mu import MU
from pipeline.solvers.state import Solver, State

SOLVERS: dict[str, Solver] = {"sketch": HALS(), "hals": HALS(), "mu": MU()}


class ParametersDiffer(ValueError):
    """Parameters or data differ from the stored run's: the command ends with exit code 5."""


@dataclass(frozen=True)
class Result:
    """What `factorize` did."""

    factors: Factors
    stop: Stop
    n_new: int
    """Iterations of this call; 0 where the stored factorization already answers the request."""


def factorize(
    path: Where,
    n_components: int,
    *,
    name: str | None = None,
    fresh: bool = False,
    memory_nbytes: int | None = None,
    start: starts.Given | None = None,
    on_iteration: Callable[[Sequence[Iteration]], None] = lambda iterations: None,
    checkpoint_every: Every = Every(),  # noqa: B008  # it is immutable
    lock_timeout_s: float = 0.0,
    **settings: Any,
) -> Result:
    """Factorize the matrix of a store and write W, H and the loss history back to it.

    Runs on the active Dask client, or on threads of this process. A factorization of that name that was interrupted is
    continued to the bits it would have had; so is one of `hals` or `mu` that a smaller budget stopped, while `sketch`
    goes on from its W. One that needs no more work is returned.

    Parameters
    ----------
    path
        The store, made by `nmf-batch prep` or `data_prep.arrays.write_matrix`.
    n_components
        Rank d, from 1 to min(m, n).
    name
        Of the factorization in the store; `d` and the rank unless given.
    fresh
        Start over, whatever is stored under the name. It stays readable until the new result is complete.
    memory_nbytes
        What a worker may use, without a cluster what this process may; a share of what it has unless given.
    start
        W and H to start from, in place of `init`. Used only where nothing is continued.
    on_iteration
        Called after every iteration with the record so far. What it raises ends the run, after a checkpoint.
    checkpoint_every
        How often the state is written for a later run to go on from.
    lock_timeout_s
        How long to wait for another process that is at this factorization.
    **settings
        Fields of `NMFConfig`: solver, init, seed, restarts, max_iter, max_passes, max_time, tol, target_error, …

    Raises
    ------
    BadInput
        The store is missing, unfinished or damaged, or the loss became NaN.
    HeldError
        Another process is at this factorization.
    RefusedPlan
        n_components is above min(m, n), the start has other shapes, or the memory does not do.
    ParametersDiffer
        The stored factorization of that name was made with other parameters or from other data.
    """
    config = NMFConfig(n_components=n_components, **settings)
    matrix = store.open_matrix(path)
    check_rank(matrix, n_components)
    if start is not None:
        starts.check(start, n_components, matrix)
    folder = named(matrix.path, name or f"d{n_components}")
    with only_writer(folder, lock_timeout_s) as still_ours:
        ways = Ways(fresh, memory_nbytes, start, on_iteration, checkpoint_every, still_ours)
        return _factorize(matrix, folder.name, config, ways)


class Ways(NamedTuple):
    """How to go about it: nothing of this changes what is asked for."""

    fresh: bool
    memory_nbytes: int | None
    start: starts.Given | None
    on_iteration: Callable[[Sequence[Iteration]], None]
    checkpoint_every: Every
    still_ours: Callable[[], None]


def _factorize(matrix: StoredMatrix, name: str, config: NMFConfig, ways: Ways) -> Result:
    previous, reason = (None, None) if ways.fresh else _where_it_stands(matrix, name, config)
    if previous is not None and previous.complete and reason is not None:
        return Result(previous, reason, 0)
    remove_scratch(matrix.path / "nmf" / name)
    check_reachable(matrix)
    choice = _small_problem(matrix, config, previous) if ways.start is None else None
    passes = _passes_left(matrix, config, choice, previous)
    plan = make_plan(matrix, config.n_components, ways.memory_nbytes, choice, passes)
    run = _Run(matrix, name, config, ways, plan, choice, previous)
    try:
        with threadpool_limits(limits=1, user_api="blas"):  # the driver's bits must not depend on its cores either
            state, stop = (run.begin(), reason) if reason else run.solve()
        if stop is Stop.NONFINITE:
            raise store.BadInput(f"{name} was not written: {stop}")
        return Result(run.publish(state, stop), stop, run.recorder.n_new)
    except (engine.NoWorkersError, OSError) as error:
        kept = run.checkpoints.last or previous
        error.add_note(f"the next run goes on from {kept.path}" if kept else "there is no checkpoint yet")
        raise
    finally:
        run.scratch.remove()


class _Run:
    """One run of the job: where it begins, what is kept on the way, how it is written."""

    def __init__(
        self,
        matrix: StoredMatrix,
        name: str,
        config: NMFConfig,
        ways: Ways,
        plan: Plan,
        choice: Choice | None,
        previous: Factors | None,
    ) -> None:
        self.matrix, self.name, self.config, self.ways = matrix, name, config, ways
        self.plan, self.choice, self.previous, self.began = plan, choice, previous, datetime.now(UTC)
        earlier = previous.iterations if previous else []
        self.recorder = Recorder(matrix, earlier, plan=plan, on_iteration=ways.on_iteration)
        self.checkpoints = Checkpoints(lambda state: self.publish(state, None), ways.checkpoint_every)
        self.scratch = matrix.path / "nmf" / name / f"scratch-{uuid.uuid4().hex[:8]}"
        self.small: SmallRun | None = None
        """While it is iterated on."""
        known = {} if previous is None else previous.attributes
        self.of_small = {key: known[key] for key in ("sketch", "svd_bound") if key in known}

    def begin(self) -> State:
        """Return the state before the first iteration on A."""
        if self.previous is not None:
            return starts.continued(self.previous, self.plan.partitions)
        if self.ways.start is not None:
            return starts.given(self.ways.start, self.matrix, self.plan.partitions)
        recorder = self.recorder
        return starts.cold(
            self.matrix,
            self.config,
            self.plan.partitions,
            lambda columns: recorder.visited_sample(columns, visits=2, read=True),
        )

    @cached_property
    def A(self) -> BlockMatrix:
        """The matrix as it is visited, with what is kept of it in memory."""
        return open_blocks(self.matrix, self.config.n_components, self.plan, self.scratch, self.recorder.visited)

    def solve(self) -> tuple[State, Stop]:
        """Iterate until there is a reason to stop, on the small problem first where there is one."""
        state = self.begin() if self.choice is None else self.solve_small(self.choice)

        def should_stop(iterations: Sequence[Iteration]) -> Stop | None:
            return stop_reason(iterations, self.matrix.norm_squared, self.config)

        return solve(self.A, SOLVERS[self.config.solver], state, should_stop, self.on_state)

    def solve_small(self, choice: Choice) -> State:
        """Find W on the small problem; H is solved for when W meets A."""
        self.small = SmallRun(self.matrix, self.config, choice, self.plan, self.recorder, self.previous)
        W = self.small.solve(lambda: self.A, self.on_state, self.checkpoints.end_phase)
        self.of_small, self.small = self.small.told(), None
        self.recorder.enter(EXACT, self.matrix.norm_squared)
        return State(W=W, H=[None] * len(self.plan.partitions))

    def on_state(self, state: State) -> Sequence[Iteration]:
        """Record an iteration, and write a checkpoint if it is time or if whoever looks on ends the run here."""
        with ExitStack() as if_it_ends:
            if_it_ends.callback(self.checkpoints.write, state)
            iterations = self.recorder(state)
            if_it_ends.pop_all()
        self.checkpoints(state, phase_ends=self.recorder.n_new == 1)  # what preceded it may have taken long
        return iterations

    def publish(self, state: State, stop: Stop | None) -> Factors:
        """Write a revision: complete where there is a reason why it stopped, else a checkpoint."""
        attributes = {
            **provenance(self.matrix, self.config, self.recorder.iterations, stop),
            **plan_and_outcome(self.matrix, self.plan, self.recorder),
            **self.of_small,
            **told_of_state(state),
            "start": "given" if self.ways.start is not None and self.previous is None else self.config.init,
            "parent": None if self.previous is None else self.previous.path.name,
            "began": self.began.isoformat(timespec="seconds"),
        }
        before = state.momentum.W_before
        tall = {"W": state.W.W} | ({} if before is None else {"W_before": before})
        if self.small is None:
            H = list(zip(self.plan.partitions, state.H, strict=True))
            wide = {"H": Wide(self.config.n_components, self.matrix.shape[1], self.matrix.chunk_images, H)}
        else:
            more, wide, told = self.small.checkpoint(state)
            tall, attributes = tall | more, attributes | self.small.told() | told
        finished = Finished(
            tall=tall, wide=wide, iterations=self.recorder.iterations, attributes=attributes, complete=stop is not None
        )
        # A lost worker's part of H may have to be made again from the revision that this run began with.
        in_use = self.previous.path.name if stop is None and self.previous is not None else None
        return publish_revision(self.matrix, self.name, finished, still_ours=self.ways.still_ours, in_use=in_use)


def planned(matrix: StoredMatrix, name: str, config: NMFConfig, memory_nbytes: int | None, *, fresh: bool) -> Plan:
    """Plan what `factorize` would do; ParametersDiffer where another factorization has that name."""
    previous, reason = (None, None) if fresh else _where_it_stands(matrix, name, config)
    choice = _small_problem(matrix, config, previous)
    passes = 0.0 if reason is not None else _passes_left(matrix, config, choice, previous)
    return make_plan(matrix, config.n_components, memory_nbytes, choice, passes)


def _small_problem(matrix: StoredMatrix, config: NMFConfig, previous: Factors | None) -> Choice | None:
    """What is to be iterated on before A, unless that is over."""
    choice = choose(matrix, config)
    if choice is None or previous is None or previous.attributes["phase"] != EXACT:
        return choice
    over = small_is_over(previous.iterations, matrix.norm_squared, config, choice.passes_each)
    return None if over or not previous.complete else choice


def _passes_left(matrix: StoredMatrix, config: NMFConfig, choice: Choice | None, previous: Factors | None) -> float:
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


def _where_it_stands(matrix: StoredMatrix, name: str, config: NMFConfig) -> tuple[Factors | None, Stop | None]:
    """Return what a run would go on from, and the reason why it need not, if there is one."""
    previous = newest(matrix.path, name)
    if previous is None:
        return None, None
    _check_same(previous, matrix, config, name)
    if previous.complete and _small_problem(matrix, config, previous) is not None:
        return previous, None
    return previous, stop_reason(previous.iterations, matrix.norm_squared, config)


def _check_same(previous: Factors, matrix: StoredMatrix, config: NMFConfig, name: str) -> None:
    different = differences(previous.attributes["parameters"], config)
    if previous.attributes["fingerprint"] != matrix.fingerprint:
        old, new = (f"{m} × {n}" for m, n in (previous.attributes["shape"], matrix.shape))
        different.append(f"the matrix: {old} → {new}, or other values")
    if different:
        raise ParametersDiffer(
            f"{name} was made with other parameters ({'; '.join(different)}); "
            f"give this one another --name, or start {name} over with --fresh"
        )
