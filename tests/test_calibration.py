"""What a pass is said to take is what its parts take."""

import time

import pytest

from data_prep import store
from pipeline import engine
from pipeline.calibration import estimate
from pipeline.plan import make_plan
from pipeline.solvers.hals import HALS, improve


class Slow(HALS):
    """100 ms a block, and 60 ms an iteration."""

    def step(self, A, state):
        time.sleep(0.06)
        A.visit(state.W, state.H, slowly)
        return state


def slowly(WtW, WtA, H):
    time.sleep(0.1)
    return improve(WtW, WtA, H)


def test_a_pass_is_estimated_from_two_sizes(planted, monkeypatch):
    matrix = store.open_matrix(planted)
    monkeypatch.setattr(engine, "CPU_COUNT", 1)
    told = estimate(matrix, Slow(), 4, make_plan(matrix, 4))
    assert told.chunks == 1
    assert told.arithmetic_s == pytest.approx(0.06 + 19 * 0.1, rel=0.2)
    assert told.reading_s == 0  # all of it is cached


def test_reading_counts_where_nothing_is_cached(planted, monkeypatch):
    matrix = store.open_matrix(planted)
    monkeypatch.setattr(engine, "CPU_COUNT", 1)
    original = store.read_chunk
    monkeypatch.setattr(store, "read_chunk", lambda *given, **named: time.sleep(0.02) or original(*given, **named))
    enough = make_plan(matrix, 4, 2**40)
    streamed = make_plan(matrix, 4, enough.worker_nbytes - matrix.nbytes)
    assert estimate(matrix, HALS(), 4, streamed).reading_s == pytest.approx(19 * 0.02, rel=0.4)
