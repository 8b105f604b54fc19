"""Matrices that are nearly all zero: the same results as if they were not treated so, for what is not zero alone."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.batches import batches
from pipeline import blocks, factorize, job, objective, which
from pipeline.blocks import StoredBlocks, WithoutZeros
from pipeline.config import NMFConfig
from pipeline.one_pass import worst_of_partition
from pipeline.opening import sampled
from pipeline.panels import back_project, project, residuals, squared_norm
from pipeline.plan import make_plan, partitions
from pipeline.range_finder import find_range
from pipeline.sketching import choose
from pipeline.sparse import product_at, without_zeros
from pipeline.starts import Given
from pipeline.transform import transformed
from tests.test_checkpoints import Stopped, stop_at
from tests.test_factorize import bits
from tests.test_memory import MEBI, run
from tests.test_objectives import KL, apart, divergence, product, sklearn_factors

M, N, D = 90, 300, 4
KINDS = {
    "squares": {},
    "hals": {"solver": "hals"},
    "mu": {"solver": "mu"},
    "squares with penalties": {"alpha_W": 0.001, "l1_ratio": 0.5, "solver": "hals"},
    "divergence": {"loss": KL},
    "divergence with penalties": {"loss": KL, "alpha_W": 0.002, "l1_ratio": 0.5, "solver": "mu"},
}
ALL = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def counts(rng):
    """90 × 300 counts of four kinds that overlap, 4 % of them not zero, and no word in some columns."""
    A = np.zeros((M, N), np.uint8)
    for j in range(N):
        words = 15 * rng.integers(0, 4) + rng.integers(0, 45, rng.integers(0, 8))
        np.add.at(A[:, j], words, rng.integers(1, 5, len(words)))
    return A


@pytest.fixture
def words(tmp_path, counts, small_chunks):
    """As a store in 38 chunks of 8 columns."""
    write_matrix(tmp_path / "words.zarr", counts)
    return tmp_path / "words.zarr"


@pytest.fixture
def start(rng):
    return Given(rng.random((M, D), dtype=np.float32) + 0.1, rng.random((D, N), dtype=np.float32) + 0.1)


@pytest.fixture
def as_dense(monkeypatch):
    """What to call for zeros to be entries like others from then on; what is done with them is the same."""
    monkeypatch.setattr(objective, "LEFT_OF_COUNTS", objective.LEAST_LEFT)
    monkeypatch.setattr(objective, "LISTED_SWEEPS", objective.WARM_SWEEPS)
    return lambda: monkeypatch.setattr(objective, "SPARSE", 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(7, 16), (5, 3), (1, 1), (40, 9)])
def test_nothing_but_zeros_is_left_out(rng, dtype, shape):
    A = (rng.integers(0, 200, shape) * (rng.random(shape) < 0.1)).astype(dtype)
    found = without_zeros(A)
    np.testing.assert_array_equal(found.toarray(), A)
    assert (found.nnz, found.dtype) == (np.count_nonzero(A), dtype)


def test_W_H_is_known_at_the_entries_listed(rng, counts, monkeypatch):
    monkeypatch.setattr("pipeline.sparse.VALUES_TOGETHER", 40)
    W, H = rng.random((M, D), dtype=np.float32), rng.random((D, N), dtype=np.float32)
    found = without_zeros(counts)
    columns = np.repeat(np.arange(N), np.diff(found.indptr))
    np.testing.assert_allclose(product_at(found, W, H), (W @ H)[found.indices, columns], rtol=1e-5)


def test_products_and_residuals_are_those_of_all_entries(rng, counts):
    W, H = rng.random((M, D), dtype=np.float32), rng.random((D, N), dtype=np.float32)
    A, listed = counts / 2, without_zeros(counts)
    np.testing.assert_allclose(project(listed, W, 0.5), W.T @ A, rtol=1e-5)
    np.testing.assert_allclose(back_project(listed, H, 0.5), A @ H.T, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(list(residuals(listed, W, H, 0.5))), A - W @ H, rtol=1e-4, atol=1e-5)
    assert squared_norm(listed, 0.5) == pytest.approx((A**2).sum())


def test_the_worst_fitted_columns_are_those_of_all_entries(rng, counts):
    W, H = rng.random((M, D), dtype=np.float32) / 9, rng.random((D, N), dtype=np.float32)
    (listed, dense) = (worst_of_partition([A], [H], W, 3, 0.5) for A in (without_zeros(counts), counts))
    for found, expected in zip(listed, dense, strict=True):
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-5)


@ALL
@pytest.mark.usefixtures("synchronous")
def test_a_few_iterations_come_to_what_they_come_to_with_zeros(words, as_dense, start, kind):
    """From the same start, since the default for zeros is a sketch."""
    settings = {**({"solver": "hals"} if kind == "squares" else KINDS[kind]), "start": start, "max_iter": 6, "tol": 0}
    listed = factorize(words, D, **settings).factors
    as_dense()
    dense = factorize(words, D, name="dense", **settings).factors
    assert apart(listed.W.compute(), dense.W.compute()) < 1e-4
    assert apart(listed.H.compute(), dense.H.compute()) < 1e-4
    np.testing.assert_allclose(listed.loss, dense.loss, rtol=1e-5)


@ALL
def test_the_recorded_loss_is_that_of_the_factors_in_the_store(words, counts, kind):
    factors = factorize(words, D, **KINDS[kind], max_iter=20).factors
    A, WH = counts.astype(np.float64), product(factors)
    fit = divergence(A, np.maximum(WH, 1e-30)) if "loss" in KINDS[kind] else np.square(A - WH).sum()
    penalty = factors.attributes.get("penalty", 0.0)
    assert factors.loss[-1] - penalty == pytest.approx(fit, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.usefixtures("synchronous")
def test_updates_of_the_divergence_are_those_of_scikit_learn(words, counts, start):
    W, H = sklearn_factors(counts, start, beta_loss=KL)
    given = {"loss": KL, "solver": "mu", "start": start, "tol": 0}
    ours = [factorize(words, D, **given, max_iter=k, name=f"k{k}").factors for k in (30, 31)]
    assert apart(ours[0].H.compute(), H) < 1e-5
    assert apart(ours[1].W.compute(), W) < 1e-5


@ALL
@pytest.mark.usefixtures("synchronous")
def test_no_block_with_zeros_is_worked_on(words, monkeypatch, kind):
    monkeypatch.setattr(which, "DenseBlock", None)
    monkeypatch.setattr("pipeline.panels.panel", None)
    assert factorize(words, D, **KINDS[kind], max_iter=3).n_new >= 3


class TestAnywhere:
    @pytest.mark.parametrize("kind", ["squares", "divergence"])
    def test_the_same_bits(self, words, cluster_of, monkeypatch, kind):
        settings = {**KINDS[kind], "max_iter": 5, "tol": 0, "fresh": True}
        factorize(words, D, **settings)
        here = bits(words)
        with cluster_of(2):
            factorize(words, D, **settings)
        assert bits(words) == here
        monkeypatch.setattr(job, "make_plan", lambda *given: replace(make_plan(*given), n_cached=0, stores_H=True))
        factorize(words, D, **settings)
        assert bits(words) == here

    @ALL
    def test_an_interrupted_run_goes_on_to_the_same_bits(self, words, monkeypatch, kind):
        """Blocks are wider than chunks, as which H is stored."""
        monkeypatch.setattr(blocks, "COLUMNS_TOGETHER", 30)
        settings = {**KINDS[kind], "max_iter": 9, "tol": 0}
        factorize(words, D, **settings)
        expected = bits(words)
        with pytest.raises(Stopped):
            factorize(words, D, **settings, fresh=True, on_iteration=stop_at(5))
        assert factorize(words, D, **settings).n_new > 0
        assert bits(words) == expected


class TestBlocks:
    def test_narrow_chunks_are_put_beside_each_other(self, words, counts, monkeypatch):
        monkeypatch.setattr(blocks, "COLUMNS_TOGETHER", 30)
        path = store.open_matrix(words).path
        found = list(WithoutZeros(StoredBlocks(path, "A", range(2, 12))))
        assert [block.shape[1] for block in found] == [32, 32, 16]
        np.testing.assert_array_equal(np.hstack([block.toarray() for block in found]), counts[:, 16:96])

    def test_parts_are_few_where_little_is_listed(self, words):
        matrix = store.open_matrix(words)
        assert [len(part) for part in partitions(matrix)] == [9, 10, 9, 10]
        of_many = replace(matrix, shape=(M, 10**9), n_nonzero=10**9)
        assert len(partitions(of_many)) == -(-(5 * 10**9 + 4 * 10**9) // 16_000_000)

    def test_holes_and_what_is_held_out_make_them_dense(self, words):
        matrix = store.open_matrix(words)
        for settings, few in (({}, True), ({"holdout": 0.1}, False), ({"loss": KL}, True)):
            assert objective.is_sparse(NMFConfig(n_components=D, **settings), matrix) == few


class TestSmallProblem:
    def test_the_sample_is_read_without_zeros(self, words, counts):
        matrix = store.open_matrix(words)
        found = sampled(matrix, NMFConfig(n_components=D), 50)
        columns = store.read_array(matrix.path, "sample_column")[:50]
        np.testing.assert_array_equal(found.toarray(), counts[:, columns])

    def test_its_range_is_that_of_the_sample_with_zeros(self, counts):
        listed, dense = (find_range(A, 12, 0, 1.0) for A in (without_zeros(counts), counts))
        np.testing.assert_allclose(listed.s[:6], dense.s[:6], rtol=1e-4)

    def test_columns_are_iterated_on_as_they_are_unless_a_sketch_is_asked_for(self, words):
        matrix = store.open_matrix(words)
        chosen = [choose(matrix, NMFConfig(n_components=D, solver="sketch", sketch_rank=rank)) for rank in (None, 10)]
        assert [(one.kind, one.range_rank) for one in chosen] == [("all", D + 10), ("sketch", 10)]

    def test_a_sketch_that_is_asked_for_is_of_all_entries(self, words, as_dense):
        listed = factorize(words, D, sketch_rank=20, max_iter=300).factors
        as_dense()
        dense = factorize(words, D, sketch_rank=20, max_iter=300, name="dense").factors
        assert listed.attributes["sketch"]["rank"] == dense.attributes["sketch"]["rank"] == 20
        assert listed.attributes["relative_error"] == pytest.approx(dense.attributes["relative_error"], rel=1e-2)


def test_new_columns_are_told_their_error_over_all_entries(words, counts, tmp_path):
    factors = factorize(words, D, loss=KL, max_iter=40).factors
    write_matrix(tmp_path / "more.zarr", counts[:, :24])
    images = batches(store.open_matrix(words), [str(tmp_path / "more.zarr")])
    with ThreadPoolExecutor(1) as executor:
        found = list(transformed(factors, images, executor))
    H, errors = np.hstack([one.H for one in found]), np.concatenate([one.relative_error for one in found])
    A = counts[:, :24].astype(np.float64)
    missed, norms = (np.linalg.norm(one, axis=0) for one in (A - factors.W.compute() @ H, A))
    np.testing.assert_allclose(errors, np.divide(missed, norms, out=np.zeros(24), where=norms > 0), rtol=1e-4)


@pytest.fixture(scope="module")
def articles(tmp_path_factory):
    """6000 × 12,000 counts of which 1 in 150 is not zero, in 12 chunks of 1,024 columns."""
    path, rng = tmp_path_factory.mktemp("articles") / "articles.zarr", np.random.default_rng(0)
    A = np.zeros((6000, 12_000), np.uint8)
    A[rng.integers(0, 6000, 480_000), rng.integers(0, 12_000, 480_000)] = rng.integers(1, 9, 480_000)
    write_matrix(path, A)
    return path


@pytest.mark.parametrize("settings", [{}, {"loss": KL}], ids=["squares", "divergence"])
def test_measured_is_at_most_planned_and_planned_at_most_2_5_of_measured(articles, settings):
    config, matrix = NMFConfig(n_components=60, solver="mu", **settings), store.open_matrix(articles)
    planned = make_plan(matrix, config, 500 * MEBI).worker_nbytes
    measured = int(run(articles, 60, 500 * MEBI, "mu", settings).stdout)
    assert measured <= planned <= 2.5 * measured


def test_rows_of_many_entries_are_summed_to_float32(rng):
    """SciPy adds them up one after the other: in float32 the error would be a thousand times as large."""
    A, H = np.zeros((40, 40_000), np.float32), rng.random((2, 40_000), dtype=np.float32)
    A[3] = 0.1
    expected = A[3].astype(np.float64) @ H.T.astype(np.float64)
    np.testing.assert_allclose(back_project(without_zeros(A), H, 1.0)[3], expected, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_vocabularies_that_share_no_word_are_told_apart(tmp_path, rng, seed):
    """Their singular vectors have one sign, so that half of a start made of both signs is rounding."""
    A = np.zeros((120, 400), np.float32)
    for k in range(4):
        A[30 * k : 30 * k + 30, 100 * k : 100 * k + 100] = np.outer(1 + rng.random(30), 1 + rng.random(100))
    write_matrix(tmp_path / "apart.zarr", A)
    factors = factorize(tmp_path / "apart.zarr", 4, solver="hals", seed=seed).factors
    assert factors.attributes["relative_error"] < 1e-3


@pytest.mark.parametrize(
    ("scale", "most", "told"), [(0.5, 255, "scale of 0.5, but must have one of 1"), (1, 3, "missing entries")]
)
def test_columns_of_other_meaning_are_refused(words, counts, tmp_path, scale, most, told):
    write_matrix(tmp_path / "other.zarr", counts, scale, present=counts <= most)
    with pytest.raises(store.BadInput, match=told):
        batches(store.open_matrix(words), [str(tmp_path / "other.zarr")])
