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
