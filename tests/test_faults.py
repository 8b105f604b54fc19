"""Workers come and go; the result does not notice."""

import os
import signal
from contextlib import contextmanager
from importlib import metadata

import numpy as np
import pytest
from distributed import Client, LocalCluster

from cluster import connect
from cluster.connect import version_mismatches
from data_prep import store
from pipeline import engine, factorize
from pipeline.engine import NoWorkersError
from tests.test_factorize import bits


@contextmanager
def cluster(workers):
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local),
    ):
        yield local


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_a_worker_killed_at_any_pass_changes_no_bit(planted, solver):
    factorize(planted, 4, solver=solver, max_iter=21, tol=0)
    expected = bits(planted)
    with cluster(2) as local:

        def kill_one(iterations):
            if len(iterations) in (3, 8, 12):  # a pass after the start, just after H was stored, and between
                pids = local.scheduler.workers.values()
                victim = next(iter(pids))
                os.kill(local.workers[victim.name].pid, signal.SIGKILL)

        factorize(planted, 4, solver=solver, max_iter=21, tol=0, fresh=True, on_iteration=kill_one)
    assert bits(planted) == expected
    assert not list((planted / "nmf" / "d4").glob("scratch-*"))


def test_what_the_scheduler_remembers_does_not_grow(planted):
    counts = []
    with cluster(1) as local:
        factorize(planted, 4, max_iter=40, tol=0, on_iteration=lambda _: counts.append(len(local.scheduler.tasks)))
    assert max(counts[24:]) <= max(counts[8:24])


def test_a_worker_that_sees_another_store_is_named(planted):
    with cluster(2) as local, Client(local) as client:
        blind = next(iter(local.scheduler.workers))

        def look_elsewhere():
            store.group_attributes = lambda path: {}

        client.run(look_elsewhere, workers=[blind])
        with pytest.raises(store.BadInput, match=f"but {blind} finds another there, or none; mount it at this path"):
            factorize(planted, 4)


def test_a_worker_with_other_packages_is_named():
    with cluster(2) as local, Client(local) as client:
        assert version_mismatches(client) == []
        other = next(iter(local.scheduler.workers))

        def pretend():
            connect.version = lambda package: "0.1" if package == "numpy" else metadata.version(package)

        client.run(pretend, workers=[other])
        (said,) = version_mismatches(client)
    assert said == f"worker {other} has numpy 0.1, but here are numpy {np.__version__}; install the same"


def test_no_worker_at_all_is_said_after_a_while(planted, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_S", 1.0)
    with cluster(1) as local:

        def end_all(iterations):
            if len(iterations) == 2:
                local.scale(0)

        with pytest.raises(NoWorkersError, match="no worker"):
            factorize(planted, 4, max_iter=50, tol=0, on_iteration=end_all)
