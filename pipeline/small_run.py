"""The iterations on the small problem: as many starts as are asked for, gone on with where an earlier run ended."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from data_prep import store
from data_prep.store import StoredMatrix
from pipeline import engine, penalties, small
from pipeline.basis import Basis, basis_of
from pipeline.config import NMFConfig
from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.loop import Stop, small_stop_reason, solve, trailing
from pipeline.objective import few_nonzero
from pipeline.plan import Plan
from pipeline.publishing import Wide
from pipeline.range_finder import Compressed
from pipeline.record import Iteration, Recorder
from pipeline.sketching import Choice
from pipeline.small import OpenA, Small, ordered, read_parts
from pipeline.solvers.hals import HALS, LISTED_SWEEPS
from pipeline.solvers.state import State
from pipeline.starts import continued_momentum, uniform

SWEEPS = 4
"""A visit is cheap here, so that few sweeps a visit do; and H is small enough to have it twice."""


class SmallRun:
    """Finds W; H is solved for when W meets A."""

    def __init__(
        self,
        matrix: StoredMatrix,
        config: NMFConfig,
        choice: Choice,
        plan: Plan,
        recorder: Recorder,
        previous: Factors | None,
        warm: Basis | None,
    ) -> None:
        self.matrix, self.config, self.choice, self.plan = matrix, config, choice, plan
        self.recorder, self.previous = recorder, previous
        about = {} if previous is None else previous.attributes.get("small", {})
        self.warm = warm
        """W to start from, whose components keep their order."""
        self.keeps_order: bool = about.get("keeps_order", warm is not None)
        self.n_starts: int = about.get("n_starts", config.restarts if previous is None else 1)
        self.losses: list[float] = about.get("losses", [])
        """Of the starts that are over."""
        self.best = previous.read("best_W") if previous is not None and self.losses else None
        """W of the best of them."""

    @property
    def phase(self) -> str:
        """Name of the phase in the record; starts after the first are numbered."""
        return self.choice.kind if not self.losses else f"{self.choice.kind} {len(self.losses) + 1}"

    def solve(
        self, open_A: OpenA, on_state: Callable[[State], Sequence[Iteration]], on_phase: Callable[[State], None]
    ) -> Basis:
        """Iterate; `on_state` is told each state and returns the record, `on_phase` is told those that end a phase."""
        self.small = self._made(open_A)
        with self._place():
            while len(self.losses) < self.n_starts:
                state = self._solve_start(on_state)
                on_phase(state)
                if self.best is None or state.loss < min(self.losses):
                    self.best = (
                        state.W.W if self.keeps_order else ordered(state, unit=not penalties.any_in(self.config))
                    )
                self.losses.append(state.loss)
                self.previous = None
        assert self.best is not None  # there is one start at least
        return basis_of(self.best)

    def told(self) -> dict[str, Any]:
        """What is recorded of it with a result."""
        norm_squared = self.small.matrix.norm_squared
        errors = [float(np.sqrt(loss / norm_squared)) for loss in self.losses]
        return {"sketch": asdict(self.choice) | {"errors": errors}, "svd_bound": self.small.svd_bound}

    def checkpoint(self, state: State) -> tuple[dict[str, Matrix], dict[str, Wide], dict[str, Any]]:
        """Arrays with a row a pixel, arrays with a column an image, and attributes, to go on from."""
        matrix, before = self.small.matrix, state.momentum.H_before
        tall = {} if self.best is None else {"best_W": self.best}
        wide = {"small_H": self._wide(state.H)} | ({} if before is None else {"small_H_before": self._wide(before)})
        about = {
            "n_starts": self.n_starts,
            "losses": self.losses,
            "loss": state.loss,
            "norm_squared": matrix.norm_squared,
            "keeps_order": self.keeps_order,
        }
        if isinstance(matrix, Compressed):
            tall["sketch_range"], wide["sketch"] = matrix.Q, self._wide(matrix.B.partitions, matrix.Q.shape[1])
            about["missed"] = matrix.missed
        return tall, wide, {"small": about | {"moving_H": before is not None}}

    def _wide(self, parts: Sequence[Any], rows: int | None = None) -> Wide:
        chunk = self.matrix.chunk_images if self.choice.whole else small.SAMPLE_BLOCK
        together = list(zip(self.small.parts, parts, strict=True))
        n = self.choice.n_columns
        return Wide(rows or self.config.n_components, n, min(chunk, n), together)

    def _place(self) -> AbstractContextManager[None]:
        """Where its iterations run: in this process where it is not large."""
        return engine.here() if self.plan.sketch_here else nullcontext()

    def _made(self, open_A: OpenA) -> Small:
        if self.previous is not None and not self.previous.complete and self.choice.rank is not None:
            with self._place():
                return small.stored(self.previous, self.choice, self.plan)
        return small.make(self.matrix, open_A, self.config, self.choice, self.plan, self.recorder)

    def _solve_start(self, on_state: Callable[[State], Sequence[Iteration]]) -> State:
        matrix, phase = self.small.matrix, self.phase
        self.recorder.enter(phase, matrix.norm_squared)

        def should_stop(iterations: Sequence[Iteration]) -> Stop | None:
            own = trailing(iterations, phase)
            return small_stop_reason(own, self.config, self.choice.passes_each)

        stop = should_stop(self.recorder.iterations)
        if stop is not None:
            return self._start()
        state, stop = solve(matrix, self._solver(), self._start(), should_stop, on_state)
        if stop is Stop.NONFINITE:
            raise store.BadInput(f"{self.matrix.path} was not factorized: {stop}")
        return state

    def _solver(self) -> HALS:
        n = self.matrix.n_ok if self.choice.whole else self.choice.n_columns
        of_W, of_H = penalties.of_W(self.config).times(n), penalties.of_H(self.config).times(self.matrix.shape[0])
        sweeps = LISTED_SWEEPS if few_nonzero(self.config, self.matrix) else SWEEPS
        return HALS(sweeps=sweeps, extrapolates_H=True, penalty_W=of_W, penalty_H=of_H)

    def _start(self) -> State:
        """State before the first iteration of a start, or where a checkpoint left it; a result goes on from its W."""
        if self.previous is not None and not self.previous.complete:
            return self._continued(self.previous)
        W = None if self.losses else self.small.W if self.previous is None else self.previous.read("W")
        self.small = replace(self.small, W=None)  # it is large, and of no use to other starts
        if self.warm is not None and not self.losses:
            return State(W=self.warm, H=[None] * len(self.small.parts))
        if W is None:
            W = uniform(self.config.seed + len(self.losses), 0, (self.matrix.shape[0], self.config.n_components))
        return State(W=basis_of(W), H=[None] * len(self.small.parts))

    def _continued(self, previous: Factors) -> State:
        about, parts = previous.attributes["small"], self.small.parts
        momentum = continued_momentum(previous)
        if about["moving_H"]:
            momentum = momentum._replace(H_before=read_parts(previous, "small_H_before", parts))
        return State(
            W=basis_of(previous.read("W")),
            H=read_parts(previous, "small_H", parts),
            loss=about["loss"],
            from_residual=previous.attributes["momentum"]["from_residual"],
            momentum=momentum,
        )
