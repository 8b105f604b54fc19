"""How fast runs are, and what they have left."""

import pytest

from pipeline.config import NMFConfig
from pipeline.pace import Left, Pace, left_of, pace_of, small_iterations, within
from tests.test_loop import SKETCHED, record


@pytest.mark.parametrize(
    ("iterations", "phase", "pace"),
    [
        ([], "exact", Pace()),
        (record([9.0]), "exact", Pace(1.0, 1.0)),
        (record([9.0, 8.0, 7.0]), "exact", Pace(1.0, 1.0)),
        (SKETCHED[:1], "sketch", Pace()),
        ([one._replace(passes=1.5) for one in SKETCHED], "sketch", Pace(1.0, None)),
        ([*SKETCHED, record([7.0], first=3.0)[0]._replace(seconds=5.0)], "exact", Pace(2.0, 2.0)),
    ],
)
def test_pace_is_that_of_the_phase(iterations, phase, pace):
    assert pace_of(iterations, phase) == pace


def test_what_is_left_is_passes_at_the_pace_and_iterations_before_them():
    sketched = [one._replace(passes=2.0, seconds=4.0) for one in SKETCHED]
    assert left_of(record([9.0]), Pace(3.0, 3.0), 5.0, None) == Left(15.0, "passes")
    assert left_of(sketched, Pace(0.5), 2.0, 10) == Left(10 * 0.5 + 2 * 4.0 / 2, "iterations")
    assert left_of(sketched, Pace(), 2.0, None) == Left(4.0, "passes")
    assert small_iterations("sketch 2", 20, NMFConfig(n_components=3, max_iter=50, restarts=4)) == 30 + 2 * 50


def test_no_more_is_left_than_is_allowed_and_less_with_every_second():
    assert within(Left(9.0, "passes"), 2.0, None) == Left(7.0, "passes")
    assert within(Left(9.0, "passes"), 2.0, 5.0) == Left(5.0, "max_time")
    assert within(Left(1.0, "passes"), 2.0, None) == Left(0.0, "passes")
    assert within(Left(), 2.0, None) == Left()
