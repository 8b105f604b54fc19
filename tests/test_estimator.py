"""scikit-learn's contract, by its own checks and beside its own NMF; and results as other tools know them."""

import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from zipfile import ZipFile

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from PIL import Image
from scipy.special import kl_div
from sklearn.base import clone
from sklearn.decomposition import NMF as ScikitLearns  # noqa: N811  # two classes of one name are compared
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import pipeline
from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.folders import folder
from data_prep.images import Options, prepare
from data_prep.store import BadInput
from pipeline import NMF, factorize, open_factors
from pipeline.rows import write_rows
from tests.conftest import real, save_png, sparse

SKIPPED = {"check_array_api_input": "no array API beyond NumPy's: blocks are multiplied by BLAS on the CPU"}
"""Checks of scikit-learn that do not run, and why."""


@pytest.fixture
def X(rng):
    """300 samples of 50 features, rank 6 with noise, half of W and H zero."""
    true = sparse(rng, 300, 6) @ sparse(rng, 6, 50)
    return np.maximum(true + 0.05 * rng.standard_normal(true.shape), 0)


@pytest.fixture
def made(X):
    return NMF(6, random_state=0).fit(X)


def converged(X, d, **settings):
    return ScikitLearns(d, max_iter=3000, tol=1e-7, random_state=0, **settings).fit(X)


def test_checks_of_scikit_learn_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(NMF(), on_fail=None, on_skip=None)
    assert len(results) > 40
    assert {one["check_name"] for one in results if one["status"] != "passed"} <= SKIPPED.keys()


@pytest.mark.parametrize(
    "settings", [{}, {"beta_loss": "kullback-leibler", "solver": "mu"}], ids=["squares", "divergence"]
)
def test_the_error_is_that_of_scikit_learn_converged(X, settings):
    theirs = converged(X + 0.01, 6, init="nndsvda", **settings)
    ours = NMF(6, random_state=0, beta_loss=settings.get("beta_loss", 2), tol=1e-6).fit(X + 0.01)
    assert ours.reconstruction_err_ <= 1.005 * theirs.reconstruction_err_
    WH = ours.inverse_transform(ours.transform(X + 0.01))
    true = np.sqrt(2 * kl_div(X + 0.01, WH).sum()) if settings else np.linalg.norm(X + 0.01 - WH)
    assert ours.reconstruction_err_ == pytest.approx(true, rel=2e-3)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")  # theirs: tol is far from reached
def test_the_error_of_real_faces_is_that_of_scikit_learn_converged():
    with ZipFile(real("cbcl/cbcl_faces_pgm.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pgm")][::8]
        X = np.stack([np.asarray(Image.open(archive.open(name))).ravel() / 255 for name in names])
    theirs = ScikitLearns(20, init="nndsvda", max_iter=1000, random_state=0).fit(X)
    assert NMF(20, random_state=0).fit(X).reconstruction_err_ <= 1.005 * theirs.reconstruction_err_


def test_W_and_H_are_those_of_the_error(X):
    model = NMF(6, random_state=0)
    W = model.fit_transform(X)
    assert (W.shape, model.components_.shape, W.dtype) == ((300, 6), (6, 50), np.float64)
    assert np.linalg.norm(X - W @ model.components_) == pytest.approx(model.reconstruction_err_, rel=1e-4)
    assert np.array_equal(model.inverse_transform(W), W @ model.components_)
    assert np.allclose(model.transform(X), W, atol=0.02 * W.max())


def test_what_is_transformed_is_what_scikit_learn_transforms(X, made, rng):
    new = sparse(rng, 40, 6) @ np.asarray(made.components_, float)
    theirs = converged(X, 6, init="nndsvda")
    theirs.components_ = made.components_.astype(float)
    assert np.allclose(made.transform(new), theirs.transform(new), atol=2e-3)


def test_a_matrix_of_any_kind_gives_the_same_bits(X, tmp_path):
    X = np.where(X > 0.5, X, 0).astype(np.float32)
    zarr.create_array(str(tmp_path / "X"), data=X, chunks=(70, 20))
    kinds = (
        X,
        scipy.sparse.csr_matrix(X),
        scipy.sparse.csc_array(X),
        da.from_array(X, chunks=(110, 33)),
        zarr.open_array(str(tmp_path / "X"), mode="r"),
    )
    models = [NMF(4, random_state=0).fit(kind) for kind in kinds]
    assert all(np.array_equal(models[0].components_, model.components_) for model in models[1:])
    found = [np.asarray(model.transform(kind)) for model, kind in zip(models, kinds, strict=True)]
    assert all(np.allclose(found[0], one, atol=1e-5) for one in found[1:])


def test_blocks_of_a_dask_array_are_computed_once_and_transformed_when_asked_for(X, monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 50 * 64)
    computed = []

    def seen(block):
        computed.append(len(block))
        return block

    lazy = da.from_array(X, chunks=(100, -1)).map_blocks(seen, meta=np.empty((0, 0)))
    model = NMF(4, random_state=0).fit(lazy)
    assert computed == [100, 100, 100]
    del computed[:]
    W = model.transform(lazy)
    assert (computed, W.shape, W.dtype) == ([], (300, 4), np.float32)
    assert np.allclose(W.compute(), model.transform(X), atol=1e-4)
    assert isinstance(model.fit_transform(lazy), da.Array)


def test_bytes_stay_bytes(tmp_path, rng):
    X = rng.integers(0, 256, (80, 30), dtype=np.uint8)
    write_rows(folder(tmp_path / "X.zarr"), X)
    assert store.open_matrix(tmp_path / "X.zarr").dtype == np.uint8
    model = NMF(5, random_state=0)
    W = model.fit_transform(X)
    assert W.dtype == np.float32
    assert np.linalg.norm(X - W @ model.components_) < 0.5 * np.linalg.norm(X)


def test_bits_do_not_depend_on_where_it_runs(X, made, cluster_of):
    with cluster_of(2):
        assert np.array_equal(NMF(6, random_state=0).fit(X).components_, made.components_)


def test_a_grid_search_over_ranks_finds_the_one_that_tells_classes_apart(rng):
    which = rng.integers(0, 3, 150)
    X = np.eye(3)[which] @ sparse(rng, 3, 30) + 0.05 * rng.random((150, 30))
    steps = make_pipeline(NMF(random_state=0), LogisticRegression())
    search = GridSearchCV(steps, {"nmf__n_components": [1, 3]}, cv=3).fit(X, which)
    assert search.best_params_ == {"nmf__n_components": 3}
    assert search.score(X, which) > 0.95
    assert list(search.best_estimator_[:1].get_feature_names_out()) == ["nmf0", "nmf1", "nmf2"]


def test_a_given_start_is_gone_on_from(X, rng):
    true = NMF(6, random_state=0, tol=1e-7)
    W = true.fit_transform(X)
    again = NMF(6, init="custom", random_state=0, max_iter=1, tol=0).fit(X, W=W, H=true.components_)
    assert again.reconstruction_err_ == pytest.approx(true.reconstruction_err_, rel=1e-5)
    with pytest.raises(ValueError, match="init is 'custom', but W or H is missing"):
        NMF(6, init="custom").fit(X)


def test_penalties_mean_what_they_mean_in_scikit_learn(X):
    settings = {"alpha_W": 0.002, "alpha_H": 0.001, "l1_ratio": 0.5}
    theirs, ours = converged(X, 6, init="nndsvda", **settings), NMF(6, random_state=0, tol=1e-6, **settings).fit(X)
    assert ours.reconstruction_err_ == pytest.approx(theirs.reconstruction_err_, rel=5e-3)
    assert ours.components_.sum() == pytest.approx(theirs.components_.sum(), rel=0.05)


def test_a_model_is_cloned_and_stored_as_any_other(X, made):
    again = pickle.loads(pickle.dumps(made))
    assert np.array_equal(again.transform(X), made.transform(X))
    assert clone(made).get_params() == made.get_params()
    assert "random_state=0" in repr(made)


def test_iterations_that_do_not_suffice_warn(X):
    with pytest.warns(ConvergenceWarning, match="raise"):
        NMF(6, random_state=0, solver="mu", max_iter=2).fit(X)


@pytest.mark.parametrize(
    ("X", "settings", "words"),
    [
        (np.array([[1.0, -1.0], [1.0, 2.0]]), {}, "Negative values"),
        (np.array([[1.0, np.nan], [1.0, 2.0]]), {}, "NaN"),
        (da.from_array(np.array([[1.0, 0.5], [-3.0, 2.0]])), {}, r"X\[1, 0\] is -3.0, but every value must be finite"),
        (da.from_array(np.array([[1.0, 0.5], [np.nan, 2.0]])), {}, r"X\[1, 0\] is nan, but every value must be finite"),
        (np.full((3, 3), 1e-30), {}, "the largest value of A is 1e-30"),
        (da.ones(5), {}, r"X has shape \(5,\), but must be \(samples, features\)"),
        (np.ones((4, 3)), {"n_components": 4}, "d is 4, but A is 3 × 4"),
        (np.ones((4, 3)), {"solver": "newton"}, "solver is 'newton', but must be one of"),
        (np.ones((4, 3)), {"beta_loss": "itakura-saito"}, "loss is 'itakura-saito', but must be one of"),
    ],
)
def test_what_cannot_be_factorized_is_refused(X, settings, words):
    with pytest.raises(ValueError, match=words):
        NMF(**{"n_components": 1, **settings}).fit(X)


def test_other_features_are_refused(made):
    with pytest.raises(ValueError, match="X has 3 features, but NMF is expecting 50 features"):
        made.transform(da.ones((2, 3)))


def test_a_refused_dask_array_leaves_nothing_behind(tmp_path):
    with pytest.raises(BadInput, match="every value must be"):
        NMF(1, scratch=tmp_path).fit(da.from_array(np.array([[1.0], [-1.0]])))
    assert list(tmp_path.iterdir()) == []


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("sklearn.") or name == "pipeline.estimator"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"NMF needs scikit-learn.*nmf-batch\[sklearn\]"):
        pipeline.NMF  # noqa: B018  # asking for it imports it
    with pytest.raises(AttributeError, match="no attribute 'nmf'"):
        pipeline.nmf  # noqa: B018


# --- what open_factors returns, as others know it


@pytest.fixture
def factors(tmp_path, X):
    """A factorization of 50 × 300, with names."""
    names = {"features": [f"word{i}" for i in range(50)], "items": [f"text{j}" for j in range(300)]}
    write_matrix(tmp_path / "A.zarr", X.T.astype(np.float32), **names)
    factorize(tmp_path / "A.zarr", 6)
    return open_factors(tmp_path / "A.zarr", "d6")


def test_it_is_a_fitted_model_of_scikit_learn(X, factors):
    model = factors.to_sklearn()
    assert np.linalg.norm(X - model.transform(X) @ model.components_) == pytest.approx(
        model.reconstruction_err_, rel=1e-3
    )
    assert (model.n_components_, model.n_features_in_, len(model.get_feature_names_out())) == (6, 50, 6)


def test_it_is_a_dataset_with_names(factors):
    made = factors.to_xarray()
    assert dict(made.sizes) == {"feature": 50, "component": 6, "item": 300, "iteration": len(factors.loss)}
    one = made.H.sel(item="text7").values
    assert np.array_equal(one, factors.read("H")[:, 7])
    assert np.allclose(made.W.sel(feature="word3").values @ one, factors.reconstruct(["text7"])[0, 3])


def test_images_are_found_by_name_and_have_their_shape(tmp_path, rng):
    for k in range(12):
        save_png(tmp_path / "in" / f"{k}.png", rng.integers(0, 256, (4, 3, 3), dtype=np.uint8))
    with ThreadPoolExecutor(1) as pool:
        prepare([tmp_path / "in"], tmp_path / "s.zarr", Options(decoding=Decoding()), pool)
    factors = factorize(tmp_path / "s.zarr", 2).factors
    W, H = factors.read("W"), factors.read("H")
    names = store.column_names(tmp_path / "s.zarr", 12)
    found = factors.reconstruct(["7.png", "11.png"])
    wanted = [(W @ H[:, names.index(name)]).reshape(4, 3, 3) for name in ("7.png", "11.png")]
    assert np.allclose(found, wanted, atol=1e-6)
    assert np.array_equal(factors.basis_images()[1], W[:, 1].reshape(4, 3, 3))
    made = factors.to_xarray()
    assert np.array_equal(made.basis.isel(component=1).values, factors.basis_images()[1])
    assert list(made.channel.values) == ["R", "G", "B"]
    with pytest.raises(KeyError, match=r"has no image called 'x\.png'"):
        factors.reconstruct(["x.png"])


def test_gray_images_have_no_channels(tmp_path, faces):
    with ThreadPoolExecutor(1) as pool:
        prepare([faces], tmp_path / "s.zarr", Options(decoding=Decoding()), pool)
    factors = factorize(tmp_path / "s.zarr", 2).factors
    assert factors.basis_images().shape == (2, 6, 5)
    assert np.array_equal(factors.basis_images()[0], factors.read("W")[:, 0].reshape(6, 5))
