"""What `info` draws of errors, and what it says of runs that are under way."""

import errno
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.folders import LocalFolder, folder
from pipeline import factorize, under_way
from pipeline.commands import options, running
from pipeline.commands.info import info
from pipeline.commands.verify import damages_of
from pipeline.config import NMFConfig
from pipeline.factors import groups, names
from pipeline.pace import Pace
from pipeline.plan import make_plan
from pipeline.record import Recorder
from pipeline.report.sparkline import BLOCKS, course, sparkline
from pipeline.under_way import FILE, STARTING, Status, UnderWay, state_of
from tests.test_chaos import until

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


@settings(deadline=None)
@given(st.lists(st.floats()))
def test_any_errors_are_a_line_of_blocks(errors):
    drawn = sparkline(errors)
    assert len(drawn) == min(len(errors), 40)
    assert set(drawn) <= {*BLOCKS, " "}


@settings(deadline=None)
@given(st.lists(st.integers(-300, 300), min_size=2, unique=True))
def test_errors_that_fall_are_drawn_from_the_highest_block_to_the_lowest(powers):
    drawn = sparkline([10.0**power for power in sorted(powers, reverse=True)], width=len(powers))
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


def test_a_terminal_without_the_blocks_is_shown_the_rest(planted):
    factorize(planted, 4, solver="mu", max_iter=3, tol=0)
    said = {charset: shown(planted, charset=charset) for charset in ("utf-8", "latin-1", "ascii")}
    assert [charset for charset in said if "      error " in said[charset]] == ["utf-8"]
    assert all("by mu, relative error 0." in text for text in said.values())


def test_a_damaged_record_of_errors_is_said_and_the_rest_shown(planted):
    path = factorize(planted, 4, solver="mu", max_iter=3, tol=0).factors.path.path
    (path / "relative_error" / "c" / "0").write_bytes(b"damaged")
    assert "error: its record is damaged; `nmf-batch verify` names the file" in shown(planted)


# --- how far runs are


class Killed(NamedTuple):
    """A first run in another process, what was said of it while it ran, and its store after it was killed."""

    path: Path
    pid: int
    text: str
    told: dict[str, Any]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    path = tmp_path_factory.mktemp("killed") / "s.zarr"
    write_matrix(path, np.random.default_rng(0).random((40, 300), np.float32))
    soon = "from pipeline import under_way as u; u.FIRST_S = u.EVERY_S = 0.05; from pipeline import factorize; "
    code = f"{soon}factorize({str(path)!r}, 4, solver='mu', max_iter=10**6, tol=0)"
    with subprocess.Popen([sys.executable, "-c", code]) as run:
        until(lambda: any(state.phase == "exact" for state in under_way.under_way(folder(path)).values()), 30)
        text, told = shown(path), json.loads(shown(path, "--json"))
        run.kill()
    return Killed(path, run.pid, text, told)


def test_a_first_run_is_shown_while_it_runs(killed):
    (state,) = killed.told["running"].values()
    assert (killed.told["nmf"], list(killed.told["running"])) == ({}, ["d4"])
    assert f"(pid {killed.pid}): exact, iteration " in killed.text
    assert (state["pid"], state["bound"], state["seconds_left"] > 0) == (killed.pid, "passes", True)


def test_a_run_that_was_killed_is_shown_as_interrupted_at_once(killed):
    assert f"d4: interrupted on {socket.gethostname()} (pid {killed.pid})" in shown(killed.path)
    told = json.loads(shown(killed.path, "--json"))
    assert (told["running"], list(told["interrupted"]), told["nmf"]) == ({}, ["d4"], {})


def test_what_a_killed_run_has_left_is_nothing_to_others_and_gone_with_the_next(killed, tmp_path):
    path = shutil.copytree(killed.path, tmp_path / "copy.zarr")
    home = folder(path)
    assert (names(home), groups(home), damages_of(home)) == ([], [], [])
    factorize(path, 4, solver="mu", max_iter=2, tol=0)
    assert (under_way.under_way(home), list(path.rglob(FILE))) == ({}, [])


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
    alone, tried = factorize(planted, 4, solver="mu", max_iter=3, tol=0, name="alone"), []

    def full(self, name, content):
        tried.append(name)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFolder, "note", full)
    ways = {"on_iteration": lambda _: until(lambda: len(tried) > 1, 10), "fresh": True}
    result = factorize(planted, 4, solver="mu", max_iter=3, tol=0, **ways)
    assert result.factors.loss.tobytes() == alone.factors.loss.tobytes()


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


@pytest.fixture
def say(tmp_path):
    """Writes what a run said, and returns it as it is found."""

    def write(content):
        scratch = folder(tmp_path) / "nmf" / "d4" / "scratch-1"
        scratch.make()
        scratch.note(FILE, content)
        return under_way.under_way(folder(tmp_path)).get("d4")

    return write


MOMENT = "2026-01-01T00:00:00+00:00"
SAID = UnderWay(
    *("host", "elsewhere", 2**22 + 1, MOMENT, MOMENT, 4, "mu", "exact", 3, 500, 0.5),
    *(3.0, 500.0, 9.0, 3.0, 3.0, 1491.0, "passes"),
)


def content(state, **changed):
    return json.dumps({**state._asdict(), **changed}).encode()


@pytest.mark.parametrize(("seconds", "status"), [(50, Status.RUNNING), (70, Status.SILENT)])
def test_of_another_machine_the_last_word_counts(say, seconds, status):
    state = say(content(SAID, updated=(datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()))
    assert state.status is status
    said = running.text(folder("nowhere"), "d4", state)
    assert ("d4: not heard of for 70 s" in said, "d4: running on host" in said) == (seconds == 70, seconds == 50)


def test_a_run_that_was_killed_after_its_result_is_over(planted):
    result = factorize(planted, 4, solver="mu", max_iter=3, tol=0).factors
    scratch = result.path.parent / "scratch-1"
    scratch.make()
    scratch.note(FILE, content(SAID))
    assert list(under_way.under_way(folder(planted))) == ["d4"]
    scratch.note(FILE, content(SAID, began=result.attributes["began"]))
    assert under_way.under_way(folder(planted)) == {}


NONE = {
    "control characters": content(SAID, host="\x1b[2J"),
    "text": content(SAID, pid="1"),
    "NaN": content(SAID, relative_error=math.nan),
    "no moment": content(SAID, updated="yesterday"),
    "no time zone": content(SAID, updated="2026-01-01T00:00:00"),
    "more": content(SAID, more=1),
    "empty": b"",
    "cut": content(SAID)[:100],
    "no object": b"[]",
    "endless": b"[" * 100_000,
    "no text": b"\xff",
}


@pytest.mark.parametrize("found", NONE.values(), ids=NONE)
def test_what_no_run_says_is_not_repeated(say, found):
    assert say(content(SAID)) == SAID
    assert say(found) is None


@pytest.mark.parametrize(("seconds", "written"), [(35.2, "35 s"), (617, "10 min"), (6000, "1.7 h"), (0.2, "0 s")])
def test_times_are_written_in_units_that_people_use(seconds, written):
    assert options.duration(seconds) == written
