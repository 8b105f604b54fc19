"""The examples run, and show what they say."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def shown(name):
    found = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_films_fall_into_two_kinds_and_the_missing_rating_is_near_what_was_given():
    told = shown("movies.py").splitlines()
    kinds = [set(line.partition(": ")[2].replace(": ", " ").split(", ")) for line in told[:2]]
    assert sorted(sorted({film.split()[0] for film in kind}) for kind in kinds) == [["Avengers", "Spiderman"], ["LotR"]]
    prefer = [line[-1] for line in told[2:8]]
    assert prefer[0] == prefer[2] == prefer[4] != prefer[1] == prefer[3] == prefer[5]
    assert 3.5 < float(told[8].split()[7]) < 4.7


def test_the_sentences_of_each_subject_are_a_topic():
    told = shown("topics.py").splitlines()
    found = {line.split()[0]: sorted(line.strip().split(", ")) for line in told[1::2]}
    assert found == {subject: [f"{subject} {k}" for k in range(1, 9)] for subject in ("kitchen", "sea", "music")}
    words = dict(zip(found, told[0::2], strict=True))
    assert all(
        word in words[subject] for subject, word in (("kitchen", "butter"), ("sea", "sail"), ("music", "violin"))
    )
