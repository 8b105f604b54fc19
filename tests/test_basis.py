import numpy as np
import pytest

from pipeline import basis
from pipeline.basis import Sums
from pipeline.kernels import gram, mu
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
    better, inner = basis.improve(basis.basis_of(problem[1]), sums, mu)
    found = basis.squared_error(float((A.astype(float) ** 2).sum()), better, sums, inner)
    expected = naive.squared_error(A.astype(float), better.W.astype(float), H.astype(float))
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_number_of_threads_changes_no_bit(problem, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    results = []
    for threads in (1, 3):
        monkeypatch.setattr(basis, "_threads", lambda threads=threads: ThreadPoolExecutor(threads))
        better, inner = basis.improve(basis.basis_of(problem[1]), problem[3], mu)
        results.append((better.W.tobytes(), better.WtW.tobytes(), inner))
    assert results[0] == results[1]
