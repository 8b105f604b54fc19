"""One writer at a time: a lock on a folder that is gone with the process that held it, however it ended."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HeldError(BlockingIOError):
    """Another process holds the folder: the command ends with exit code 11."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made where it is missing; HeldError where another process does. Readers do not ask."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError(f"another process is writing {folder}; wait for it, or stop it") from error
        yield
    finally:
        os.close(descriptor)
