"""Where graphs run: on the Dask scheduler that is active, or on threads of this process when none is.

Graphs are plain dictionaries. Their keys are made unique here, since a cluster identifies results by key.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import dask.threaded
from dask.base import get_scheduler


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
    run_id = uuid.uuid4().hex
    unique = {key: f"{key}-{run_id}" for key in graph}
    renamed = {unique[key]: _rename(task, unique) for key, task in graph.items()}
    targets = [unique[key] for key in (*keep, bring)]
    get = get_scheduler() or dask.threaded.get
    client = getattr(get, "__self__", None)  # a distributed Client's `get` is bound to it; it can keep results remote
    if client is None:
        *kept, brought = get(renamed, targets)
    else:
        *kept, last = client.get(renamed, targets, sync=False)
        brought = last.result()
    return kept, brought


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
    client = getattr(get_scheduler(), "__self__", None)
    if client is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sum(worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())


def _rename(task: Any, unique: Mapping[str, str]) -> Any:
    """Replace keys by their unique forms in a task: in the tuple, and one list deep."""
    if isinstance(task, str):
        return unique.get(task, task)
    if isinstance(task, tuple) and task and callable(task[0]):
        return (task[0], *(_rename(argument, unique) for argument in task[1:]))
    if isinstance(task, list) and task and all(isinstance(item, str) for item in task):
        return [unique.get(item, item) for item in task]
    return task
