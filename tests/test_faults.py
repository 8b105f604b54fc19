"""Workers come and go; the result does not notice."""

import dataclasses
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, get_task_stream

from cluster import connect as connecting
from cluster.connect import SILENCE_S, connect, version_mismatches
from data_prep import groups, store
from data_prep.folders import folder
from data_prep.store import open_matrix
from pipeline import engine, factorize
from pipeline.config import NMFConfig
from pipeline.engine import NoWorkersError
from pipeline.opening import Spills
from pipeline.plan import make_plan
from pipeline.solvers import hals
from pipeline.solvers.hals import improve
from tests.conftest import SOAK
from tests.test_factorize import bits


def start(workers):
    return LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")


@contextmanager
def cluster(workers):
    with start(workers) as local, Client(local):
        yield local


@pytest.mark.parametrize("solver", ["hals", "mu"] if SOAK else ["hals"])
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
        factorize(
            planted,
            4,
            solver="hals",
            max_iter=40,
            tol=0,
            on_iteration=lambda _: counts.append(len(local.scheduler.tasks)),
        )
    assert max(counts[24:]) <= max(counts[8:24])


class Queued(LocalCluster):
    """Its workers come a second after they were asked for, as from the queue of a batch system."""

    def scale(self, n):
        if n:
            self.loop.call_later(1, super().scale, n)
        else:  # as it closes: at once
            super().scale(n)


def test_workers_that_come_late_are_waited_for():
    settings = {"n_workers": 0, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with connect(cluster=f"{__name__}.Queued", cluster_settings=settings, workers=1):
        assert engine.place().workers == 1


def test_a_worker_that_sees_another_store_is_named(planted):
    with cluster(2) as local, Client(local) as client:
        blind = next(iter(local.scheduler.workers))

        def look_elsewhere():
            groups.group_attributes = lambda path: {}

        client.run(look_elsewhere, workers=[blind])
        with pytest.raises(store.BadInput, match=f"but {blind} finds another there, or none; mount it at this path"):
            factorize(planted, 4)


def test_a_worker_with_other_packages_is_named():
    with cluster(2) as local, Client(local) as client:
        assert version_mismatches(client) == []
        other = next(iter(local.scheduler.workers))

        def pretend():
            connecting.version = lambda package: "0.1" if package == "numpy" else metadata.version(package)

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
            factorize(planted, 4, solver="hals", max_iter=50, tol=0, on_iteration=end_all)


def slowly(WtW, WtA, H, **how):
    time.sleep(0.1)
    return improve(WtW, WtA, H, **how)


@pytest.fixture(scope="module")
def pair():
    """A cluster of two, which gives a silent worker up as soon as Dask allows: after ten heartbeats, 5 s."""
    with dask.config.set({"distributed.scheduler.worker-ttl": "1s"}), start(2) as local:
        yield local


def test_silent_processes_of_this_machine_are_given_up_after_a_minute():
    with connect(workers=1) as client:
        assert client.cluster.scheduler.worker_ttl == SILENCE_S == 60


def freeze_one(local, busy):
    return send(local, signal.SIGSTOP, {min(busy)})


def restart_one(local, busy):
    Client.current().restart_workers([min(busy)])
    return {min(busy)}


def kill_holders_of_W(local, busy):
    return send(local, signal.SIGKILL, local.sync(holders_of_W, local.scheduler))


@pytest.mark.parametrize("harm", [freeze_one, restart_one, kill_holders_of_W])
def test_harm_done_in_mid_pass_changes_no_bit(planted, pair, harm, monkeypatch):
    factorize(planted, 4, solver="hals", max_iter=6, tol=0)
    expected, harmed = bits(planted), []

    def harm_the_fourth_pass(iterations):
        monkeypatch.setattr(hals, "improve", slowly if len(iterations) == 3 else improve)
        if len(iterations) == 3:
            harmed.append(thread.submit(in_mid_pass, pair, harm))

    with Client(pair) as client, ThreadPoolExecutor(1) as thread:
        client.wait_for_workers(2)
        factorize(planted, 4, solver="hals", max_iter=6, tol=0, fresh=True, on_iteration=harm_the_fourth_pass)
    victims = harmed[0].result()
    assert victims, "nobody was harmed"
    assert victims.isdisjoint(pair.scheduler.workers), "a victim is alive"
    assert bits(planted) == expected


def in_mid_pass(local, harm):
    """Harm workers while partitions are visited; returns the addresses of the victims."""
    while len(busy := local.sync(visitors, local.scheduler)) < 2:
        time.sleep(0.01)
    time.sleep(0.3)  # some partitions are done then, most are not
    assert local.sync(visitors, local.scheduler), "the pass was over too soon"
    return harm(local, busy)


async def visitors(scheduler):
    """Workers with partitions to visit; a coroutine, since its state changes while other threads look at it."""
    return {w.address for w in scheduler.workers.values() if any(ts.key.startswith("visit-") for ts in w.processing)}


async def holders_of_W(scheduler):
    return {w.address for ts in scheduler.tasks.values() if ts.key.startswith("W-") for w in ts.who_has or ()}


def send(local, number, addresses):
    """Send a signal to workers; all are looked up before the first one dies."""
    pids = [local.workers[local.scheduler.workers[address].name].pid for address in addresses]
    for pid in pids:
        os.kill(pid, number)
    return addresses


def test_a_worker_that_joins_in_mid_run_is_used(planted, monkeypatch):
    factorize(planted, 4, solver="hals", max_iter=5, tol=0)
    expected = bits(planted)

    def join(iterations):
        if len(iterations) == 3:
            local.scale(2)
            Client.current().wait_for_workers(2)
            monkeypatch.setattr(hals, "improve", slowly)  # shorter visits are not worth moving to it

    with cluster(1) as local, get_task_stream() as stream:
        factorize(planted, 4, solver="hals", max_iter=5, tol=0, fresh=True, on_iteration=join)
    assert len({task["worker"] for task in stream.data if task["key"].startswith("visit-")}) == 2
    assert bits(planted) == expected


@pytest.mark.parametrize("speed", [slowly, improve], ids=["in a pass", "between passes"])
def test_a_scheduler_that_ends_is_said(planted, monkeypatch, speed):
    def end_scheduler(iterations):
        monkeypatch.setattr(hals, "improve", speed)
        if len(iterations) == 2:
            ended = thread.submit(local.sync, local.scheduler.close)
            if speed is improve:
                ended.result()

    soon = dask.config.set({"distributed.comm.timeouts.connect": "2s"})
    with soon, cluster(1) as local, ThreadPoolExecutor(1) as thread, pytest.raises(NoWorkersError, match="is gone"):
        factorize(planted, 4, solver="hals", max_iter=50, tol=0, on_iteration=end_scheduler)


def test_a_worker_that_wakes_after_it_was_given_up_finds_no_h_to_write_over(planted, cluster_of, tmp_path):
    matrix = open_matrix(planted)
    with cluster_of(1):
        spills = Spills(matrix, 4, make_plan(matrix, NMFConfig(n_components=4)), folder(tmp_path / "scratch"))
        names = [None]
        for _ in range(40):
            spill = spills(names[-1])
            names += [] if spill is None else [spill.name]
    assert len(set(names)) == len(names) == 6
    assert {entry.name for entry in (tmp_path / "scratch").glob("H*")} == set(names[-2:])


def test_stored_h_of_a_refused_iteration_stays_until_it_is_replaced(planted, tmp_path):
    matrix = open_matrix(planted)
    spills = Spills(
        matrix,
        4,
        dataclasses.replace(make_plan(matrix, NMFConfig(n_components=4)), stores_H=True),
        folder(tmp_path / "scratch"),
    )
    first = spills(None).name
    for _ in range(3):
        spills(first)  # none of these was taken
        assert (tmp_path / "scratch" / first).exists()
    assert len(list((tmp_path / "scratch").glob("H*"))) == 2
