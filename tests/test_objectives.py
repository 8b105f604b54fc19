"""The divergence, missing entries and penalties, against scikit-learn, closed forms, and formulas written out."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from pipeline.basis import Sums, basis_of
from pipeline.config import NMFConfig
from pipeline.job import factorize
from pipeline.objective import Unsuitable, solver_of, which
from pipeline.one_pass import BlockMatrix
from pipeline.penalties import Weights
from pipeline.solvers.hals import HALS
from pipeline.solvers.state import Momentum, State
from pipeline.starts import Given
from pipeline.which import is_held_out

pytestmark = pytest.mark.usefixtures("synchronous")
KL = "kullback-leibler"


@pytest.fixture
def counts(rng):
    return rng.poisson(4 * rng.random((30, 3)) @ rng.random((3, 70))).astype(np.float32)


@pytest.fixture
def stored(tmp_path, counts, small_chunks):
    write_matrix(tmp_path / "counts.zarr", counts)
    return tmp_path / "counts.zarr"


@pytest.fixture
def start(rng, counts):
    m, n = counts.shape
    return Given(rng.random((m, 4), dtype=np.float32) + 0.1, rng.random((4, n), dtype=np.float32) + 0.1)


def sklearn_factors(A, start, **settings):
    """W and H of scikit-learn after 30 iterations: X = Aᵀ, so its W is our Hᵀ and is updated first."""
    from sklearn.decomposition import non_negative_factorization

    X, W, H = (np.ascontiguousarray(one.T.astype(np.float64)) for one in (A, start.H, start.W))
    asked = {"init": "custom", "solver": "mu", "max_iter": 30, "tol": 0, **settings}
    W, H, _ = non_negative_factorization(X, W, H, n_components=len(start.H), **asked)
    return H.T, W.T


def apart(found, expected):
    """‖found − expected‖ / ‖expected‖."""
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def divergence(A, WH):
    return sum(a * np.log(a / x) - a + x if a else x for a, x in zip(A.ravel(), WH.ravel(), strict=True))


def product(factors):
    return factors.W.compute().astype(np.float64) @ factors.H.compute().astype(np.float64)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
class TestMultiplicativeUpdates:
    """To the letter they are scikit-learn's."""

    PENALTIES = ({}, {"alpha_W": 0.02, "l1_ratio": 0.5}, {"alpha_W": 0.0, "alpha_H": 0.03})

    @pytest.mark.parametrize("penalty", PENALTIES)
    def test_of_the_divergence_are_those_of_scikit_learn(self, stored, counts, start, penalty):
        W, H = sklearn_factors(counts, start, beta_loss=KL, **penalty)
        ours = [
            factorize(stored, 4, loss=KL, solver="mu", start=start, max_iter=k, tol=0, name=f"k{k}", **penalty).factors
            for k in (30, 31)
        ]
        assert apart(ours[0].H.compute(), H) < 1e-5
        assert apart(ours[1].W.compute(), W) < 1e-5

    @pytest.mark.parametrize("penalty", PENALTIES)
    def test_of_squares_are_those_of_scikit_learn(self, stored, counts, start, penalty):
        W, H = sklearn_factors(counts, start, beta_loss="frobenius", **penalty)
        ours = factorize(stored, 4, solver="mu", start=start, max_iter=30, tol=0, **penalty).factors
        assert apart(ours.H.compute(), H) < 1e-5
        assert apart(ours.W.compute(), W) < 1e-5


class TestDivergence:
    def test_the_recorded_loss_is_that_of_the_factors_in_the_store(self, stored, counts):
        factors = factorize(stored, 4, loss=KL, max_iter=7, tol=0).factors
        assert factors.loss[-1] == pytest.approx(divergence(counts, product(factors)), rel=1e-5)

    def test_its_error_is_a_share_of_what_the_mean_column_leaves(self, stored, counts):
        factors = factorize(stored, 4, loss=KL, max_iter=7, tol=0).factors
        mean = np.broadcast_to(counts.mean(axis=1, keepdims=True), counts.shape)
        expected = factors.loss[-1] / divergence(counts, mean)
        assert factors.attributes["relative_error"] == pytest.approx(expected, rel=1e-5)

    def test_column_sums_are_those_of_A_after_H_and_row_sums_after_W(self, stored, counts, start):
        after_H = factorize(stored, 4, loss=KL, solver="mu", start=start, max_iter=1).factors
        np.testing.assert_allclose(product(after_H).sum(axis=0), counts.sum(axis=0), rtol=1e-5)
        W = factorize(stored, 4, loss=KL, solver="mu", max_iter=2).factors.W.compute()
        WH = W.astype(np.float64) @ after_H.H.compute()
        np.testing.assert_allclose(WH.sum(axis=1), counts.sum(axis=1), rtol=1e-5)

    def test_it_scales_with_A(self, tmp_path, stored, counts, start):
        """Small values are values: D(A / c ‖ W H / c) = D(A ‖ W H) / c."""
        write_matrix(tmp_path / "small.zarr", counts / 1000)
        given = {"loss": KL, "solver": "mu", "max_iter": 6, "tol": 0}
        losses = [
            factorize(path, 4, start=Given(start.W, start.H / c), **given).factors.loss
            for path, c in ((stored, 1), (tmp_path / "small.zarr", 1000))
        ]
        np.testing.assert_allclose(losses[1] * 1000, losses[0], rtol=1e-4)

    def test_of_rank_1_it_is_row_sums_times_column_sums(self, stored, counts):
        factors = factorize(stored, 1, loss=KL).factors
        expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
        np.testing.assert_allclose(product(factors), expected, rtol=1e-4)

    @pytest.mark.parametrize("solver", ["mu", "amu"])
    def test_the_loss_never_rises(self, stored, solver):
        losses = factorize(stored, 4, loss=KL, solver=solver, max_iter=60, tol=0).factors.loss
        assert (np.diff(losses) <= 1e-6 * losses[:-1]).all()

    def test_amu_needs_fewer_passes_than_mu(self, stored):
        errors = [
            factorize(stored, 4, loss=KL, solver=s, max_iter=8, fresh=True).factors.loss[-1] for s in ("mu", "amu")
        ]
        assert errors[1] < 0.9 * errors[0]


class TestMissingEntries:
    @pytest.fixture
    def holes(self, rng, counts):
        return rng.random(counts.shape) < 0.6

    @pytest.fixture
    def masked(self, tmp_path, counts, holes, small_chunks):
        write_matrix(tmp_path / "masked.zarr", np.where(holes, counts, np.nan), present=holes)
        return tmp_path / "masked.zarr"

    @pytest.mark.parametrize(("loss", "solver"), [("frobenius", "hals"), ("frobenius", "amu"), (KL, "amu"), (KL, "mu")])
    def test_the_loss_is_that_of_the_entries_that_are_present(self, masked, counts, holes, loss, solver):
        factors = factorize(masked, 4, loss=loss, solver=solver, max_iter=9, tol=0).factors
        A, WH = counts[holes], product(factors)[holes]
        expected = np.square(A - WH).sum() if loss == "frobenius" else divergence(A, WH)
        assert factors.loss[-1] == pytest.approx(expected, rel=1e-5)
        assert (np.diff(factors.loss) <= 1e-6 * factors.loss[:-1]).all()

    @pytest.mark.parametrize("solver", ["hals", "amu", "mu"])
    def test_what_is_held_out_does_not_count(self, tmp_path, counts, solver, small_chunks):
        """Other values where nothing is fitted: the same bits."""
        rows, columns = (np.arange(length) for length in counts.shape)
        held = is_held_out(rows, columns, 0.3, seed=5)
        W = []
        for k, A in enumerate((counts, np.where(held, 9 - np.minimum(counts, 9), counts))):
            write_matrix(tmp_path / f"{k}.zarr", A)
            given = {"holdout": 0.3, "seed": 5, "max_iter": 5, "tol": 0}
            W.append(factorize(tmp_path / f"{k}.zarr", 4, solver=solver, **given).factors.W.compute())
        np.testing.assert_array_equal(*W)

    def test_the_seed_draws_what_is_held_out(self):
        drawn = [is_held_out(np.arange(200), np.arange(300), 0.3, seed) for seed in (0, 1)]
        assert [held.mean() for held in (*drawn, drawn[0] & drawn[1])] == pytest.approx([0.3, 0.3, 0.09], abs=0.01)

    def test_the_held_out_error_is_that_of_the_held_out_entries(self, stored, counts):
        factors = factorize(stored, 4, holdout=0.2, seed=3, max_iter=6).factors
        held = is_held_out(*(np.arange(length) for length in counts.shape), 0.2, seed=3)
        expected = np.sqrt(np.square(counts - product(factors))[held].mean())
        assert factors.attributes["holdout_error"] == pytest.approx(expected, rel=1e-5)
        assert 0.17 < held.mean() < 0.23

    def test_planted_factors_are_found_with_half_of_the_entries(self, tmp_path, rng, small_chunks):
        A = (rng.random((40, 3)) @ rng.random((3, 200))).astype(np.float32)
        write_matrix(tmp_path / "half.zarr", A)
        factors = factorize(tmp_path / "half.zarr", 3, holdout=0.5, tol=1e-6, max_iter=300).factors
        assert factors.attributes["holdout_error"] < 0.01 * A.std()

    def test_few_entries_are_kept_sparse_with_the_same_result(self, masked, monkeypatch):
        results = []
        for share in (0.0, 1.0):
            monkeypatch.setattr("pipeline.objective.SPARSE", share)
            given = {"solver": "mu", "max_iter": 20, "tol": 0, "fresh": True, "alpha_W": 0.01}
            results.append(factorize(masked, 4, holdout=0.1, **given).factors)
        np.testing.assert_allclose(results[0].loss, results[1].loss, rtol=1e-4)
        assert results[0].iterations[-1].holdout_error == pytest.approx(
            results[1].iterations[-1].holdout_error, rel=1e-3
        )

    def test_rows_of_which_nothing_is_known_become_the_mean_of_the_others(self, tmp_path, counts, small_chunks):
        present = np.ones(counts.shape, bool)
        present[[3, 7]] = False
        write_matrix(tmp_path / "rows.zarr", counts, present=present)
        W = factorize(tmp_path / "rows.zarr", 4, max_iter=9).factors.W.compute()
        np.testing.assert_allclose(W[[3, 7]], [np.delete(W, [3, 7], axis=0).mean(axis=0)] * 2, rtol=1e-3)


class TestPenalties:
    @pytest.mark.parametrize("solver", ["mu", "hals", "sketch"])
    def test_the_loss_is_twice_scikit_learns_objective(self, stored, counts, solver):
        alpha, ratio = {"alpha_W": 0.02, "alpha_H": 0.01}, 0.3
        factors = factorize(stored, 4, solver=solver, l1_ratio=ratio, max_iter=40, **alpha).factors
        (m, n), W, H = counts.shape, factors.W.compute(), factors.H.compute()
        ours = np.square(counts - product(factors)).sum() / 2
        for a, count, X in ((0.02, m, H), (0.01, n, W)):
            ours += a * count * (ratio * X.sum() + (1 - ratio) / 2 * np.square(X).sum())
        assert factors.loss[-1] == pytest.approx(2 * ours, rel=1e-5)

    @pytest.mark.filterwarnings("ignore:Maximum number of iterations")
    @pytest.mark.parametrize("solver", ["hals", "sketch"])
    def test_the_minimum_is_scikit_learns(self, stored, counts, start, solver):
        penalty = {"alpha_W": 0.02, "alpha_H": 0.01, "l1_ratio": 0.3}
        W, H = sklearn_factors(counts, start, solver="cd", **{**penalty, "max_iter": 2000})
        (m, n), l1, l2 = counts.shape, 0.3, 0.7
        best = np.square(counts - W @ H).sum()
        best += 2 * l1 * (0.02 * m * H.sum() + 0.01 * n * W.sum())
        best += l2 * (0.02 * m * np.square(H).sum() + 0.01 * n * np.square(W).sum())
        factors = factorize(stored, 4, solver=solver, tol=1e-7, max_iter=2000, **penalty).factors
        assert factors.loss[-1] <= 1.005 * best
        if solver == "sketch":  # whose small problem has the penalties, too
            few = factorize(stored, 4, tol=1e-7, max_iter=2000, polish=1, fresh=True, **penalty).factors
            assert few.loss[-1] <= 1.01 * best

    def test_absolute_values_make_zeros(self, stored):
        zeros = [
            (factorize(stored, 4, fresh=True, alpha_W=a, l1_ratio=1.0).factors.H.compute() == 0).mean()
            for a in (0, 0.1)
        ]
        assert zeros[1] > zeros[0] + 0.1

    def test_without_holes_masked_penalties_are_those_of_no_mask(self, stored):
        """Held out are so few that none is drawn: entries go one by one, and the objective is the same."""
        given = {"solver": "hals", "alpha_W": 0.02, "alpha_H": 0.01, "l1_ratio": 0.3, "max_iter": 600, "tol": 1e-8}
        losses = [factorize(stored, 4, fresh=True, holdout=h, **given).factors.loss[-1] for h in (0.0, 1e-12)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    def test_filling_in_ends_where_multiplicative_updates_do(self, tmp_path, rng, counts):
        """Columns and rows of which much is missing are held back less."""
        present = rng.random(counts.shape) < np.outer(np.linspace(0.3, 1, 30), np.linspace(0.3, 1, 70))
        write_matrix(tmp_path / "uneven.zarr", counts, present=present)
        given = {"alpha_W": 0.3, "init": "nndsvda", "max_iter": 400, "tol": 1e-7, "fresh": True}
        losses = [factorize(tmp_path / "uneven.zarr", 2, solver=s, **given).factors.loss[-1] for s in ("hals", "amu")]
        assert losses[0] <= 1.001 * losses[1]

    def test_a_component_that_starts_again_counts_in_the_loss(self, rng):
        """It is no part of W H, since no column uses it, but of the penalty on W."""
        W, missed = rng.random((6, 2), dtype=np.float32), rng.random(6, dtype=np.float32)
        sums = Sums(np.zeros((6, 2)), np.diag([1.0, 0.0]))
        solver = HALS(penalty_W=Weights(0.1, 0.2))
        state = State(W=basis_of(W), H=[], loss=9.0, penalty=4.0)
        new = solver._revived(SimpleNamespace(worst_fitted=lambda *given: [missed]), state, sums)
        expected = np.stack([W[:, 0], missed], axis=1)
        np.testing.assert_array_equal(new.W.W, expected)
        assert new.penalty == pytest.approx((2 * 0.1 * expected + 0.2 * expected**2).sum())
        assert new.loss - new.penalty == pytest.approx(9 - 4)


class TestSteps:
    @pytest.mark.parametrize("solver", ["hals", "amu"])
    def test_an_iteration_that_raises_the_loss_is_not_taken(self, stored, counts, solver):
        config = NMFConfig(n_components=4, holdout=0.1, solver=solver)
        matrix = store.open_matrix(stored)
        block = which(config, matrix).block(counts, None, np.arange(70))
        A = BlockMatrix(partitions=[[block]], shape=counts.shape, scale=1.0, norm_squared=1.0)
        step, W = solver_of(config, matrix).step, np.random.default_rng(0).random((30, 4), dtype=np.float32)
        state = State(W=basis_of(W), H=[None])
        for _ in range(4):
            state = step(A, state)
        too_far = replace(state, momentum=Momentum(W_before=state.W.W[::-1].copy(), beta=50.0))
        refused = step(A, too_far)
        assert refused.W is state.W
        assert refused.momentum.W_before is None
        assert step(A, refused).loss <= state.loss


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"solver": "sketch", "loss": KL}, "sketch has signs, but the loss is a divergence"),
            ({"solver": "sketch", "holdout": 0.1}, "sketch has signs, but entries are missing or held out"),
            ({"solver": "hals", "loss": KL}, "minimises squares, but the loss is a divergence"),
            ({"solver": "amu"}, "no entry is missing"),
            ({"mask": "alpha"}, "no images with transparency"),
            ({"loss": KL, "polish": 3}, "polish is an option of --solver sketch, but the solver is amu"),
        ],
    )
    def test_what_cannot_be_honoured_is_refused(self, stored, settings, words):
        with pytest.raises(Unsuitable, match=words):
            factorize(stored, 4, **settings)


class TestMasksWithoutHoles:
    """Held out are so few entries that none is drawn: a store does not keep a mask that is full."""

    def test_the_store_keeps_none(self, tmp_path, counts):
        write_matrix(tmp_path / "full.zarr", counts, present=np.ones(counts.shape, bool))
        assert store.open_matrix(tmp_path / "full.zarr").n_present is None

    def test_the_divergence_is_that_of_no_mask(self, stored):
        given = {"loss": KL, "max_iter": 20, "tol": 0, "fresh": True}
        plain, masked = (factorize(stored, 4, holdout=h, **given).factors.loss for h in (0.0, 1e-12))
        np.testing.assert_allclose(plain, masked, rtol=1e-6)

    def test_multiplicative_updates_of_squares_are_those_of_no_mask(self, stored, counts, start):
        """With a mask an iteration ends after H, without one after W."""
        given = {"solver": "mu", "start": start, "tol": 0, "fresh": True}
        plain = factorize(stored, 4, max_iter=10, **given).factors.W.compute()
        masked = factorize(stored, 4, max_iter=11, holdout=1e-12, **given).factors.W.compute()
        np.testing.assert_allclose(plain, masked, rtol=1e-4, atol=1e-6 * plain.max())
