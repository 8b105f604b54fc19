"""Where the work runs: a context that yields a Dask client, or none for threads of this process.

It knows nothing of matrices. Everything it starts itself is reachable from this machine alone.
"""

import asyncio
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

LOOPBACK = "127.0.0.1"
TIMEOUT_S = 10.0
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": 32 * 2**20, "MALLOC_TRIM_THRESHOLD_": 64 * 2**20}
"""Where glibc's thresholds end up by themselves in a process that frees large arrays. Dask's workers get 64 KiB for the
second, which also freezes the first at 128 KiB: every array then has new pages, and a pass took a tenth longer."""
COMPARED = ("nmf-batch", "numpy", "dask", "distributed", "zarr")
SILENCE_S = 60.0
"""How long a worker process of this machine may say nothing before it is ended and started again.

Dask's own limit is 5 minutes, looked at every 5 minutes: a frozen worker held a run up for ten. A busy worker
says something twice a second all the same, from another thread than its tasks', so that a minute is no risk to it.
"""

DEAF = """
import signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
"""
"""What worker processes of this machine load: Ctrl-C, and signals of batch systems, reach the whole process group, but
are this process's to answer. It needs its workers to end the iteration, and they end with it."""

KEPT = "1000 days"
"""When a lost worker process of this machine is given up: never, since its nanny starts another.

Dask looks 15 s after a loss; where the worker is just not there (lost again, or slow to start) it ends the nanny too.
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
    performance_report: Path | None = None,
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
    performance_report
        HTML file for Dask's account of what the workers did.
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
    asked = [option for option in (scheduler, cluster, workers) if option is not None]
    if scheduler is not None and len(asked) > 1:
        raise ValueError("a scheduler is joined as it is; give one of --scheduler, --cluster and --workers")
    if cluster_settings is not None and cluster is None:
        raise ValueError("settings of a cluster are given, but no class; give --cluster CLASS with --cluster-config")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, but must be 1 or more; leave it out to use threads")
    if performance_report is not None and not asked:
        raise ValueError("a report is about Dask's workers; give --workers, --scheduler or --cluster with it")
    with ExitStack() as stack:
        client: Client | None = None
        if asked:
            settings = dict(cluster_settings or {})
            client = stack.enter_context(_client(stack, workers, scheduler, cluster, settings, timeout_s))
        if performance_report is not None:
            stack.enter_context(_reported(performance_report))
        yield client


def _client(
    stack: ExitStack,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    settings: dict[str, Any],
    timeout_s: float,
) -> "Client":
    import dask.config
    import distributed  # noqa: F401  # its settings are dask's once it is imported

    if scheduler is not None:
        return _join(scheduler, timeout_s)
    if cluster is not None:
        return _start(stack, cluster, settings, workers)
    local = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "host": LOOPBACK,
        "dashboard_address": f"{LOOPBACK}:0",
        "scheduler_kwargs": {"worker_ttl": SILENCE_S},
        "preload": [DEAF],
    }
    environment = {**dask.config.get("distributed.nanny.pre-spawn-environ"), **ALLOCATION}
    stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": KEPT}))
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return _start(stack, "distributed.LocalCluster", local, None)


def _reported(file: Path) -> AbstractContextManager[Any]:
    """Write Dask's report to a file at the end; what it draws with is found out now and not then."""
    from distributed import performance_report

    if find_spec("bokeh") is None:
        raise ValueError("Dask draws its report with bokeh, which is not installed; install nmf-batch[dashboard]")
    return performance_report(str(file))


def version_mismatches(client: "Client") -> list[str]:
    """Say where a worker has other packages than this process: results may then differ in their last bits."""
    here = _versions()
    found = []
    for address, there in client.run(_versions, on_error="return").items():
        if isinstance(there, Exception):
            found.append(f"worker {address} cannot import nmf-batch ({there}); install it there")
            continue
        different = [f"{name} {there.get(name)}" for name, version in here.items() if there.get(name) != version]
        if different:
            ours = ", ".join(f"{name} {here[name]}" for name in (text.split()[0] for text in different))
            found.append(f"worker {address} has {', '.join(different)}, but here are {ours}; install the same")
    return found


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in COMPARED}}


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
    client = Client(cluster)
    if workers is not None or getattr(cluster, "plan", None):  # some are on their way, from a queue perhaps
        client.wait_for_workers(1)
    return client


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
