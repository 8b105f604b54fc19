"""Progress on stderr: a line that is rewritten on a terminal, a plain one every 30 seconds otherwise."""

import sys
import time

PLAIN_EVERY_S = 30.0
TERMINAL_EVERY_S = 0.1


class Progress:
    """Says how far something is, and when it will be done at the latest."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._every_s = TERMINAL_EVERY_S if self._terminal else PLAIN_EVERY_S
        self._began = self._said = time.monotonic()
        self._first: int | None = None

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return max(1e-9, time.monotonic() - self._began)

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        """Say `done` of `total`, unless it was said just now."""
        now = time.monotonic()
        self._first = done - 1 if self._first is None else self._first
        if now - self._said < self._every_s and done < total:
            return
        if not self._terminal and now - self._began < PLAIN_EVERY_S:
            return
        self._said = now
        left_s = (now - self._began) / max(1, done - self._first) * (total - done)
        line = f"{self._unit} {done}/{total}  {detail}  {now - self._began:.0f} s, at most {left_s:.0f} s left"
        sys.stderr.write(f"\r{self._bar(done / total)} {line}\x1b[K" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End the line on a terminal."""
        if self._terminal and self._first is not None:
            sys.stderr.write("\n")

    @staticmethod
    def _bar(share: float, width: int = 24) -> str:
        filled = round(width * share)
        return "━" * filled + "·" * (width - filled)
