import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import kernels
from tests import naive


def problem(seed, d=20, m=30, n=11):
    """A, W, H of float32 whose products are G = WᵀW and C = WᵀA; d is above the 16 rows that are taken together."""
    rng = np.random.default_rng(seed)
    A, W, H = (rng.random(shape, dtype=np.float32) for shape in ((m, n), (m, d), (d, n)))
    return A, W, H, W.T @ W, W.T @ A


def test_mu_is_the_formula(rng):
    _, _, H, G, C = problem(1)
    np.testing.assert_allclose(kernels.mu(G, C, H), naive.mu(G, C, H), rtol=1e-5)


def test_hals_in_groups_of_rows_is_hals_row_by_row():
    _, _, H, G, C = problem(2)
    expected = naive.hals_sweep(G, C, naive.hals_sweep(G, C, H))
    np.testing.assert_allclose(kernels.hals(G, C, H, sweeps=2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update", [kernels.mu, lambda G, C, H: kernels.hals(G, C, H, 1)], ids=["mu", "hals"])
@given(seed=st.integers(0, 10_000), d=st.integers(1, 40))
def test_an_update_keeps_h_non_negative_and_does_not_raise_the_loss(update, seed, d):
    A, W, H, G, C = problem(seed, d=d)
    new = update(G, C, H)
    assert new.min() >= 0
    before, after = (np.linalg.norm(A - W.astype(np.float64) @ X) ** 2 for X in (H, new))
    assert after <= before * (1 + 1e-6)


def test_updates_do_not_touch_their_arguments():
    _, _, H, G, C = problem(3)
    copy = H.copy()
    kernels.mu(G, C, H)
    kernels.hals(G, C, H, 3)
    np.testing.assert_array_equal(H, copy)


def test_a_dead_component_stays_as_it_is_and_harms_nobody():
    A, W, H, *_ = problem(4)
    W[:, 2] = 0
    new = kernels.hals(W.T @ W, W.T @ A, H, 3)
    np.testing.assert_array_equal(new[2], H[2])
    assert np.isfinite(new).all()


def test_mu_of_zeros_is_zero_not_nan():
    zeros = np.zeros((3, 3), np.float32)
    np.testing.assert_array_equal(kernels.mu(zeros, zeros, zeros), zeros)


def test_cold_start_solves_exactly_where_the_solution_is_positive():
    _, W, H, G, _ = problem(5, d=3)
    np.testing.assert_allclose(kernels.cold_start(G, W.T @ (W @ H)), H, rtol=1e-3, atol=1e-4)


def test_what_has_vanished_stays_zero_whatever_pulls_it_up():
    """Zero times infinity would be NaN: where W H is zero below a large entry, only others can bring it back."""
    X, up, down = (np.array([values], np.float32) for values in ([0, 1e-27, 1, 2], [9, 9, 9, 0], [0, 0, 0, 0]))
    np.testing.assert_allclose(kernels.multiplied(X, up, down), [[0, 0, 1e6, 0]], rtol=1e-5)
