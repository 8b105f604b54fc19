"""The default solver: a sketch of A, iterations on it, a few passes over A."""

import dataclasses
import itertools
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from distributed import Client, LocalCluster

from data_prep import store
from data_prep.arrays import write_matrix
from pipeline import factorize, open_factors, plan
from pipeline.basis import Basis, basis_of
from pipeline.checkpoints import Every
from pipeline.config import NMFConfig
from pipeline.kernels import gram
from pipeline.one_pass import Also, BlockMatrix
from pipeline.range_finder import Compressed, find_range, sketch
from pipeline.sketching import choose
from pipeline.small import ordered
from pipeline.solvers.hals import HALS
from pipeline.solvers.state import State
from pipeline.starts import basis_images
from tests.conftest import SOAK, sparse
from tests.test_checkpoints import Stopped, stop_at
from tests.test_factorize import bits

D, M, N = 4, 120, 300


@pytest.fixture
def noisy(rng):
    """A (120, 300) of rank 4 and noise."""
    return np.maximum(sparse(rng, M, D) @ sparse(rng, D, N) + 0.05 * rng.standard_normal((M, N)), 0).astype(np.float32)


@pytest.fixture
def stored(tmp_path, noisy, small_chunks):
    """The same in a store of 38 chunks: it is worth a sketch of 18 rows."""
    write_matrix(tmp_path / "noisy.zarr", noisy)
    return tmp_path / "noisy.zarr"


def blocks_of(A, widths=(100, 100, 100)):
    bounds = itertools.pairwise(np.cumsum([0, *widths]))
    blocks = [[np.ascontiguousarray(A[:, first:last])] for first, last in bounds]
    return BlockMatrix(partitions=blocks, shape=A.shape, scale=1.0, norm_squared=float(np.linalg.norm(A) ** 2))


def keep(WtW, WtA, H):
    return H


class TestRange:
    def test_a_sketch_of_a_matrix_of_low_rank_is_that_matrix(self, rng):
        A = (sparse(rng, 90, 5) @ sparse(rng, 5, 300)).astype(np.float32)
        found = find_range(A[:, :40].copy(), 12, 0, 1.0)
        Q, B, s = sketch(blocks_of(A), found.Q, bring=True)
        np.testing.assert_allclose(Q @ np.concatenate([b for part in B for b in part], 1), A, atol=1e-4)
        np.testing.assert_allclose(s[:5], np.linalg.svd(A, compute_uv=False)[:5], rtol=1e-4)

    def test_one_pass_is_as_good_as_a_power_iteration(self, rng):
        A = (rng.random((200, 12)) @ rng.random((12, 300)) + 0.2 * rng.random((200, 300))).astype(np.float32)
        Q0 = find_range(A[:, :60].copy(), 20, 0, 1.0).Q
        Q, B, s = sketch(blocks_of(A), Q0, bring=True)
        missed = np.linalg.norm(A - Q @ np.concatenate([b for part in B for b in part], 1))
        Q2 = np.linalg.qr(A @ (A.T @ Q0))[0]
        assert missed == pytest.approx(np.sqrt(np.linalg.norm(A) ** 2 - (s**2).sum()), rel=1e-3)
        assert missed < 1.03 * np.linalg.norm(A - Q2 @ (Q2.T @ A)) < np.linalg.norm(A - Q0 @ (Q0.T @ A))

    def test_it_visits_a_once(self, noisy):
        visits = []
        A = dataclasses.replace(blocks_of(noisy), on_visit=lambda: visits.append(1))
        sketch(A, find_range(noisy[:, :60].copy(), 18, 0, 1.0).Q, bring=True)
        assert len(visits) == 1

    def test_a_visit_of_the_sketch_is_a_visit_of_q_b(self, rng):
        Q, B = (
            np.linalg.qr(rng.standard_normal((80, 10)))[0].astype(np.float32),
            rng.random((10, 300), dtype=np.float32),
        )
        W, H = rng.random((80, 3), dtype=np.float32), rng.random((3, 300), dtype=np.float32)
        parts = [[H[:, j : j + 100].copy()] for j in (0, 100, 200)]
        compressed = Compressed(Q=Q, B=blocks_of(B), missed=2.0)
        H_new, sums = compressed.visit(basis_of(W), parts, lambda WtW, WtA, H: np.abs(WtA), Also(residual=True))
        H_new = np.concatenate([b for part in H_new for b in part], 1)
        np.testing.assert_allclose(H_new, np.abs(W.T @ Q @ B), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(sums.AHt, Q @ B @ H_new.T, rtol=1e-3, atol=1e-2)
        assert sums.residual == pytest.approx(np.linalg.norm(Q @ B - W @ H_new) ** 2 + 2.0, rel=1e-4)

    @pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nndsvdar", "nnsvd_lrc"])
    def test_a_start_from_singular_vectors_is_better_than_a_random_one_after_a_pass(self, rng, init):
        A = (sparse(rng, 90, 9) @ sparse(rng, 9, 300)).astype(np.float32)
        found = find_range(A[:, :100].copy(), 20, 0, 1.0)
        losses = {}
        for name in (init, "random"):
            W = basis_images(NMFConfig(n_components=9, init=name), found, 90)
            assert (W >= 0).all()
            losses[name] = HALS().step(blocks_of(A), State(W=basis_of(W), H=[None] * 3)).loss
        assert losses[init] < losses["random"]

    def test_filled_starts_have_no_zeros(self, noisy):
        found = find_range(noisy[:, :60].copy(), 18, 0, 1.0)
        assert all(basis_images(NMFConfig(n_components=6, init=i), found, M).all() for i in ("nndsvda", "nndsvdar"))


@pytest.mark.parametrize(
    ("m", "n", "d", "settings", "kind", "columns", "passes"),
    [
        (6177, 4000, 99, {}, "sketch", 4000, 1.495),
        (6177, 4000, 500, {}, "sketch", 4000, 1.505),
        (361, 2429, 49, {}, "all", 2429, 980 / 2429),
        (6177, 10**6, 99, {}, "sketch", 16384, 0.01836),
        (361, 10**6, 49, {}, "sample", 9800, 980e-6),
        (6177, 4000, 99, {"max_passes": 2.5}, "sketch", 4000, 1.495),
        (6177, 4000, 99, {"max_passes": 2}, "sketch", 1333, 0.828),
        (116412, 200000, 99, {}, "sketch", 200000, 1.0099),
        (6177, 4000, 99, {"sketch_rank": 400}, "sketch", 4000, 1.495),
        (6177, 300, 99, {}, "all", 300, 2 * 208 / 300),
        (361, 2429, 49, {"max_passes": 2}, "sample", 809, 2 * 490 / 2429),
    ],
)
def test_what_is_iterated_on_follows_from_the_sizes(m, n, d, settings, kind, columns, passes):
    matrix = store.StoredMatrix(
        path=None, attributes={}, shape=(m, n), dtype=np.dtype(np.uint8), chunk_images=1024, scale=1 / 255, n_ok=n,
        norm_squared=1.0, fingerprint="",
    )  # fmt: skip
    choice = choose(matrix, NMFConfig(n_components=d, solver="sketch", **settings))
    assert (choice.kind, choice.n_columns) == (kind, columns)
    assert choice.passes == pytest.approx(passes, rel=1e-3)


class TestSteps:
    def test_an_iteration_that_raises_the_loss_is_not_taken(self, noisy):
        A, state = blocks_of(noisy), State(W=basis_of(np.ones((M, D), np.float32)), H=[None] * 3)
        for _ in range(3):
            state = HALS().step(A, state)
        momentum = state.momentum._replace(beta=50.0, limit=60.0)
        refused = HALS().step(A, dataclasses.replace(state, momentum=momentum))
        assert refused.W is state.W
        assert (refused.H, refused.loss) == (state.H, state.loss)
        assert (refused.momentum.W_before, refused.momentum.limit) == (None, 50.0)
        assert HALS().step(A, refused).loss < state.loss

    def test_extrapolation_needs_fewer_iterations(self, noisy):
        def losses(before):
            state = State(W=basis_of(basis_images(NMFConfig(n_components=D, init="random"), None, M)), H=[None] * 3)
            for _ in range(30):
                state = HALS(sweeps=2, extrapolates_H=True).step(blocks_of(noisy), state)
                if not before:
                    state = dataclasses.replace(state, momentum=type(state.momentum)())
            return state.loss

        assert losses(before=True) < losses(before=False)

    @pytest.mark.parametrize("extrapolates_H", [False, True])
    def test_the_loss_is_that_of_the_factors(self, noisy, extrapolates_H):
        state = State(W=basis_of(np.random.default_rng(0).random((M, D), dtype=np.float32)), H=[None] * 3)
        for _ in range(12):
            state = HALS(extrapolates_H=extrapolates_H).step(blocks_of(noisy), state)
            H = np.concatenate([b for part in state.H for b in part], 1)
            assert state.loss == pytest.approx(np.linalg.norm(noisy - state.W.W @ H) ** 2, rel=1e-5)

    def test_a_component_that_no_image_uses_starts_again_from_what_is_missed(self, rng):
        A = np.zeros((30, 60), np.float32)
        A[:10, :20], A[10:20, 20:40], A[20:, 40:] = 1, 2, 3
        W = np.zeros((30, 3), np.float32)
        W[:10, 0], W[10:20, 1] = 1, 1  # nothing for the third kind of image, and a third component that is zero
        state = State(W=basis_of(W), H=[None])
        A = blocks_of(A, (60,))
        first = HALS().step(A, state)
        np.testing.assert_array_equal(np.flatnonzero(first.W.W[:, 2]), np.arange(20, 30))
        assert first.momentum.revivals == 2
        assert HALS().step(A, first).loss < 1e-6 * A.norm_squared

    def test_the_projected_gradient_is_that_of_the_definition(self, noisy, rng):
        W, H = rng.random((M, D), dtype=np.float32), rng.random((D, N), dtype=np.float32)
        W[W < 0.3], H[H < 0.3] = 0, 0
        A = blocks_of(noisy, (N,))
        _, sums = A.visit(basis_of(W), [[H]], keep, Also(gradient=True))
        from pipeline.basis import projected_gradient

        lengths = np.linalg.norm(W, axis=0)
        W1, H1 = W / lengths, H * lengths[:, None]
        by_H, by_W = W1.T @ W1 @ H1 - W1.T @ noisy, W1 @ H1 @ H1.T - noisy @ H1.T
        by_H[(H1 == 0) & (by_H > 0)], by_W[(W1 == 0) & (by_W > 0)] = 0, 0  # held back by zero
        expected = np.sqrt(
            ((by_H**2).sum() + (by_W**2).sum()) / (((W1.T @ noisy) ** 2).sum() + ((noisy @ H1.T) ** 2).sum())
        )
        assert projected_gradient(basis_of(W), sums) == pytest.approx(expected, rel=1e-4)

    def test_components_are_ordered_by_energy_and_of_unit_length(self, rng):
        W, H = rng.random((M, D), dtype=np.float32), rng.random((D, N), dtype=np.float32)
        H *= np.array([[3], [1], [4], [2]], np.float32)
        order = np.argsort(-np.linalg.norm(W, axis=0) * np.linalg.norm(H, axis=1))
        found = ordered(State(W=basis_of(W), H=[[H[:, :100]], [H[:, 100:]]]))
        np.testing.assert_allclose(found, (W / np.linalg.norm(W, axis=0))[:, order], rtol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-5)


class TestRuns:
    def test_a_few_passes_are_as_good_as_many(self, stored):
        few = factorize(stored, D).factors.attributes
        many = factorize(stored, D, solver="hals", name="many", max_iter=300, tol=1e-6).factors.attributes
        assert few["passes"] <= 4
        assert few["relative_error"] < 1.002 * many["relative_error"]
        assert few["projected_gradient"] < 1e-3

    def test_the_error_is_that_of_the_factors(self, stored, noisy):
        factors = factorize(stored, D).factors
        missed = noisy - factors.W.compute().astype(float) @ factors.H.compute().astype(float)
        assert factors.attributes["relative_error"] == pytest.approx(
            np.linalg.norm(missed) / np.linalg.norm(noisy), 1e-5
        )

    def test_the_svd_bound_is_nearly_that_of_a(self, stored, noisy):
        about = factorize(stored, D).factors.attributes
        s = np.linalg.svd(noisy, compute_uv=False)
        bound = np.sqrt((s[D:] ** 2).sum() / (s**2).sum())
        assert bound <= about["svd_bound"] < min(1.01 * bound, about["relative_error"])

    def test_passes_and_bytes_are_those_that_were_made(self, stored, monkeypatch):
        reads = []
        original = store.read_chunk

        def counting(array, *index, **named):
            reads.append((array.path.split("/")[-1], index[-1]))
            return original(array, *index, **named)

        monkeypatch.setattr(store, "read_chunk", counting)
        monkeypatch.setattr("pipeline.blocks.store.read_chunk", counting)
        about = factorize(stored, D, polish=2).factors.attributes
        of_A = [index for name, index in reads if name == "A"]
        assert len(of_A) == 38  # kept in memory after the first visit
        assert about["passes"] == pytest.approx(2 * 40 / N + 1 + 2)
        assert about["outcome"]["passes"] == about["passes"] <= about["plan"]["passes"]

    @pytest.mark.parametrize("max_passes", [1, 2, 2.5, 3.5])
    @pytest.mark.parametrize("d", [D, 20], ids=["sketch", "no sketch"])
    def test_no_more_passes_than_allowed(self, stored, max_passes, d):
        assert factorize(stored, d, max_passes=max_passes).factors.attributes["passes"] <= max_passes

    def test_the_same_bits_here_and_on_workers_and_where_they_hold_the_sketch(self, stored, cluster_of, monkeypatch):
        results = []
        for share, workers in ((0.25, 0), (0.25, 2), (0.0, 2)):
            monkeypatch.setattr(plan, "H_SHARE", share)
            if workers:
                with cluster_of(workers):
                    about = factorize(stored, D, max_iter=12, restarts=2, fresh=True).factors.attributes
            else:
                about = factorize(stored, D, max_iter=12, restarts=2, fresh=True).factors.attributes
            results.append(bits(stored, "d4"))
            assert about["sketch"]["rank"] == 18
        assert results[0] == results[1] == results[2]

    @pytest.mark.parametrize("d", [D, 20])
    def test_on_a_cluster_a_is_read_by_the_workers_alone(self, stored, cluster_of, monkeypatch, d):
        """Of rank 20 a sketch has no use: then all columns are brought here, from the workers."""
        read = []
        original = store.read_chunk
        monkeypatch.setattr(
            store, "read_chunk", lambda a, *at, **how: (read.append(a.path), original(a, *at, **how))[1]
        )
        with cluster_of(2):
            about = factorize(stored, d, max_iter=4).factors.attributes
        assert about["sketch"]["rank"] == (18 if d == D else None)
        assert {"sample"} <= {path.split("/")[-1] for path in read} <= {"sample", "checksum", "ok"}

    def test_a_worker_killed_while_workers_hold_the_sketch_changes_no_bit(self, stored, monkeypatch):
        factorize(stored, D, max_iter=12, tol=0, name="whole")
        monkeypatch.setattr(plan, "H_SHARE", 0.0)
        seen = []

        def kill_one(iterations):
            seen.append(iterations[-1].phase)
            if len(iterations) in (4, 9):
                os.kill(next(iter(Client.current().run(os.getpid).values())), signal.SIGKILL)

        two = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        with LocalCluster(**two) as cluster, Client(cluster):
            factorize(stored, D, max_iter=12, tol=0, name="harmed", on_iteration=kill_one)
        assert seen[:12] == ["sketch"] * 12
        assert bits(stored, "whole") == bits(stored, "harmed")

    @pytest.mark.parametrize("workers", [0, 2])
    def test_interrupted_anywhere_it_gives_the_same_bits(self, stored, cluster_of, monkeypatch, workers):
        settings = {"max_iter": 4, "restarts": 2, "tol": 0, "polish": 2}
        factorize(stored, D, name="whole", **settings)
        assert len(open_factors(stored, "whole").iterations) == 10

        def interrupted():
            for k in (1, 3, 4, 5, 8, 9) if SOAK or not workers else (3, 8, 9):
                with pytest.raises(Stopped):
                    factorize(stored, D, name="parts", on_iteration=stop_at(k), **settings)
            factorize(stored, D, name="parts", **settings)

        if workers:
            monkeypatch.setattr(plan, "H_SHARE", 0.0)
            with cluster_of(workers):
                interrupted()
        else:
            interrupted()
        assert bits(stored, "whole") == bits(stored, "parts")
        passes = [open_factors(stored, name).attributes["passes"] for name in ("whole", "parts")]
        assert passes[0] == pytest.approx(passes[1])  # the sketch was not made again

    def test_the_end_of_a_phase_is_a_checkpoint(self, stored, monkeypatch):
        monkeypatch.setattr("pipeline.checkpoints.PHASE_S", 0.0)
        written = []
        original = __import__("pipeline.job", fromlist=["publish_revision"]).publish_revision

        def noting(matrix, name, finished, **how):
            written.append((finished.complete, finished.iterations[-1].phase, len(finished.iterations)))
            return original(matrix, name, finished, **how)

        monkeypatch.setattr("pipeline.job.publish_revision", noting)
        factorize(stored, D, max_iter=6, tol=0, polish=1)
        assert written == [(False, "sketch", 1), (False, "sketch", 6), (True, "exact", 7)]

    def test_a_result_that_was_cut_short_is_gone_on_with(self, stored):
        short = factorize(stored, D, max_iter=3)
        longer = factorize(stored, D, max_iter=60)
        assert longer.n_new > 3
        assert longer.factors.attributes["relative_error"] <= short.factors.attributes["relative_error"]
        assert factorize(stored, D, max_iter=60).n_new == 0

    def test_more_polish_goes_on_with_passes_alone(self, stored):
        factorize(stored, D, polish=1)
        more = factorize(stored, D, polish=3)
        assert [i.phase for i in more.factors.iterations[-3:]] == ["exact"] * 3
        assert more.n_new == 2

    def test_the_best_of_several_starts_is_kept_and_all_are_told(self, stored, monkeypatch):
        kept = []
        monkeypatch.setattr(
            "pipeline.small_run.ordered", lambda state, unit: (kept.append(state.loss), ordered(state, unit=unit))[1]
        )
        about = factorize(stored, 8, restarts=4, max_iter=40).factors.attributes
        errors = about["sketch"]["errors"]
        best_so_far = [e for k, e in enumerate(errors) if e == min(errors[: k + 1])]
        assert len(kept) == len(best_so_far) < 4
        assert len(set(errors)) == 4
        assert about["relative_error"] == pytest.approx(min(errors), rel=0.01)
        phases = [i.phase for i in open_factors(stored, "d8").iterations]
        assert {"sketch", "sketch 2", "sketch 3", "sketch 4", "exact"} == set(phases)

    def test_time_that_is_over_ends_the_iterations_but_not_the_result(self, stored, monkeypatch):
        """By a clock that goes on by a hundredth of a second each time it is asked."""
        monkeypatch.setattr("pipeline.record.time", SimpleNamespace(perf_counter=itertools.count(0, 0.01).__next__))
        factors = factorize(stored, D, tol=0, max_iter=10**6, max_time=0.5).factors
        assert factors.attributes["stop"] == "POLISHED"
        assert [i.phase for i in factors.iterations] == ["sketch"] * 35 + ["exact"] * 2

    def test_a_checkpoint_of_the_small_problem_is_verified_and_read_by_nobody(self, stored):
        with pytest.raises(Stopped):
            factorize(stored, D, on_iteration=stop_at(5), checkpoint_every=Every(iterations=2))
        with pytest.raises(store.BadInput, match="no factorization 'd4'"):
            open_factors(stored, "d4")

    def test_a_sample_alone_is_enough_for_many_columns(self, tmp_path, rng, small_chunks):
        A = np.maximum(sparse(rng, 40, 3) @ sparse(rng, 3, 2000) + 0.05 * rng.standard_normal((40, 2000)), 0)
        write_matrix(tmp_path / "n.zarr", A.astype(np.float32))
        few = factorize(tmp_path / "n.zarr", 3).factors.attributes
        many = factorize(tmp_path / "n.zarr", 3, solver="hals", name="x", max_iter=300, tol=1e-6).factors.attributes
        assert few["sketch"]["n_columns"] == 600
        assert few["relative_error"] < 1.005 * many["relative_error"]


def test_gram_of_an_extrapolated_basis_is_its_own(rng):
    W, before = rng.random((3000, 5), dtype=np.float32), rng.random((3000, 5), dtype=np.float32)
    momentum = State(W=Basis(W, np.eye(5)), H=[]).momentum._replace(W_before=before, beta=0.5)
    ahead = momentum.ahead(Basis(W, np.eye(5)))
    np.testing.assert_allclose(ahead.W, W + 0.5 * (W - before), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ahead.WtW, gram(np.ascontiguousarray(ahead.W.T)), rtol=1e-4)
