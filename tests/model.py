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
from data_prep.append import n_skipped
from data_prep.columns import RECORDS
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from data_prep.manifest import read_rows, read_skipped
from data_prep.sample import read_sample
from data_prep.sums import read_mean
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
    """Images, one of them broken, of which the first come first, and what a clean store makes of those and of all."""

    def __init__(self, home, rng):
        self.home, self.sources = home, [home / "first", home / "all"]
        for k in range(20):
            save_png(home / "all" / f"{k:02d}.png", rng.integers(0, 256, (4, 3), dtype=np.uint8))
        (home / "all" / "04.png").write_bytes(b"no image")
        names = sorted(file.name for file in (home / "all").iterdir())
        later = [name for name in names if int(name[:2]) % 3 == 2]
        shutil.copytree(home / "all", home / "first", ignore=lambda *_: later)
        first = [name for name in names if name not in later]
        self.prepare(home / "clean0.zarr", 0)
        shutil.copytree(home / "clean0.zarr", home / "clean1.zarr")
        self.prepare(home / "clean1.zarr", 1)
        self.stages = [self.stage(0, first), self.stage(1, first + later)]
        self.factors = cache(self.factors)

    def stage(self, stage, names):
        """Files of a clean store, A, and the values of all its arrays."""
        path, A = self.home / f"clean{stage}.zarr", np.stack([self.column(name) for name in names], axis=1)
        ok = np.array([name != "04.png" for name in names])
        known = {"A": A.tolist(), "image": names, "ok": ok.tolist(), "skipped": []}
        known["manifest"] = [(name, "unreadable" if name == "04.png" else "ok") for name in names]
        known["norm"] = (np.sqrt(np.square(A, dtype=int).sum(axis=0)) / 255).tolist()
        known["pixel_sum"] = (A.sum(axis=1, dtype=int) * (1 / 255) / ok.sum()).tolist()
        more = {name: values(path, name) for name in ("sample_column", "checksum")}
        return files(path), A, {**known, **more, "sample": A[:, more["sample_column"]].tolist()}

    def column(self, name):
        broken = name == "04.png"
        return np.zeros(12, np.uint8) if broken else np.asarray(Image.open(self.home / "all" / name)).ravel()

    def prepare(self, path, stage, executor=None):
        options = Options(decoding=Decoding(), max_skip=0.1)
        prepare([self.sources[stage]], path, options, executor or Inline())

    def factors(self, key, n):
        """Content of a factorization that nothing has interrupted; its loss is what NumPy finds."""
        made = run(self.home / f"clean{key // 2}.zarr", key % 2, n, name=f"s{key}n{n}").factors
        W, H = made.W.compute().astype(float), made.H.compute()
        assert made.loss[-1] == pytest.approx(np.linalg.norm(self.stages[key // 2][1] / 255 - W @ H) ** 2, rel=1e-4)
        return content_of(made)


class Model:
    """What the files of a store must be, what was harmed, and what it holds."""

    def __init__(self, truth):
        self.truth, self.path, self.home = truth, truth.home / "f.zarr", store.folder(truth.home / "f.zarr")
        self.remove()

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
        self.complete = self.doubtful = False  # doubtful: harmed while it was not complete
        self.stage, self.appending = 0, False
        self.whole, self.harmed = {}, {}  # what files must be; what those are that were harmed, None where deleted
        self.revisions, self.pointed = {}, {}  # (key of seed and stage, iterations) by name; names by pointer

    def state(self):
        return tuple(self.revisions.get(self.pointed.get(pointer)) for pointer in ("current", "resume"))

    def newest(self):
        return self.pointed.get("resume", self.pointed.get("current"))

    def is_outgrown(self):
        """Whether images were appended since; test_rerun.py has what a run makes of that."""
        return self.stage == 1 and self.newest() is not None and self.revisions[self.newest()][0] < 2

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
            later = 2 * (attributes["shape"][1] == 20)
            self.revisions[name] = attributes["parameters"]["seed"] + later, attributes["n_iter"]
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
            attributes = store.group_attributes(self.path)
            if attributes.get("status") == "complete" and not self.harmed:
                self.complete, self.doubtful = True, False
                self.stage, self.appending = int(attributes["shape"][1] == 20), (self.path / RECORDS).exists()
                results = {name: content for name, content in self.whole.items() if name.startswith("nmf/")}
                self.whole = results | ({} if self.appending else self.truth.stages[self.stage][0])

    def plan(self, key, n, fresh):
        """What a run needs, iterations it begins with, and states it may pass through; the last is its end."""
        start = None if fresh else self.newest()
        begun = self.revisions[start][1] if start else 0
        needs = [ROOT, "A/zarr.json", *([POINTER, f"nmf/d3/{start}"] if start else [])]
        if begun >= n and "resume" not in self.pointed:
            return needs, begun, [self.state()]
        current, resume = (None, None) if POINTER in self.harmed else self.state()
        on_the_way = [(current, (key, k)) for k in range(begun + 1, n + 1)]
        needs += ["A", "checksum", *(["sample"] if not start and INIT[key % 2] == "nndsvd" else [])]
        return needs, begun, [self.state(), (current, resume), *on_the_way, ((key, max(begun, n)), None)]


def run(path, seed, n, **ways):
    return factorize(path, 3, seed=seed, init=INIT[seed], solver="hals", max_iter=n, tol=0, **ways)


def read(file: Path):
    return file.read_bytes() if file.is_file() else None


def files(path: Path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def content_of(factors):
    passes = [iteration.passes for iteration in factors.iterations]
    assert np.allclose(np.diff(passes), 1)
    return factors.W.compute().tobytes(), factors.H.compute().tobytes(), factors.loss.tobytes()


def values(path, name):
    """Values of an array of a store, read as readers do."""
    matrix = store.open_matrix(path)
    n = matrix.shape[1]
    if name == "sample":
        return read_sample(matrix, n).tolist()
    if name == "pixel_sum":
        return read_mean(matrix).tolist()
    if name == "manifest":
        return [(row.image, row.status) for row in read_rows(matrix.path, n)]
    if name == "skipped":
        return list(read_skipped(matrix.path, n_skipped(matrix)))
    if name == "checksum":
        return store.read_checksums(matrix).tolist()
    if name == "sample_column":
        return store.read_array(path, name).tolist()
    array = store.open_array(path, name)
    if name != "A":
        return store.read_array(path, name, n).tolist()
    checksums = store.read_checksums(matrix).tolist()
    blocks = [store.read_chunk(array, 0, k, checksum=checksum, n=n) for k, checksum in enumerate(checksums)]
    return np.concatenate(blocks, axis=1).tolist()
