"""What `info` draws of errors, and what it says of runs that are under way."""

import errno
import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.folders import LocalFolder, folder
from pipeline import factorize, under_way
from pipeline.commands import options
from pipeline.commands.info import info
from pipeline.commands.verify import damages_of
from pipeline.config import NMFConfig
from pipeline.factors import groups, names
from pipeline.pace import Left, Pace, left_of, pace_of, small_iterations, within
from pipeline.plan import make_plan
from pipeline.record import Recorder
from pipeline.report.sparkline import BLOCKS, course, sparkline
from pipeline.under_way import FILE, STARTING, Status, state_of
from tests.test_chaos import until
from tests.test_factorize import bits
from tests.test_loop import SKETCHED, record

LONG = {"solver": "mu", "max_iter": 10**6, "tol": 0}


@pytest.fixture
def often(monkeypatch):
    """Runs say how far they are from their beginning on, and again and again."""
    for name in ("FIRST_S", "EVERY_S", "REMOTE_EVERY_S"):
        monkeypatch.setattr(under_way, name, 0.01)


def shown(path, *more, charset="utf-8"):
    result = CliRunner(charset=charset).invoke(info, ["--zarr", str(path), *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


# --- how errors fell


@given(st.lists(st.floats()))
def test_any_errors_are_a_line_of_blocks(errors):
    drawn = sparkline(errors)
    assert len(drawn) == min(len(errors), 40)
    assert set(drawn) <= {*BLOCKS, " "}


@given(st.lists(st.floats(1e-300, 1e300), min_size=2, unique=True))
def test_errors_that_fall_are_drawn_from_the_highest_block_to_the_lowest(errors):
    drawn = sparkline(sorted(errors, reverse=True), width=len(errors))
    assert list(drawn) == sorted(drawn, reverse=True)
    assert (drawn[0], drawn[-1]) == ("█", "▁")


@pytest.mark.parametrize(
    ("errors", "drawn"),
    [
        ([0.2, 0.2, 0.2], "▁▁▁"),
        ([0.0, 0.0], "▁▁"),
        ([1.0, 0.1, 0.0], "█▁▁"),
        ([math.inf, 1.0, math.nan, 0.1], " █ ▁"),
        ([1.0, 0.1, 0.01], "█▅▁"),
        ([*[0.5] * 400, 0.1], "█" * 39 + "▁"),
    ],
    ids=["constant", "zeros", "zero", "not finite", "logarithmic", "last of many"],
)
def test_how_errors_are_drawn(errors, drawn):
    assert sparkline(errors) == drawn


def test_the_first_and_the_last_error_are_told_and_where_they_are_exact_from():
    assert course([0.231, 0.16, 0.1579], ["sketch", "sketch", "exact"]) == "█▁▁ 0.2310 → 0.1579, exact from iteration 3"
    assert course([0.2, 0.1], ["exact"] * 2) == "█▁ 0.2000 → 0.1000"
    assert course([0.2], ["exact"]) == ""


@pytest.mark.parametrize(("charset", "drawn"), [("utf-8", True), ("latin-1", False), ("ascii", False)])
def test_a_terminal_without_the_blocks_is_shown_the_rest(planted, charset, drawn):
    factorize(planted, 4, solver="mu", max_iter=3, tol=0)
    said = shown(planted, charset=charset)
    assert ("      error █" in said) == drawn
    assert "by mu, relative error 0." in said


def test_a_damaged_record_of_errors_is_said_and_the_rest_shown(planted):
    path = factorize(planted, 4, solver="mu", max_iter=3, tol=0).factors.path.path
    (path / "relative_error" / "c" / "0").write_bytes(b"damaged")
    assert "error: its record is damaged; `nmf-batch verify` names the file" in shown(planted)


# --- how far runs are


@pytest.fixture
def started(planted):
    """A run in another process, that has said how far it is."""
    soon = "from pipeline import under_way as u; u.FIRST_S = u.EVERY_S = 0.05; from pipeline import factorize; "
    code = f"{soon}factorize({str(planted)!r}, 4, solver='mu', max_iter=10**6, tol=0)"
    with subprocess.Popen([sys.executable, "-c", code]) as run:
        until(lambda: any(state.phase == "exact" for state in under_way.under_way(folder(planted)).values()), 30)
        yield run
        run.kill()


def test_a_first_run_is_shown_while_it_runs_and_as_interrupted_once_it_was_killed(planted, started):
    assert f"(pid {started.pid}): exact, iteration " in shown(planted)
    (state,) = json.loads(shown(planted, "--json"))["running"].values()
    assert (state["pid"], state["bound"], state["seconds_left"] > 0) == (started.pid, "passes", True)
    started.kill()
    started.wait()
    assert "d4: interrupted on " in shown(planted)
    told = json.loads(shown(planted, "--json"))
    assert (told["running"], list(told["interrupted"]), told["nmf"]) == ({}, ["d4"], {})


def test_what_a_killed_run_has_left_is_nothing_to_others_and_gone_with_the_next(planted, started):
    started.kill()
    started.wait()
    home = folder(planted)
    assert (names(home), groups(home), damages_of(home)) == ([], [], [])
    factorize(planted, 4, solver="mu", max_iter=2, tol=0)
    assert (under_way.under_way(home), list(planted.rglob(FILE))) == ({}, [])


def said_while(path, **ways):
    """What a run here says of itself, once it has made an iteration; and whether anything is left of that."""
    seen = []

    def look(iterations):
        def told():
            found = under_way.under_way(folder(path)).get("d4")
            return found is not None and found.phase != STARTING and seen.append(found) is None

        if not seen:
            until(told, 10)

    factorize(path, 4, on_iteration=look, **{**LONG, "max_iter": 3, **ways})
    return seen[0], under_way.under_way(folder(path))


@pytest.mark.parametrize("where", ["here", "memory://under-way.zarr"])
def test_a_run_that_ended_has_taken_away_what_it_said(planted, often, where):
    path = planted if where == "here" else where
    if path != planted:
        write_matrix(path, store.open_array(planted, "A")[...])
    state, left = said_while(path)
    assert (state.phase, state.iteration, state.pid, left) == ("exact", 1, os.getpid(), {})
    assert not [name for name in (folder(path) / "nmf" / "d4").entries() if name.startswith("scratch-")]


def test_a_run_that_is_ended_by_an_error_leaves_nothing(planted, often):
    def end(iterations):
        until(lambda: under_way.under_way(folder(planted)), 10)
        raise KeyError

    with pytest.raises(KeyError):
        factorize(planted, 4, on_iteration=end, **LONG)
    assert list(planted.rglob("scratch-*")) == []


def test_a_disk_that_takes_nothing_of_it_changes_no_bit(planted, often, monkeypatch):
    factorize(planted, 4, solver="mu", max_iter=3, tol=0, name="alone")
    tried = []

    def full(self, name, content):
        tried.append(name)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFolder, "note", full)
    factorize(planted, 4, solver="mu", max_iter=3, tol=0, on_iteration=lambda _: until(lambda: len(tried) > 1, 10))
    assert bits(planted) == bits(planted, "alone")


def test_a_short_run_says_nothing(planted, monkeypatch):
    said = []
    monkeypatch.setattr(LocalFolder, "note", lambda *_: said.append(1))
    factorize(planted, 4, solver="mu", max_iter=3, tol=0)
    assert said == []


def test_before_the_first_iteration_a_run_is_starting(planted):
    state = a_state(planted, max_time=60.0)
    assert (state.phase, state.iteration, state.relative_error, state.bound) == ("starting", 0, None, "max_time")
    assert (Pace(state.iteration_seconds, state.pass_seconds), state.planned_passes) == (Pace(), 4.0)


def a_state(planted, earlier=(), **settings):
    matrix = store.open_matrix(planted)
    config = NMFConfig(n_components=4, solver="mu", **settings)
    plan = make_plan(matrix, config, passes=4.0)
    return state_of(datetime.now(UTC), Recorder(matrix, earlier, plan=plan, on_iteration=lambda _: None), plan, config)


def write(planted, state, **changed):
    scratch = folder(planted) / "nmf" / "d4" / "scratch-1"
    scratch.make()
    scratch.note(FILE, json.dumps({**state._asdict(), **changed}).encode())
    return under_way.under_way(folder(planted)).get("d4")


@pytest.mark.parametrize(("seconds", "status"), [(50, Status.RUNNING), (70, Status.SILENT)])
def test_of_another_machine_the_last_word_counts(planted, seconds, status):
    updated = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    assert write(planted, a_state(planted), place="elsewhere", pid=2**22 + 1, updated=updated).status is status
    assert ("d4: not heard of for 70 s" in shown(planted)) == (status is Status.SILENT)


def test_a_run_that_was_killed_after_its_result_is_over(planted):
    result = factorize(planted, 4, solver="mu", max_iter=3, tol=0).factors
    state = a_state(planted)._replace(pid=2**22 + 1, began="2026-01-01T00:00:00+00:00")
    assert write(planted, state) is not None
    assert write(planted, state, began=result.attributes["began"]) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "\x1b[2J"},
        {"pid": "1"},
        {"relative_error": math.nan},
        {"updated": "yesterday"},
        {"updated": "2026-01-01T00:00:00"},
        {"more": 1},
    ],
    ids=["control characters", "text", "NaN", "no moment", "no time zone", "more"],
)
def test_what_no_run_says_is_not_repeated(planted, changed):
    assert write(planted, a_state(planted)) is not None
    assert write(planted, a_state(planted), **changed) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_what_a_crash_has_cut_is_nothing(planted, content):
    scratch = folder(planted) / "nmf" / "d4" / "scratch-1"
    scratch.make()
    scratch.note(FILE, content)
    assert "scratch" not in shown(planted)


@pytest.mark.parametrize(("seconds", "written"), [(35.2, "35 s"), (617, "10 min"), (6000, "1.7 h"), (0.2, "0 s")])
def test_times_are_written_in_units_that_people_use(seconds, written):
    assert options.duration(seconds) == written


# --- pace


@pytest.mark.parametrize(
    ("iterations", "phase", "pace"),
    [
        ([], "exact", Pace()),
        (record([9.0]), "exact", Pace(1.0, 1.0)),
        (record([9.0, 8.0, 7.0]), "exact", Pace(1.0, 1.0)),
        (SKETCHED[:1], "sketch", Pace()),
        ([one._replace(passes=1.5) for one in SKETCHED], "sketch", Pace(1.0, None)),
        ([*SKETCHED, record([7.0], first=3.0)[0]._replace(seconds=5.0)], "exact", Pace(2.0, 2.0)),
    ],
)
def test_pace_is_that_of_the_phase(iterations, phase, pace):
    assert pace_of(iterations, phase) == pace


def test_what_is_left_is_passes_at_the_pace_and_iterations_before_them():
    sketched = [one._replace(passes=2.0, seconds=4.0) for one in SKETCHED]
    assert left_of(record([9.0]), Pace(3.0, 3.0), 5.0, None) == Left(15.0, "passes")
    assert left_of(sketched, Pace(0.5), 2.0, 10) == Left(10 * 0.5 + 2 * 4.0 / 2, "iterations")
    assert left_of(sketched, Pace(), 2.0, None) == Left(4.0, "passes")
    assert small_iterations("sketch 2", 20, NMFConfig(n_components=3, max_iter=50, restarts=4)) == 30 + 2 * 50


def test_no_more_is_left_than_is_allowed_and_less_with_every_second():
    assert within(Left(9.0, "passes"), 2.0, None) == Left(7.0, "passes")
    assert within(Left(9.0, "passes"), 2.0, 5.0) == Left(5.0, "max_time")
    assert within(Left(1.0, "passes"), 2.0, None) == Left(0.0, "passes")
    assert within(Left(), 2.0, None) == Left()
