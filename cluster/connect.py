"""Where the work runs: a context that yields a Dask client, or none for threads of this process.

It knows nothing of matrices. Everything it starts itself is reachable from this machine alone.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

LOOPBACK = "127.0.0.1"
TIMEOUT_S = 10.0
SILENCE_S = 60.0
"""How long a worker process of this machine may say nothing before it is ended and started again.

Dask's own limit is 5 minutes, looked at every 5 minutes: a frozen worker held a run up for ten. A busy worker
says something twice a second all the same, from another thread than its tasks', so that a minute is no risk to it.
"""


class SchedulerUnreachable(ConnectionError):
    """No scheduler or no worker answers: the command ends with exit code 75, and can be run again."""


@contextmanager
def connect(
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    cluster_settings: Mapping[str, Any] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Iterator["Client | None"]:
    """Connect to a Dask scheduler, which is then the active one.

    Parameters
    ----------
    workers
        Start so many processes on this machine, with one thread and one BLAS thread each; with a cluster, so many of
        its workers.
    scheduler
        Join the scheduler at this address, `tcp://host:8786`, or the one that wrote this file, `file:scheduler.json`.
    cluster
        Start a cluster of this class, `dask_jobqueue.SLURMCluster`, and close it afterwards.
    cluster_settings
        What the class is given.
    timeout_s
        How long a scheduler, and then its first worker, may take to answer. A cluster's may take as long as they want.

    Yields
    ------
    Client or None
        None where nothing is asked for.

    Raises
    ------
    ValueError
        What is asked for does not go together, or there is no such class.
    SchedulerUnreachable
        The scheduler does not answer in time.
    """
    if scheduler is not None and (workers is not None or cluster is not None):
        raise ValueError("a scheduler is joined as it is; give one of --scheduler, --cluster and --workers")
    if cluster_settings is not None and cluster is None:
        raise ValueError("settings of a cluster are given, but no class; give --cluster CLASS with --cluster-config")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, but must be 1 or more; leave it out to use threads")
    with ExitStack() as stack:
        if scheduler is not None:
            yield stack.enter_context(_join(scheduler, timeout_s))
        elif cluster is not None:
            yield stack.enter_context(_start(stack, cluster, dict(cluster_settings or {}), workers))
        elif workers is not None:
            local = {"n_workers": workers, "threads_per_worker": 1, "host": LOOPBACK}
            scheduler_settings = {"worker_ttl": SILENCE_S}
            settings = {**local, "dashboard_address": f"{LOOPBACK}:0", "scheduler_kwargs": scheduler_settings}
            yield stack.enter_context(_start(stack, "distributed.LocalCluster", settings, None))
        else:
            yield None


def _start(stack: ExitStack, name: str, settings: dict[str, Any], workers: int | None) -> "Client":
    """Start a cluster, which the stack closes, and scale it where a number of workers is asked for."""
    from distributed import Client  # here: half of the start-up time of a command that needs none

    module, _, kind = name.rpartition(".")
    try:
        cluster_class = getattr(import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"there is no cluster class {name} ({error}); install its package, or mend the name"
        ) from error
    cluster = stack.enter_context(cluster_class(**settings))
    if workers is not None:
        cluster.scale(workers)
    return Client(cluster)


def _join(scheduler: str, timeout_s: float) -> "Client":
    from distributed import Client

    try:
        if scheduler.startswith("file:"):
            client = Client(scheduler_file=str(_existing(scheduler)), timeout=timeout_s)
        else:
            asyncio.run(asyncio.wait_for(_greet(scheduler), timeout_s))
            client = Client(scheduler, timeout=timeout_s)
        client.wait_for_workers(1, timeout=timeout_s)
    except (OSError, TimeoutError) as error:
        raise SchedulerUnreachable(
            f"no scheduler answered at {scheduler} with a worker within {timeout_s:g} s; "
            f"start both, or leave --scheduler out"
        ) from error
    return client


def _existing(scheduler: str) -> Path:
    path = Path(scheduler.removeprefix("file:"))
    if not path.exists():
        raise SchedulerUnreachable(f"{path} does not exist; start the scheduler with --scheduler-file {path}")
    return path


async def _greet(address: str) -> None:
    """Ask who is there; a server of another kind may keep a client waiting for ever, so it is asked apart."""
    from distributed import rpc

    async with rpc(address) as remote:
        await remote.identity()
