import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import dask
import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.folders import folder
from data_prep.lock import HeldError
from pipeline import factorize, open_factors
from pipeline.job import ParametersDiffer
from pipeline.loop import Stop
from pipeline.plan import RefusedPlan
from pipeline.publishing import Finished, publish_revision
from pipeline.starts import Given
from tests import naive
from tests.conftest import sparse


def bits(path, name="d4"):
    factors = open_factors(path, name)
    with dask.config.set(scheduler="synchronous"):
        arrays = (factors.W.compute(), factors.H.compute(), factors.loss)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_the_same_bits_for_any_number_of_threads_and_processes(planted, cluster_of, solver):
    found = {}
    for workers in (0, 1, 2):
        for threads in (1, 2) if workers == 0 else (1,):
            with (
                cluster_of(workers) if workers else nullcontext(),
                ThreadPoolExecutor(threads) as pool,
                dask.config.set(pool=pool),
            ):
                factorize(planted, 4, solver=solver, max_iter=12, tol=0, fresh=True)
            found[workers, threads] = bits(planted)
    assert len(set(found.values())) == 1, found


@pytest.mark.usefixtures("synchronous")
class TestInThisThread:
    def test_w_and_h_are_non_negative_and_give_the_loss_that_is_recorded(self, planted):
        factors = factorize(planted, 3, solver="hals", max_iter=7).factors
        W, H = factors.W.compute().astype(np.float64), factors.H.compute().astype(np.float64)
        A = store.open_array(planted, "A")[...].astype(np.float64)
        assert min(W.min(), H.min()) >= 0
        assert factors.loss[-1] == pytest.approx(naive.squared_error(A, W, H), rel=1e-5)
        assert factors.attributes["relative_error"] == pytest.approx(
            np.linalg.norm(A - W @ H) / np.linalg.norm(A), 1e-5
        )

    @pytest.mark.parametrize("init", ["random", "nndsvd"])
    def test_a_planted_product_is_recovered(self, tmp_path, rng, init, small_chunks):
        W, H = sparse(rng, 60, 6), sparse(rng, 6, 400)
        write_matrix(tmp_path / "p.zarr", W @ H)
        factors = factorize(
            tmp_path / "p.zarr", 6, init=init, solver="hals", max_iter=1000, tol=0, target_error=1e-3
        ).factors
        assert naive.matched_cosine(factors.W.compute(), W) > 0.999

    @pytest.mark.parametrize("solver", ["hals", "mu"])
    def test_the_loss_never_rises(self, tmp_path, rng, solver, small_chunks):
        write_matrix(tmp_path / "r.zarr", rng.integers(0, 256, (50, 300), dtype=np.uint8))
        loss = factorize(tmp_path / "r.zarr", 5, solver=solver, max_iter=100, tol=0).factors.loss
        assert (loss[1:] <= loss[:-1] * (1 + 1e-6)).all()

    def test_a_rerun_has_nothing_to_do(self, planted):
        first = factorize(planted, 4, solver="hals", max_iter=5)
        again = factorize(planted, 4, solver="hals", max_iter=5)
        assert (first.n_new, again.n_new, again.factors.path) == (5, 0, first.factors.path)
        assert factorize(planted, 4, solver="hals", max_iter=3).n_new == 0

    @pytest.mark.parametrize("solver", ["hals", "mu"])
    def test_a_higher_max_iter_continues_to_the_same_bits(self, planted, solver):
        factorize(planted, 4, solver=solver, max_iter=10, tol=0)
        straight = bits(planted)
        factorize(planted, 4, solver=solver, max_iter=4, tol=0, fresh=True)
        more = factorize(planted, 4, solver=solver, max_iter=10, tol=0)
        assert (more.n_new, more.stop) == (6, Stop.MAX_ITER)
        assert bits(planted) == straight
        assert more.factors.attributes["parent"].startswith("r000002-")

    def test_a_tighter_tol_continues(self, planted):
        loose = factorize(planted, 3, solver="hals", tol=0.3)
        tight = factorize(planted, 3, solver="hals", tol=0.01)
        assert loose.stop == Stop.CONVERGED
        assert tight.n_new > 0
        assert [*tight.factors.loss[: len(loose.factors.loss)]] == [*loose.factors.loss]

    def test_other_parameters_under_the_same_name_are_refused_with_the_difference(self, planted):
        factorize(planted, 4, solver="hals", max_iter=2)
        with pytest.raises(ParametersDiffer, match=r"seed: 0 → 1\); .*--fresh"):
            factorize(planted, 4, solver="hals", max_iter=2, seed=1)
        assert factorize(planted, 4, solver="hals", max_iter=2, seed=1, fresh=True).n_new == 2

    def test_other_data_under_the_same_name_is_refused(self, planted, tmp_path):
        factorize(planted, 4, solver="hals", max_iter=2)
        write_matrix(tmp_path / "other.zarr", np.ones((5, 6)))
        (planted / "nmf").rename(tmp_path / "other.zarr" / "nmf")
        with pytest.raises(ParametersDiffer, match="the matrix: 40 × 300 → 5 × 6"):
            factorize(tmp_path / "other.zarr", 4, solver="hals", max_iter=2)

    def test_d_above_the_smaller_side_is_refused(self, planted):
        with pytest.raises(RefusedPlan, match=r"d is 41, but A is 40 × 300.*from 1 to 40"):
            factorize(planted, 41)

    @pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 7), (7, 1), (3, 3)])
    @pytest.mark.parametrize("solver", ["hals", "mu"])
    def test_the_smallest_matrices_and_the_largest_d(self, tmp_path, rng, m, n, solver):
        write_matrix(tmp_path / "s.zarr", 1 + rng.random((m, n)))
        result = factorize(tmp_path / "s.zarr", min(m, n), solver=solver, max_iter=500, tol=0)
        assert result.factors.attributes["relative_error"] < 0.02

    @pytest.mark.parametrize("solver", ["hals", "mu"])
    @pytest.mark.parametrize("init", ["random", "nndsvd"])
    def test_a_matrix_of_zeros_gives_zeros(self, tmp_path, solver, init):
        write_matrix(tmp_path / "z.zarr", np.zeros((4, 6)))
        result = factorize(tmp_path / "z.zarr", 2, solver=solver, init=init)
        product = result.factors.W.compute() @ result.factors.H.compute()
        np.testing.assert_array_equal(product, np.zeros((4, 6)))
        assert result.stop == Stop.EXACT

    def test_two_complete_revisions_are_kept(self, planted):
        for max_iter in (1, 2, 3, 4):
            factorize(planted, 4, solver="hals", max_iter=max_iter, tol=0)
        revisions = sorted(entry.name[:7] for entry in (planted / "nmf" / "d4").glob("r*"))
        assert revisions == ["r000003", "r000004"]

    def test_a_run_that_fails_leaves_the_last_result_as_it_was(self, planted):
        factorize(planted, 4, solver="hals", max_iter=2)
        before = bits(planted)
        (planted / "A" / "c" / "0" / "18").unlink()
        with pytest.raises(store.BadInput, match="A/c/0/18 is missing"):
            factorize(planted, 4, solver="hals", max_iter=9)
        assert bits(planted) == before
        assert len(list((planted / "nmf" / "d4").glob("r*"))) == 1

    def test_a_revision_that_cannot_be_written_leaves_the_last_one_current(self, planted, monkeypatch):
        factorize(planted, 4, solver="hals", max_iter=2)
        before = bits(planted)
        monkeypatch.setattr("pipeline.publishing.write_blocks", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            factorize(planted, 4, solver="hals", max_iter=9)
        assert bits(planted) == before

    def test_a_chunk_of_another_place_is_noticed(self, planted):
        chunks = planted / "A" / "c" / "0"
        (chunks / "3").write_bytes((chunks / "4").read_bytes())
        with pytest.raises(store.BadInput, match="A/c/0/3 is not the chunk that was prepared"):
            factorize(planted, 4)

    def test_checksums_that_are_not_the_matrix_s_are_noticed(self, planted, tmp_path, rng):
        write_matrix(tmp_path / "other.zarr", rng.random((40, 300)))
        shutil.rmtree(planted / "checksum")
        shutil.copytree(tmp_path / "other.zarr" / "checksum", planted / "checksum")
        with pytest.raises(store.BadInput, match="fingerprint of the store do not agree"):
            factorize(planted, 4)

    def test_what_somebody_else_published_meanwhile_stays(self, planted):
        """As after a lock that did not hold: the pointer is switched from the version that was read, or not at all."""
        first = factorize(planted, 4, solver="hals", max_iter=2).factors
        matrix, pointers = store.open_matrix(planted), folder(planted) / "nmf" / "d4"
        theirs = {"current": first.path.name, "note": "theirs"}
        finished = Finished(
            tall={"W": first.W.compute()},
            wide={},
            exact={},
            iterations=first.iterations,
            attributes=first.attributes,
            complete=True,
        )
        with pytest.raises(HeldError, match="another process has published"):
            publish_revision(matrix, "d4", finished, still_ours=lambda: store.publish(pointers, theirs))
        assert store.group_attributes(pointers)["note"] == "theirs"
        assert open_factors(planted, "d4").path == first.path

    def test_a_dead_attempt_is_cleaned_up_and_counts_for_nothing(self, planted):
        for max_iter in (1, 2):
            factorize(planted, 4, solver="hals", max_iter=max_iter, tol=0)
        folder = planted / "nmf" / "d4"
        (folder / "r000003-dead" / "W").mkdir(parents=True)
        (folder / "scratch-dead").mkdir()
        factorize(planted, 4, solver="hals", max_iter=3, tol=0)
        assert sorted(entry.name[:7] for entry in folder.glob("[rs]*")) == ["r000002", "r000004"]

    @pytest.mark.parametrize("name", ["..", "../x", "a/b", ".", "", "x\n"])
    def test_a_name_that_leads_elsewhere_is_refused(self, planted, name):
        before = sorted(planted.rglob("*"))
        if name:
            with pytest.raises(ValueError, match="the name is"):
                factorize(planted, 4, name=name)
        assert sorted(planted.rglob("*")) == before

    def test_two_runs_of_one_factorization_do_not_mix(self, planted):
        def second(_):
            factorize(planted, 4, solver="hals", max_iter=2)

        with pytest.raises(HeldError, match="another process is writing"):
            factorize(planted, 4, solver="hals", max_iter=2, on_iteration=second)

    def test_a_loss_that_is_not_finite_is_not_published(self, planted, monkeypatch):
        factorize(planted, 4, solver="hals", max_iter=2)
        before = bits(planted)
        monkeypatch.setattr("pipeline.basis.squared_error", lambda *_: float("nan"))
        with pytest.raises(store.BadInput, match="became NaN"):
            factorize(planted, 4, solver="hals", max_iter=9)
        assert bits(planted) == before

    def test_a_start_with_negative_values_is_refused(self, planted):
        with pytest.raises(RefusedPlan, match="must be finite and 0 or more"):
            factorize(planted, 2, start=Given(-np.ones((40, 2)), np.ones((2, 300))))

    def test_a_small_error_is_that_of_the_factors(self, tmp_path, rng):
        A = (sparse(rng, 40, 4) @ sparse(rng, 4, 300)).astype(np.float32)
        write_matrix(tmp_path / "one_chunk.zarr", A)
        factors = factorize(tmp_path / "one_chunk.zarr", 4, solver="hals", max_iter=15, tol=0).factors
        missed = A - factors.W.compute().astype(np.float64) @ factors.H.compute().astype(np.float64)
        assert 1e-6 < factors.attributes["relative_error"] < 2e-4
        assert factors.attributes["relative_error"] == pytest.approx(
            np.linalg.norm(missed) / np.linalg.norm(A), rel=0.05
        )

    def test_every_iteration_is_told(self, planted):
        told = []
        factorize(
            planted,
            4,
            solver="hals",
            max_iter=5,
            tol=0,
            on_iteration=lambda iterations: told.append(iterations[-1].loss),
        )
        assert told == list(open_factors(planted, "d4").loss)

    def test_open_factors_names_what_there_is(self, planted):
        factorize(planted, 4, solver="hals", max_iter=1)
        with pytest.raises(store.BadInput, match=r"no factorization 'd9', it has: d4"):
            open_factors(planted, "d9")

    def test_plan_and_outcome_are_recorded_side_by_side(self, planted):
        factorize(planted, 4, solver="hals", max_iter=2, tol=0)
        about = factorize(planted, 4, solver="hals", max_iter=7, tol=0).factors.attributes
        assert (about["plan"]["passes"], about["outcome"]["passes"]) == (5, 5)
        assert about["plan"]["bytes_read"] == about["outcome"]["bytes_read"] == 40 * 300 * 4
        assert about["outcome"]["driver_nbytes"] > 30e6

    def test_a_damaged_chunk_of_h_is_noticed_when_it_is_read(self, planted):
        factors = factorize(planted, 4, solver="hals", max_iter=1).factors
        file = factors.path.path / "H" / "c" / "0" / "5"
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
        assert factors.H[:, :80].compute().shape == (4, 80)
        with pytest.raises(store.BadInput, match="H/c/0/5 is damaged"):
            factors.H[:, 80:90].compute()
