"""Ctrl-C, SIGTERM and SIGUSR1: the first one ends a run after the iteration it is in, a second one at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
TEMPORARY = 75


class Interrupted(BaseException):
    """A signal asked to stop: the command ends with exit code 128 + its number, 75 for SIGUSR1.

    SIGUSR1 is what batch systems warn with before they take the machine away; they run the same command again on 75.

    Like KeyboardInterrupt no Exception, so that nothing takes it for an error; but click turns that one into its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = TEMPORARY if number == signal.SIGUSR1 else 128 + number


class SafePoint:
    """Called between iterations; raises Interrupted there if a signal came meanwhile.

    An exception raised by a handler wherever the interpreter happens to be can be lost in a callback that ignores
    errors. So once iterations have begun, the first signal is only noted.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._reached = False
        self._asked: int | None = None

    def __call__(self) -> None:
        """Say that everything is in order here."""
        self._reached = True
        if self._asked is not None:
            raise Interrupted(self._asked)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Note the signal, or end at once where no iteration is under way, or one was noted already."""
        if number == signal.SIGALRM:  # the grace is over
            raise Interrupted(self._asked or number)
        if not self._reached or self._asked is not None or self._grace_s == 0:
            raise Interrupted(number)
        self._asked = number
        signal.setitimer(signal.ITIMER_REAL, self._grace_s)


@contextmanager
def safe_point(grace_s: float = 25.0) -> Iterator[SafePoint]:
    """Handle signals until the end of the block; the iteration under way and its checkpoint get the grace to end."""
    point = SafePoint(grace_s)
    before = {number: signal.signal(number, point.on_signal) for number in HANDLED}
    try:
        yield point
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
