"""The real commands, some of them as processes: what they print, and the exit code."""

import contextlib
import http.server
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.connect import connect
from pipeline import open_factors
from tests.commands import MAIN, nmf_batch, process
from tests.conftest import SOAK, save_faces, save_png

COMMANDS = ["prep", "plan", "sweep", "run", "info", "topics", "report", "export", "demo"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Images and their store, made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("prepared")
    save_faces(folder / "images", np.random.default_rng(20261122))
    assert nmf_batch("prep", folder / "images", "--zarr", folder / "faces.zarr").returncode == 0
    return folder / "faces.zarr"


@pytest.fixture
def store(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "faces.zarr")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    shown = nmf_batch(command, "--help")
    assert shown.returncode == 0
    assert f"nmf-batch {command}" in shown.stdout.split("Example:")[1]


def test_help_lists_commands_and_exit_codes():
    shown = process("--help").stdout
    assert all(f"\n  {command} " in shown for command in COMMANDS)
    assert "75  temporary" in shown


def test_the_main_job_end_to_end(store):
    shown = process("run", "--zarr", store, "-d", 5)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.search(r"nmf/d5: \d+ iterations; relative error 0\.\d+ after", shown.stdout)
    assert "projected gradient" in shown.stdout
    again = nmf_batch("run", "--zarr", store, "-d", 5)
    assert (again.returncode, "nothing new" in again.stdout) == (0, True)
    info = nmf_batch("info", "--zarr", store).stdout
    assert "30 images of 6 × 5 L; A is 30 × 30 uint8, 900 B in 1 chunks" in info
    assert "d5: d = 5, ‖A − W H‖²_F by sketch, relative error 0." in info
    assert "1 number for every 3.0 of A" in info


def test_json_is_one_object_a_line_and_the_summary_last(store):
    lines = nmf_batch(
        "run", "--zarr", store, "-d", 3, "--solver", "hals", "--max-iter", 4, "--tol", 0, "--json"
    ).stdout.splitlines()
    *iterations, summary = [json.loads(line) for line in lines]
    assert [line["iteration"] for line in iterations] == [1, 2, 3, 4]
    assert summary["relative_error"] == iterations[-1]["relative_error"]
    assert (summary["stop"], summary["new_iterations"]) == ("MAX_ITER", 4)
    about = json.loads(nmf_batch("info", "--zarr", store, "--json").stdout)
    assert about["matrix"]["shape"] == [30, 30]
    assert about["nmf"]["d3"]["compression_ratio"] == 5


def test_workers_give_what_threads_give_and_are_reported_on(store, tmp_path):
    report = tmp_path / "report.html"
    for name, extra in (("threads", []), ("workers", ["--workers", 2, "--performance-report", report])):
        shown = process("run", "--zarr", store, "-d", 3, "--max-iter", 5, "--name", name, *extra)
        assert shown.returncode == 0, shown.stderr
    threads, workers = (open_factors(store, name) for name in ("threads", "workers"))
    np.testing.assert_array_equal(threads.W.compute(), workers.W.compute())
    np.testing.assert_array_equal(threads.loss, workers.loss)
    assert "<html" in report.read_text()


def test_a_running_scheduler_is_joined(store, faces, tmp_path, scheduler_of):
    address = scheduler_of(2)
    for command in (
        ["prep", faces, "--zarr", tmp_path / "more.zarr", "--scheduler", address],
        ["run", "--zarr", tmp_path / "more.zarr", "-d", 3, "--max-iter", 5, "--scheduler", address],
    ):
        shown = nmf_batch(*command)
        assert shown.returncode == 0, shown.stderr
        assert shown.stderr.startswith("dashboard: http://127.0.0.1:")


def test_a_cluster_of_any_class_is_started_and_closed(store, tmp_path):
    config = tmp_path / "cluster.yaml"
    config.write_text("n_workers: 1\nthreads_per_worker: 1\nhost: 127.0.0.1\ndashboard_address: 127.0.0.1:0\n")
    place = ["--cluster", "distributed.LocalCluster", "--cluster-config", config]
    shown = nmf_batch("run", "--zarr", store, "-d", 3, "--solver", "hals", "--max-iter", 3, *place)
    assert (shown.returncode, "3 iterations" in shown.stdout) == (0, True)


def test_a_scheduler_is_found_by_its_file_and_by_dasks_variable(store, tmp_path, scheduler_of):
    address = scheduler_of(1)
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": address, "type": "Scheduler"}))
    by_file = nmf_batch("run", "--zarr", store, "-d", 3, "--max-iter", 2, "--scheduler", f"file:{file}")
    by_variable = nmf_batch("plan", "--zarr", store, "-d", 3, DASK_SCHEDULER_ADDRESS=address)
    assert (by_file.returncode, by_variable.returncode) == (0, 0)
    assert "dashboard: " in by_file.stderr
    assert "dashboard: " in by_variable.stderr


@pytest.fixture
def impatient(monkeypatch):
    """A scheduler has a second to answer, not ten."""
    monkeypatch.setitem(connect.__wrapped__.__kwdefaults__, "timeout_s", 1.0)


def test_a_server_that_is_no_scheduler_is_exit_75(store, impatient):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shown = nmf_batch("run", "--zarr", store, "-d", 3, "--scheduler", f"tcp://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert (shown.returncode, "no scheduler answered" in shown.stderr) == (75, True)


def test_a_tall_factorization_is_warned_of(store):
    nmf_batch("run", "--zarr", store, "-d", 20, "--max-iter", 1)
    shown = nmf_batch("info", "--zarr", store).stdout
    assert "warning: they are larger than A itself; a d below 15 would compress it" in shown


def test_skipped_images_are_exit_3_and_named(faces, tmp_path):
    (faces / "07.png").write_bytes(b"no image")
    shown = nmf_batch("prep", faces, "--zarr", tmp_path / "s.zarr", "--max-skip", "5%")
    assert (shown.returncode, "unreadable: 07.png: " in shown.stdout) == (3, True)
    assert "30 images of 6 × 5 L, 1 unreadable" in nmf_batch("info", "--zarr", tmp_path / "s.zarr").stdout


def mistakes(faces, store, tmp_path):
    (tmp_path / "empty").mkdir(exist_ok=True)
    (tmp_path / "other").mkdir(exist_ok=True)
    (tmp_path / "other" / "thesis.tex").write_text("")
    config = tmp_path / "c.toml"
    config.write_text("[run]\nmax_itr = 3\n")
    listed = tmp_path / "l.toml"
    listed.write_text("[run]\nmax_iter = [3]\n")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return {
        "missing source": (4, "does not exist", ["prep", tmp_path / "no", "--zarr", tmp_path / "x.zarr"]),
        "empty source": (4, "no images in", ["prep", tmp_path / "empty", "--zarr", tmp_path / "x.zarr"]),
        "no source": (2, "name a folder, an archive", ["prep", "--zarr", tmp_path / "x.zarr"]),
        "not ours to write": (4, "is not an nmf-batch store", ["prep", faces, "--zarr", tmp_path / "other"]),
        "not ours to read": (4, "is not an nmf-batch store", ["run", "--zarr", tmp_path / "other", "-d", 3]),
        "no store": (4, "make one with `nmf-batch prep", ["info", "--zarr", tmp_path / "no.zarr"]),
        "d = 0": (2, "d is 0", ["run", "--zarr", store, "-d", 0]),
        "d too large": (2, "choose -d from 1 to 30", ["run", "--zarr", store, "-d", 31]),
        "unknown solver": (2, "'mystery' is not one of", ["run", "--zarr", store, "-d", 3, "--solver", "mystery"]),
        "scale and size": (2, "one of --scale", ["prep", faces, "--zarr", "x", "--scale", 0.5, "--size", "3x3"]),
        "bad size": (2, "as 48x40", ["prep", faces, "--zarr", "x", "--size", "48"]),
        "bad share": (2, "write 0.1%", ["prep", faces, "--zarr", "x", "--max-skip", "few"]),
        "workers and scheduler": (
            2,
            "give one of --scheduler, --cluster",
            ["run", "--zarr", store, "-d", 3, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1"],
        ),
        "other settings": (5, "mode: None → RGB", ["prep", faces, "--zarr", store, "--mode", "RGB"]),
        "a file as store": (4, "a store is a folder", ["prep", faces, "--zarr", faces / "01.png"]),
        "a name elsewhere": (2, "the name is '..'", ["run", "--zarr", store, "-d", 3, "--name", ".."]),
        "a secret in an address": (2, "taken from the environment", ["info", "--zarr", "s3://me:secret@bucket/x"]),
        "a report of no workers": (2, "give --workers", ["run", "--zarr", store, "-d", 3, "--performance-report", "x"]),
        "bad duration": (2, "write 30s or 5min", ["run", "--zarr", store, "-d", 3, "--grace", "soon"]),
        "no iterations": (2, "write 50it", ["run", "--zarr", store, "-d", 3, "--checkpoint-every", "0it"]),
        "wrong type": (2, "sets 'max_iter' in [run] to a list", ["--config", listed, "run", "--zarr", store, "-d", 3]),
        "unknown cluster": (
            2,
            "no cluster class nowhere.Cluster",
            ["plan", "--zarr", store, "-d", 3, "--cluster", "nowhere.Cluster"],
        ),
        "unknown key": (2, "'max_itr' in [run]", ["--config", config, "run", "--zarr", store, "-d", 3]),
        "no scheduler": (
            75,
            "no scheduler answered",
            ["run", "--zarr", store, "-d", 3, "--scheduler", f"tcp://127.0.0.1:{port}"],
        ),
    }


MISTAKES = (
    *("missing source", "empty source", "no source", "not ours to write", "not ours to read", "no store"),
    *("d = 0", "d too large", "unknown solver", "scale and size", "bad size", "bad share"),
    *("workers and scheduler", "other settings", "no scheduler", "a file as store", "a name elsewhere", "unknown key"),
    *(
        "a secret in an address",
        "a report of no workers",
        "bad duration",
        "no iterations",
        "wrong type",
        "unknown cluster",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_its_exit_code(faces, store, tmp_path, impatient, mistake):
    before = sorted(store.rglob("*"))
    code, words, arguments = mistakes(faces, store, tmp_path)[mistake]
    shown = nmf_batch(*arguments)
    assert (shown.returncode, shown.stdout) == (code, "")
    assert words in shown.stderr.replace("\n", " ")
    assert shown.stderr.count("\n") == 1
    assert sorted(store.rglob("*")) == before


def test_a_reader_that_goes_away_does_not_end_the_run(store):
    arguments = [
        "run",
        "--zarr",
        str(store),
        "-d",
        "3",
        "--solver",
        "hals",
        "--max-iter",
        "300",
        "--tol",
        "0",
        "--json",
    ]
    with subprocess.Popen([sys.executable, "-c", MAIN, *arguments], stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(timeout=60) == 0
    assert len(open_factors(store, "d3").loss) == 300


def test_a_killed_preparation_leaves_no_process(tmp_path, rng):
    save_png(tmp_path / "images" / "a.png", rng.integers(0, 256, (900, 900), dtype=np.uint8))
    for k in range(300):
        shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / f"{k}.png")
    arguments = ["prep", str(tmp_path / "images"), "--zarr", str(tmp_path / "s.zarr")]
    run = subprocess.Popen([sys.executable, "-c", MAIN, *arguments], start_new_session=True)
    time.sleep(2)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 20
    while (left := in_session(run.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def in_session(session):
    """Processes of a session that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            found += [stat.parent.name] if int(its_session) == session and state != "Z" else []
    return found


def test_other_parameters_are_exit_5_with_the_difference(store):
    nmf_batch("run", "--zarr", store, "-d", 3, "--max-iter", 2)
    shown = nmf_batch("run", "--zarr", store, "-d", 3, "--max-iter", 2, "--seed", 7)
    assert (shown.returncode, "seed: 0 → 7" in shown.stderr) == (5, True)


def test_a_damaged_chunk_is_exit_4_with_its_name(store):
    file = store / "A" / "c" / "0" / "0"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    shown = process("run", "--zarr", store, "-d", 3)
    assert (shown.returncode, "A/c/0/0 is damaged" in shown.stderr) == (4, True)


def test_a_flag_comes_before_a_variable_before_the_file_before_the_default(store, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(f"[run]\nzarr = '{store}'\nmax-iter = 3\nseed = 3\nn_components = 3\njson = true\n")
    shown = nmf_batch(
        *("--config", config, "run", "--seed", 5, "--tol", 0),
        NMF_BATCH_SEED="4",
        NMF_BATCH_SOLVER="mu",
    )
    parameters = json.loads(shown.stdout.splitlines()[-1])["parameters"]
    assert [parameters[key] for key in ("seed", "solver", "max_iter", "init")] == [5, "mu", 3, "random"]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store whose passes take some time: 200 images of 200 × 200."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for k in range(200):
        save_png(folder / "images" / f"{k}.png", rng.integers(0, 256, (200, 200), dtype=np.uint8))
    assert nmf_batch("prep", folder / "images", "--zarr", folder / "large.zarr").returncode == 0
    return folder / "large.zarr"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("when_s", [0, 0.03, 0.2] if SOAK else [0.03])
def test_an_interrupted_run_says_so_and_harms_nothing(large, number, code, when_s):
    arguments = ["run", "--zarr", str(large), "-d", "50", "--max-iter", "100000", "--tol", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        run.stdout.readline()  # the first iteration is done
        time.sleep(when_s)
        run.send_signal(number)
        _, stderr = run.communicate(timeout=60)
    assert (run.returncode, b"Traceback" in stderr, b"interrupted" in stderr) == (code, False, True)
    assert nmf_batch("info", "--zarr", large).returncode == 0


def test_the_demo_leaves_its_pictures(tmp_path):
    shown = nmf_batch("demo", "--out", tmp_path / "demo", "--images", 300)
    assert shown.returncode == 0
    with Image.open(tmp_path / "demo" / "basis.png") as basis, Image.open(tmp_path / "demo" / "panel.png") as panel:
        assert min(*basis.size, *panel.size) > 300
    assert nmf_batch("demo", "--out", tmp_path / "demo").returncode == 4


@pytest.mark.parametrize(
    "command", ["run -d 2", "plan -d 2", "transform x --out -", "match x", "topics", "report", "export W"]
)
def test_a_name_that_could_lead_elsewhere_is_a_mistake(command, tmp_path):
    first, *more = command.split()
    done = nmf_batch(first, *more, "--zarr", tmp_path / "s.zarr", "--name", "../x")
    assert done.returncode == 2
    assert "begin with no '.'" in done.stderr
