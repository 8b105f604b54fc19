"""Damaged images of ten formats cost themselves: no crash, no hang, bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import SOAK


def test_mutated_images_are_read_or_refused_in_bounded_time_and_memory():
    command = [sys.executable, "-m", "tests.fuzz", "60000" if SOAK else "3000", "20261122"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["readable"] > 10
    assert found["slowest_s"] < 12  # the limit is 10
    assert found["grown"] < 1.5 * 2**30  # 80 million pixels of 4 bytes, thrice
