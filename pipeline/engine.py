"""Where graphs run: on the Dask scheduler that is active, or on threads of this process when none is.

Graphs are plain dictionaries. Their keys are made unique for a cluster, which identifies results by key.
"""

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import dask
import dask.threaded
from dask.base import get_scheduler

NOTHING_SIDE_BY_SIDE = 5
"""Tasks of the graph of a pass over one partition: none of them that takes time can run beside another."""


def run(graph: Mapping[str, Any], *, keep: Sequence[str], bring: str) -> tuple[list[Any], Any]:
    """Compute a graph.

    Parameters
    ----------
    graph
        Key → (function, argument, …), where an argument that is a key stands for its result.
    keep
        Keys whose results stay where they are computed: futures on a cluster, values in this process.
        They can be arguments in later graphs.
    bring
        The key whose result comes back.

    Returns
    -------
    list, Any
        What `keep` names, in order, and the value of `bring`.
    """
    get = _active()
    client = _client(get)
    if client is None:
        get = get or (in_order if len(graph) <= NOTHING_SIDE_BY_SIDE else dask.threaded.get)
        *kept, brought = get(graph, [*keep, bring])
    else:
        run_id = uuid.uuid4().hex
        unique = {key: f"{key}-{run_id}" for key in graph}
        renamed = {unique[key]: _rename(task, unique) for key, task in graph.items()}
        *kept, last = client.get(renamed, [unique[key] for key in (*keep, bring)], sync=False)
        brought = last.result()
    return kept, brought


def in_order(graph: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    """Run tasks in the order in which the graph names them, here and now: a scheduler for what has one partition."""
    results: dict[str, Any] = {}
    for key, task in graph.items():
        results[key] = _call(task, results)
    return [results[key] for key in keys]


def keep_each(function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function once for each tuple of arguments; the results stay where they are computed."""
    graph: dict[str, Any] = {f"call-{k}": (function, *given) for k, given in enumerate(arguments)}
    kept, _ = run({**graph, "done": (bool, True)}, keep=list(graph), bring="done")
    return kept


def call_each(function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function once for each tuple of arguments, and return the results in order."""
    graph: dict[str, Any] = {f"call-{k}": (function, *given) for k, given in enumerate(arguments)}
    _, results = run({**graph, "all": (list, list(graph))}, keep=[], bring="all")
    return list(results)


def memory_nbytes() -> int:
    """Memory where graphs run: of the workers together, or of this machine."""
    client = _client(_active())
    if client is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sum(worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())


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
