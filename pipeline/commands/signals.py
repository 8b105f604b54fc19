"""Ctrl-C and SIGTERM: the first one ends a run after the iteration it is in, a second one at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal asked to stop: the command ends with exit code 128 + its number.

    Like KeyboardInterrupt no Exception, so that nothing takes it for an error; but click turns that one into its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class SafePoint:
    """Called between iterations; raises Interrupted there if a signal came meanwhile.

    An exception raised by a handler wherever the interpreter happens to be can be lost in a callback that ignores
    errors. So once iterations have begun, the first signal is only noted.
    """

    def __init__(self) -> None:
        self._reached = False
        self._asked: int | None = None

    def __call__(self) -> None:
        """Say that everything is in order here."""
        self._reached = True
        if self._asked is not None:
            raise Interrupted(self._asked)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Note the signal, or end at once where no iteration is under way, or one was noted already."""
        if not self._reached or self._asked is not None:
            raise Interrupted(number)
        self._asked = number


@contextmanager
def safe_point() -> Iterator[SafePoint]:
    """Handle SIGINT and SIGTERM until the end of the block."""
    point = SafePoint()
    before = {number: signal.signal(number, point.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield point
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
