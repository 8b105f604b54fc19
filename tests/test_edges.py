"""Matrices and images at the edge of what has a meaning: a result that arithmetic foretells, or one line.

Truths are zeros, the SVD, and that two rows or columns are always factorized exactly (Gregory & Pullman, 1983).
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline import factorize
from pipeline.loop import Stop
from pipeline.plan import RefusedPlan
from tests import naive
from tests.conftest import SOAK, save_png

pytestmark = pytest.mark.usefixtures("synchronous")

VALUES = np.random.default_rng(20261122).random((6, 9))
MATRICES = {
    "zero rows": np.where(np.arange(6)[:, None] % 2, VALUES, 0),
    "zero columns": np.where(np.arange(9) % 2, VALUES, 0),
    "one value among zeros": np.eye(1, 54, 17).reshape(6, 9),
    "all the same": np.full((6, 9), 0.5),
}
WAYS = {
    "-".join(way): dict(zip(("solver", "init"), way, strict=True))
    for way in product(("hals", "mu"), ("nndsvd", "random"))
}
SOME = WAYS if SOAK else {name: WAYS[name] for name in ("hals-nndsvd", "mu-random")}  # the defaults of both
each_way = pytest.mark.parametrize("way", SOME.values(), ids=SOME.keys())


def each(matrices):
    return pytest.mark.parametrize("A", matrices.values(), ids=matrices.keys())


@pytest.fixture
def factors_of(tmp_path):
    """Writes a matrix, factorizes it, and checks what must hold for any."""

    def factors_of(A, d, **settings):
        write_matrix(tmp_path / "a.zarr", A)
        W, H, result = read(factorize(tmp_path / "a.zarr", d, **settings))
        A = A.astype(np.float64)
        assert (W.shape, H.shape) == ((A.shape[0], d), (d, A.shape[1]))
        assert np.isfinite(W).all()
        assert np.isfinite(H).all()
        assert min(W.min(), H.min()) >= 0
        rounding = 2e-7 * np.square(A).sum()  # float32
        assert result.factors.loss[-1] == pytest.approx(naive.squared_error(A, W, H), rel=1e-5, abs=rounding)
        return W, H, result

    return factors_of


def read(result):
    """W and H as float64, and the whole result."""
    W, H = (factor.compute().astype(np.float64) for factor in (result.factors.W, result.factors.H))
    return W, H, result


def prepared(tmp_path, images):
    """Save images and prepare them."""
    for k, pixels in enumerate(images):
        save_png(tmp_path / "images" / f"{k}.png", pixels)
    with ThreadPoolExecutor(2) as threads:
        return prepare([tmp_path / "images"], tmp_path / "i.zarr", Options(decoding=Decoding()), threads)


@each_way
@each(MATRICES)
def test_as_many_components_as_rows_give_the_loss_that_is_recorded(A, way, factors_of):
    _, _, result = factors_of(A, 6, max_iter=30, **way)  # which compares them
    s = np.linalg.svd(A, compute_uv=False)
    assert (
        result.factors.attributes["relative_error"] < np.linalg.norm(s[1:]) / np.linalg.norm(s) + 0.03
    )  # after so few iterations


@each_way
@pytest.mark.parametrize(("shape", "dtype"), [((5, 7), np.uint8), ((1, 1), np.float64)], ids=["images", "one value"])
def test_nothing_but_zeros_is_factorized_exactly_at_once(shape, dtype, way, factors_of):
    W, H, result = factors_of(np.zeros(shape, dtype), min(shape), **way)
    assert not (W @ H).any()
    assert (result.stop, result.n_new, result.factors.attributes["relative_error"]) == (Stop.EXACT, 1, 0)


@each_way
@each(MATRICES)
def test_rank_1_is_the_first_singular_pair(A, way, factors_of):
    W, H, result = factors_of(A, 1, max_iter=60, **way)
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    np.testing.assert_allclose(W @ H, s[0] * np.outer(U[:, 0], Vt[0]), atol=2e-3 * A.max())
    best = np.linalg.norm(s[1:]) / np.linalg.norm(s)
    assert result.factors.attributes["relative_error"] == pytest.approx(best, rel=1e-4, abs=1e-4)


@each_way
def test_rows_and_columns_of_zeros_stay_zero(way, factors_of):
    A = np.where(np.arange(6)[:, None] % 2, MATRICES["zero columns"], 0)
    W, H, _ = factors_of(A, 3, max_iter=30, **way)
    assert not W[::2].any()
    assert not H[:, ::2].any()


@each_way
@each({"one image": VALUES[:, :1], "one pixel": VALUES[:1], "one value": VALUES[:1, :1]})
def test_a_single_row_or_column_is_factorized_exactly(A, way, factors_of):
    W, H, _ = factors_of(A, 1, max_iter=60, **way)
    np.testing.assert_allclose(W @ H, A, rtol=1e-5)


@each_way
@each({"two images": VALUES[:, :2], "two pixels": VALUES[:2]})
def test_two_rows_or_columns_are_factorized_exactly(A, way, factors_of):
    W, H, _ = factors_of(A, 2, max_iter=300, tol=0, **way)
    assert np.linalg.norm(A - W @ H) < (1e-3 if way["solver"] == "hals" else 0.03) * np.linalg.norm(A)


@each_way
@pytest.mark.parametrize(
    ("A", "d"),
    [(np.tile(np.rint(255 * VALUES[:, :2]).astype(np.uint8), 5), 6), (np.full((50, 40), 1e9), 4)],
    ids=["two images", "one large value"],
)
def test_fewer_different_images_than_components_are_factorized(A, d, way, factors_of):
    W, H, _ = factors_of(A, d, max_iter=100, **way)
    assert np.linalg.norm(A - W @ H) < (0.01 if way["solver"] == "hals" else 0.05) * np.linalg.norm(A)
    assert W.max() * H.max() < 1e6 * A.max()


@pytest.mark.parametrize("solver", ["hals", "mu"])
@pytest.mark.parametrize("size", [1e-11, 1e12])
def test_the_size_of_the_values_does_not_matter(size, solver, factors_of):
    _, _, result = factors_of(size * VALUES, 1, solver=solver, max_iter=60)
    s = np.linalg.svd(VALUES, compute_uv=False)
    best = np.linalg.norm(s[1:]) / np.linalg.norm(s)
    assert result.factors.attributes["relative_error"] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("size", [1e-16, 1e-30, 1e-40])
def test_values_whose_squares_float32_does_not_hold_are_refused(size, tmp_path):
    with pytest.raises(store.BadInput, match=r"the largest value of A is .*scale A"):
        write_matrix(tmp_path / "a.zarr", size * VALUES)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16])
def test_the_type_of_the_values_does_not_matter(dtype, factors_of):
    A = np.rint(VALUES)
    W, H, _ = factors_of(A.astype(dtype), 1, max_iter=60)
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    np.testing.assert_allclose(W @ H, s[0] * np.outer(U[:, 0], Vt[0]), atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, -1e-30], ids=str)
@each({"one image": np.ones((3, 1)), "one pixel": np.ones((1, 4)), "one value": np.ones((1, 1))})
def test_a_value_without_meaning_is_named_where_it_is(A, value, tmp_path):
    A = A.copy()
    A[-1, -1] = value
    i, j = A.shape[0] - 1, A.shape[1] - 1
    with pytest.raises(store.BadInput, match=rf"A\[{i}, {j}\] is {value}, but every value must be finite, 0 or more"):
        write_matrix(tmp_path / "a.zarr", A)


@each({"complex": np.ones((2, 2), complex), "words": np.array([["a"]]), "objects": np.ones((2, 2), object)})
def test_what_is_no_real_number_is_refused(A, tmp_path):
    with pytest.raises(store.BadInput, match="real numbers"):
        write_matrix(tmp_path / "a.zarr", A)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (4,), (2, 2, 2)], ids=str)
def test_a_matrix_without_rows_and_columns_is_refused(shape, tmp_path):
    with pytest.raises(store.BadInput, match="must have rows and columns"):
        write_matrix(tmp_path / "a.zarr", np.ones(shape))


@pytest.mark.parametrize(
    ("d", "error", "words"), [(0, ValueError, "d is 0"), (2, RefusedPlan, "d is 2, but A is 1 × 9")]
)
def test_a_rank_that_a_single_row_does_not_have_is_refused(d, error, words, factors_of):
    with pytest.raises(error, match=words):
        factors_of(VALUES[:1], d)


@pytest.mark.parametrize(
    ("images", "shape"),
    [([np.full((6, 5), 7, np.uint8)], (30, 1)), ([np.array([[k]], np.uint8) for k in (9, 0, 5)], (1, 3))],
    ids=["one image", "images of one pixel"],
)
def test_a_collection_of_one_image_or_one_pixel_is_prepared_and_factorized_exactly(images, shape, tmp_path):
    found = prepared(tmp_path, images)
    W, H, _ = read(factorize(found.path, 1, max_iter=60))
    assert (found.shape, found.unreadable) == (shape, [])
    np.testing.assert_allclose(255 * W @ H, np.stack([pixels.ravel() for pixels in images], axis=1), atol=1e-3)


@pytest.mark.parametrize("solver", ["hals", "mu"])
@pytest.mark.parametrize("shape", [(6, 5), (1, 1)], ids=str)
def test_black_images_are_images_and_are_factorized_exactly(shape, solver, tmp_path):
    found = prepared(tmp_path, [np.zeros(shape, np.uint8)] * 3)
    W, H, result = read(factorize(found.path, 1, solver=solver))
    assert (found.unreadable, store.open_matrix(found.path).n_ok) == ([], 3)
    assert (result.stop, float((W @ H).max())) == (Stop.EXACT, 0)
