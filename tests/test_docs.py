"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
NAMED = sorted(set(re.findall(r"`(test_\w+)", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", NAMED)
def test_a_guarantee_names_a_test_that_there_is(name):
    assert f"def {name}(" in TESTS


def test_there_are_guarantees():
    assert len(NAMED) > 20
