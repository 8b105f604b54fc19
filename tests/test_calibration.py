"""What a pass is said to take is what its parts take, told by a clock that only they move."""

from types import SimpleNamespace

import pytest

from data_prep import store
from pipeline import calibration, engine
from pipeline.calibration import estimate
from pipeline.config import NMFConfig
from pipeline.plan import make_plan
from pipeline.solvers.hals import HALS, improve


class Clock:
    """Seconds that have been spent."""

    def __init__(self):
        self.now = 0.0

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(calibration, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(engine, "CPU_COUNT", 1)
    original = store.read_chunk
    monkeypatch.setattr(store, "read_chunk", lambda *given, **named: clock.spend(0.2) or original(*given, **named))
    return clock


def test_a_pass_is_estimated_from_two_sizes(planted, clock, monkeypatch):
    class Slow(HALS):
        """0.1 s a block, and 0.06 s an iteration."""

        def step(self, A, state):
            clock.spend(0.06)
            A.visit(state.W, state.H, lambda *given: clock.spend(0.1) or improve(*given))
            return state

    monkeypatch.setattr(calibration, "solver_of", lambda config, matrix: Slow())
    matrix, config = store.open_matrix(planted), NMFConfig(n_components=4)
    told = estimate(matrix, config, make_plan(matrix, config))
    assert (told.chunks, told.arithmetic_s) == (1, pytest.approx(0.06 + 19 * 0.1))
    assert told.reading_s == 0  # all of it is cached


def test_reading_counts_where_nothing_is_cached(planted, clock, monkeypatch):
    monkeypatch.setattr(HALS, "step", lambda self, A, state: clock.spend(0.3) or state)
    matrix, config = store.open_matrix(planted), NMFConfig(n_components=4)
    enough = make_plan(matrix, config, 2**40)
    streamed = make_plan(matrix, config, enough.worker_nbytes - matrix.nbytes)
    assert estimate(matrix, config, streamed).reading_s == pytest.approx(19 * 0.2)
