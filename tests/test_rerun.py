"""Images have come since: they alone are visited, and the result is what its definition says."""

import json
import shutil

import numpy as np
import pytest

from data_prep import store
from pipeline import factorize, open_factors
from pipeline.basis import Sums, basis_of, improve
from pipeline.job import ParametersDiffer
from pipeline.loop import Stop
from pipeline.solvers import hals
from tests.commands import nmf_batch
from tests.conftest import save_png
from tests.naive import nnls_columns
from tests.test_checkpoints import Stopped, stop_at
from tests.test_factorize import bits
from tests.test_images import prep
from tests.test_integrity import damages

HEIGHT, WIDTH, D = 8, 6, 4
SETTINGS = {"max_iter": 12, "tol": 0}


@pytest.fixture
def parts(rng):
    return rng.random((HEIGHT * WIDTH, D)) * (rng.random((HEIGHT * WIDTH, D)) < 0.5)


@pytest.fixture
def arrive(tmp_path, rng, parts, monkeypatch):
    """Lets so many images of the same parts, or of other ones, come into the folder of a store with small chunks."""
    monkeypatch.setattr(store, "CHUNK_NBYTES", 16 * HEIGHT * WIDTH)  # chunks of 16 images
    count = iter(range(1000))

    def arrive(n, of=None):
        W = parts if of is None else of
        for _ in range(n):
            pixels = np.clip(100 * W @ (rng.random(D) * (rng.random(D) < 0.7)) + 40 * rng.random(len(W)), 0, 255)
            save_png(tmp_path / "images" / f"{next(count):04d}.png", pixels.reshape(HEIGHT, WIDTH).astype(np.uint8))
        return prep(tmp_path / "images", tmp_path / "f.zarr").path.path

    return arrive


def matrix_of(path):
    return store.open_array(path, "A")[...] / 255.0


def factors_of(path):
    factors = open_factors(path, f"d{D}")
    return factors, factors.W.compute().astype(float), factors.H.compute().astype(float)


@pytest.mark.parametrize("solver", ["sketch", "hals", "mu"])
@pytest.mark.parametrize("first", [112, 123], ids=["whole chunks", "a part of a chunk"])
def test_the_new_columns_alone_are_visited(arrive, monkeypatch, first, solver):
    path = arrive(first)
    factorize(path, D, solver=solver, **SETTINGS)
    _, _, H_before = factors_of(path)
    arrive(20)
    read, read_chunk = set(), store.read_chunk

    def counted(array, *index, **how):
        if array.path == "A":
            read.add(index[-1])
        return read_chunk(array, *index, **how)

    monkeypatch.setattr(store, "read_chunk", counted)
    result = factorize(path, D, solver=solver, **SETTINGS)
    monkeypatch.undo()
    assert (result.stop, read) == (Stop.EXTENDED, set(range(first // 16, -(-(first + 20) // 16))))
    assert result.factors.attributes["passes"] == pytest.approx(20 / (first + 20))
    factors, W, H = factors_of(path)
    np.testing.assert_array_equal(H[:, :first], H_before)
    loss = np.linalg.norm(matrix_of(path) - W @ H) ** 2
    assert factors.loss[-1] == pytest.approx(loss, rel=1e-3)
    assert damages(path) == []


def test_what_is_computed_is_what_its_definition_says(arrive):
    path = arrive(120)
    factorize(path, D, solver="hals", **SETTINGS)
    _, W, _ = factors_of(path)
    arrive(16)
    result = factorize(path, D, solver="hals", **SETTINGS).factors
    A, (_, W_new, H_new) = matrix_of(path), factors_of(path)
    np.testing.assert_allclose(H_new[:, 120:], nnls_columns(W, A[:, 120:]), atol=2e-3)
    old, new = (
        np.linalg.norm(A[:, s] - W @ H_new[:, s]) / np.linalg.norm(A[:, s]) for s in (slice(120), slice(120, 136))
    )
    stored_error = open_factors(path, f"d{D}").attributes["lineage"][0]["relative_error"]
    assert stored_error == pytest.approx(old, rel=1e-3)
    assert result.attributes["drift"] == pytest.approx(new / old - 1, abs=1e-2)
    sums = Sums(A @ H_new.T, H_new @ H_new.T)
    expected, _ = improve(basis_of(W.astype(np.float32)), sums, lambda G, C, X: hals.improve_W(G, C, X, sweeps=8))
    np.testing.assert_allclose(W_new, expected.W, atol=1e-4 * expected.W.max())


@pytest.mark.parametrize("solver", ["sketch", "hals"])
@pytest.mark.parametrize(
    ("refresh", "shifted", "again"),
    [("auto", False, False), ("auto", True, True), ("never", True, False), ("full", False, True)],
)
def test_all_columns_are_visited_again_where_the_new_ones_are_missed(
    arrive, rng, parts, solver, refresh, shifted, again
):
    path = arrive(120)
    factorize(path, D, solver=solver, **SETTINGS)
    others = rng.random(parts.shape) * (rng.random(parts.shape) < 0.5)
    arrive(40, of=others if shifted else None)
    result = factorize(path, D, solver=solver, refresh=refresh, **SETTINGS)
    assert (result.stop is not Stop.EXTENDED) == again
    assert (result.factors.attributes["drift"] > 0.1) == shifted
    assert (result.factors.attributes["passes"] > 1) == again
    assert factorize(path, D, solver=solver, refresh="auto", **SETTINGS).n_new == 0


def test_components_keep_their_order_and_say_how_far_they_turned(arrive):
    path = arrive(120)
    factorize(path, D, **SETTINGS)
    _, before, _ = factors_of(path)
    arrive(150, of=before / before.max() * [0.05, 0.05, 0.05, 1.5])  # the last one by energy becomes the first
    factorize(path, D, refresh="full", **SETTINGS)
    factors, W, _ = factors_of(path)
    cosine = (W * before).sum(axis=0) / np.linalg.norm(W, axis=0) / np.linalg.norm(before, axis=0)
    assert factors.attributes["cosines"]["min"] == pytest.approx(cosine.min(), abs=1e-4)
    assert cosine.min() > 0.8


def test_a_result_can_be_visited_again_later(arrive):
    path = arrive(120)
    factorize(path, D, **SETTINGS)
    arrive(30)
    assert factorize(path, D, refresh="never", **SETTINGS).stop is Stop.EXTENDED
    result = factorize(path, D, refresh="full", **SETTINGS)
    assert result.stop is not Stop.EXTENDED
    assert result.factors.attributes["lineage"][-1]["n"] == 150
    error = np.linalg.norm(matrix_of(path) - np.dot(*factors_of(path)[1:])) / np.linalg.norm(matrix_of(path))
    assert result.factors.attributes["relative_error"] == pytest.approx(error, rel=1e-3)


def test_appends_in_a_row_stay_near_a_cold_run(arrive):
    path = arrive(120)
    factorize(path, D, **SETTINGS)
    for _ in range(4):
        arrive(10)
        factorize(path, D, **SETTINGS)
    about = open_factors(path, f"d{D}").attributes
    cold = factorize(path, D, name="cold", **SETTINGS).factors.attributes
    assert about["relative_error"] <= 1.05 * cold["relative_error"]
    assert [one["n"] for one in about["lineage"]] == list(range(120, 160, 10))


def test_the_same_bits_on_workers(arrive, cluster_of, tmp_path):
    path = arrive(43)
    factorize(path, D, **SETTINGS)
    arrive(30)
    shutil.copytree(path, tmp_path / "copy.zarr")
    factorize(path, D, **SETTINGS)
    with cluster_of(2):
        factorize(tmp_path / "copy.zarr", D, **SETTINGS)
    assert bits(tmp_path / "copy.zarr") == bits(path)


@pytest.mark.parametrize("solver", ["sketch", "hals"])
def test_an_interrupted_refresh_goes_on_to_the_same_bits(arrive, tmp_path, solver):
    path = arrive(43)
    factorize(path, D, solver=solver, **SETTINGS)
    arrive(30)
    shutil.copytree(path, tmp_path / "copy.zarr")
    whole = factorize(path, D, solver=solver, refresh="full", **SETTINGS)
    for k in (2, 9):
        with pytest.raises(Stopped):
            factorize(tmp_path / "copy.zarr", D, solver=solver, refresh="full", on_iteration=stop_at(k), **SETTINGS)
    ended = factorize(tmp_path / "copy.zarr", D, solver=solver, refresh="full", **SETTINGS)
    assert bits(tmp_path / "copy.zarr") == bits(path)
    assert ended.factors.attributes["cosines"] == whole.factors.attributes["cosines"]
    assert ended.factors.attributes["lineage"][0]["n"] == 43


def test_an_interrupted_run_of_fewer_columns_is_left_behind(arrive):
    path = arrive(43)
    with pytest.raises(Stopped):
        factorize(path, D, on_iteration=stop_at(5), **SETTINGS)
    arrive(30)
    with pytest.raises(ParametersDiffer, match="43 → 48 × 73"):
        factorize(path, D, **SETTINGS)
    factorize(path, D, fresh=True, **SETTINGS)


def test_another_matrix_is_no_append(arrive, tmp_path, rng):
    path = arrive(43)
    factorize(path, D, **SETTINGS)
    save_png(tmp_path / "images" / "0001.png", rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
    prep(tmp_path / "images", path, rebuild=True)
    arrive(5)
    with pytest.raises(ParametersDiffer, match="or other values"):
        factorize(path, D, **SETTINGS)


def test_the_command_says_what_it_did_and_99_where_nothing_is_new(arrive):
    path = arrive(120)
    run = ("run", "--zarr", path, "-d", D)
    nmf_batch(*run)
    assert [nmf_batch(*run, *more).returncode for more in ((), ("--exit-if-unchanged",))] == [0, 99]
    arrive(20)
    plan = json.loads(nmf_batch("plan", "--zarr", path, "-d", D, "--refresh", "never", "--json").stdout)
    assert plan["passes"] == pytest.approx(20 / 140)
    shown = nmf_batch(*run, "--exit-if-unchanged")
    assert (shown.returncode, "New columns were taken in" in shown.stdout) == (0, True)
    told = nmf_batch("info", "--zarr", path).stdout
    assert "n = 120, relative error" in told
    assert "new columns drift by" in told
