"""Whatever ends a run, the same call goes on from the last checkpoint, to the bits it would have had."""

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.lock import HeldError, only_writer
from pipeline import factorize, open_factors, plan
from pipeline.checkpoints import Checkpoints, Every
from pipeline.job import ParametersDiffer
from pipeline.solvers.state import State
from tests.commands import MAIN, nmf_batch
from tests.conftest import SOAK, save_faces, sparse
from tests.test_factorize import bits


class Stopped(Exception):
    pass


def stop_at(k):
    def on_iteration(iterations):
        if len(iterations) == k:
            raise Stopped

    return on_iteration


@pytest.fixture
def tall(tmp_path, rng, monkeypatch):
    """A store of 2,100 rows, so that W is improved in three blocks."""
    monkeypatch.setattr(store, "CHUNK_NBYTES", 2**16)
    write_matrix(tmp_path / "tall.zarr", (sparse(rng, 2100, 4) @ sparse(rng, 4, 90)).astype(np.float32))
    return tmp_path / "tall.zarr"


@pytest.mark.parametrize("solver", ["hals", "mu"])
@pytest.mark.parametrize("matrix", ["planted", "tall"])
def test_interrupted_after_every_iteration_it_gives_the_same_bits(request, matrix, solver):
    path = request.getfixturevalue(matrix)
    factorize(path, 4, solver=solver, max_iter=6, tol=0, name="whole")
    for k in range(1, 7):
        with pytest.raises(Stopped):
            factorize(path, 4, solver=solver, max_iter=6, tol=0, name="parts", on_iteration=stop_at(k))
    result = factorize(path, 4, solver=solver, max_iter=6, tol=0, name="parts")
    assert result.n_new == 0  # the last interruption came after the last iteration
    assert bits(path, "whole") == bits(path, "parts")
    np.testing.assert_allclose(np.diff([i.passes for i in result.factors.iterations]), 1)


@pytest.mark.parametrize("share", [0.25, 0.0], ids=["H kept", "H stored"])
def test_interrupted_on_workers_it_gives_the_same_bits(planted, cluster_of, monkeypatch, share):
    monkeypatch.setattr(plan, "H_SHARE", share)
    factorize(planted, 4, solver="hals", max_iter=21, tol=0, name="whole")
    with cluster_of(2):
        for k in (9, 17):
            with pytest.raises(Stopped):
                factorize(planted, 4, solver="hals", max_iter=21, tol=0, name="parts", on_iteration=stop_at(k))
    factorize(planted, 4, solver="hals", max_iter=21, tol=0, name="parts")
    assert bits(planted, "whole") == bits(planted, "parts")


def test_readers_see_complete_results_only(planted):
    first = factorize(planted, 4, solver="hals", max_iter=3, tol=0).factors
    with pytest.raises(Stopped):
        factorize(
            planted, 4, solver="hals", max_iter=9, tol=0, on_iteration=stop_at(6), checkpoint_every=Every(iterations=1)
        )
    assert open_factors(planted, "d4").path == first.path
    assert open_factors(planted, "d4").W.compute().shape == (40, 4)
    assert factorize(planted, 4, solver="hals", max_iter=9, tol=0).n_new == 3


def test_plan_counts_what_is_left(planted):
    asked = ["--zarr", planted, "-d", 4, "--solver", "hals", "--max-iter", 9, "--json"]

    def passes(*more):
        return json.loads(nmf_batch("plan", *asked, *more).stdout)["passes"]

    with pytest.raises(Stopped):
        factorize(planted, 4, solver="hals", max_iter=9, on_iteration=stop_at(2))
    of_sample = 2 * 80 / 300  # for the start
    assert (passes(), passes("--fresh")) == (pytest.approx(7), pytest.approx(9 + of_sample))
    factorize(planted, 4, solver="hals", max_iter=3)
    assert passes("--target-error", "0.99") == 0


def test_checkpoints_do_not_pile_up(planted):
    factorize(planted, 4, solver="hals", max_iter=3, tol=0)
    factorize(planted, 4, solver="hals", max_iter=9, tol=0, checkpoint_every=Every(iterations=1))
    kept = sorted(entry.name for entry in (planted / "nmf" / "d4").glob("r*"))
    assert len(kept) == 2
    assert {store.group_attributes(planted / "nmf" / "d4" / name)["status"] for name in kept} == {"complete"}
    assert "resume" not in store.group_attributes(planted / "nmf" / "d4")


def test_other_parameters_than_the_checkpoints_are_refused(planted):
    with pytest.raises(Stopped):
        factorize(planted, 4, solver="hals", max_iter=9, on_iteration=stop_at(2))
    with pytest.raises(ParametersDiffer, match="seed: 0 → 1"):
        factorize(planted, 4, solver="hals", max_iter=9, seed=1)
    assert (
        factorize(planted, 4, solver="hals", max_iter=9, seed=1, fresh=True).factors.attributes["parameters"]["seed"]
        == 1
    )


def test_a_matrix_changed_since_the_checkpoint_is_refused(planted, rng):
    with pytest.raises(Stopped):
        factorize(planted, 4, solver="hals", max_iter=9, on_iteration=stop_at(2))
    kept = planted / "nmf"
    shutil.move(kept, planted.parent / "nmf")
    shutil.rmtree(planted)
    write_matrix(planted, rng.random((40, 300)))
    shutil.move(planted.parent / "nmf", kept)
    with pytest.raises(ParametersDiffer, match="the matrix"):
        factorize(planted, 4, solver="hals", max_iter=9)


def state(loss):
    return State(W=None, H=[], loss=loss)


def test_checkpoints_are_counted_in_iterations():
    written = []
    checkpoints = Checkpoints(written.append, Every(iterations=3))
    for k in range(1, 10):
        checkpoints(state(k))
    assert [s.loss for s in written] == [3, 6, 9]


def test_dear_checkpoints_take_a_fiftieth_of_the_time(monkeypatch):
    now = [0.0]
    written = []

    def write(state):
        now[0] += 10
        written.append(now[0])

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(write, Every(seconds=60))
    for _ in range(3000):
        now[0] += 1
        checkpoints(state(1.0))
    assert np.diff(written).min() == 510
    assert written[0] == 70


def test_a_loss_that_is_not_finite_is_no_place_to_go_on_from():
    written = []
    Checkpoints(written.append, Every()).write(state(float("nan")))
    assert written == []


def test_a_second_run_waits_as_long_as_it_is_told(planted):
    with only_writer(store.open_matrix(planted).path / "nmf" / "d4"):
        began = time.monotonic()
        with pytest.raises(HeldError):
            factorize(planted, 4, solver="hals", max_iter=1, lock_timeout_s=0.5)
        assert time.monotonic() - began >= 0.5


def command(path, *more):
    run = ["run", "--zarr", str(path), "-d", "4", "--max-iter", "160", "--tol", "0", "--solver", "mu", "--json"]
    return [sys.executable, "-c", MAIN, *run, *more]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGKILL, -9)]
)
def test_a_signal_is_followed_by_the_rest(planted, number, code):
    with subprocess.Popen(
        command(planted, "--checkpoint-every", "20it"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        for _ in range(30):
            run.stdout.readline()
        run.send_signal(number)
        run.communicate(timeout=60)
    assert run.returncode == code
    info = nmf_batch("info", "--zarr", planted)
    assert re.search(r"d4: (under way or interrupted|checkpoint), at relative error 0\.", info.stdout)
    rest = factorize(planted, 4, solver="mu", max_iter=160, tol=0)
    assert 0 < rest.n_new <= 140
    factorize(planted, 4, solver="mu", max_iter=160, tol=0, name="whole")
    assert bits(planted, "d4") == bits(planted, "whole")


def test_the_grace_is_kept(planted):
    """An iteration that takes longer than the grace is given up; what is stored stays."""
    slow = (
        "import os, time; from pipeline.solvers import mu\n"
        "mu.improve = lambda G, C, H, penalty: (os.write(1, b'slow\\n'), time.sleep(60))\n"
    )
    arguments = command(planted, "--grace", "1s")
    factorize(planted, 4, solver="mu", max_iter=3, tol=0)
    arguments[2] = slow + arguments[2]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"slow\n"
        began = time.monotonic()
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=30)
    assert (run.returncode, time.monotonic() - began < 10) == (143, True)
    assert len(open_factors(planted, "d4").loss) == 3


SHORT = [("run", "tear"), ("prep", "tear"), ("append", "kill"), ("append", "fail")]  # what is torn is killed, too
LONG = list(itertools.product(["run", "prep", "append"], ["kill", "tear", "fail"]))


@pytest.mark.parametrize(("job", "harm"), LONG if SOAK else SHORT)
def test_harmed_at_any_file_operation_it_goes_on_to_the_same_bits(job, harm, tmp_path, rng, small_chunks):
    """Killed, killed with all that was not synced cut in half, or the disk full there; see tests/killed.py."""
    source = tmp_path / "source"
    if job == "run":
        write_matrix(source, (sparse(rng, 120, 4) @ sparse(rng, 4, 40)).astype(np.float32))
        factorize(source, 4, max_iter=2, tol=0)
    else:
        save_faces(source, rng)
    step = "1" if SOAK else "223"
    command = [sys.executable, "-m", "tests.killed", job, harm, str(source), str(tmp_path / "copy.zarr"), step]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    points, wrong = map(int, shown.stdout.split())
    assert points >= (250 if SOAK else 2)
    assert wrong == 0, shown.stderr
