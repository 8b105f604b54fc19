"""A block that takes too long is ended by an exception, in any thread.

Between two steps of Python, that is: what is one call into a library is bounded by limits of bytes and pixels.
"""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class TooLongError(Exception):
    """It took longer than allowed."""


class _Watch:
    """One thread a process, which ends whatever block is over its time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: dict[int, float] = {}
        self._fired: set[int] = set()
        self._thread: threading.Thread | None = None

    def begin(self, seconds: float) -> None:
        """Give this thread so long."""
        with self._changed:
            self._deadlines[threading.get_ident()] = time.monotonic() + seconds
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def end(self) -> bool:
        """Say that this thread's block is over; whether an exception is on its way nevertheless."""
        with self._changed:
            self._deadlines.pop(threading.get_ident(), None)
            fired = threading.get_ident() in self._fired
            self._fired.discard(threading.get_ident())
            return fired

    def _run(self) -> None:
        while True:
            time.sleep(TICK_S)
            with self._changed:
                for thread, deadline in list(self._deadlines.items()):
                    if time.monotonic() > deadline:
                        del self._deadlines[thread]
                        self._fired.add(thread)
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(
                            ctypes.c_ulong(thread), ctypes.py_object(TooLongError)
                        )


TICK_S = 0.05
_watch = _Watch()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooLongError in a block that takes longer."""
    _watch.begin(seconds)
    try:
        try:
            yield
        finally:
            if _watch.end():
                _await_exception()
    except TooLongError:
        _watch.end()
        raise TooLongError(f"it took longer than {seconds:g} s") from None


def _await_exception() -> None:
    """Wait for the exception that is on its way, lest it come later; it may have been caught within the block."""
    for _ in range(20):
        time.sleep(TICK_S / 50)
