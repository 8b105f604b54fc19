"""What the documents name is there."""

import csv
import re
import shlex
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import scipy.sparse

from data_prep.folders import folder
from pipeline.factors import names
from tests.commands import nmf_batch
from tests.conftest import save_png

ROOT = Path(__file__).parents[1]
TESTS = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
TEXTS = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
NAMED = sorted(set(re.findall(r"`(test_\w+)", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", NAMED)
def test_a_guarantee_names_a_test_that_there_is(name):
    assert f"def {name}(" in TESTS


def test_there_are_guarantees():
    assert len(NAMED) > 20


BENCHMARKS = sorted(
    {found for text in TEXTS.values() for found in re.findall(r"`python -m benchmarks\.([^`]+)`", text)}
)


@pytest.mark.parametrize("command", BENCHMARKS)
def test_a_benchmark_that_is_named_is_there_and_has_its_options(command):
    module, *words = command.replace("[", " ").replace("]", " ").split()
    text = (ROOT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8")
    assert all(f'"{word}"' in text for word in words if word.startswith("-"))


# --- every command in them runs

COMMAND = re.compile(r"^    nmf-batch (.+?)(?:  +#.*)?$", re.MULTILINE)
WITH_COMMANDS = sorted(name for name, text in TEXTS.items() if COMMAND.search(text))
SMALLER = {
    "10,25,49,99,200,500": "2,4,8",
    "5,10,20,40,80,120,160,200,240,280": "2,4,8",
    "500,2000,10000": "20,40",
    "87x71": "20x18",
}
"""What would take long."""
MADE = {
    "faces.zarr": "prep photos/ --zarr faces.zarr",
    "punks.zarr": "prep punks.npy --zarr punks.zarr",
    "noisy.zarr": "prep noisy.npy --zarr noisy.zarr",
    "words.zarr": "prep-text articles/ --zarr words.zarr",
}
"""Stores that a document takes to be there."""


@pytest.fixture
def drawn(tmp_path, monkeypatch, rng):
    """A folder with all that the documents name, drawn."""
    monkeypatch.chdir(tmp_path)
    for k in range(120):
        save_png(
            tmp_path / "photos" / ("holiday" if k % 4 else "") / f"{k}.png", rng.integers(0, 256, (12, 12), np.uint8)
        )
    with ZipFile("more.zip", "w") as more:
        more.write("photos/0.png", "again.png")
    smooth = np.kron(rng.random((90, 4, 4, 4)), np.ones((1, 5, 5, 1)))
    smooth[..., 3] = 1
    np.save("punks.npy", (200 * smooth).astype(np.uint8))
    np.save("noisy.npy", (200 * smooth + 10 * rng.standard_normal(smooth.shape)).clip(0, 255).astype(np.uint8))
    with open("ratings.csv", "w", encoding="utf-8", newline="") as file:
        rows = ([i, j, rng.integers(1, 6)] for i in range(60) for j in range(60) if rng.random() < 0.5)
        csv.writer(file).writerows([["movieId", "userId", "rating"], *rows])
    scipy.sparse.save_npz("counts.npz", scipy.sparse.csr_array(rng.poisson(1.0, (60, 40))))
    words = [f"w{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(40)]
    Path("words.txt").write_text("\n".join(words), encoding="utf-8")
    Path("articles").mkdir()
    texts = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    for k, text in enumerate(texts):
        Path(f"articles/{k}.txt").write_text(text, encoding="utf-8")
    Path("article.txt").write_text(texts[3], encoding="utf-8")
    with open("news.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["slug", "body"], *enumerate(texts)])


def run(command):
    done = nmf_batch(*shlex.split(command))
    assert done.returncode == 0, f"{command}: {done.stderr}"


def make_what_is_named(command):
    """Make the store that a command works on, and the factorization, unless a command before it has."""
    at = re.search(r"--zarr (\S+)", command)[1]
    if command.startswith("prep"):
        shutil.rmtree(at, ignore_errors=True)
        return
    if not Path(at).exists():
        run(MADE[at])
    named = re.search(r"--name (d(\d+))", command)
    if named and named[1] not in names(folder(at)):
        run(f"run --zarr {at} -d {named[2]} --max-iter 20")


def test_the_examples_of_python_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = {}
    for example in re.findall(r"```python\n(.*?)```", TEXTS["python.md"], re.DOTALL):
        exec(example, known)
    said = capsys.readouterr().out
    assert "(500, 8) (8, 60)" in said
    assert "('feature', 'item') (60, 500)" in said
    assert "(2, 60) (8, 60)" in said


@pytest.mark.parametrize("document", WITH_COMMANDS)
def test_every_command_of_a_document_runs(drawn, document):
    for written in COMMAND.findall(TEXTS[document]):
        command = re.sub("|".join(map(re.escape, SMALLER)), lambda found: SMALLER[found[0]], written)
        make_what_is_named(command)
        run(command)
