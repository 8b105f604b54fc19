"""Numbers against truths from outside: scikit-learn, the SVD, published values."""

import itertools
import warnings

import numpy as np
import pytest

from data_prep.arrays import write_matrix
from pipeline import factorize
from pipeline.range_finder import find_range
from pipeline.starts import Given, nndsvd
from tests.conftest import sparse
from tests.naive import matched_cosine

pytestmark = pytest.mark.usefixtures("synchronous")


def sklearn_mu(A, W, H, iterations):
    """scikit-learn's multiplicative updates from our start: its X is Aᵀ, its W our Hᵀ, its components our Wᵀ."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    oracle = NMF(len(H), init="custom", solver="mu", max_iter=iterations, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        Ht = oracle.fit_transform(A.T, W=H.T.copy(), H=W.T.copy())
    return oracle.components_.T, Ht.T


def test_mu_equals_scikit_learns(tmp_path, rng, small_chunks):
    A, W, H = rng.random((60, 500)), rng.random((60, 7)), rng.random((7, 500))
    write_matrix(tmp_path / "a.zarr", A)
    ours = factorize(tmp_path / "a.zarr", 7, solver="mu", max_iter=30, tol=0, start=Given(W, H)).factors
    W_theirs, H_theirs = sklearn_mu(A, W, H, 30)
    np.testing.assert_allclose(ours.W.compute(), W_theirs, rtol=1e-5, atol=1e-5 * W_theirs.max())
    np.testing.assert_allclose(ours.H.compute(), H_theirs, rtol=1e-5, atol=1e-5 * H_theirs.max())


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_rank_1_is_the_first_singular_pair(tmp_path, rng, solver, small_chunks):
    A = rng.random((50, 200))
    write_matrix(tmp_path / "a.zarr", A)
    factors = factorize(tmp_path / "a.zarr", 1, solver=solver, max_iter=200, tol=0).factors
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    np.testing.assert_allclose(factors.W.compute() @ factors.H.compute(), s[0] * np.outer(U[:, 0], Vt[0]), rtol=1e-4)
    assert factors.attributes["relative_error"] == pytest.approx(np.sqrt((s[1:] ** 2).sum() / (s**2).sum()), rel=1e-6)


def test_nndsvd_is_scikit_learns(rng):
    from sklearn.decomposition._nmf import _initialize_nmf

    A = sparse(rng, 30, 5) @ sparse(rng, 5, 80)
    theirs, _ = _initialize_nmf(A, 5, init="nndsvd", random_state=0)
    ours = nndsvd(find_range(A.astype(np.float32), 15, 0, 1.0), 5)
    for k in range(5):
        cosine = ours[:, k] @ theirs[:, k] / np.linalg.norm(ours[:, k]) / np.linalg.norm(theirs[:, k])
        assert cosine > 0.9999


def test_hals_ends_no_worse_than_scikit_learns_coordinate_descent(tmp_path, rng):
    from sklearn.decomposition import NMF

    A = rng.random((40, 8)) @ rng.random((8, 300)) + 0.3 * rng.random((40, 300))
    write_matrix(tmp_path / "a.zarr", A)
    oracle = NMF(8, init="nndsvda", max_iter=3000, tol=1e-5).fit(A.T)
    ours = factorize(tmp_path / "a.zarr", 8, max_iter=1000, tol=1e-8).factors.attributes["relative_error"]
    assert ours <= 1.01 * oracle.reconstruction_err_ / np.linalg.norm(A)


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
def test_planted_parts_are_found_under_noise_as_well_as_by_scikit_learn(tmp_path, rng, noise):
    from sklearn.decomposition import NMF

    W, H = sparse(rng, 200, 12), sparse(rng, 12, 1000)
    A = np.maximum(W @ H + noise * rng.standard_normal((200, 1000)), 0)
    write_matrix(tmp_path / "a.zarr", A)
    found = factorize(tmp_path / "a.zarr", 12, max_iter=500, tol=1e-6).factors.W.compute()
    theirs = NMF(12, init="nndsvda", max_iter=500, tol=1e-5).fit(A.T).components_.T
    assert matched_cosine(found, W) > matched_cosine(theirs, W) - 5e-4


@pytest.mark.parametrize(("d", "best"), [(5, 0.0), (4, 0.013833), (3, 0.04999)])
def test_restarts_reach_the_best_known_of_a_matrix_of_squares(tmp_path, d, best):
    i = np.arange(6)
    write_matrix(tmp_path / "squares.zarr", ((i[:, None] - i) ** 2).astype(np.float32))  # its rank is 3
    about = factorize(tmp_path / "squares.zarr", d, restarts=10, tol=1e-6, max_iter=1000).factors.attributes
    assert about["relative_error"] == pytest.approx(best, abs=3e-4)


def swimmer():
    """256 figures with a torso and four limbs, each in one of four positions (Donoho & Stodden, NIPS 2003)."""
    torso, limb = 14, 5
    A = np.zeros((torso + 16 * limb, 256), np.float32)
    A[:torso] = 1
    for j, positions in enumerate(itertools.product(range(4), repeat=4)):
        for k, position in enumerate(positions):
            A[torso + (4 * k + position) * limb :][:limb, j] = 1
    return A


def test_restarts_find_the_sixteen_limbs_of_the_swimmer_and_thirteen_do_not_do(tmp_path):
    write_matrix(tmp_path / "swimmer.zarr", swimmer())
    assert np.linalg.matrix_rank(swimmer()) == 13
    errors = {d: factorize(tmp_path / "swimmer.zarr", d, restarts=8, tol=1e-5).factors.attributes for d in (16, 13)}
    assert errors[16]["relative_error"] < 1e-3
    assert 0.2 < errors[13]["relative_error"] < 0.27


@pytest.mark.parametrize(("noise", "cosine"), [(0.1, 0.9995), (0.3, 0.9975), (0.6, 0.989)])
def test_the_default_finds_planted_parts_under_noise(tmp_path, rng, noise, cosine):
    W, H = sparse(rng, 200, 12), sparse(rng, 12, 1000)
    A = np.maximum(W @ H + noise * rng.standard_normal((200, 1000)), 0)
    write_matrix(tmp_path / "a.zarr", A)
    factors = factorize(tmp_path / "a.zarr", 12).factors
    assert factors.attributes["sketch"]["rank"] == 34
    assert matched_cosine(factors.W.compute(), W) > cosine
