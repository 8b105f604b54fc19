"""Where tasks run that are not passes over A: processes of this machine, or a cluster."""

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context, parent_process

from dask.system import CPU_COUNT

from pipeline.commands import options

FEW = 256


@contextmanager
def executor_at(place: options.Place, n_images: int | None = None) -> Iterator[Executor]:
    """Yield what runs tasks at a place; where there are few images, starting processes would take longer than they."""
    with options.connected(place) as client:
        if client is None and n_images is not None and n_images <= FEW:
            with ThreadPoolExecutor(1) as thread:
                yield thread
        elif client is None:
            # Processes: Pillow's decoders run side by side in threads too, but what surrounds them does not.
            # Not forked: children would share the offset of an archive that is open here.
            with ProcessPoolExecutor(CPU_COUNT, get_context("spawn"), _begin_process) as processes:
                for _ in range(CPU_COUNT):
                    processes.submit(import_module, "data_prep.columns")  # they start while the sources are listed
                yield processes
        else:
            yield client.get_executor(pure=False)


def _begin_process() -> None:
    """Prepare a process: it ends with its parent, however that ends, and keeps Pillow's warnings to itself."""
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    warnings.filterwarnings("ignore", module="PIL")
