"""Harms a job at its k-th file operation, for every k, and compares what the same call makes of it afterwards.

    python -m tests.killed run|prep|append kill|tear|fail FROM COPY STEP

A process that has everything imported forks a child for each k, which counts the file operations below the copy
through an audit hook. There the child is killed (kill); killed after all that was written and not yet synced is cut in
half, as by a machine that goes down (tear); or told that the disk is full (fail). Another child looks at what readers
see, and a third makes the same call and says what it got.
"""

import errno
import hashlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import dask.array  # noqa: F401  # before the forks, none of which should take the time
import numpy as np

from data_prep import store
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from data_prep.sample import read_sample
from pipeline import factorize, open_factors
from pipeline.checkpoints import Every
from tests.conftest import save_faces

WATCHED = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR


class Run:
    """A factorization, continued from one that is complete."""

    def __init__(self, prepared: Path) -> None:
        self.prepared = prepared

    def reset(self, copy: Path) -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.prepared, copy)

    def work(self, copy: Path) -> None:
        factorize(copy, 4, max_iter=6, tol=0, checkpoint_every=Every(iterations=2))

    def digest(self, copy: Path) -> bytes:
        factors = open_factors(copy, "d4")
        content = (factors.W.compute().tobytes(), factors.H.compute().tobytes(), factors.loss.tobytes())
        return hashlib.sha256(b"".join(content)).digest()


class Prep:
    """A preparation of images."""

    def __init__(self, images: Path) -> None:
        self.sources = [images]
        store.CHUNK_NBYTES = 8 * 30  # eight images a chunk

    def reset(self, copy: Path) -> None:
        shutil.rmtree(copy, ignore_errors=True)

    def work(self, copy: Path) -> None:
        with ThreadPoolExecutor(1) as thread:
            prepare(self.sources, copy, Options(decoding=Decoding()), thread)

    def digest(self, copy: Path) -> bytes:
        """What readers are given, whatever else is in the store."""
        try:
            matrix = store.open_matrix(copy)
        except store.BadInput as error:
            return b"not there" if "make one" in str(error) or "unfinished" in str(error) else str(error).encode()
        n, A = matrix.shape[1], store.open_array(copy, "A")
        found = [
            store.read_chunk(A, 0, k, checksum=c, n=n) for k, c in enumerate(store.read_checksums(matrix).tolist())
        ]
        found += [store.read_array(copy, "ok", n), read_sample(matrix, 1000), matrix.norm_squared, matrix.n_ok]
        names = "\n".join(store.read_array(copy, "image", n))
        return hashlib.sha256(repr([names, *(np.asarray(values).tobytes() for values in found)]).encode()).digest()

    def files(self, copy: Path) -> bytes:
        """What is in the store, to the byte."""
        content = sorted((str(file.relative_to(copy)), file.read_bytes()) for file in copy.rglob("*") if file.is_file())
        return hashlib.sha256(repr(content).encode()).digest()


class Append(Prep):
    """A preparation of more images than were there the first time."""

    def __init__(self, images: Path) -> None:
        super().__init__(images)
        self.first = images.parent / "first.zarr"
        super().work(self.first)
        save_faces(images / "later", np.random.default_rng(7))

    def reset(self, copy: Path) -> None:
        super().reset(copy)
        shutil.copytree(self.first, copy)


def watch(path: Path, k: int, harm: Callable[[set[str]], None]) -> list[int]:
    """Do harm at the k-th file operation below a path; returns a list whose only number counts them."""
    seen, unsynced, synced = [0], set[str](), os.fsync

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in WATCHED or not str(arguments[0]).startswith(str(path)):
            return
        seen[0] += 1
        if seen[0] == k:
            harm(unsynced)
        if event == "open" and int(str(arguments[2])) & WRITING:
            unsynced.add(str(arguments[0]))
        if event == "os.rename" and str(arguments[0]) in unsynced:
            unsynced.remove(str(arguments[0]))
            unsynced.add(str(arguments[1]))

    def fsync(descriptor: int) -> None:
        synced(descriptor)
        unsynced.discard(os.readlink(f"/proc/self/fd/{descriptor}"))

    os.fsync = fsync
    sys.addaudithook(hook)
    return seen


def kill(unsynced: set[str]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tear(unsynced: set[str]) -> None:
    for path in unsynced:
        if os.path.exists(path):
            os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def fail(unsynced: set[str]) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


HARMS = {"kill": kill, "tear": tear, "fail": fail}


def in_child(work: Callable[[], bytes]) -> bytes:
    """Result of a function in a fork; nothing where that was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, work())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def main(job: Run | Prep, harm: Callable[[set[str]], None], copy: Path, step: int) -> None:
    def finish() -> bytes:
        job.work(copy)
        return job.digest(copy) + (b"" if isinstance(job, Run) else job.files(copy))

    def harmed(k: int) -> bytes:
        seen = watch(copy, k, harm)
        with suppress(OSError, RuntimeError):
            job.work(copy)
        return b"harmed" if seen[0] >= k else b"came to its end"

    job.reset(copy)
    before = in_child(lambda: job.digest(copy))
    expected = in_child(finish)
    assert expected
    points = wrong = 0
    k = 1
    while True:
        job.reset(copy)
        if in_child(lambda k=k: harmed(k)) == b"came to its end":
            break
        seen, after = in_child(lambda: job.digest(copy)), in_child(finish)
        points += 1
        if seen not in (before, expected[: len(seen)]) or after != expected:
            wrong += 1
            print(f"harmed at {k}: readers saw {seen!r}, then it made {after!r} of {expected!r}", file=sys.stderr)
        k += step
    print(points, wrong)


if __name__ == "__main__":
    jobs = {"run": Run, "prep": Prep, "append": Append}
    main(jobs[sys.argv[1]](Path(sys.argv[3])), HARMS[sys.argv[2]], Path(sys.argv[4]), int(sys.argv[5]))
