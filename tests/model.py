"""What a store must hold, found without one: images by Pillow and NumPy; and the means of test_state_machine.py."""

import shutil
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import store
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline import factorize
from tests.conftest import save_png

ROOT, NMF, POINTER = "zarr.json", "nmf/zarr.json", "nmf/d3/zarr.json"
INIT = ("nndsvd", "random")  # by seed, so that one of them reads the sample
HARMS = {
    "flip": lambda content, k: bytes(b ^ (1 << k % 8) * (j == k // 8 % len(content)) for j, b in enumerate(content)),
    "truncate": lambda content, k: content[: 1 + k % (len(content) - 1)],
    "empty": lambda content, k: b"",
    "delete": lambda content, k: None,
}


class Inline(Executor):
    """Runs tasks where they are submitted, and after so many fails as a machine does that goes down."""

    def __init__(self, limit=10**6):
        self.left = limit

    def submit(self, task, /, *arguments):
        future, self.left = Future(), self.left - 1
        try:
            if self.left < 0:
                raise OSError("gone")
            future.set_result(task(*arguments))
        except (OSError, store.BadInput) as error:
            future.set_exception(error)
        return future


class Truth:
    """Twenty images, one of them broken, and what a clean store makes of them."""

    def __init__(self, home, rng):
        self.home, self.images = home, home / "images"
        for k in range(20):
            save_png(self.images / f"{k:02d}.png", rng.integers(0, 256, (4, 3), dtype=np.uint8))
        (self.images / "04.png").write_bytes(b"no image")
        self.names = sorted(file.name for file in self.images.iterdir())
        self.A = np.stack([self.column(name) for name in self.names], axis=1)
        self.prepare(home / "clean.zarr", Inline())
        self.files = files(home / "clean.zarr")
        known = {"A": self.A.tolist(), "image": self.names, "ok": [name != "04.png" for name in self.names]}
        more = {name: values(home / "clean.zarr", name) for name in ("sample_column", "checksum")}
        self.values = {**known, **more, "sample": self.A[:, more["sample_column"]].tolist()}
        self.factors = cache(self.factors)

    def column(self, name):
        broken = name == "04.png"
        return np.zeros(12, np.uint8) if broken else np.asarray(Image.open(self.images / name)).ravel()

    def prepare(self, path, executor):
        prepare([self.images], path, Options(decoding=Decoding(), max_skip=0.1), executor)

    def factors(self, seed, n):
        """Content of a factorization that nothing has interrupted; its loss is what NumPy finds."""
        made = run(self.home / "clean.zarr", seed, n, name=f"s{seed}n{n}").factors
        W, H = made.W.compute().astype(float), made.H.compute()
        assert made.loss[-1] == pytest.approx(np.linalg.norm(self.A / 255 - W @ H) ** 2, rel=1e-4)
        return content_of(made)


class Model:
    """What the files of a store must be, what was harmed, and what it holds."""

    def __init__(self, truth):
        self.truth, self.path, self.home = truth, truth.home / "f.zarr", store.folder(truth.home / "f.zarr")
        self.remove()

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
        self.complete = self.doubtful = False  # doubtful: harmed while it was not complete
        self.whole, self.harmed = {}, {}  # what files must be; what those are that were harmed, None where deleted
        self.revisions, self.pointed = {}, {}  # (seed, iterations) by name; names by pointer

    def state(self):
        return tuple(self.revisions.get(self.pointed.get(pointer)) for pointer in ("current", "resume"))

    def newest(self):
        return self.pointed.get("resume", self.pointed.get("current"))

    def harmed_among(self, needs):
        return {name for name in self.harmed if any(f"{name}/".startswith(f"{need}/") for need in needs)}

    def take_in(self, *allowed):
        """See what an action made of the results: one of the states that it may lead to, each revision whole."""
        group, now = self.path / "nmf" / "d3", read(self.path / POINTER)
        if now != self.harmed.get(POINTER, self.whole.get(POINTER)):
            found = store.group_attributes(group)
            self.pointed = {pointer: found[pointer] for pointer in ("current", "resume") if pointer in found}
            self.whole |= {POINTER: now, NMF: self.whole.get(NMF) or read(self.path / NMF)}
        for name in set(self.pointed.values()) - self.revisions.keys():
            attributes = store.group_attributes(group / name)
            self.revisions[name] = attributes["parameters"]["seed"], attributes["n_iter"]
            self.whole |= {f"nmf/d3/{name}/{file}": content for file, content in files(group / name).items()}
        for name in self.revisions.keys() - self.pointed.values():
            if not (group / name / ROOT).exists():  # it is nothing to anybody
                del self.revisions[name]
        gone = {file for file in self.whole if file.startswith("nmf/d3/r") and file.split("/")[2] not in self.revisions}
        gone |= set() if self.revisions else {NMF, POINTER}
        self.whole = {file: content for file, content in self.whole.items() if file not in gone}
        changed = {file for file in self.harmed if read(self.path / file) == self.whole.get(file)}
        self.harmed = {file: x for file, x in self.harmed.items() if file in self.whole and file not in changed}
        assert self.state() in allowed

    def take_in_matrix(self):
        with suppress(store.BadInput):
            if not self.complete and store.group_attributes(self.path).get("status") == "complete":
                self.whole, self.complete, self.doubtful = dict(self.truth.files), True, False

    def plan(self, seed, n, fresh):
        """What a run needs, iterations it begins with, and states it may pass through; the last is its end."""
        start = None if fresh else self.newest()
        begun = self.revisions[start][1] if start else 0
        needs = [ROOT, "A/zarr.json", *([POINTER, f"nmf/d3/{start}"] if start else [])]
        if begun >= n and "resume" not in self.pointed:
            return needs, begun, [self.state()]
        current, resume = (None, None) if POINTER in self.harmed else self.state()
        on_the_way = [(current, (seed, k)) for k in range(begun + 1, n + 1)]
        needs += ["A", "checksum", *(["sample"] if not start and INIT[seed] == "nndsvd" else [])]
        return needs, begun, [self.state(), (current, resume), *on_the_way, ((seed, max(begun, n)), None)]


def run(path, seed, n, **ways):
    return factorize(path, 3, seed=seed, init=INIT[seed], max_iter=n, tol=0, **ways)


def read(file: Path):
    return file.read_bytes() if file.is_file() else None


def files(path: Path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def content_of(factors):
    passes = [iteration.passes for iteration in factors.iterations]
    assert passes == list(range(1, len(factors.loss) + 1))
    return factors.W.compute().tobytes(), factors.H.compute().tobytes(), factors.loss.tobytes()


def values(path, name):
    """Values of an array of a store, read as readers do."""
    matrix = store.open_matrix(path)
    array, checksums = store.open_array(path, name), store.read_checksums(matrix) if name == "A" else ()
    if len(array.shape) == 1:
        return store.read_array(path, name).tolist()
    known = [{"checksum": int(checksum)} for checksum in checksums] or [{}] * array.cdata_shape[1]
    return np.concatenate([store.read_chunk(array, 0, k, **check) for k, check in enumerate(known)], axis=1).tolist()
