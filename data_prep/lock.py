"""One writer at a time. The lock of a process that has ended, however it ended, is in nobody's way.

A local folder is locked itself, and the system lets go of it with the process. In an object store the writer keeps a
lease, an object that says until when it holds, and renews it; a lease that has run out may be taken over.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from data_prep.folders import LEASE, Folder, LocalFolder
from data_prep.remote import Changed, RemoteFolder, Unreachable

AGAIN_S = 0.2
"""Between two tries to get hold of a folder."""
LEASE_S = 60.0
"""How long a lease lasts unless renewed: clocks of machines that share a store must agree far better than that."""


class HeldError(BlockingIOError):
    """Another process holds the folder: the command ends with exit code 11."""


@contextmanager
def only_writer(folder: Folder, timeout_s: float = 0.0) -> Iterator[Callable[[], None]]:
    """Hold a folder, which is made where it is missing; readers do not ask.

    Yields
    ------
    Callable
        To be called just before what readers see is changed: HeldError where another process has taken over meanwhile,
        as it may from one that was frozen for longer than a lease.

    Raises
    ------
    HeldError
        Another process holds it, and still did after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    with ExitStack() as stack:
        while True:
            try:
                hold = _leased(folder) if isinstance(folder, RemoteFolder) else _locked(folder)
                still_ours = stack.enter_context(hold)
                break
            except HeldError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(AGAIN_S)
        yield still_ours


@contextmanager
def _locked(folder: Folder) -> Iterator[Callable[[], None]]:
    assert isinstance(folder, LocalFolder)
    folder.make()
    descriptor = os.open(folder.path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError(f"another process is writing {folder}; wait for it, or stop it") from error
        yield lambda: None  # the system does not take a lock away
    finally:
        os.close(descriptor)


@contextmanager
def _leased(folder: RemoteFolder) -> Iterator[Callable[[], None]]:
    held, version = folder.read_versioned(LEASE)
    until = 0.0 if held is None else float(json.loads(held)["until"])
    if until > time.time():
        raise HeldError(
            f"another process is writing {folder} ({json.loads(held or b'{}').get('host')}); wait for it, or stop it: "
            f"{until - time.time():.0f} s after its end the store is free"
        )
    lease = _Lease(folder, version)
    lease.renew()
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(LEASE_S / 4):
            with suppress(HeldError, Unreachable):  # whoever is about to publish finds out
                lease.renew()

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield lease.renew
    finally:
        ended.set()
        keeper.join()
        with suppress(HeldError, Unreachable):
            lease.renew(0.0)


class _Lease:
    """What says, in the store, who writes and until when."""

    def __init__(self, folder: RemoteFolder, version: str | None) -> None:
        self._folder, self._version, self._owner = folder, version, uuid.uuid4().hex
        self._renewing = threading.Lock()

    def renew(self, seconds: float = LEASE_S) -> None:
        """Say that it holds for so long from now on, unless somebody else has it."""
        says = {"owner": self._owner, "host": socket.gethostname(), "until": time.time() + seconds}
        try:
            with self._renewing:
                self._version = self._folder.replace_version(LEASE, json.dumps(says).encode(), self._version)
        except Changed as error:
            raise HeldError(f"another process is writing {self._folder}; wait for it, or stop it") from error
