"""Whatever is done, and happens, to a store in whatever order, it is what a small model of it says."""

import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from data_prep import store
from data_prep.images import ARRAYS
from data_prep.repair import repair
from pipeline import open_factors
from pipeline.checkpoints import Every
from pipeline.commands.verify import damages_of
from pipeline.factors import newest
from pipeline.job import ParametersDiffer
from tests.conftest import SOAK
from tests.killed import in_child, kill, watch
from tests.model import HARMS, POINTER, ROOT, Inline, Model, Truth, content_of, files, read, run, values
from tests.test_checkpoints import Stopped, stop_at

JOBS = ("prep", "append", "run", "fresh", "repair")
SEEDS, ITERATIONS, NUMBERS = st.integers(0, 1), st.integers(1, 6), st.integers(0, 10**6)


class Stores(RuleBasedStateMachine, Model):
    def __init__(self, truth):
        RuleBasedStateMachine.__init__(self)
        Model.__init__(self, truth)

    def attempt(self, work, *needs):
        """Whether it was done, as it must be where nothing that it needs was harmed; else it names what was."""
        said = ""
        try:
            work()
        except store.BadInput as error:
            said = str(error)
        assert not said or any(str(self.path / name) in said for name in self.harmed_among(needs)), said
        return not said

    def prepare(self, executor=None):
        if self.complete and self.harmed:
            return self.attempt(
                lambda: self.truth.prepare(self.path, self.stage, executor), ROOT, "A/zarr.json", "manifest"
            )
        try:
            self.truth.prepare(self.path, self.stage, executor)
        except store.BadInput:
            if not self.doubtful:
                raise
            self.remove()
        finally:
            self.take_in_matrix()

    @initialize(seed=SEEDS, n=st.integers(0, 3), stop=st.none() | ITERATIONS)
    def begin(self, seed, n, stop):
        """Most sequences begin with a result, or with one that was interrupted."""
        if n:
            self.prepare()
            self.run(seed, n, False, stop)

    @rule()
    def prep(self):
        self.prepare()
        assert not self.appending
        assert self.complete or not self.path.exists()

    @rule(chunks=st.integers(0, 4))
    def interrupted_prep(self, chunks):
        with suppress(OSError):
            self.prepare(Inline(chunks))

    @precondition(lambda self: self.complete and self.stage == 0 and not self.harmed)
    @rule(chunks=st.integers(0, 4))
    def append(self, chunks):
        with suppress(OSError):
            self.truth.prepare(self.path, 1, Inline(chunks))
        self.take_in_matrix()

    @precondition(lambda self: self.complete)
    @rule(seed=SEEDS, n=ITERATIONS, fresh=st.booleans(), stop=st.none() | ITERATIONS)
    def run(self, seed, n, fresh, stop):
        key, fresh = seed + 2 * self.stage, fresh or self.is_outgrown()
        other = not fresh and self.newest() is not None and self.revisions[self.newest()][0] != key
        needs, begun, states = self.plan(key, n, fresh)
        stops = stop is not None and begun < stop <= n
        ways = {"fresh": fresh, **({"on_iteration": stop_at(stop)} if stop else {})}
        ended = None
        try:
            done = self.attempt(lambda: run(self.path, seed, n, **ways), *needs)
        except (Stopped, ParametersDiffer) as error:
            done, ended = True, type(error)
        assert not done or ended is (ParametersDiffer if other else Stopped if stops else None)
        stopped = [(states[-1 if len(states) == 1 else -2][0], (key, stop))]
        self.take_in(((stopped if stops else states)[-1]) if done and not other else self.state())

    @precondition(lambda self: self.newest() is not None)
    @rule(more=st.integers(0, 2))
    def resume(self, more):
        seed, n = self.revisions[self.newest()]
        self.run(seed % 2, min(6, n + more), False, None)

    @rule(
        k=st.integers(1, 420),
        job=st.sampled_from(["prep", "append", "run", "fresh", "repair"]),
        seed=SEEDS,
        n=ITERATIONS,
    )
    def killed(self, k, job, seed, n):
        seed = self.revisions[self.newest()][0] % 2 if job == "run" and self.newest() else seed
        stage = 1 if job == "append" and self.complete and not self.harmed else self.stage
        fresh = job == "fresh" or (job == "run" and self.is_outgrown())
        ways = {"checkpoint_every": Every(iterations=2), "fresh": fresh}

        def work():
            shutil._use_fd_functions = False  # removes by whole paths, which are what is watched
            watch(self.path, k, kill)
            with suppress(store.BadInput, ParametersDiffer):
                if job in ("prep", "append"):
                    self.truth.prepare(self.path, stage)
                else:
                    self.mend() if job == "repair" else run(self.path, seed, n, **ways)
            return b"done"

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
            in_child(work)
        self.take_in_matrix()
        states = self.plan(seed + 2 * self.stage, n, fresh)[2] if job in ("run", "fresh") else []
        self.take_in(self.state(), *states, *[(None, None)] * (fresh and POINTER in self.harmed))

    @precondition(lambda self: len(self.harmed) < 3 and not self.appending)
    @rule(which=NUMBERS, how=st.sampled_from(sorted(HARMS)), where=NUMBERS)
    def corrupt(self, which, how, where):
        there = self.whole if self.complete else files(self.path)
        names = [name for name in sorted(there) if name not in self.harmed and len(there[name]) > 1]
        if names:
            name = names[which % len(names)]
            content = HARMS[how](there[name], where)
            (self.path / name).unlink() if content is None else (self.path / name).write_bytes(content)
            self.harmed |= {name: content} if self.complete else {}
            self.doubtful = not self.complete
            self.take_in(self.state())

    @rule()
    def restore(self):
        for name in self.harmed:
            (self.path / name).write_bytes(self.whole[name])
        self.harmed = {}

    def mend(self):
        return repair(self.home, damages_of(self.home), [self.truth.sources[self.stage]])

    @precondition(lambda self: self.complete and not self.appending and self.harmed.get(ROOT, b"") is not None)
    @rule()
    def repair(self):
        for one in self.mend():
            name = str(Path(one.damage.file).relative_to(self.path))
            lost = not one.damage.array or (name.startswith("nmf/") and not name.endswith(ROOT))
            lost = lost or self.names_are_lost(name)
            assert (bool(one.why_not), read(self.path / name) == self.whole[name]) == (lost, not lost), one
        self.take_in(self.state())

    def names_are_lost(self, name):
        """Names in the order of appends are in two places only, and who needs them is lost with both."""
        places = ("image/c/0", "manifest/c/0")
        return self.stage == 1 and self.harmed.keys() >= set(places) and name.startswith((*places, "A/c/", "ok/c/"))

    @invariant()
    def all_but_the_harmed_is_as_it_was(self):
        expected = {**self.whole, **self.harmed}
        assert {name: read(self.path / name) for name in expected} == expected

    def expect(self, get, expected, *needs):
        """Reading gives just that, or fails just where what it needs was harmed."""
        got = []
        assert self.attempt(lambda: got.append(get()), *needs) == (not self.harmed_among(needs)), (needs, self.harmed)
        assert got in ([expected], [])

    @invariant()
    def readers_see_what_is_complete(self):
        for name in ARRAYS if self.complete else ():
            needs = [name, ROOT, "A/zarr.json", *(["checksum"] if name == "A" else [])]
            if name != "sample_column" or not self.appending:
                self.expect(lambda name=name: values(self.path, name), self.truth.stages[self.stage][2][name], *needs)
        for pointer, find in (("current", open_factors), ("resume", newest)):
            if pointer in self.pointed:
                name = self.pointed[pointer]
                needs = POINTER, f"nmf/d3/{name}"
                expected = self.truth.factors(*self.revisions[name])
                self.expect(lambda find=find: content_of(find(self.home, "d3")), expected, *needs)
        for look in [open_factors] * ("current" not in self.pointed) + [values] * (not self.complete):
            with pytest.raises(store.BadInput, match="d3" if look is open_factors else r"f\.zarr"):
                look(self.path, "d3")

    @invariant()
    def verify_finds_what_was_harmed(self):
        found = set()
        with suppress(store.BadInput):
            found = {str(Path(one.file).relative_to(self.path)) for one in damages_of(self.home)}
            assert self.complete or self.doubtful
        assert found <= self.harmed.keys() or self.doubtful
        for name in self.harmed.keys() - found:
            groups = [POINTER, "/".join([*name.split("/")[:3], ROOT])] if name.startswith("nmf/d3/") else []
            above = {ROOT, *groups} - {name} if self.harmed.get(ROOT, b"") is None else {*(groups or [ROOT])} - {name}
            assert above & self.harmed.keys() or (name == ROOT and self.harmed[ROOT] is None), name


def test_any_sequence_of_actions_and_harms_leaves_what_the_model_says(tmp_path, rng, monkeypatch, synchronous):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 4 * 12)  # four images of 12 pixels
    truth = Truth(tmp_path, rng)
    size = {"max_examples": 300, "stateful_step_count": 25} if SOAK else {"max_examples": 3, "stateful_step_count": 8}
    ways = {"deadline": None, "database": None, "derandomize": not SOAK, "suppress_health_check": list(HealthCheck)}
    found = settings(**size, **ways, phases=[Phase.generate], report_multiple_bugs=False)  # shrinking takes minutes
    run_state_machine_as_test(lambda: Stores(truth), settings=found)
