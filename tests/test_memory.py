"""What a run holds is what its plan said: measured as the peak resident size of the process."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.folders import LocalFolder
from pipeline import engine, plan
from pipeline.config import NMFConfig
from pipeline.plan import RefusedPlan, make_plan
from tests.conftest import SOAK

MEBI = 2**20
MEASURE = r"""
import json, re, sys
from pipeline import factorize
factorize(sys.argv[1], int(sys.argv[2]), solver=sys.argv[4], init="random", max_iter=2, tol=0, fresh=True,
          memory_nbytes=int(sys.argv[3]), **json.loads(sys.argv[5]))
print(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """6000 × 30,000 uint8, 172 MiB in 30 chunks of 1,024 columns."""
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    write_matrix(path, np.random.default_rng(0).integers(0, 256, (6000, 30_000), dtype=np.uint8))
    return path


def run(path, d, memory_nbytes, solver="mu", settings=None, **limits):
    """As a user's shell starts it: a cluster of an earlier test leaves settings of its workers in the environment."""
    its_workers = ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in its_workers}
    return subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(d), str(memory_nbytes), solver, json.dumps(settings or {})],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        **limits,
    )


SHAPES = [(60, 350, "hals"), (150, 600, "mu")]
SIZES = ((60, 350), (60, 400), (60, 2000), (150, 600))
ALL_SHAPES = [(d, mib, solver) for d, mib in SIZES for solver in ("mu", "hals")]


@pytest.mark.parametrize(("d", "memory_mib", "solver"), ALL_SHAPES if SOAK else SHAPES)
def test_measured_is_at_most_planned_and_planned_at_most_1_5_of_measured(large, d, memory_mib, solver):
    planned = make_plan(store.open_matrix(large), NMFConfig(n_components=d), memory_mib * MEBI).worker_nbytes
    shown = run(large, d, memory_mib * MEBI, solver)
    measured = int(shown.stdout)
    assert planned <= memory_mib * MEBI
    assert measured <= planned <= 1.5 * measured


SKETCH = """
import sys
from pipeline import factorize
about = factorize(sys.argv[1], int(sys.argv[2]), max_iter=3, tol=0, polish=1, memory_nbytes=int(sys.argv[3]),
                  fresh=True).factors.attributes
print(about["sketch"]["whole"], about["outcome"]["driver_nbytes"], about["plan"]["worker_nbytes"])
"""


@pytest.mark.parametrize(("d", "memory_mib", "whole"), [(60, 350, False), (150, 600, True)][: 2 if SOAK else 1])
def test_a_sketch_of_a_sample_or_of_all_stays_within_its_plan(large, d, memory_mib, whole):
    """Of 30,000 columns, 200 a component are fewer at d = 60; at d = 150 the sample is of too few and all are taken."""
    command = [sys.executable, "-c", SKETCH, str(large), str(d), str(memory_mib * MEBI)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.split()
    measured, planned = map(int, shown[1:])
    assert shown[0] == str(whole)
    assert measured <= planned <= memory_mib * MEBI


def test_a_store_larger_than_the_address_space_allowed_is_factorized(large):
    """The process may map 1,500 MiB in all, of which libraries take most; all of A and its float32 would be 860."""

    def confine():
        resource.setrlimit(resource.RLIMIT_AS, (1500 * MEBI, 1500 * MEBI))

    shown = run(large, 20, 280 * MEBI, preexec_fn=confine)
    assert shown.returncode == 0, shown.stderr


def test_what_cannot_fit_is_refused_with_what_would(large):
    with pytest.raises(RefusedPlan, match=r"needs \d+ MiB .* but may use 100 MiB; give --memory (\d+)MiB") as refused:
        make_plan(store.open_matrix(large), NMFConfig(n_components=60), 100 * MEBI)
    enough = int(str(refused.value).split("--memory ")[1].split("MiB")[0])
    assert make_plan(store.open_matrix(large), NMFConfig(n_components=60), enough * MEBI).n_cached == 0


def test_what_does_not_fit_the_disk_is_refused_with_the_numbers(planted, monkeypatch):
    monkeypatch.setattr(LocalFolder, "free_nbytes", lambda self: 5000)
    with pytest.raises(RefusedPlan, match=r"need 5,440 bytes on the disk of .* but 5,000 are free; make room"):
        make_plan(store.open_matrix(planted), NMFConfig(n_components=4))


@pytest.mark.parametrize("times", [1, 4, 16])
def test_a_streamed_plan_grows_with_n_by_h_alone(large, times):
    matrix = store.open_matrix(large)
    grown = type(matrix)(**{**vars(matrix), "shape": (6000, times * 30_000)})
    one, many = (make_plan(m, NMFConfig(n_components=60), 2**40).worker_nbytes - m.nbytes for m in (matrix, grown))
    assert many - one == 2 * 4 * 60 * (times - 1) * 30_000


@pytest.mark.parametrize("times", [16, 64, 256])
def test_a_plan_within_a_budget_does_not_grow_with_n(large, times):
    """H goes to the store once it would take more than a quarter of the memory."""
    matrix = store.open_matrix(large)
    grown = [
        type(matrix)(**{**vars(matrix), "shape": (6000, k * 30_000), "n_nonzero": k * matrix.n_nonzero})
        for k in (8, times)
    ]
    eight, many = (make_plan(m, NMFConfig(n_components=60), 600 * MEBI) for m in grown)
    assert many.stores_H
    assert many.worker_nbytes <= 600 * MEBI
    assert abs(many.driver_nbytes - eight.driver_nbytes) <= 140 * MEBI  # a partition more or less is cached


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/\n", "memory.max"),
        ("0::/job/step\n", "job/memory.max"),
        ("4:cpu:/other\n9:memory:/job\n", "memory/job/memory.limit_in_bytes"),
    ],
    ids=["container", "above its own group", "first version"],
)
def test_the_memory_of_a_control_group_is_respected(tmp_path, monkeypatch, membership, file):
    (tmp_path / "membership").write_text(membership)
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "job" / "step" / "memory.max").write_text("max\n")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(f"{300 * MEBI}\n")
    monkeypatch.setattr(engine, "CGROUPS", tmp_path)
    monkeypatch.setattr(engine, "MEMBERSHIP", tmp_path / "membership")
    assert engine.available_nbytes() == 300 * MEBI


def test_the_plan_command_says_what_run_records(large):
    main = "from pipeline.commands import main; main()"
    command = [
        sys.executable,
        "-c",
        main,
        "plan",
        "--zarr",
        str(large),
        "-d",
        "60",
        "--memory",
        "300MiB",
        "--fresh",
        "--json",
        *("--solver", "mu", "--max-iter", "200"),
    ]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    planned = make_plan(store.open_matrix(large), NMFConfig(n_components=60), 300 * MEBI)
    assert (said["worker_nbytes"], said["cached_share"]) == (planned.worker_nbytes, planned.cached_share)
    assert 0 < said["cached_share"] < 1
    assert (said["passes"], said["seconds"]) == (200, pytest.approx(200 * said["pass_seconds"]))
    assert said["pass_seconds"] == max(said["pass_arithmetic_s"], said["pass_reading_s"]) > 0
    assert said["partitions"] == len(plan.partitions(store.open_matrix(large)))
