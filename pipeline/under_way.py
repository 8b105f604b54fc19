"""How far a run is, for those who look on: a small object that the run keeps up to date while it lasts.

It lies in the run's scratch folder, which is no part of any result: nobody counts it, the run removes it however it
ends, and the next run removes what a killed one has left. A thread of its own writes it, for the first time after two
seconds, so that a run that has little to do writes none; where it cannot be written, that costs the run nothing.

Whether a run is still there is told by its process where that is on this machine, and else by when it was heard of
last. The lock is not asked: holding it, be it for an instant, would refuse a run that begins just then.
"""

import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, get_type_hints

from data_prep.folders import Folder, LocalFolder
from pipeline.config import NMFConfig
from pipeline.factors import NAME, Factors, current
from pipeline.loop import trailing
from pipeline.opening import SCRATCH
from pipeline.pace import Left, Pace, left_of, most_iterations, pace_of, small_iterations, within
from pipeline.plan import Plan
from pipeline.record import Recorder

FILE = "under-way.json"
FIRST_S = 2.0
"""A run that is over by then writes nothing."""
EVERY_S, REMOTE_EVERY_S = 2.0, 15.0
"""Between two writes: on this machine, and behind an address."""
SHARE = 0.01
"""Of the time that goes into writing at most; but it is silent for no longer than it is behind an address."""
SILENT_S = 60.0
"""A run that was not heard of for so long may be over: clocks of machines agree far better than that."""
STARTING = "starting"
"""Phase before the first iteration: where there is a sketch, it is being made."""


class Status(StrEnum):
    """What is known of a run that has not taken its object away."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    SILENT = "silent"


class UnderWay(NamedTuple):
    """How far a run was when it said so. Seconds and passes are those of this run, without earlier ones."""

    host: str
    place: str
    """What its process number is one of, see `_place`."""
    pid: int
    began: str
    updated: str
    n_components: int
    solver: str
    phase: str
    iteration: int
    """Of the phase, those of earlier runs included."""
    max_iter: int
    """At most so many of them."""
    relative_error: float | None
    """None before the first iteration, and where it is not finite."""
    passes: float
    """Visits of A, the one that is being made included."""
    planned_passes: float
    seconds: float
    iteration_seconds: float | None
    pass_seconds: float | None
    seconds_left: float | None
    """At most, at this pace."""
    bound: str | None
    """What that follows from, see `pace.Left`."""

    @property
    def silent_s(self) -> float:
        """Seconds since it said so."""
        return time.time() - datetime.fromisoformat(self.updated).timestamp()

    @property
    def status(self) -> Status:
        """Whether the run is still there, as far as can be seen from here."""
        if self.place == _place() and not _exists(self.pid):
            return Status.INTERRUPTED
        return Status.RUNNING if self.silent_s < SILENT_S else Status.SILENT


@contextmanager
def beating(scratch: Folder, began: datetime, recorder: Recorder, plan: Plan, config: NMFConfig) -> Iterator[None]:
    """Keep the object up to date until the end of the block; the scratch folder is the caller's to remove."""
    ended = threading.Event()
    state = (scratch, ended, lambda: state_of(began, recorder, plan, config))
    beats = threading.Thread(target=_beat, args=state, daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()  # so that nothing comes to a scratch folder that was removed


def _beat(scratch: Folder, ended: threading.Event, state: Callable[[], UnderWay]) -> None:
    least_s = EVERY_S if isinstance(scratch, LocalFolder) else REMOTE_EVERY_S
    pause_s = FIRST_S
    while not ended.wait(pause_s):
        before = time.monotonic()
        with suppress(OSError):  # a full disk, a store that does not answer: the run finds out where it matters
            scratch.make()
            scratch.note(FILE, json.dumps(state()._asdict(), allow_nan=False).encode())
        pause_s = min(max(least_s, (time.monotonic() - before) / SHARE), REMOTE_EVERY_S)


def state_of(began: datetime, recorder: Recorder, plan: Plan, config: NMFConfig) -> UnderWay:
    """How far a run is now."""
    record, earlier = list(recorder.iterations), recorder.earlier
    new = record[recorder.n_earlier :]
    phase = recorder.phase if new else STARTING
    done, seconds = len(trailing(record, phase)), recorder.seconds
    passes = max(0.0, plan.passes - (new[-1].passes - earlier.passes if new else 0.0))
    pace = pace_of(new, phase, earlier)
    left = left_of(record, pace, passes, small_iterations(phase, done, config)) if new else Left()
    since_s = seconds - (new[-1] if new else earlier).seconds
    left = within(left, since_s, None if config.max_time is None else config.max_time - seconds)
    error = record[-1].relative_error if record else math.nan
    return UnderWay(
        host=socket.gethostname(),
        place=_place(),
        pid=os.getpid(),
        began=began.isoformat(timespec="seconds"),
        updated=datetime.now(UTC).isoformat(timespec="milliseconds"),
        n_components=config.n_components,
        solver=config.solver,
        phase=phase,
        iteration=done,
        max_iter=most_iterations(phase, done, passes, config),
        relative_error=error if math.isfinite(error) else None,
        passes=float(recorder.passes),
        planned_passes=float(plan.passes),
        seconds=seconds - earlier.seconds,
        iteration_seconds=pace.iteration_s,
        pass_seconds=pace.pass_s,
        seconds_left=left.seconds,
        bound=left.bound,
    )


def under_way(path: Folder) -> dict[str, UnderWay]:
    """What runs of a store last said, by name of the factorization; those that came to a result are over."""
    below = path / "nmf"
    found = {name: _newest(below / name) for name in below.entries() if NAME.fullmatch(name)}
    return {name: state for name, state in found.items() if state and not _has_ended(path, name, state)}


def replaced(path: Folder, name: str, state: UnderWay) -> Factors | None:
    """Return the stored result that a run is to replace, where it compares: it is of the same rank and solver."""
    stored = current(path, name)
    about = {} if stored is None else stored.attributes["parameters"]
    same = (about.get("n_components"), about.get("solver")) == (state.n_components, state.solver)
    return stored if same else None


def pace_in(stored: Factors, phase: str) -> Pace:
    """Pace of a stored result in a phase."""
    record = stored.iterations
    last = max((k for k, iteration in enumerate(record, 1) if iteration.phase == phase), default=0)
    return pace_of(record[:last], phase, recent=None)


def _newest(group: Folder) -> UnderWay | None:
    said = [_read(group / entry) for entry in group.entries() if entry.startswith(SCRATCH)]
    return max((state for state in said if state), key=lambda state: state.updated, default=None)


def _read(scratch: Folder) -> UnderWay | None:
    """What a run said; None where that is not all there, or is not what a run says: stores come from anywhere."""
    try:
        state = UnderWay(**json.loads(scratch.read(FILE) or b"", parse_constant=_refuse))
        moments = [datetime.fromisoformat(state.began), datetime.fromisoformat(state.updated)]
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = get_type_hints(UnderWay)
    meant = all(isinstance(value, kinds[key]) for key, value in state._asdict().items())
    printable = all(value.isprintable() for value in state if isinstance(value, str))
    return state if meant and printable and all(moment.tzinfo for moment in moments) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _has_ended(path: Folder, name: str, state: UnderWay) -> bool:
    """Whether the run has published its result, and was killed before it took its object away."""
    stored = current(path, name)
    ours = stored is not None and stored.attributes.get("began") == state.began
    return ours and state.status is not Status.RUNNING


def _place() -> str:
    """What process numbers are counted in: this start of this machine, or a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _exists(pid: int) -> bool:
    """Whether there is a process of that number; a signal of 0 is none."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
