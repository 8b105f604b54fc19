"""A disk that is full, or fails: exit code 75, one line, what was complete as it was, and then the same bits.

A tmpfs of a few MiB is the full disk; strace makes single system calls of a command fail.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline import factorize
from tests.conftest import SOAK, save_png, sparse
from tests.test_factorize import bits

ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
FEW = ("-d", 48, "--solver", "mu", "--tol", 0, "--max-iter", 2)
MORE = ("-d", 48, "--solver", "mu", "--tol", 0, "--max-iter", 5, "--checkpoint-every", "1it")
SIZES_MIB = {"prep": range(2, 9), "run": range(9, 12), "run on": range(12, 18)}
"""A and its sample take 4 MiB each, a revision a little over 3, and in the end there are three."""
CONTINUE = ("run", "-d", 4, "--solver", "mu", "--tol", 0, "--max-iter", 6, "--checkpoint-every", "2it")
REST = {"solver": "mu", "max_iter": 6, "tol": 0}


def command(*arguments, strace=()):
    main = "from pipeline.commands import main; main()"
    everything = [*strace, sys.executable, "-c", main, *map(str, arguments)]
    environment = os.environ | ENVIRONMENT
    return subprocess.run(everything, capture_output=True, text=True, timeout=120, env=environment, check=False)


def assert_temporary(done):
    """Exit code 75, or 2 where it was refused beforehand, with one line."""
    assert done.returncode in (2, 75), done.stderr
    assert done.stderr.startswith("nmf-batch: ")
    assert done.stderr.count("\n") == 1, done.stderr


# --- full


class Stage(NamedTuple):
    """One of the commands: what there is before it, and what readers find after it on a disk with room."""

    arguments: tuple[object, ...]
    before: Path
    after: Path


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Each command, with the stores before and after it, which were made without one."""
    images, none, prepared, first, last = map(tmp_path_factory.mktemp, ("images", "none", "prepared", "first", "last"))
    rng = np.random.default_rng(0)
    for k in range(60):
        save_png(images / f"{k:03d}.png", rng.integers(0, 256, (16, 16), dtype=np.uint8))
    with ThreadPoolExecutor(1) as thread:
        prepare([images], prepared, Options(decoding=Decoding()), thread)
    for before, after, max_iter in ((prepared, first, 2), (first, last, 5)):
        shutil.copytree(before, after, dirs_exist_ok=True)
        factorize(after, 48, solver="mu", tol=0, max_iter=max_iter)
    return {
        "prep": Stage(("prep", images), none, prepared),
        "run": Stage(("run", *FEW), prepared, first),
        "run on": Stage(("run", *MORE), first, last),
    }


@pytest.fixture
def disk(tmp_path):
    """An empty disk, and how to give it so many MiB."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(mib):
        how = "remount," if place.is_mount() else ""
        mount = ["mount", "-t", "tmpfs", "-o", f"{how}size={mib}M", "nmf-batch", place]
        shown = subprocess.run(mount, capture_output=True, text=True, check=False)
        if shown.returncode:
            pytest.skip(f"no file system can be mounted here: {shown.stderr.strip()}")
        return place

    yield resize
    if place.is_mount():
        subprocess.run(["umount", "-l", place], check=True)


def seen(path):
    """What readers find: the matrix, and the factors; less where it is not there."""
    found = []
    with suppress(store.BadInput):
        found.append(store.open_matrix(path).fingerprint)
        found.append(bits(path, "d48"))
    return found


@pytest.mark.parametrize(
    ("name", "mib"), [(name, mib) for name, sizes in SIZES_MIB.items() for mib in (sizes if SOAK else sizes[-2:-1])]
)
def test_what_does_not_fit_is_exit_75_and_with_room_the_same_command_gives_the_same_bits(name, mib, stages, disk):
    path, stage = disk(mib) / "s.zarr", stages[name]
    shutil.copytree(stage.before, path)
    before = seen(path)
    assert_temporary(command(*stage.arguments, "--zarr", path))
    assert seen(path) == before
    disk(64)
    done = command(*stage.arguments, "--zarr", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert seen(path) == seen(stage.after)


# --- failing


@pytest.fixture
def continued(tmp_path, rng, small_chunks):
    """Makes copies of a store whose factorization is to be continued, and says what bits it has and will have."""
    original = tmp_path / "original.zarr"
    write_matrix(original, (sparse(rng, 40, 4) @ sparse(rng, 4, 40)).astype(np.float32))
    factorize(original, 4, **REST | {"max_iter": 2})
    shutil.copytree(original, tmp_path / "straight.zarr")
    factorize(tmp_path / "straight.zarr", 4, **REST)

    def copy():
        shutil.rmtree(tmp_path / "copy.zarr", ignore_errors=True)
        return shutil.copytree(original, tmp_path / "copy.zarr")

    return copy, bits(original), bits(tmp_path / "straight.zarr")


def run_with(fault, path, *, when, only=(), arguments=CONTINUE):
    """Run a command of whose system calls some fail; returns it, and whether any did."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not on this machine")
    log = path.with_suffix(".log")
    calls, error = fault
    filters = [word for file in only for word in ("-P", str(file))]
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"]
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), *inject, *filters]
    done = command(*arguments, "--zarr", path, strace=strace)
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip(f"strace may trace nothing here: {done.stderr.strip()}")
    return done, "INJECTED" in log.read_text()


def assert_nothing_lost(done, path, before, after):
    if done.returncode:
        assert_temporary(done)
    assert bits(path) in (before, after)
    factorize(path, 4, **REST)
    assert bits(path) == after


FAULTS = {
    "fsync": ("EIO", range(1, 143, 4), (3, 130)),
    "rename": ("ENOSPC", range(1, 7), (6,)),
    "mkdir": ("ENOSPC", range(1, 4), (3,)),
}
"""The error, and which of the calls of a thread fail: in the long form, and in the short one."""


@pytest.mark.parametrize(
    ("calls", "error", "when"), [(calls, error, k) for calls, (error, *ks) in FAULTS.items() for k in ks[not SOAK]]
)
def test_a_call_that_fails_costs_nothing_that_was_complete(calls, error, when, continued):
    copy, before, after = continued
    path = copy()
    done, hit = run_with((calls, error), path, when=when)
    assert hit
    assert_nothing_lost(done, path, before, after)


READ = (
    "zarr.json",
    "A/c/0/0",
    "nmf/d4/zarr.json",
    "nmf/d4/r*/zarr.json",
    "nmf/d4/r*/W/c/0/0",
    "nmf/d4/r*/H/c/0/1",
    "nmf/d4/r*/loss/c/0",
)


@pytest.mark.parametrize("calls", ["read", "openat"] if SOAK else ["read"])
@pytest.mark.parametrize("pattern", READ if SOAK else READ[1::2])
def test_a_file_that_cannot_be_read_is_exit_75_and_costs_nothing(pattern, calls, continued):
    copy, before, after = continued
    path = copy()
    done, hit = run_with((calls, "EIO"), path, when="1+", only=path.glob(pattern))
    assert hit
    assert_temporary(done)
    assert_nothing_lost(done, path, before, after)


@pytest.mark.parametrize(
    ("calls", "error", "when"),
    [("fsync", "EIO", 5), ("rename", "ENOSPC", 1), ("mkdir", "ENOSPC", 1)][: None if SOAK else 1],
)
def test_a_preparation_that_fails_is_exit_75_and_the_same_command_makes_the_same_store(
    calls, error, when, stages, tmp_path
):
    path, stage = tmp_path / "s.zarr", stages["prep"]
    done, hit = run_with((calls, error), path, when=when, arguments=stage.arguments)
    assert hit
    assert_temporary(done)
    assert command(*stage.arguments, "--zarr", path).returncode == 0
    assert seen(path) == seen(stage.after)
