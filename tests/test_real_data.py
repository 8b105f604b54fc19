"""Faces and punks, where the data are on this machine: sizes, errors and published behaviour."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_prep import store
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from data_prep.matrices import prepare_matrix
from data_prep.table_files import Names
from data_prep.tables import prepare_table
from pipeline import factorize
from pipeline.topics import find_topics
from pipeline.which import is_held_out
from tests import naive
from tests.conftest import SOAK, real


def prepared(archive, path, **settings):
    limit = settings.pop("limit", None)
    with ThreadPoolExecutor(2) as pool:
        return prepare([archive], path, Options(decoding=Decoding(**settings), limit=limit), pool)


@pytest.fixture(scope="module")
def cbcl(tmp_path_factory):
    archive = real("cbcl/cbcl_faces_pgm.zip")
    path = prepared(archive, tmp_path_factory.mktemp("cbcl") / "cbcl.zarr").path
    with zipfile.ZipFile(archive) as file:
        A = np.stack([naive.read_pgm(file.read(name)).ravel() for name in sorted(file.namelist())], axis=1)
    return path, A


def test_cbcl_is_what_an_independent_reader_makes_of_the_pgm_files(cbcl):
    path, A = cbcl
    np.testing.assert_array_equal(store.open_array(path, "A")[...], A)
    assert store.open_matrix(path).norm_squared == pytest.approx(np.linalg.norm(A / 255) ** 2, rel=1e-12)


def test_cbcl_rank_1_is_the_first_singular_pair(cbcl):
    path, A = cbcl
    s = np.linalg.svd(A / 255, compute_uv=False)
    found = factorize(path, 1, max_iter=100, tol=0).factors.attributes["relative_error"]
    assert found == pytest.approx(np.sqrt((s[1:] ** 2).sum() / (s**2).sum()), abs=1e-6)


def test_cbcl_d_49_is_within_0_0825_and_its_error_is_that_of_the_files(cbcl):
    path, A = cbcl
    factors = factorize(path, 49, max_iter=500 if SOAK else 150).factors
    W, H = factors.W.compute().astype(np.float64), factors.H.compute().astype(np.float64)
    error = np.linalg.norm(A / 255 - W @ H) / np.linalg.norm(A / 255)
    assert error <= 0.0825
    assert factors.attributes["relative_error"] == pytest.approx(error, abs=1e-5)


def test_the_divergence_of_cbcl_is_7_percent_of_the_mean_faces_within_12_passes(cbcl):
    path, A = cbcl
    factors = factorize(path, 49, loss="kullback-leibler", max_passes=12, name="kl").factors
    A, WH = A / 255, factors.W.compute().astype(np.float64) @ factors.H.compute()
    mean = np.broadcast_to(A.mean(axis=1, keepdims=True), A.shape)
    ours, of_mean = ((A * np.log(np.where(A > 0, A, x) / x) - A + x).sum() for x in (WH, mean))
    assert ours / of_mean <= 0.07
    assert factors.attributes["relative_error"] == pytest.approx(ours / of_mean, rel=1e-4)


def test_half_of_the_pixels_of_cbcl_are_completed_8_db_better_than_by_the_mean_face(cbcl):
    path, A = cbcl
    factors = factorize(path, 25, holdout=0.5, max_iter=25, name="half").factors
    held = is_held_out(*(np.arange(length) for length in A.shape), 0.5, 0)
    A = A / 255
    mean = np.where(held, 0, A).sum(axis=1, keepdims=True) / (~held).sum(axis=1, keepdims=True)
    of_mean = np.sqrt(np.square(A - mean)[held].mean())
    assert 20 * np.log10(of_mean / factors.attributes["holdout_error"]) > 8


def test_ratings_that_are_held_out_are_told_within_0_93(tmp_path):
    names = Names("movieId", "userId", "rating")
    path = prepare_table([str(real("movielens/ml-latest-small_ratings.csv"))], tmp_path / "ratings.zarr", names).path
    factors = factorize(path, 10, holdout=0.1, alpha_W=0.15, max_iter=30).factors
    assert factors.attributes["holdout_error"] < 0.93  # of the mean rating it is 1.05


def test_celeba_at_0_4_is_87_by_71_and_mu_falls_as_published(tmp_path):
    archive = real("celeba/celeba_178x218_first4000.zip")
    made = prepared(archive, tmp_path / "celeba.zarr", mode="L", scale=0.4)
    assert (made.shape, made.image_shape, len(made.unreadable)) == ((6177, 4000), (87, 71, 1), 0)
    factors = factorize(made.path, 99, solver="mu", max_iter=50 if SOAK else 10, tol=0).factors
    errors = [iteration.relative_error for iteration in factors.iterations]
    assert errors[9] == pytest.approx(0.4458, abs=0.003)
    assert errors[49:] == ([pytest.approx(0.2815, abs=0.005)] if SOAK else [])
    assert (factors.loss[1:] <= factors.loss[:-1] * (1 + 1e-6)).all()


def test_punks_keep_their_transparency(tmp_path):
    archive = real("cryptopunks/punks_24x24_rgba_png.zip")
    made = prepared(archive, tmp_path / "punks.zarr", limit=500)
    assert (made.shape, made.mode) == ((2304, 500), "RGBA")
    alpha = store.open_array(made.path, "A")[3::4]
    assert set(np.unique(alpha)) <= {0, 128, 255}


def test_messy_files_are_columns_or_reasons(tmp_path):
    folder = real("messy/files")
    with ThreadPoolExecutor(2) as pool:
        options = Options(decoding=Decoding(mode="RGB", size=(32, 32)), max_skip=1.0)
        made = prepare([folder], tmp_path / "messy.zarr", options, pool)
    broken = {name for name, _ in made.unreadable}
    assert {"truncated.jpg", "broken_idat.png", "text_bomb.png", "bomb.gif", "zero_bytes.jpg"} <= broken
    assert broken.isdisjoint({"rgb_baseline.jpg", "cmyk.jpg", "exif_orient6.jpg", "animated.gif", "png_inside.jpg"})
    assert {"README.txt", "Thumbs.db", "._resource.jpg"} <= set(made.not_images)


@pytest.fixture(scope="module")
def kos(tmp_path_factory):
    """Words × posts of blogs on US politics in 2004."""
    counts, words = real("text/kos_docs_x_words.npz"), real("text/kos_vocab.txt")
    path = tmp_path_factory.mktemp("kos") / "kos.zarr"
    prepare_matrix(counts, path, words, transpose=True)
    return path


def test_topics_of_blogs_are_those_of_2004(kos):
    """One has the war, one the primaries of the Democrats, and one the senate."""
    factors = factorize(kos, 20, loss="kullback-leibler", max_iter=15, name="kl").factors
    found = [{word for word, _ in topic.words} for topic in find_topics(factors)]
    for expected in ({"iraq", "war", "military"}, {"dean", "edwards", "primary"}, {"senate", "race", "elections"}):
        assert any(expected <= words for words in found), found


def test_blogs_are_fitted_as_well_as_by_scikit_learn(kos):
    """Whose coordinate descent ends at 0.8162 from nndsvd and from nndsvda, after 178 iterations and more."""
    assert factorize(kos, 20).factors.attributes["relative_error"] <= 0.8162
