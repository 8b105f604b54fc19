"""What a report says in figures, against slow formulas on A, W and H."""

import json

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from pipeline import factorize
from pipeline.report import survey as survey_module
from pipeline.report.account import account
from pipeline.report.survey import survey
from pipeline.starts import Given
from tests.conftest import save_png
from tests.test_images import prep

pytestmark = pytest.mark.usefixtures("synchronous")


@pytest.fixture
def factors(planted):
    """d = 5 of a planted 4, in 19 chunks; basis images of very different norms."""
    return factorize(planted, 5, solver="mu", max_iter=30).factors


def whole(factors):
    """A, W and H as they are, in float64."""
    A = store.open_array(factors.home, "A")[:].astype(np.float64)
    return A, factors.read("W").astype(np.float64), factors.read("H").astype(np.float64)


def errors(A, X):
    return np.linalg.norm(A - X, axis=0) / np.linalg.norm(A, axis=0)


def test_components_come_with_their_share_of_energy_the_largest_first(factors):
    _, W, H = whole(factors)
    energies = np.array([np.linalg.norm(np.outer(W[:, k], H[k])) ** 2 for k in range(5)])
    told = survey(factors).components
    assert told.order.tolist() == np.argsort(-energies).tolist()
    np.testing.assert_allclose(told.energy, np.sort(energies)[::-1] / energies.sum(), rtol=1e-5)


def test_the_columns_that_use_a_component_most_are_told(factors):
    H, told = factors.read("H"), survey(factors).components
    expected = [np.argsort(-H[k], kind="stable")[:3].tolist() for k in told.order]
    assert told.users.tolist() == expected


def test_correlations_are_those_of_the_rows_of_H_and_cosines_of_the_columns_of_W(factors):
    _, W, H = whole(factors)
    told = survey(factors).components
    unit = (W / np.linalg.norm(W, axis=0))[:, told.order]
    np.testing.assert_allclose(told.correlations, np.corrcoef(H[told.order]), atol=1e-5)
    np.testing.assert_allclose(told.cosines, unit.T @ unit, atol=1e-5)


def test_of_many_components_those_of_most_energy_are_compared(factors, monkeypatch):
    every = survey(factors).components
    monkeypatch.setattr(survey_module, "COMPARED", 3)
    told = survey(factors).components
    np.testing.assert_array_equal(told.order, every.order)
    np.testing.assert_allclose(told.correlations, every.correlations[:3, :3], atol=1e-6)
    np.testing.assert_allclose(told.cosines, every.cosines[:3, :3], atol=1e-6)


def test_columns_that_could_not_be_read_do_not_change_correlations(planted, factors):
    H, ok = factors.read("H"), store.open_array(planted, "ok", mode="r+")
    unreadable = np.flatnonzero(~factors.read("H").any(axis=0))
    told = survey_module._components(factors, factors.read("W"), np.isin(np.arange(300), unreadable, invert=True))
    assert ok[:].all()
    kept = np.delete(H, unreadable, axis=1)[told.order]
    np.testing.assert_allclose(told.correlations, np.corrcoef(kept), atol=1e-5)


def test_each_column_comes_with_its_error(factors):
    A, W, H = whole(factors)
    told = survey(factors).errors
    assert told.whole
    readable = A.any(axis=0)
    assert told.columns.tolist() == np.flatnonzero(readable).tolist()
    np.testing.assert_allclose(told.relative, errors(A[:, readable], (W @ H)[:, readable]), rtol=1e-3, atol=1e-6)


def test_of_a_large_matrix_the_errors_are_those_of_its_sample(factors, monkeypatch):
    exact = survey(factors).errors
    monkeypatch.setattr(survey_module, "WORTHWHILE", 0)
    monkeypatch.setattr(survey_module, "TOGETHER", 32)
    told = survey(factors).errors
    assert not told.whole
    assert 0 < len(told.columns) <= 32
    np.testing.assert_allclose(told.relative, exact.of(told.columns), rtol=1e-6)


def test_missing_entries_are_no_error(tmp_path, rng):
    A = rng.random((20, 3)) @ rng.random((3, 40))
    present = rng.random(A.shape) < 0.7
    write_matrix(tmp_path / "s.zarr", A.astype(np.float32), present=present)
    factors = factorize(tmp_path / "s.zarr", 3, max_iter=20, holdout=0.1).factors
    _, W, H = whole(factors)
    expected = np.linalg.norm((A - W @ H) * present, axis=0) / np.linalg.norm(A * present, axis=0)
    np.testing.assert_allclose(survey(factors).errors.relative, expected, rtol=1e-4)


def test_colours_of_transparent_pixels_are_no_error_where_these_are_masked(tmp_path, rng):
    pixels = rng.integers(0, 256, (20, 4, 3, 4), dtype=np.uint8)
    pixels[..., 3] = 255 * (rng.random((20, 4, 3)) < 0.6)
    np.save(tmp_path / "images.npy", pixels)
    factors = factorize(prep(tmp_path / "images.npy", tmp_path / "s.zarr").path, 3, mask="alpha", max_iter=5).factors
    A, W, H = whole(factors)
    counted = np.repeat(pixels[..., 3:] > 0, 4, axis=3)
    counted[..., 3] = True
    present = counted.reshape(20, -1).T
    expected = np.linalg.norm((A / 255 - W @ H) * present, axis=0) / np.linalg.norm(A / 255 * present, axis=0)
    np.testing.assert_allclose(survey(factors).errors.relative, expected, rtol=1e-4)


def test_best_median_and_worst_are(factors):
    found = survey(factors)
    ranked = found.errors.columns[np.argsort(found.errors.relative, kind="stable")].tolist()
    assert found.shown["best"].tolist() == ranked[:4]
    assert found.shown["worst"].tolist() == ranked[:-5:-1]
    ranks = [ranked.index(j) for j in found.shown["median"]]
    assert abs(np.mean(ranks) - (len(ranked) - 1) / 2) <= 1


def test_the_heat_map_shows_norms_of_parts_and_keeps_like_columns_together(factors):
    _, W, H = whole(factors)
    found = survey(factors)
    parts = (np.linalg.norm(W, axis=0)[:, None] * H)[found.components.order]
    np.testing.assert_allclose(found.map_weights, parts[:, found.map_columns], rtol=1e-5)
    assert (np.diff(found.map_weights.argmax(axis=0)) >= 0).all()


@pytest.mark.parametrize("worthwhile", [2**36, 0], ids=["all", "sample"])
def test_images_that_were_appended_since_are_left_out(faces, tmp_path, rng, monkeypatch, worthwhile):
    monkeypatch.setattr(survey_module, "WORTHWHILE", worthwhile)
    path = prep(faces, tmp_path / "s.zarr").path
    factors = factorize(path, 3, max_iter=5).factors
    before = survey(factors)
    save_png(faces / "zz.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))
    prep(faces, tmp_path / "s.zarr")
    told = account(factors, survey(factors))
    assert told["matrix"]["appended_since"] == 1
    assert told["errors"]["examined"] == len(before.errors.columns) == 30
    np.testing.assert_array_equal(survey(factors).errors.relative, before.errors.relative)


def test_a_component_that_vanished_has_no_energy_users_or_correlation(tmp_path):
    write_matrix(tmp_path / "s.zarr", np.ones((6, 8), np.float32))
    start = Given(W=np.ones((6, 2), np.float32) * np.float32([1, 0]), H=np.ones((2, 8), np.float32))
    factors = factorize(tmp_path / "s.zarr", 2, solver="mu", max_iter=3, start=start).factors
    told = survey(factors).components
    assert told.energy.tolist() == [1, 0]
    assert told.users[1].tolist() == [-1, -1, -1]
    assert told.correlations[1].tolist() == [0, 0]


def test_the_account_is_json_without_nan(factors):
    told = json.loads(json.dumps(account(factors, survey(factors)), allow_nan=False))
    assert told["result"]["relative_error"] == factors.attributes["relative_error"]
    assert told["iterations"]["relative_error"] == [one.relative_error for one in factors.iterations]
    assert sum(told["errors"]["histogram"]["counts"]) == told["errors"]["examined"]


def test_entries_that_are_missing_or_zero_are_not_listed(tmp_path, rng):
    A, present = np.float32(rng.random((30, 12)) < 0.3) * rng.random((30, 12), np.float32), rng.random((30, 12)) < 0.5
    write_matrix(tmp_path / "s.zarr", A, present=present)
    factors = factorize(tmp_path / "s.zarr", 2, max_iter=5).factors
    for one in account(factors, survey(factors))["reconstructions"]["random"]:
        listed = {int(entry["name"]) for entry in one["entries"]}
        assert listed == set(np.flatnonzero(A[:, one["column"]] * present[:, one["column"]]))


def test_the_account_lists_the_largest_entries_of_columns_beside_those_of_W_H(factors):
    A, W, H = whole(factors)
    one = account(factors, survey(factors))["reconstructions"]["worst"][0]
    j, rows = one["column"], [int(entry["name"]) for entry in one["entries"]]
    assert [entry["value"] for entry in one["entries"]] == sorted(A[:, j], reverse=True)[: len(rows)]
    np.testing.assert_allclose([entry["rebuilt"] for entry in one["entries"]], (W @ H)[rows, j], rtol=1e-4)
