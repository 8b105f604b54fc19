"""Images that come later are new columns; whoever reads meanwhile sees those that were there."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from data_prep import append, columns, store
from data_prep.folders import LocalFolder, folder
from data_prep.images import StoreDiffers
from data_prep.lock import HeldError, only_writer
from data_prep.sample import read_sample, sample_columns
from pipeline import factorize, job
from pipeline.plan import make_plan
from tests.conftest import save_png
from tests.test_factorize import bits
from tests.test_images import OneTask, content, count_calls, prep
from tests.test_integrity import damages

LOTS = (range(0, 40, 4), range(1, 40, 4), [k for k in range(40) if k % 4 > 1])
NAMES = [f"{k:02d}.png" for k in range(40)]


@pytest.fixture
def grown(tmp_path, rng, monkeypatch):
    """Images that arrive in three lots, a store that was prepared from the first one, and what A is in the end."""
    monkeypatch.setattr(store, "CHUNK_NBYTES", 8 * 30)  # chunks of 8 images
    pixels = rng.integers(0, 256, (40, 6, 5), dtype=np.uint8)

    def arrive(lot):
        for k in LOTS[lot]:
            save_png(tmp_path / "images" / NAMES[k], pixels[k])
        return tmp_path / "images"

    prep(arrive(0), tmp_path / "f.zarr")
    return arrive, tmp_path / "f.zarr", pixels[[*LOTS[0], *LOTS[1], *LOTS[2]]].reshape(40, 30).T


def test_appended_in_steps_the_columns_are_in_the_order_of_the_steps(grown):
    arrive, path, A = grown
    for lot in (1, 2):
        prep(arrive(lot), path)
    matrix = store.open_matrix(path)
    names = store.read_array(path, "image").tolist()
    np.testing.assert_array_equal(store.open_array(path, "A")[...], A)
    assert (names[:10], names[10:20], names[20:]) == (
        NAMES[::4],
        NAMES[1::4],
        [name for k, name in enumerate(NAMES) if k % 4 > 1],
    )
    assert (matrix.shape, matrix.n_ok) == ((30, 40), 40)
    assert matrix.norm_squared == pytest.approx(np.linalg.norm(A / 255) ** 2, rel=1e-12)
    np.testing.assert_array_equal(store.open_array(path, "sample")[...], A[:, sample_columns(np.ones(40, bool), 40)])
    assert damages(path) == []


def test_only_what_is_new_is_decoded(grown, monkeypatch):
    arrive, path, _ = grown
    decoded = count_calls(monkeypatch, columns, "examine")
    assert prep(arrive(1), path).n_new == 10
    assert len(decoded) == 10


def test_an_interrupted_append_goes_on_to_the_same_bytes(grown, tmp_path):
    arrive, path, _ = grown
    shutil.copytree(path, tmp_path / "whole.zarr")
    images = arrive(2)
    prep(images, tmp_path / "whole.zarr")
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            prep(images, path, executor=OneTask())
        assert store.open_matrix(path).shape == (30, 10)
    prep(images, path)
    assert content(path) == content(tmp_path / "whole.zarr")
    assert store.group_attributes(path) == store.group_attributes(tmp_path / "whole.zarr")


def test_a_longer_append_that_was_given_up_leaves_no_trace(grown, tmp_path):
    arrive, path, _ = grown
    shutil.copytree(path, tmp_path / "whole.zarr")
    images = arrive(1)
    shutil.copytree(images, tmp_path / "fewer")
    with pytest.raises(OSError, match="gone"):
        prep(arrive(2), path, executor=OneTask())
    shutil.rmtree(images)
    shutil.copytree(tmp_path / "fewer", images)
    for where in (path, tmp_path / "whole.zarr"):
        prep(images, where)
    assert content(path) == content(tmp_path / "whole.zarr")


def test_an_append_that_is_not_asked_for_any_more_is_taken_back(grown, tmp_path):
    arrive, path, _ = grown
    before = content(path)
    shutil.copytree(path.parent / "images", tmp_path / "first")
    with pytest.raises(OSError, match="gone"):
        prep(arrive(2), path, executor=OneTask())
    assert content(path) != before
    assert prep(tmp_path / "first", path).n_new == 0
    assert content(path) == before


def test_a_run_sees_the_columns_it_began_with(grown, monkeypatch):
    arrive, path, _ = grown
    factorize(path, 3, solver="hals", max_iter=4, tol=0, name="alone")
    monkeypatch.setattr(job, "make_plan", lambda *given: replace(make_plan(*given), n_cached=0))

    def meanwhile(iterations):
        if len(iterations) == 2:
            prep(arrive(1), path)

    factorize(path, 3, solver="hals", max_iter=4, tol=0, name="meanwhile", on_iteration=meanwhile)
    assert store.open_matrix(path).shape == (30, 20)
    assert bits(path, "alone") == bits(path, "meanwhile")


def test_a_start_is_that_of_the_sample_while_the_sample_is_replaced(grown, monkeypatch):
    arrive, path, _ = grown
    before = store.open_matrix(path)
    expected = read_sample(before, 7)
    monkeypatch.setattr(append, "write_sample", lambda *_: columns.store.open_array(path, "gone"))
    with pytest.raises(store.BadInput):
        prep(arrive(1), path)
    assert not (path / "sample").exists()
    np.testing.assert_array_equal(read_sample(before, 7), expected)
    monkeypatch.undo()
    monkeypatch.setattr(store, "CHUNK_NBYTES", 8 * 30)
    now = read_sample(store.open_matrix(path), 7)
    assert prep(path.parent / "images", path).n_new == 0
    np.testing.assert_array_equal(store.open_array(path, "sample")[:, :7], now)
    assert damages(path) == []


def test_images_that_went_or_changed_are_no_append(grown):
    arrive, path, _ = grown
    before = content(path)
    (arrive(1) / NAMES[4]).unlink()
    with pytest.raises(StoreDiffers, match=r"not there any more: 1 \(04.png\); --rebuild"):
        prep(path.parent / "images", path)
    assert content(path) == before


def test_too_many_broken_new_images_are_refused_and_what_was_there_stays(grown):
    arrive, path, _ = grown
    for k in (90, 91, 92):
        (arrive(1) / f"{k}.png").write_bytes(b"no image")
    with pytest.raises(store.BadInput, match="3 of 13 images cannot be used"):
        prep(path.parent / "images", path)
    assert store.open_matrix(path).shape == (30, 10)
    assert prep(path.parent / "images", path, max_skip=0.5).n_new == 13
    assert store.open_matrix(path).n_ok == 20


def test_one_append_at_a_time(grown):
    arrive, path, _ = grown
    with only_writer(folder(path)), pytest.raises(HeldError):
        prep(arrive(1), path)


def test_a_sample_that_is_replaced_while_it_is_read_is_read_from_a(grown, monkeypatch):
    arrive, path, _ = grown
    before = store.open_matrix(path)
    expected = read_sample(before, 7)
    open_array, images = store.open_array, arrive(1)

    def just_before(where, name, mode="r"):
        if name == "sample":
            monkeypatch.undo()
            monkeypatch.setattr(store, "CHUNK_NBYTES", 8 * 30)
            prep(images, path)
            shutil.rmtree(path / "sample")
        return open_array(where, name, mode)

    monkeypatch.setattr(store, "open_array", just_before)
    np.testing.assert_array_equal(read_sample(before, 7), expected)


def test_an_append_without_room_is_refused_with_the_numbers(grown, monkeypatch):
    arrive, path, _ = grown
    before, images = content(path), arrive(1)
    monkeypatch.setattr(LocalFolder, "free_nbytes", lambda self: 100)
    with pytest.raises(OSError, match="need 300 bytes, but 100 are free"):
        prep(images, path)
    assert content(path) == before
