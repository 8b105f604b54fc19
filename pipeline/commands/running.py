"""What `info` says of runs that are under way, or were interrupted."""

from collections.abc import Mapping
from typing import Any

from data_prep.folders import Folder
from pipeline.commands import options
from pipeline.factors import Factors
from pipeline.pace import Pace
from pipeline.under_way import STARTING, Status, UnderWay, pace_in, replaced


def summary(path: Folder, runs: Mapping[str, UnderWay]) -> dict[str, dict[str, Any]]:
    """What is known of runs, by status and name: those that are under way, and the others."""
    told: dict[str, dict[str, Any]] = {"running": {}, "interrupted": {}}
    for name, state in runs.items():
        status, stored = state.status, replaced(path, name, state)
        pace = Pace() if stored is None else pace_in(stored, state.phase)
        told["running" if status is Status.RUNNING else "interrupted"][name] = {
            **{key: value for key, value in state._asdict().items() if key != "place"},
            "status": str(status),
            "stored_seconds": None if stored is None else stored.attributes["seconds"],
            "stored_iteration_seconds": pace.iteration_s,
            "stored_pass_seconds": pace.pass_s,
        }
    return told


def text(path: Folder, name: str, state: UnderWay) -> str:
    """Say how far a run is, or was when it was heard of last."""
    status = state.status
    where = f"on {state.host} (pid {state.pid})"
    if status is Status.RUNNING:
        said = [_where(state), _passes(state), *_speed(state, replaced(path, name, state))]
        return f"  {name}: running on {state.host} since {state.began} (pid {state.pid}): {'; '.join(said)}"
    if status is Status.SILENT:
        heard = f"not heard of for {options.duration(state.silent_s)}, {where}: it was interrupted, or hangs"
        return f"  {name}: {heard}; it was at {_where(state)}, {_passes(state)}"
    return (
        f"  {name}: interrupted {where}, last heard of at {state.updated}, in {_where(state)}, {_passes(state)}; "
        f"the same `nmf-batch run` goes on from what is stored"
    )


def _where(state: UnderWay) -> str:
    at = f", iteration {state.iteration} of at most {state.max_iter}" if state.phase != STARTING else ""
    error = "" if state.relative_error is None else f", relative error {state.relative_error:.4f}"
    return f"{state.phase}{at}{error}"


def _passes(state: UnderWay) -> str:
    made, most = (f"{count:.3g}" if count < 100 else f"{count:.0f}" for count in (state.passes, state.planned_passes))
    return f"pass {made} of at most {most}, {options.duration(state.seconds)} so far"


def _speed(state: UnderWay, stored: Factors | None) -> list[str]:
    """Say what a pass takes, or an iteration where that is none, and what is left at that pace."""
    pace, said = Pace() if stored is None else pace_in(stored, state.phase), []
    if state.pass_seconds is not None:
        said.append(f"{state.pass_seconds:.2g} s a pass{_compared(pace.pass_s)}")
    elif state.iteration_seconds is not None:
        said.append(f"{state.iteration_seconds:.2g} s an iteration{_compared(pace.iteration_s)}")
    if state.seconds_left is not None:
        of_time = " of --max-time" if state.bound == "max_time" else ""
        said.append(f"at most {options.duration(state.seconds_left)} left{of_time}")
    if stored is not None:
        said.append(f"the stored result took {options.duration(stored.attributes['seconds'])}")
    return said


def _compared(stored_s: float | None) -> str:
    return "" if stored_s is None else f" ({stored_s:.2g} for the stored result)"
