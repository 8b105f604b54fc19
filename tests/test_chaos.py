"""Processes die at moments that nobody chose; every result has the bits of a run that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.folders import folder
from pipeline import factorize
from pipeline.factors import newest
from tests.conftest import SOAK, sparse
from tests.test_factorize import bits

EVERY = 20 if SOAK else 5  # iterations between checkpoints
WORKERS = ("--workers", "2")
GRACE_S = 6.0

SLOWED = """
import contextlib, functools, os, time
from data_prep import store
from pipeline.solvers import mu

def sleeps_once(name, function):
    @functools.wraps(function)
    def slowed(*arguments, **more):
        result = function(*arguments, **more)
        if name == "improve" or more.get("mode") == "r+":
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{here}/one-{name}", f"{here}/asleep-{name}")
                while not os.path.exists(f"{here}/wake"):
                    time.sleep(0.01)
                os.rename(f"{here}/asleep-{name}", f"{here}/awake-{name}")
        return result
    return slowed

mu.improve = sleeps_once("improve", mu.improve)
store.open_array = sleeps_once("open_array", store.open_array)
"""
"""What a worker loads: the task that finds the file one-NAME sleeps at the end of NAME until there is a file wake."""


class Command:
    """A command that was started in a session of its own; what it says goes to files, so that it never waits for us."""

    def __init__(self, where, *arguments):
        self.said, self.errors = where.with_suffix(".out"), where.with_suffix(".err")
        command = [sys.executable, *map(str, arguments)]
        with self.said.open("w") as out, self.errors.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        self.pid, self.poll = self.process.pid, self.process.poll

    def end(self, timeout_s=600):
        return self.process.wait(timeout_s)

    def lines(self):
        return [json.loads(line) for line in self.said.read_text().split("\n")[:-1]]

    def count(self):
        return self.said.read_bytes().count(b"\n")

    def iterations(self):
        return [line["iteration"] for line in self.lines() if "iteration" in line]

    def listens(self):
        _, _, caught = Path(f"/proc/{self.pid}/status").read_text().partition("SigCgt:")
        return bool(int(caught.split()[0], 16) >> (signal.SIGTERM - 1) & 1)

    def workers(self):
        children = (p for p in psutil.process_iter(["ppid", "cmdline"]) if p.info["ppid"] == self.pid)
        return [p.pid for p in children if "spawn_main" in " ".join(p.info["cmdline"] or ())]

    def group(self):
        """Its processes; where it has ended, those that it has left behind."""
        alive = (p for p in psutil.process_iter(["status"]) if p.info["status"] not in (None, psutil.STATUS_ZOMBIE))
        return [p for p in alive if group_of(p.pid) == self.pid]


def group_of(pid):
    with suppress(ProcessLookupError):
        return os.getpgid(pid)


def until(happens, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path):
    """Starts commands, and ends what is left of them."""
    commands = []

    def started(*arguments):
        commands.append(Command(tmp_path / f"command-{len(commands)}", *arguments))
        return commands[-1]

    yield started
    for command in commands:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.end()


@pytest.fixture
def matrix(tmp_path, rng, monkeypatch):
    """A store of 40 × 300 in 4 chunks."""
    monkeypatch.setattr(store, "CHUNK_NBYTES", 2**14)
    write_matrix(tmp_path / "matrix.zarr", (sparse(rng, 40, 4) @ sparse(rng, 4, 300)).astype(np.float32))
    return tmp_path / "matrix.zarr"


@pytest.fixture
def run(matrix, start):
    main = "import sys; sys.modules['bokeh'] = None; from pipeline.commands import main; main()"  # it takes a second
    asked = ("--zarr", matrix, "-d", 4, "--solver", "mu", "--tol", 0, "--checkpoint-every", f"{EVERY}it", "--json")
    return lambda max_iter, *more: start("-c", main, "run", *asked, "--max-iter", max_iter, *more)


def left_alone(matrix, max_iter):
    factorize(matrix, 4, solver="mu", tol=0, max_iter=max_iter, name="whole")
    return bits(matrix, "whole")


def stored(matrix):
    factors = newest(folder(matrix), "d4")
    return 0 if factors is None else len(factors.iterations)


def wait_for_a_moment(k, running, rng, early_s):
    """Wait for so many iterations and a little; every fourth time for some part of the time before the first one."""
    if k % 4 == 0:
        time.sleep(rng.uniform(0, early_s))
    else:
        count = rng.integers(1, 2 * EVERY)
        until(lambda: running.count() >= count)
        time.sleep(rng.uniform(0, 0.1))


def test_killed_again_and_again_a_run_keeps_its_checkpoints_and_its_bits(matrix, run, rng):
    (kills, max_iter), kept = (30, 1200) if SOAK else (3, 60), 0
    for k in range(kills):
        running = run(max_iter, *WORKERS)
        wait_for_a_moment(k, running, rng, 4)
        running.process.kill()
        assert running.end() == -signal.SIGKILL
        until(lambda: not running.group(), 10)  # noqa: B023  # its workers end with it
        done, before, kept = running.iterations(), kept, stored(matrix)
        assert done == list(range(before + 1, before + 1 + len(done)))
        assert kept >= before + max(0, len(done) - 1) // EVERY * EVERY
    assert (kept > 0, run(max_iter).end()) == (True, 0)
    assert bits(matrix) == left_alone(matrix, max_iter)


def test_worker_processes_killed_at_any_moment_change_no_bit(matrix, run, rng, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "300ms")  # less than a worker takes to restart
    kills = 20 if SOAK else 2
    running = run(12 * kills, *WORKERS)
    for k in range(kills):
        until(lambda: running.count() > 10 * k + rng.integers(8))  # noqa: B023
        time.sleep(rng.uniform(0, 0.1))
        os.kill(rng.choice(running.workers()), signal.SIGKILL)
    assert running.end() == 0
    assert running.iterations() == list(range(1, 12 * kills + 1))
    assert bits(matrix) == left_alone(matrix, 12 * kills)


@pytest.fixture
def outside(tmp_path, start):
    """A scheduler and two workers that no driver started; returns the option to join them by."""
    file = tmp_path / "scheduler.json"
    (tmp_path / "slowed.py").write_text(SLOWED.replace("{here}", str(tmp_path)))
    common = ("--scheduler-file", file, "--host", "127.0.0.1", "--no-dashboard")
    start("-m", "dask", "scheduler", *common, "--port", 0)
    until(file.exists)
    for _ in range(2):
        start("-m", "dask", "worker", *common, "--nthreads", 3, "--no-nanny", "--preload", tmp_path / "slowed.py")
    return ("--scheduler", f"file:{file}")


def test_tasks_that_outlive_their_drivers_change_no_bit(matrix, run, outside, tmp_path):
    for task in ("improve", "open_array"):
        killed = run(4 * EVERY, *outside)
        until(lambda: killed.count() > EVERY)  # noqa: B023
        (tmp_path / f"one-{task}").touch()
        until((tmp_path / f"asleep-{task}").exists)
        killed.process.kill()
    assert run(4 * EVERY, *outside).end() == 0
    assert bits(matrix) == left_alone(matrix, 4 * EVERY)
    (tmp_path / "wake").touch()
    until(lambda: len(list(tmp_path.glob("awake-*"))) == 2)
    time.sleep(0.5)  # what they do then takes no longer
    assert bits(matrix) == bits(matrix, "whole")


HOW = {  # the part of the time before the first iteration, the cases, to whom, what, where
    "threads": (0.2, range(0, 2), os.kill, signal.SIGTERM),
    "threads, group": (0.2, range(1, 2), os.killpg, signal.SIGTERM),
    "workers": (3, range(0, 1), os.kill, signal.SIGTERM, *WORKERS),
    "workers, group": (3, range(1, 2), os.killpg, signal.SIGTERM, *WORKERS),
    "workers, Ctrl-C": (3, range(1, 2), os.killpg, signal.SIGINT, *WORKERS),
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_a_signal_at_any_moment_is_obeyed_in_time_and_costs_no_bit(matrix, run, rng, how):
    early_s, times, send, number, *where = how
    for k in range(12) if SOAK else times:
        running = run(10**6, "--grace", f"{GRACE_S}s", *where)
        until(running.listens)
        wait_for_a_moment(k, running, rng, early_s)
        send(running.pid, number)
        assert running.end(GRACE_S + 4) == 128 + number
        assert stored(matrix) >= max(running.iterations(), default=0)
    factorize(matrix, 4, solver="mu", tol=0, max_iter=(max_iter := stored(matrix) + EVERY))
    assert bits(matrix) == left_alone(matrix, max_iter)


def test_of_two_runs_one_works_until_it_is_killed_and_the_next_takes_over(matrix, run):
    both = [run(10**6), run(10**6)]
    until(lambda: any(one.poll() is not None for one in both))
    refused, holder = sorted(both, key=lambda one: one.poll() is None)
    assert (refused.poll(), refused.lines()) == (11, [])
    said = refused.errors.read_text()
    assert said == f"nmf-batch: another process is writing {matrix}/nmf/d4; wait for it, or stop it\n"
    until(lambda: holder.count() > EVERY)
    holder.process.kill()
    max_iter = holder.iterations()[-1] + 20
    assert (third := run(max_iter)).end() == 0
    assert third.iterations()[0] > EVERY
    assert bits(matrix) == left_alone(matrix, max_iter)


def test_of_two_runs_the_one_that_waits_finds_nothing_to_do(matrix, run):
    both = [run(40, "--lock-timeout", "60s") for _ in range(2)]
    assert [one.end() for one in both] == [0, 0]
    assert sorted(one.lines()[-1]["new_iterations"] for one in both) == [0, 40]
    assert bits(matrix) == left_alone(matrix, 40)
