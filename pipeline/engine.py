"""Where graphs run: on the Dask scheduler that is active, or on threads of this process when none is.

Graphs are plain dictionaries. Their keys are made unique for a cluster, which identifies results by key.
"""

import ctypes
import os
import resource
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import dask
import dask.threaded
from dask.base import get_scheduler
from dask.system import CPU_COUNT

MEMORY_SHARE = 0.6
"""Of a process's memory: at 0.6 Dask's workers begin to spill to disk."""
CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
PATIENCE_S = 60.0
"""How long a cluster may be without any worker."""
SCHEDULER_GONE = "the scheduler is gone; start it and run the same command again"

M_MMAP_THRESHOLD, LARGE_NBYTES = -3, 4 * 2**20
"""From 4 MiB on NumPy asks for pages so large that new ones cost little."""
NOTHING_SIDE_BY_SIDE = 4
"""Tasks of the graph of a pass over one partition: none of them that takes time can run beside another."""


class Place(NamedTuple):
    """Where graphs run."""

    workers: int
    threads: int
    """Of each worker: tasks that it runs at once."""
    memory_nbytes: int
    """What a worker may use for everything, unless told otherwise: a share of what it has."""
    in_process: bool


class NoWorkersError(ConnectionError):
    """The workers or the scheduler are gone: the command ends with exit code 75, and can be run again."""


def run(graph: Mapping[str, Any], *, keep: Sequence[str], bring: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Compute a graph.

    Parameters
    ----------
    graph
        Key → (function, argument, …), where an argument that is a key stands for its result.
    keep
        Keys whose results stay where they are computed: futures on a cluster, values in this process.
        They can be arguments in later graphs.
    bring
        Keys whose results come back.

    Returns
    -------
    list, list
        What `keep` names and the values of `bring`, in order.

    Raises
    ------
    NoWorkersError
        The cluster had no worker for a minute, or is gone.
    """
    get = _active()
    client = _client(get)
    if client is None:
        get = get or (in_order if len(graph) <= NOTHING_SIDE_BY_SIDE else dask.threaded.get)
        results = get(graph, [*keep, *bring])
        return list(results[: len(keep)]), list(results[len(keep) :])
    run_id = uuid.uuid4().hex
    unique = {key: f"{key}-{run_id}" for key in graph}
    renamed = {unique[key]: _rename(task, unique) for key, task in graph.items()}
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):  # W goes out with every pass
        futures = client.get(renamed, [unique[key] for key in (*keep, *bring)], sync=False)
    return futures[: len(keep)], _gather(client, futures[len(keep) :])


def _gather(client: Any, futures: list[Any]) -> list[Any]:
    """Bring results, unless there is nobody left to compute them."""
    from distributed import wait
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    alone_since: float | None = None
    while True:
        try:
            wait(futures, timeout=PATIENCE_S / 12)
            return list(client.gather(futures))
        except TimeoutError as error:
            if client.status != "running":  # futures of before are lost, later ones wait for ever
                raise NoWorkersError(SCHEDULER_GONE) from error
            workers = _workers(client)
            alone_since = None if workers else alone_since or time.monotonic()
        except KilledWorker as error:
            raise NoWorkersError(f"workers die at the same task ({error}); give them more memory") from error
        except (CancelledError, CommClosedError) as error:  # Dask has two of the first, for one future and for many
            raise NoWorkersError(SCHEDULER_GONE) from error
        if alone_since is not None and time.monotonic() - alone_since > PATIENCE_S:
            raise NoWorkersError(
                f"there was no worker for {PATIENCE_S:.0f} s; start some and run the same command again"
            )


def in_order(graph: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    """Run tasks in the order in which the graph names them, here and now: a scheduler for what has one partition."""
    results: dict[str, Any] = {}
    for key, task in graph.items():
        results[key] = _call(task, results)
    return [results[key] for key in keys]


def keep_each(function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function once for each tuple of arguments; the results stay where they are computed.

    Where that is, Dask decides. Even a wish for a worker, with others allowed, is fatal: a task that was wished to one
    that died while no other was there is never run again.
    """
    kept, _ = run(_calls(function, arguments) | {"done": (bool, True)}, keep=_names(arguments), bring=["done"])
    return kept


def call_each(function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function once for each tuple of arguments, and return the results in order."""
    _, results = run(_calls(function, arguments), keep=[], bring=_names(arguments))
    return results


def _names(arguments: Sequence[tuple[Any, ...]]) -> list[str]:
    return [f"call-{k}" for k in range(len(arguments))]


def _calls(function: Any, arguments: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return {name: (function, *given) for name, given in zip(_names(arguments), arguments, strict=True)}


def place() -> Place:
    """Where graphs run now."""
    client = _client(_active())
    if client is None:
        share = int(MEMORY_SHARE * available_nbytes())
        return Place(workers=1, threads=CPU_COUNT, memory_nbytes=share, in_process=True)
    workers = _workers(client).values()
    if not workers:
        raise NoWorkersError("the scheduler has no workers; start some and run the same command again")
    return Place(
        workers=len(workers),
        threads=max(worker["nthreads"] for worker in workers),
        memory_nbytes=int(MEMORY_SHARE * min(worker["memory_limit"] or available_nbytes() for worker in workers)),
        in_process=False,
    )


def _workers(client: Any) -> Mapping[str, Any]:
    """Workers by address; an answer of none is asked for again, since a client's own timer may put that in between."""
    for _ in range(3):
        workers: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
        if workers:
            break
    return workers


def on_every_worker(function: Any, *arguments: Any) -> dict[str, Any]:
    """Call a function once in every process that computes; results, or the exceptions they ended with, by address."""
    client = _client(_active())
    if client is None:
        return {"this process": function(*arguments)}
    return dict(client.run(function, *arguments, on_error="return"))


def peak_nbytes() -> int:
    """Peak resident size of this process so far."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # not Linux; there it is in bytes or, where it includes a parent's, too large
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def give_back_large_arrays() -> None:
    """Let the memory of large arrays go back to the system when they are freed.

    The C library would come to keep what was up to 32 MiB large, in each thread: at d = 200 that was a third of the
    peak. Dask has its workers do the same.
    """
    with suppress(AttributeError, OSError):  # it is glibc that has it
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_NBYTES)


def available_nbytes() -> int:
    """Memory of this machine, or of the container or job that this process is confined to."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _cgroup_limits():
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # absent, or "max"
            continue
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def _cgroup_limits() -> Iterator[Path]:
    """Files that may limit the memory of this process: those of its control group, and of all groups that hold it.

    In a container these are those of the root. A line of the membership is `0::/path` in the second version of control
    groups, and `9:memory:/path` in the first.
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):
            if not controllers:
                yield CGROUPS / group / "memory.max"
            elif "memory" in controllers.split(","):
                yield CGROUPS / "memory" / group / "memory.limit_in_bytes"


@contextmanager
def here() -> Iterator[None]:
    """Run graphs in this process until the end of the block, whatever cluster there is."""
    with dask.config.set(scheduler="threads") if _client(_active()) else nullcontext():
        yield


def _active() -> Any:
    """Return the `get` of the active scheduler, or None; asking Dask imports distributed, which takes 0.3 s."""
    nobody = "distributed" not in sys.modules and dask.config.get("scheduler", None) is None
    return None if nobody else get_scheduler()


def _client(get: Any) -> Any:
    """Return the distributed Client that a `get` is bound to, which can keep results remote, or None."""
    return getattr(get, "__self__", None)


def _call(task: Any, results: Mapping[str, Any]) -> Any:
    """Evaluate a task: a call, a list, a key, or a value that stands for itself."""
    if isinstance(task, tuple) and task and callable(task[0]):
        return task[0](*(_call(argument, results) for argument in task[1:]))
    if isinstance(task, list):
        return [_call(item, results) for item in task]
    return results.get(task, task) if isinstance(task, str) else task


def _rename(task: Any, unique: Mapping[str, str]) -> Any:
    """Replace keys by their unique forms in a task: in the tuple, and one list deep."""
    if isinstance(task, str):
        return unique.get(task, task)
    if isinstance(task, tuple) and task and callable(task[0]):
        return (task[0], *(_rename(argument, unique) for argument in task[1:]))
    if isinstance(task, list) and task and all(isinstance(item, str) for item in task):
        return [unique.get(item, item) for item in task]
    return task
