"""The job: open the matrix, decide what is left to do, solve, publish."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from threadpoolctl import threadpool_limits

from data_prep import store
from data_prep.folders import Where
from data_prep.lock import only_writer
from data_prep.store import StoredMatrix
from pipeline import engine, rerun, starts
from pipeline.basis import Basis, basis_of
from pipeline.checkpoints import Checkpoints, Every
from pipeline.config import NMFConfig
from pipeline.factors import Factors, named
from pipeline.kept_sums import kept
from pipeline.kernels import Matrix
from pipeline.loop import Stop, solve, stop_reason
from pipeline.objective import settled, solver_of
from pipeline.one_pass import BlockMatrix
from pipeline.opening import SCRATCH, check_reachable, open_blocks, remove_scratch
from pipeline.plan import Plan, check_rank, make_plan
from pipeline.provenance import plan_and_outcome, provenance, told_of_state
from pipeline.publishing import Finished, Wide, publish_revision
from pipeline.record import EXACT, NEW, Iteration, Recorder
from pipeline.sketching import Choice
from pipeline.small_run import SmallRun
from pipeline.solvers.state import State
from pipeline.standing import ParametersDiffer as ParametersDiffer  # "as": callers catch it here
from pipeline.standing import Standing, passes_to_make, small_problem, where_it_stands
from pipeline.under_way import beating
from pipeline.ways import Ways


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
    on_factors: Callable[[Matrix], None] = lambda W: None,
    checkpoint_every: Every = Every(),  # noqa: B008  # it is immutable
    lock_timeout_s: float = 0.0,
    refresh: str = "auto",
    **settings: Any,
) -> Result:
    """Factorize the matrix of a store and write W, H and the loss history back to it.

    Runs on the active Dask client, or on threads of this process. A factorization of that name that was interrupted is
    continued to the bits it would have had; so is one of `hals` or `mu` that a smaller budget stopped, while `sketch`
    goes on from its W. One that needs no more work is returned. Columns that were appended since are taken in: they
    alone are visited, and W is improved from the sums of all.

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
        W and, unless it is to be solved for, H to start from, in place of `init`. Used only where nothing is continued.
    on_iteration
        Called after every iteration with the record so far. What it raises ends the run, after a checkpoint.
    on_factors
        Called with W (m, d) after every iteration, on a small problem or on A; it is to change nothing in it.
    checkpoint_every
        How often the state is written for a later run to go on from.
    lock_timeout_s
        How long to wait for another process that is at this factorization.
    refresh
        Whether all columns are visited again after new ones were taken in: `never`, `full`, or `auto`, where so many
        of them are so different that W may not suit any more (`rerun.OUTGROWN`).
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
    Unsuitable
        The solver cannot minimise the objective, or the mask is not one of this matrix.
    ParametersDiffer
        The stored factorization of that name was made with other parameters or from other data.
    """
    matrix = store.open_matrix(path)
    config = settled(NMFConfig(n_components=n_components, **settings), matrix)
    check_rank(matrix, n_components)
    if start is not None:
        starts.check(start, n_components, matrix)
    folder = named(matrix.path, name or f"d{n_components}")
    with only_writer(folder, lock_timeout_s) as still_ours:
        ways = Ways(fresh, memory_nbytes, start, on_iteration, on_factors, checkpoint_every, still_ours, refresh)
        return _factorize(matrix, folder.name, config, ways)


def _factorize(matrix: StoredMatrix, name: str, config: NMFConfig, ways: Ways) -> Result:
    standing = Standing() if ways.fresh else where_it_stands(matrix, name, config, ways.refresh)
    previous, reason = standing.previous, standing.reason
    if previous is not None and previous.complete and reason is not None:
        return Result(previous, reason, 0)
    engine.give_back_large_arrays()
    remove_scratch(matrix.path / "nmf" / name)
    check_reachable(matrix)
    choice = small_problem(matrix, config, previous) if ways.start is None else None
    passes = passes_to_make(matrix, config, choice, standing, ways.refresh)
    plan = make_plan(matrix, config, ways.memory_nbytes, choice, passes)
    run = _Run(matrix, name, config, ways, plan, choice, standing)
    try:
        with beating(run.scratch, run.began, run.recorder, plan, config):
            return run.carry_out(reason)
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
        standing: Standing,
    ) -> None:
        self.matrix, self.name, self.config, self.ways = matrix, name, config, ways
        self.plan, self.choice, self.began = plan, choice, datetime.now(UTC)
        self.previous = previous = standing.previous
        self.older = standing.older
        given = ways.start if previous is None else None
        earlier = previous.iterations if previous else given.before if given else []
        self.recorder = Recorder(matrix, earlier, plan=plan, on_iteration=ways.on_iteration)
        self.checkpoints = Checkpoints(lambda state: self.publish(state, None), ways.checkpoint_every)
        self.scratch = matrix.path / "nmf" / name / f"{SCRATCH}{uuid.uuid4().hex[:8]}"
        self.small: SmallRun | None = None
        """While it is iterated on."""
        known = previous.attributes if previous else given.told if given else {}
        self.of_small = {key: known[key] for key in ("sketch", "svd_bound") if key in known}
        self.of_rerun = {key: known[key] for key in rerun.KEPT if key in known}
        self.parts: Sequence[range] = plan.partitions
        """Chunks of each part of H."""
        self.warm: Basis | None = None
        """W of a result that is visited again."""

    def carry_out(self, reason: Stop | None) -> Result:
        """Do what is left, nothing but to write what there is where there is a reason, and publish it."""
        with threadpool_limits(limits=1, user_api="blas"):  # the driver's bits must not depend on its cores either
            if self.older is not None:
                state, stop = self.take_in(self.older)
            else:
                state, stop = (self.begin(), reason) if reason else self.solve()
        if stop is Stop.NONFINITE:
            raise store.BadInput(f"{self.name} was not written: {stop}")
        return Result(self.publish(state, stop), stop, self.recorder.n_new)

    def begin(self) -> State:
        """Return the state before the first iteration on A."""
        if self.previous is not None:
            return starts.continued(self.previous, self.plan.partitions)
        if self.warm is not None:
            return State(W=self.warm, H=[None] * len(self.plan.partitions))
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
        return open_blocks(self.matrix, self.config, self.plan, self.scratch, self.recorder.visited)

    def take_in(self, older: Factors) -> tuple[State, Stop]:
        """Take in the columns that a result has not seen, and visit all of them again where that is worth it."""
        self.of_rerun = {"refresh": self.ways.refresh, "lineage": rerun.lineage_of(older)}
        self.warm, wanted = basis_of(older.read("W")), self.ways.refresh == "full"
        if rerun.n_new(older, self.matrix):
            taken = rerun.take_in(self.matrix, self.config, older, self.plan)
            self.recorder.visited_sample(rerun.n_new(older, self.matrix), read=True)
            self.recorder.enter(NEW, self.matrix.norm_squared)
            self.recorder(taken.state)
            self.of_rerun |= {"drift": taken.drift, "outgrown": taken.outgrown}
            self.warm = taken.state.W
            if not (wanted or (self.ways.refresh == "auto" and taken.outgrown > rerun.OUTGROWN)):
                self.parts = taken.parts
                return taken.state, Stop.EXTENDED
            self.recorder.enter(EXACT, self.matrix.norm_squared)
        return self.solve()

    def solve(self) -> tuple[State, Stop]:
        """Iterate until there is a reason to stop, on the small problem first where there is one."""

        def should_stop(iterations: Sequence[Iteration]) -> Stop | None:
            return stop_reason(iterations, self.config)

        return solve(  # the state is nobody else's, so that its W is gone once there is another
            state=self.begin() if self.choice is None else self.solve_small(self.choice),
            A=self.A,
            solver=solver_of(self.config, self.matrix),
            should_stop=should_stop,
            on_iteration=self.on_state,
        )

    def solve_small(self, choice: Choice) -> State:
        """Find W on the small problem; H is solved for when W meets A."""
        self.small = SmallRun(self.matrix, self.config, choice, self.plan, self.recorder, self.previous, self.warm)
        W = self.small.solve(lambda: self.A, self.on_state, self.checkpoints.end_phase)
        self.of_small, self.small = self.small.told(), None
        self.recorder.enter(EXACT, self.matrix.norm_squared)
        return State(W=W, H=[None] * len(self.plan.partitions))

    def on_state(self, state: State) -> Sequence[Iteration]:
        """Record an iteration, and write a checkpoint if it is time or if whoever looks on ends the run here."""
        with ExitStack() as if_it_ends:
            if_it_ends.callback(self.checkpoints.write, state)
            iterations = self.recorder(state)
            self.ways.on_factors(state.W.W)
            if_it_ends.pop_all()
        self.checkpoints(state, phase_ends=self.recorder.n_new == 1)  # what preceded it may have taken long
        return iterations

    def publish(self, state: State, stop: Stop | None) -> Factors:
        """Write a revision: complete where there is a reason why it stopped, else a checkpoint."""
        parent = self.previous or self.older
        attributes: dict[str, Any] = {
            **provenance(self.matrix, self.config, self.recorder.iterations, stop),
            **plan_and_outcome(self.matrix, self.plan, self.recorder),
            **self.of_small,
            **self.of_rerun,
            **told_of_state(state),
            "keeps_sums": state.sums is not None and self.small is None,
            "start": "given" if self.ways.start is not None and self.previous is None else self.config.init,
            "parent": parent and parent.path.name,
            "began": self.began.isoformat(timespec="seconds"),
        }
        before = state.momentum.W_before
        tall, exact = {"W": state.W.W} | ({} if before is None else {"W_before": before}), {}
        if attributes["keeps_sums"] and state.sums is not None:
            of_sums = kept(state.sums)
            tall, exact, attributes = tall | of_sums.tall, of_sums.exact, attributes | of_sums.attributes
        if stop is not None and "lineage" in self.of_rerun and (self.previous is None or not self.previous.complete):
            before = named(self.matrix.path, self.name) / self.of_rerun["lineage"][-1]["revision"]
            attributes["cosines"] = rerun.cosines(state.W.W, Factors(before, {}).read("W"))
        if self.small is None:
            H = list(zip(self.parts, state.H, strict=True))
            wide = {"H": Wide(self.config.n_components, self.matrix.shape[1], self.matrix.chunk_images, H)}
        else:
            more, wide, told = self.small.checkpoint(state)
            tall, attributes = tall | more, attributes | self.small.told() | told
        finished = Finished(
            tall=tall,
            wide=wide,
            exact=exact,
            iterations=self.recorder.iterations,
            attributes=attributes,
            complete=stop is not None,
        )
        # A lost worker's part of H may have to be made again from the revision that this run began with.
        in_use = parent.path.name if stop is None and parent is not None else None
        return publish_revision(self.matrix, self.name, finished, still_ours=self.ways.still_ours, in_use=in_use)
