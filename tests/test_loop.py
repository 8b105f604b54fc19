import math

import pytest

from pipeline.config import NMFConfig, differences
from pipeline.loop import Stop, small_stop_reason, solve, stop_reason, trailing
from pipeline.record import Iteration
from pipeline.solvers.state import State


def config(solver="hals", **settings):
    return NMFConfig(n_components=3, solver=solver, **settings)


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
    assert stop_reason(record(losses), config(**settings)) == reason


def record(losses, phase="exact", first=0.0):
    """Iterations of a pass and a second each."""
    return [
        Iteration(loss, math.sqrt(loss) / 10 if loss > 0 else loss, phase, k, first + k, 0)
        for k, loss in enumerate(losses, 1)
    ]


SKETCHED = record([9.0, 8.5, 8.0], "sketch")


@pytest.mark.parametrize(
    ("before", "losses", "settings", "reason"),
    [
        ([], [9.0, 8.0], {"max_passes": 2}, Stop.MAX_PASSES),
        ([], [9.0, 8.0], {"max_passes": 3}, None),
        ([], [9.0, 8.0], {"max_time": 2.0}, Stop.MAX_TIME),
        (SKETCHED, [], {"max_iter": 3}, None),
        (SKETCHED, [7.0, 6.0, 5.0], {}, None),
        (SKETCHED, [7.0, 6.0, 5.0], {"polish": 3}, Stop.POLISHED),
        (SKETCHED, [7.0, 6.0], {"polish": 3}, None),
        (SKETCHED, [7.0, 6.999], {}, Stop.POLISHED),
        (SKETCHED, [7.0, 6.999], {"tol": 1e-6}, None),
        (SKETCHED, [7.0, 6.9, 6.8, 6.7], {}, Stop.POLISHED),
        (SKETCHED, [7.0, 6.9, 6.8, 6.7], {"max_passes": 9}, None),
        (record([9.0], "all"), [7.0, 6.9, 6.8, 6.7], {}, None),
    ],
)
def test_why_the_passes_after_a_sketch_end(before, losses, settings, reason):
    found = stop_reason([*before, *record(losses)], config(solver="sketch", **settings))
    assert found == reason


@pytest.mark.parametrize(
    ("losses", "settings", "passes_each", "reason"),
    [
        ([9.0] * 10, {}, 0.0, None),
        ([9.0] * 11, {}, 0.0, Stop.CONVERGED),
        ([9.0, *[8.99] * 10], {}, 0.0, None),
        ([9.0, *[8.99] * 10], {"tol": 1e-3}, 0.0, Stop.CONVERGED),
        ([9.0, 8.0], {"max_iter": 2}, 0.0, Stop.MAX_ITER),
        ([9.0, 8.0], {"max_passes": 4}, 1.0, None),
        ([9.0, 8.0], {"max_passes": 3.5}, 1.0, Stop.MAX_PASSES),
        ([9.0, 8.0], {"max_passes": 3.5}, 0.0, None),
        ([9.0] * 7, {"max_time": 10}, 0.0, Stop.MAX_TIME),
        ([9.0] * 6, {"max_time": 10}, 0.0, None),
        ([9.0, math.nan], {}, 0.0, Stop.NONFINITE),
    ],
)
def test_why_the_iterations_on_the_small_problem_end(losses, settings, passes_each, reason):
    found = small_stop_reason(record(losses, "sketch"), config(solver="sketch", **settings), passes_each)
    assert found == reason


def test_only_the_last_run_of_a_phase_trails():
    iterations = [*record([3.0], "exact"), *record([2.0], "sketch"), *record([1.0, 0.5], "exact")]
    assert [iteration.loss for iteration in trailing(iterations, "exact")] == [1.0, 0.5]
    assert trailing(iterations, "sketch") == []


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
        ({"n_components": 2, "solver": "magic"}, "one of sketch, hals, amu, mu"),
        ({"n_components": 2, "loss": "itakura-saito"}, "one of frobenius, kullback-leibler"),
        ({"n_components": 2, "mask": "beta"}, "one of alpha"),
        ({"n_components": 2, "holdout": 1.0}, "0 <= holdout < 1"),
        ({"n_components": 2, "alpha_W": -0.1}, "alpha_W is -0.1"),
        ({"n_components": 2, "alpha_H": float("inf")}, "alpha_H is inf"),
        ({"n_components": 2, "l1_ratio": 1.1}, "0 <= l1_ratio <= 1"),
        ({"n_components": 2, "init": "magic"}, "one of random, nndsvd"),
        ({"n_components": 2, "max_iter": 0}, "max_iter is 0"),
        ({"n_components": 2, "tol": 1.0}, "0 <= tol < 1"),
        ({"n_components": 2, "target_error": -0.1}, "0 <= target_error < 1"),
        ({"n_components": 2, "seed": -1}, "seed is -1"),
        ({"n_components": 2, "max_passes": 0.5}, "max_passes is 0.5"),
        ({"n_components": 2, "max_time": 0}, "max_time is 0"),
        ({"n_components": 2, "sketch_rank": 1}, "sketch_rank is 1, but must be d = 2 or more"),
        ({"n_components": 2, "polish": 0}, "polish is 0"),
        ({"n_components": 2, "restarts": 0}, "restarts is 0"),
        ({"n_components": 2, "restarts": 2, "solver": "mu"}, "restarts is an option of --solver sketch"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        NMFConfig(**settings)


def test_settings_that_only_say_when_to_stop_are_no_difference():
    stored = {
        "n_components": 3,
        "solver": "hals",
        "loss": "frobenius",
        "init": "nnsvd_lrc",
        "seed": 0,
        "sketch_rank": None,
        "restarts": 1,
    }
    assert differences(stored, config(init="nnsvd_lrc", max_iter=7, tol=0.1, target_error=0.2)) == []
    assert differences(stored, config(seed=4, solver="mu", init="random")) == [
        "solver: hals → mu",
        "init: nnsvd_lrc → random",
        "seed: 0 → 4",
    ]
