"""Several hosts, of which one is cut off: network namespaces on a bridge stand for them, with one file system.

hub: scheduler and driver ── bridge ─┬─ a: worker
                                     └─ b: worker, whose link goes down
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pipeline import factorize
from tests.test_factorize import bits

ADDRESSES = {"hub": "10.0.0.1", "a": "10.0.0.2", "b": "10.0.0.3"}
SCHEDULER = f"tcp://{ADDRESSES['hub']}:8786"
SOON = {  # the shortest that Dask allows, so that the test is short
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


class Hosts:
    """Namespaces, and the processes in them; all are gone when the stack is left."""

    def __init__(self, stack: ExitStack, logs: Path) -> None:
        self._stack, self._logs = stack, logs
        for name in ADDRESSES:
            ip("netns", "add", self.named(name))
            stack.callback(ip, "netns", "del", self.named(name))
            ip("-n", self.named(name), "link", "set", "lo", "up")
        hub = self.named("hub")
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        self._join(hub, "bridge", "hub")
        for name in ("a", "b"):
            ip(
                "link",
                "add",
                f"to-{name}",
                "netns",
                hub,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                self.named(name),
            )
            ip("-n", hub, "link", "set", f"to-{name}", "master", "bridge", "up")
            self._join(self.named(name), "eth0", name)

    @staticmethod
    def named(name: str) -> str:
        return f"nmf-{os.getpid()}-{name}"

    @staticmethod
    def _join(namespace: str, device: str, name: str) -> None:
        ip("-n", namespace, "addr", "add", f"{ADDRESSES[name]}/24", "dev", device)
        ip("-n", namespace, "link", "set", device, "up")

    def start(self, name: str, *python: object) -> "subprocess.Popen[str]":
        """Run Python on a host; what it says on stderr is in a file."""
        command = ["ip", "netns", "exec", self.named(name), sys.executable, *map(str, python)]
        with (self._logs / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | SOON, start_new_session=True
            )
        self._stack.callback(end, process)
        return process

    def cut(self, name: str) -> None:
        """Take the link of a host down, at the end that the host does not see."""
        ip("-n", self.named("hub"), "link", "set", f"to-{name}", "down")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def end(process: "subprocess.Popen[str]") -> None:
    """End a process and its children, whom it started in its own session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def hosts(tmp_path):
    with ExitStack() as stack:
        try:
            made = Hosts(stack, tmp_path)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        made.start("hub", "-m", "dask", "scheduler", "--host", ADDRESSES["hub"], "--no-dashboard")
        for name in ("a", "b"):
            made.start(name, "-m", "dask", "worker", SCHEDULER, "--name", name, "--nthreads", 1, "--no-dashboard")
        yield made


def test_a_host_that_is_cut_off_changes_no_bit(planted, hosts, tmp_path):
    factorize(planted, 4, solver="hals", max_iter=12, tol=0)
    expected = bits(planted)
    main = "from pipeline.commands import main; main()"
    run = ["run", "--zarr", planted, "-d", 4, "--solver", "hals", "--max-iter", 12, "--tol", 0, "--fresh", "--json"]
    driver = hosts.start("hub", "-c", main, *run, "--scheduler", SCHEDULER)
    while json.loads(driver.stdout.readline())["iteration"] < 3:
        pass
    hosts.cut("b")
    driver.communicate(timeout=60)
    assert (driver.returncode, bits(planted)) == (0, expected)
    assert f"Remove worker addr: tcp://{ADDRESSES['b']}" in (tmp_path / "hub.log").read_text()
