"""The recipes of cluster/recipes, as far as a machine without those systems can tell."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

RECIPES = Path(__file__).parents[1] / "cluster" / "recipes"
FAKE = """#!/bin/sh
trap 'echo "told USR1" >> "$LOG"; exit 75' USR1
echo "nmf-batch $*" >> "$LOG"
case $1 in prep) codes=$PREP ;; *) codes=$RUN ;; esac
count=$(grep -c "nmf-batch $1" "$LOG")
code=$(echo $codes | cut -d' ' -f"$count")
[ "$code" = wait ] && { sleep 30 & wait $!; }
exit "$code"
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Commands that write what they were called with: nmf-batch, scontrol, sleep."""
    folder = tmp_path / "bin"
    folder.mkdir()
    contents = {"nmf-batch": FAKE, "scontrol": '#!/bin/sh\necho "scontrol $*" >> "$LOG"\n'}
    for name, content in contents.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "log").write_text("")
    return tmp_path / "log"


def start(recipe, *arguments, **environment):
    return subprocess.Popen([RECIPES / recipe, *arguments], env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("prep", "run", "code", "requeued"),
    [
        *[("0", "0", 0, False), ("3", "0", 0, False), ("0", "75", 0, True), ("75", "0", 0, True)],
        *[("4", "0", 4, False), ("0", "5", 5, False), ("0", "143", 0, True), ("0", "138", 0, True)],
    ],
)
def test_a_slurm_job_goes_on_requeues_itself_or_fails_as_the_exit_code_says(fakes, prep, run, code, requeued):
    assert start("slurm.sh", PREP=prep, RUN=run, SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="4").wait(20) == code
    log = fakes.read_text()
    assert ("scontrol requeue 7" in log) == requeued
    assert ("run --zarr faces.zarr -d 99 --workers 4" in log) == (prep in ("0", "3"))


def test_a_slurm_job_passes_on_the_signal_that_its_time_is_over(fakes):
    job = start("slurm.sh", PREP="0", RUN="wait", SLURM_JOB_ID="7")
    for _ in range(200):
        if "nmf-batch run" in fakes.read_text():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 0
    assert "told USR1" in fakes.read_text()
    assert "scontrol requeue 7" in fakes.read_text()


@pytest.mark.parametrize(
    ("prep", "run", "code", "runs"),
    [("0", "0", 0, 1), ("3", "0", 0, 1), ("2", "0", 2, 0), ("0", "75 75 0", 0, 3), ("0", "75 4", 4, 2)],
)
def test_a_nightly_job_tries_again_what_is_a_matter_of_time(fakes, prep, run, code, runs):
    sleep = fakes.parent / "bin" / "sleep"
    sleep.write_text("#!/bin/sh\n")
    sleep.chmod(0o755)
    assert start("nightly.sh", "photos/", "faces.zarr", "99", PREP=prep, RUN=run).wait(20) == code
    assert fakes.read_text().count("nmf-batch run") == runs


@pytest.mark.parametrize("name", ["slurm.sh", "nightly.sh"])
def test_shell_recipes_have_no_known_mistakes(name):
    shown = subprocess.run(
        [Path(sys.executable).parent / "shellcheck", RECIPES / name], capture_output=True, text=True, check=False
    )
    assert shown.stdout == ""


def test_the_kubernetes_recipe_is_what_kubernetes_takes():
    manifest = yaml.safe_load((RECIPES / "kubernetes.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(manifest, "1.31", strict=True)
    job = manifest["spec"]["jobTemplate"]["spec"]
    rules = {rule["action"]: rule["onExitCodes"]["values"] for rule in job["podFailurePolicy"]["rules"][1:]}
    assert rules == {"Count": [75, 130, 143], "FailJob": [2, 4, 5]}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # else a pod failure policy is refused


def test_the_pods_of_the_dask_job_are_what_kubernetes_takes():
    """The resource itself is the operator's; each pod that it makes is Kubernetes'."""
    spec = yaml.safe_load((RECIPES / "daskjob.yaml").read_text(encoding="utf-8"))["spec"]
    cluster = spec["cluster"]["spec"]
    for pod in (spec["job"], cluster["worker"], cluster["scheduler"]):
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod["spec"]}
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": cluster["scheduler"]["service"],
    }
    kubernetes_validate.validate(service, "1.31", strict=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
def test_the_units_are_what_systemd_takes(tmp_path):
    for name in ("nmf-batch.service", "nmf-batch.timer"):
        text = (RECIPES / name).read_text(encoding="utf-8").replace("/srv/nmf/nightly.sh", "/bin/true")
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in shown.stderr.splitlines() if str(tmp_path) in line] == []
