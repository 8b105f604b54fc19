"""Where the work runs: a context that yields a Dask client, or none for threads of this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

LOOPBACK = "127.0.0.1"
TIMEOUT_S = 10.0


class SchedulerUnreachable(ConnectionError):
    """No scheduler answers: the command ends with exit code 75, and can be run again."""


@contextmanager
def connect(
    *, workers: int | None = None, scheduler: str | None = None, timeout_s: float = TIMEOUT_S
) -> "Iterator[Client | None]":
    """Connect to a Dask scheduler, which is then the active one.

    Parameters
    ----------
    workers
        Start so many processes on this machine, with one thread and one BLAS thread each, reachable from it alone.
    scheduler
        Join the scheduler at this address, `tcp://host:8786`.
    timeout_s
        How long it may take to answer.

    Yields
    ------
    Client or None
        None where neither is given.

    Raises
    ------
    ValueError
        Both are given, or fewer than one worker.
    SchedulerUnreachable
        The scheduler does not answer in time.
    """
    if workers is not None and scheduler is not None:
        raise ValueError("both workers and a scheduler are given; give one of --workers and --scheduler")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, but must be 1 or more; leave it out to use threads")
    if scheduler is not None:
        with _join(scheduler, timeout_s) as client:
            _wait_for_a_worker(client, timeout_s)
            yield client
    elif workers is not None:
        from distributed import Client, LocalCluster  # here: half of the start-up time of a command that needs neither

        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, host=LOOPBACK, dashboard_address=f"{LOOPBACK}:0"
            ) as local,
            Client(local) as client,
        ):
            yield client
    else:
        yield None


def _wait_for_a_worker(client: "Client", timeout_s: float) -> None:
    try:
        client.wait_for_workers(1, timeout=timeout_s)
    except TimeoutError as error:
        raise SchedulerUnreachable(
            f"the scheduler {client} has had no worker for {timeout_s:g} s; start some"
        ) from error


def _join(scheduler: str, timeout_s: float) -> "Client":
    from distributed import Client

    try:
        return Client(scheduler, timeout=timeout_s)
    except (OSError, TimeoutError) as error:
        raise SchedulerUnreachable(
            f"no scheduler answered at {scheduler} within {timeout_s:g} s; start it, or leave --scheduler out"
        ) from error
