import math

import pytest

from pipeline.config import NMFConfig, differences
from pipeline.loop import Stop, solve, stop_reason
from pipeline.solvers.state import State


def config(**settings):
    return NMFConfig(n_components=3, **settings)


@pytest.mark.parametrize(
    ("losses", "settings", "reason"),
    [
        ([], {}, None),
        ([9.0, 8.0], {}, None),
        ([9.0, 8.0], {"max_iter": 2}, Stop.MAX_ITER),
        ([9.0, 8.0, 7.0, 7.0], {}, None),
        ([7.0, 7.0, 7.0, 7.0], {}, Stop.CONVERGED),
        ([7.0, 7.0, 7.0, 7.0], {"tol": 0}, None),
        ([7.0009, 7.0, 7.0, 7.0], {"tol": 1e-4}, None),
        ([7.0006, 7.0, 7.0, 7.0], {"tol": 1e-4}, Stop.CONVERGED),
        ([9.0, 4.0], {"target_error": 0.2}, Stop.TARGET_ERROR),
        ([9.0, 4.1], {"target_error": 0.2}, None),
        ([7.0, 7.0, 7.0, 7.000001], {"tol": 0}, None),
        ([9.0, 0.0], {}, Stop.EXACT),
        ([9.0, math.nan], {}, Stop.NONFINITE),
        ([9.0, math.inf], {"max_iter": 2}, Stop.NONFINITE),
    ],
)
def test_why_a_factorization_ends(losses, settings, reason):
    assert stop_reason(losses, norm_squared=100.0, config=config(**settings)) == reason


def test_the_loop_steps_until_there_is_a_reason():
    class Counting:
        def step(self, A, state):
            return State(W=state.W, H=state.H, loss=state.loss - 1)

    losses = []
    record = lambda state: (losses.append(state.loss), losses)[1]  # noqa: E731  # a two-line stand-in
    last, stop = solve(
        None, Counting(), State(W=None, H=[], loss=10.0), lambda f: Stop.EXACT if f[-1] == 4 else None, record
    )
    assert (last.loss, stop, losses) == (4, Stop.EXACT, [9, 8, 7, 6, 5, 4])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_components": 0}, "d is 0"),
        ({"n_components": 2, "solver": "magic"}, "one of hals, mu"),
        ({"n_components": 2, "init": "magic"}, "one of random, nndsvd"),
        ({"n_components": 2, "max_iter": 0}, "max_iter is 0"),
        ({"n_components": 2, "tol": 1.0}, "0 <= tol < 1"),
        ({"n_components": 2, "target_error": -0.1}, "0 <= target_error < 1"),
        ({"n_components": 2, "seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        NMFConfig(**settings)


def test_settings_that_only_say_when_to_stop_are_no_difference():
    stored = {"n_components": 3, "solver": "hals", "loss": "frobenius", "init": "nndsvd", "seed": 0}
    assert differences(stored, config(max_iter=7, tol=0.1, target_error=0.2)) == []
    assert differences(stored, config(seed=4, solver="mu")) == [
        "solver: hals → mu",
        "init: nndsvd → random",
        "seed: 0 → 4",
    ]
