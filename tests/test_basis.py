import numpy as np
import pytest

from pipeline import basis
from pipeline.basis import Sums
from pipeline.kernels import gram, mu
from pipeline.one_pass import Arithmetic, visit_partition
from pipeline.solvers import mu as mu_solver
from tests import naive


@pytest.fixture
def problem(rng):
    """A, W, H and their sums, with more pixels than are taken together."""
    A, W, H = (rng.random(shape, dtype=np.float32) for shape in ((5000, 6), (5000, 3), (3, 6)))
    return A, W, H, Sums(A @ H.T, gram(H))


def test_w_is_improved_as_if_it_were_h(problem):
    A, W, H, sums = problem
    better, _ = basis.improve(basis.basis_of(W), sums, mu)
    np.testing.assert_allclose(better.W, W * (A @ H.T) / (W @ (H @ H.T)), rtol=1e-5)
    np.testing.assert_allclose(better.WtW, better.W.T.astype(float) @ better.W.astype(float), rtol=1e-12)


def test_squared_error_from_sums_is_that_of_the_residual(problem):
    A, _, H, sums = problem
    old = basis.basis_of(problem[1])
    better, inner = basis.improve(old, sums, mu)
    found = basis.squared_error(float((A.astype(float) ** 2).sum()), old, better, sums, inner)
    expected = naive.squared_error(A.astype(float), better.W.astype(float), H.astype(float))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4, 1e-5])
def test_a_summed_residual_gives_a_small_error_to_four_digits(rng, noise):
    W, H = (rng.random(shape, dtype=np.float32) for shape in ((1500, 3), (3, 200)))
    A = (W @ H * (1 + noise * rng.standard_normal((1500, 200)))).astype(np.float32)
    old, how = basis.basis_of(W), Arithmetic(scale=1.0, residual=True)
    (H_new,), sums = visit_partition([A], [H], old, mu_solver.improve, how)
    new, inner = basis.improve(old, sums, mu)
    found = basis.squared_error(np.linalg.norm(A.astype(float)) ** 2, old, new, sums, inner)
    expected = np.linalg.norm(A.astype(float) - new.W.astype(float) @ H_new.astype(float)) ** 2
    assert found == pytest.approx(expected, rel=1e-3 if noise > 1e-5 else 0.02)


def test_the_number_of_threads_changes_no_bit(problem, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    results = []
    for threads in (1, 3):
        monkeypatch.setattr(basis, "_threads", lambda threads=threads: ThreadPoolExecutor(threads))
        better, inner = basis.improve(basis.basis_of(problem[1]), problem[3], mu)
        results.append((better.W.tobytes(), better.WtW.tobytes(), inner))
    assert results[0] == results[1]
