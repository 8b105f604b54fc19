"""Kills a run at its k-th file operation, for every k, and compares what the same call makes of it afterwards.

    python -m tests.killed PREPARED-STORE COPY STEP

A process that has everything imported forks a child for each k, which counts the file operations below the copy
through an audit hook and kills itself. Another child then makes the same call and says what it got.
"""

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path

import dask.array  # noqa: F401  # before the forks, none of which should take the time

from pipeline import factorize, open_factors
from pipeline.checkpoints import Every

WATCHED = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"}


def job(path: Path) -> None:
    factorize(path, 4, max_iter=6, tol=0, checkpoint_every=Every(iterations=2))


def digest(path: Path) -> bytes:
    factors = open_factors(path, "d4")
    content = (factors.W.compute().tobytes(), factors.H.compute().tobytes(), factors.loss.tobytes())
    return hashlib.sha256(b"".join(content)).digest()


def kill_at(k: int, path: Path) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in WATCHED and str(arguments[0]).startswith(str(path)):
            seen += 1
            if seen == k:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_child(work) -> tuple[bytes, bool]:
    """Result of a function in a fork, and whether it came to its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, work() or b"-")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer, not os.WIFSIGNALED(status)


def main(prepared: Path, copy: Path, step: int) -> None:
    def fresh() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(prepared, copy)

    def finish() -> bytes:
        job(copy)
        return digest(copy)

    fresh()
    before, _ = in_child(lambda: digest(copy))
    expected, _ = in_child(finish)
    points = wrong = 0
    k = 1
    while True:
        fresh()

        def killed(k: int = k) -> None:
            kill_at(k, copy)
            job(copy)

        _, ended = in_child(killed)
        if ended:
            break
        seen, _ = in_child(lambda: digest(copy))
        after, _ = in_child(finish)
        points += 1
        wrong += (seen not in (before, expected)) + (after != expected)
        k += step
    print(points, wrong)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
