"""Runs of other objectives are runs: they resume, extend, stream, and end the same wherever they are."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.batches import batches
from pipeline import factorize, job
from pipeline.config import NMFConfig
from pipeline.job import ParametersDiffer
from pipeline.loop import Stop
from pipeline.objective import which
from pipeline.plan import make_plan
from pipeline.transform import transformed
from pipeline.which import is_held_out
from tests.commands import nmf_batch
from tests.conftest import SOAK, save_png
from tests.test_checkpoints import Stopped, stop_at
from tests.test_factorize import bits
from tests.test_images import prep
from tests.test_integrity import damages
from tests.test_memory import MEBI, run

KL = "kullback-leibler"
KINDS = {
    "divergence": {"loss": KL},
    "divergence to the letter": {"loss": KL, "solver": "mu"},
    "held out": {"holdout": 0.2},
    "penalties": {"alpha_W": 0.01, "l1_ratio": 0.5, "solver": "hals"},
    "penalties of what is present": {"holdout": 0.2, "alpha_W": 0.01, "l1_ratio": 0.5},
}
ALL = pytest.mark.parametrize("kind", KINDS)


def objective(path, factors):
    """What the factors of images should say their loss is, from the formulas."""
    config, A = NMFConfig(**factors.attributes["parameters"]), store.open_array(path, "A")[...]
    present = which(config, store.open_matrix(path)).what(A, None, np.arange(A.shape[1])) == 1
    W, H, A = factors.W.compute(), factors.H.compute(), A / 255
    x = np.maximum(W.astype(np.float64) @ H, np.finfo(np.float32).eps)
    terms = A * np.log(np.where(A > 0, A / x, 1)) - A + x if config.loss == KL else np.square(A - x)
    penalty = (present.sum(axis=0) * H**2).sum() + (present.sum(axis=1, keepdims=True) * W**2).sum()
    return (terms * present).sum() + config.alpha_W * penalty


@pytest.fixture
def table(tmp_path, rng, small_chunks):
    """60 × 90 of which 4 % are known, in 6 chunks."""
    present = rng.random((60, 90)) < 0.04
    write_matrix(tmp_path / "table.zarr", 1 + rng.random((60, 90)), present=present)
    return tmp_path / "table.zarr"


@ALL
def test_an_interrupted_run_goes_on_to_the_same_bits(planted, kind):
    settings = {**KINDS[kind], "max_iter": 11, "tol": 0}
    factorize(planted, 4, **settings)
    expected = bits(planted)
    with pytest.raises(Stopped):
        factorize(planted, 4, **settings, fresh=True, on_iteration=stop_at(6))
    assert factorize(planted, 4, **settings).n_new == 5
    assert bits(planted) == expected
    assert factorize(planted, 4, **settings).n_new == 0
    assert damages(planted) == []


@pytest.mark.parametrize("kind", ["divergence", "held out", "penalties of what is present"])
def test_more_iterations_go_on_and_another_objective_is_refused(planted, kind):
    settings = {**KINDS[kind], "tol": 0}
    factorize(planted, 4, **settings, max_iter=9)
    expected = bits(planted)
    factorize(planted, 4, **settings, max_iter=4, fresh=True)
    assert factorize(planted, 4, **settings, max_iter=9).n_new == 5
    assert bits(planted) == expected
    with pytest.raises(ParametersDiffer, match=r"alpha_W: [0.1]+ → 0.7"):
        factorize(planted, 4, **{**settings, "alpha_W": 0.7}, max_iter=9)


@pytest.mark.parametrize("kind", ["divergence", "penalties of what is present", "few entries"])
def test_anywhere_the_same_bits(planted, table, cluster_of, monkeypatch, kind):
    path = table if kind == "few entries" else planted
    settings = {**KINDS.get(kind, {"holdout": 0.2}), "max_iter": 4, "tol": 0, "fresh": True}
    factorize(path, 4, **settings)
    here = bits(path)
    with cluster_of(2):
        factorize(path, 4, **settings)
    assert bits(path) == here
    monkeypatch.setattr(job, "make_plan", lambda *given: replace(make_plan(*given), n_cached=0))
    factorize(path, 4, **settings)
    assert bits(path) == here


class TestImages:
    @pytest.fixture
    def arrive(self, tmp_path, rng, monkeypatch):
        """Lets so many RGBA images of 6 × 5, a third of them transparent, come into the folder of a store."""
        monkeypatch.setattr(store, "CHUNK_NBYTES", 16 * 120)  # chunks of 16 images
        parts, count = rng.random((120, 3)), iter(range(1000))

        def arrive(n):
            for _ in range(n):
                pixels = (80 * parts @ rng.random(3)).reshape(6, 5, 4).clip(0, 255).astype(np.uint8)
                pixels[..., 3] = np.where(rng.random((6, 5)) < 1 / 3, 0, 255)
                pixels[pixels[..., 3] == 0] = 0
                save_png(tmp_path / "images" / f"{next(count):04d}.png", pixels)
            return prep(tmp_path / "images", tmp_path / "f.zarr", mode="RGBA").path.path

        return arrive

    def test_the_colours_of_transparent_pixels_are_missing_and_nothing_else(self, arrive):
        path = arrive(20)
        matrix = store.open_matrix(path)
        A = store.open_array(path, "A")[...]
        what = which(NMFConfig(n_components=3, mask="alpha"), matrix).what(A, None, np.arange(20))
        images = A.T.reshape(20, 6, 5, 4)
        expected = np.ones(images.shape, np.uint8)
        expected[..., :3][images[..., 3] == 0] = 0
        np.testing.assert_array_equal(what, expected.reshape(20, -1).T)

    def test_colours_below_what_is_transparent_are_filled_in(self, arrive):
        """They are 0 in the store; a fit to that would pull what is seen down."""
        path = arrive(40)
        errors = []
        for mask in ("", "alpha"):
            factors = factorize(path, 3, mask=mask, solver="hals", fresh=True, max_iter=100).factors
            A, WH = store.open_array(path, "A")[...] / 255, factors.W.compute() @ factors.H.compute()
            seen = (A > 0) & (np.arange(120) % 4 < 3)[:, np.newaxis]
            errors.append(np.linalg.norm((A - WH)[seen]) / np.linalg.norm(A[seen]))
        assert errors[1] < 0.75 * errors[0]

    @pytest.mark.parametrize("settings", [{"loss": KL}, {"mask": "alpha"}, {"holdout": 0.1, "alpha_W": 0.001}])
    @pytest.mark.parametrize("first", [32, 37], ids=["whole chunks", "a part of a chunk"])
    def test_new_columns_alone_are_visited_and_the_loss_is_of_all(self, arrive, settings, first):
        path = arrive(first)
        given = {**settings, "max_iter": 20, "tol": 0}
        before = factorize(path, 3, **given, refresh="never").factors
        arrive(8)
        result = factorize(path, 3, **given, refresh="never")
        assert (result.stop, result.factors.attributes["passes"]) == (Stop.EXTENDED, pytest.approx(8 / (first + 8)))
        np.testing.assert_array_equal(result.factors.H.compute()[:, :first], before.H.compute())
        assert result.factors.loss[-1] == pytest.approx(objective(path, result.factors), rel=1e-5)
        assert factorize(path, 3, **given, refresh="full").n_new == 20
        assert damages(path) == []

    def test_an_appended_result_can_be_interrupted_and_its_columns_held_out_stay(self, arrive):
        path = arrive(30)
        config = NMFConfig(n_components=3, holdout=0.3)
        what = [which(config, store.open_matrix(path)).what(np.ones((120, n)), None, np.arange(n)) for n in (30, 45)]
        np.testing.assert_array_equal(what[0], what[1][:, :30])

    def test_an_unreadable_image_counts_for_nothing(self, arrive, tmp_path):
        arrive(20)
        (tmp_path / "images" / "0007.png").write_bytes(b"no image")
        path = prep(tmp_path / "images", tmp_path / "g.zarr", mode="RGBA", max_skip=1.0).path.path
        for settings in ({"loss": KL}, {"mask": "alpha"}, {"holdout": 0.2}):
            factors = factorize(path, 3, **settings, max_iter=5, fresh=True).factors
            np.testing.assert_allclose(factors.H.compute()[:, 7], 0, atol=1e-6)
        readable = np.delete(np.arange(20), 7)
        A, WH = store.open_array(path, "A")[...] / 255, factors.W.compute() @ factors.H.compute()  # 20 % held out
        held = is_held_out(np.arange(120), readable, 0.2, 0)
        expected = np.sqrt(np.square(A - WH)[:, readable][held].mean())
        assert factors.attributes["holdout_error"] == pytest.approx(expected, rel=1e-4)

    def test_the_mean_image_is_that_of_readable_ones(self, arrive, tmp_path):
        arrive(20)
        (tmp_path / "images" / "0007.png").write_bytes(b"no image")
        path = prep(tmp_path / "images", tmp_path / "g.zarr", mode="RGBA", max_skip=1.0).path.path
        factors = factorize(path, 3, loss=KL, max_iter=5).factors
        A = np.delete(store.open_array(path, "A")[...], 7, axis=1) / 255
        mean = np.broadcast_to(A.mean(axis=1, keepdims=True), A.shape)
        of_mean = (A * np.log(np.where(A > 0, A / np.where(mean > 0, mean, 1), 1))).sum()
        assert factors.attributes["relative_error"] == pytest.approx(factors.loss[-1] / of_mean, rel=1e-3)

    @pytest.mark.parametrize("settings", [{"loss": KL}, {"mask": "alpha"}, {"alpha_W": 0.01, "l1_ratio": 0.5}])
    def test_images_of_the_store_get_the_weights_they_have(self, arrive, tmp_path, settings):
        path = arrive(24)
        factors = factorize(path, 3, **settings, max_iter=400, tol=1e-7).factors
        with ThreadPoolExecutor(2) as pool:
            found = list(transformed(factors, batches(store.open_matrix(path), [str(tmp_path / "images")]), pool))
        H = np.concatenate([one.H for one in found], axis=1)
        np.testing.assert_allclose(H, factors.H.compute(), atol=0.02 * H.max())


def test_columns_of_another_table_get_weights_and_other_rows_are_refused(table, tmp_path, rng):
    factors = factorize(table, 3, max_iter=50, alpha_W=0.01).factors
    with ThreadPoolExecutor(2) as pool:
        (*_, found) = transformed(factors, batches(store.open_matrix(table), [str(table)]), pool)
    assert found.H.shape[0] == 3
    for rows, features in ((61, None), (60, [f"film {i}" for i in range(60)])):
        write_matrix(tmp_path / f"{rows}.zarr", rng.random((rows, 5)), features=features)
        with pytest.raises(store.BadInput, match="has other rows than"):
            batches(store.open_matrix(table), [str(tmp_path / f"{rows}.zarr")])
    with pytest.raises(store.BadInput, match="does not hold images"):
        batches(store.open_matrix(table), [str(tmp_path)])


def test_the_command_tells_the_held_out_error_and_refuses_in_one_line(planted):
    found = nmf_batch("run", "--zarr", planted, "-d", 4, "--holdout", "20%", "--max-iter", 5)
    assert "on the 0.2 of the entries that is held out" in found.stdout
    told = nmf_batch("info", "--zarr", planted).stdout
    assert "‖A − W H‖²_F over the entries that are present by hals" in told
    refused = nmf_batch("run", "--zarr", planted, "-d", 4, "--solver", "sketch", "--loss", KL, "--name", "x")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_columns_of_a_table_are_matched_by_their_names(table):
    factorize(table, 3, max_iter=30, alpha_W=0.01)
    found = nmf_batch("match", table, "--zarr", table, "--name", "d3", "--top", 1)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0::2][:3] == ["0:", "1:", "2:"]
    assert sum(line.split()[-1] == head[:-1] for head, line in zip(lines[0::2], lines[1::2], strict=False)) > 45
    drawn = nmf_batch("match", table, "--zarr", table, "--name", "d3", "--sheet", table.parent / "s.png")
    assert (drawn.returncode, "does not hold any" in drawn.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["held out", "divergence"] if SOAK else ["held out"])
def test_measured_is_at_most_planned(tmp_path_factory, kind):
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    write_matrix(path, np.random.default_rng(0).integers(0, 256, (6000, 4_000), dtype=np.uint8))
    config = NMFConfig(n_components=10, solver="amu", **KINDS[kind])
    planned = make_plan(store.open_matrix(path), config, 500 * MEBI).worker_nbytes
    measured = int(run(path, 10, 500 * MEBI, "amu", KINDS[kind]).stdout)
    assert measured <= planned <= 2 * measured
