import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline import factorize
from pipeline.record import BEFORE
from pipeline.report.evolution import MOST, MOST_TILES, Snapshot, Snapshots, frames, save_gif, steady, tiles
from pipeline.report.pairs import pairs
from tests.commands import nmf_batch
from tests.conftest import save_png


@pytest.fixture
def run(tmp_path, rng):
    """Runs `run` on 30 RGB images of 6 × 5 pixels."""
    for k in range(30):
        save_png(tmp_path / "images" / f"{k:02d}.png", rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    with ThreadPoolExecutor(1) as pool:
        prepare([tmp_path / "images"], tmp_path / "s.zarr", Options(decoding=Decoding()), pool)
    return lambda *more: nmf_batch("run", "--zarr", tmp_path / "s.zarr", "-d", 4, *more)


def after(n):
    """What is kept after n iterations, W of each being its number from 1."""
    snapshots = Snapshots(lambda W: W.copy())
    for k in range(n):
        snapshots(np.full((2, 1), k + 1))
    record = [BEFORE._replace(phase="exact", relative_error=k + 1) for k in range(n)]
    return snapshots.until(SimpleNamespace(iterations=record, read=lambda name: np.full((2, 1), n)))


def shown(phase, picture):
    return Snapshot(1, BEFORE._replace(phase=phase), picture)


@given(st.integers(1, 5000))
def test_snapshots_are_few_and_hold_the_first_and_the_last_iteration(n):
    kept = [snapshot.number for snapshot in after(n)]
    assert min(n, MOST // 2) <= len(kept) <= MOST
    assert (kept[0], kept[-1]) == (1, n)


@given(st.integers(2, 5000))
def test_snapshots_are_evenly_spread_and_of_the_iteration_they_say(n):
    kept = after(n)
    steps = np.diff([snapshot.number for snapshot in kept])
    assert len(set(steps[:-1])) <= 1
    assert steps[-1] <= steps[0]
    assert all(one.picture[0, 0] == one.iteration.relative_error == one.number for one in kept)


def test_where_nothing_was_iterated_nothing_is_kept():
    assert after(0) == []


@pytest.mark.parametrize(("channels", "kept"), [(1, 1), (3, 3), (4, 3)])
def test_tiles_are_small_whatever_the_size_and_number_of_basis_images(rng, channels, kept):
    shape = (300, 150, channels)
    W = rng.random((np.prod(shape), MOST_TILES + 1), np.float32)
    assert tiles(shape)(W).shape == (MOST_TILES, 96, 48, kept)


def test_components_stay_in_their_place_where_a_phase_reorders_them(rng):
    last = rng.integers(0, 256, (7, 4, 3, 1), np.uint8)
    first, second = last[rng.permutation(7)], last[rng.permutation(7)] // 2  # of other brightness
    phases = {"sketch": first, "sketch 2": second, "exact": last}
    snapshots = [shown(phase, picture) for phase, picture in phases.items() for _ in range(2)]
    pictures = [one.picture[order] for one, order in zip(snapshots, steady(snapshots), strict=True)]
    np.testing.assert_array_equal(pictures, [last, last, last // 2, last // 2, last, last])


def test_within_a_phase_components_are_left_as_they_are(rng):
    picture = rng.integers(0, 256, (7, 4, 3, 1), np.uint8)
    orders = steady([shown("exact", picture[::-1]), shown("exact", picture)])
    assert [order.tolist() for order in orders] == [list(range(7))] * 2


def test_pairs_are_those_with_the_largest_cosines(rng):
    like, order = rng.random((5, 12)) ** 4, rng.permutation(5)
    found = pairs(3 * like[order], like)
    np.testing.assert_array_equal(order[found.order], range(5))
    np.testing.assert_allclose(found.cosines, 1, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_has_a_frame_for_each_snapshot_and_the_last_one_stays(tmp_path, rng, channels):
    kept = [one._replace(picture=rng.integers(0, 256, (4, 6, 5, channels), np.uint8)) for one in after(9)]
    save_gif(frames(kept), tmp_path / "e.gif")
    with Image.open(tmp_path / "e.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (9, 80, 0)
        first = np.asarray(gif.convert("RGB"))
        gif.seek(8)
        assert (gif.info["duration"], gif.width <= 1000) == (2000, True)
        assert (first != np.asarray(gif.convert("RGB"))).mean() > 0.5


def test_gray_images_keep_their_grays_in_a_gif(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    save_gif(frames([shown("exact", ramp)]), tmp_path / "e.gif")
    with Image.open(tmp_path / "e.gif") as gif:
        assert len(np.unique(np.asarray(gif.convert("L")))) == 256


@pytest.mark.parametrize("solver", ["sketch", "hals"])
def test_w_and_h_are_the_same_to_the_bit_with_and_without_an_animation(tmp_path, rng, solver):
    write_matrix(tmp_path / "s.zarr", rng.random((60, 900), np.float32))
    snapshots = Snapshots(tiles((10, 6, 1)))
    plain, looked_at = (
        factorize(tmp_path / "s.zarr", 5, name=name, solver=solver, max_iter=60, **more).factors
        for name, more in (("plain", {}), ("shown", {"on_factors": snapshots}))
    )
    for name in ("W", "H"):
        np.testing.assert_array_equal(plain.read(name), looked_at.read(name))
    kept = snapshots.until(looked_at)
    assert (kept[0].number, kept[-1].number) == (1, len(looked_at.iterations))


def test_the_last_snapshot_is_of_the_result_and_those_before_are_not(tmp_path, rng):
    write_matrix(tmp_path / "s.zarr", rng.random((60, 900), np.float32))
    snapshots = Snapshots(lambda W: W.copy())
    found = factorize(tmp_path / "s.zarr", 5, solver="mu", max_iter=60, tol=0, on_factors=snapshots).factors
    kept = snapshots.until(found)
    np.testing.assert_array_equal(kept[-1].picture, found.read("W"))
    assert (kept[0].picture != kept[-1].picture).any()


def test_what_looks_on_may_end_the_run_after_a_checkpoint(tmp_path, rng):
    write_matrix(tmp_path / "s.zarr", rng.random((60, 900), np.float32))

    def stop(W):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        factorize(tmp_path / "s.zarr", 5, solver="mu", on_factors=stop)
    found = factorize(tmp_path / "s.zarr", 5, solver="mu", max_iter=3)
    assert (found.n_new, len(found.factors.iterations)) == (2, 3)


def test_the_command_writes_an_animation(run, tmp_path):
    code, out, error = run("--max-iter", 8, "--tol", 0, "--animate", tmp_path / "e.gif")
    assert (code, "e.gif" in out) == (0, False)
    with Image.open(tmp_path / "e.gif") as gif:
        assert f"how W developed, in {gif.n_frames} pictures" in error
        assert gif.n_frames > 8


def test_a_run_without_an_animation_loads_nothing_of_it():
    check = "import sys, pipeline.commands.run; sys.exit('scipy.optimize' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_run_that_goes_on_shows_the_iterations_from_there(run, tmp_path):
    run("--solver", "mu", "--max-iter", 5)
    snapshots = Snapshots(tiles((6, 5, 3)))
    found = factorize(tmp_path / "s.zarr", 4, solver="mu", max_iter=9, on_factors=snapshots).factors
    assert [snapshot.number for snapshot in snapshots.until(found)] == [6, 7, 8, 9]


def test_where_there_is_nothing_to_do_there_is_nothing_to_draw(run, tmp_path):
    run()
    code, _, error = run("--animate", tmp_path / "e.gif")
    assert (code, "no iterations to draw; --fresh" in error) == (0, True)
    assert not (tmp_path / "e.gif").exists()


def test_a_run_that_is_interrupted_leaves_no_animation(run, tmp_path, monkeypatch):
    def interrupted(self, W):
        signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(Snapshots, "__call__", interrupted)
    monkeypatch.setattr("os._exit", sys.exit)
    assert run("--animate", tmp_path / "e.gif")[0] == 75
    assert not (tmp_path / "e.gif").exists()


def test_what_cannot_be_drawn_or_written_is_refused_before_the_run(run, tmp_path, rng):
    write_matrix(tmp_path / "m.zarr", rng.random((6, 9)))
    said = [
        nmf_batch("run", "--zarr", tmp_path / "m.zarr", "-d", 2, "--animate", tmp_path / "e.gif"),
        run("--animate", tmp_path / "none" / "e.gif"),
        run("--animate", tmp_path / "images"),
    ]
    words = ("draws images, but", "cannot be written", "is a folder")
    assert all((code, out) == (2, "") and word in error for (code, out, error), word in zip(said, words, strict=True))
    assert not any((tmp_path / name / "nmf").exists() for name in ("m.zarr", "s.zarr"))


def test_an_animation_that_cannot_be_written_in_the_end_does_not_lose_the_result(run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "e.gif")

    monkeypatch.setattr(Image.Image, "save", full)
    code, out, error = run("--animate", tmp_path / "e.gif")
    assert (code, "relative error" in out, error) == (
        75,
        True,
        "nmf-batch: No space left on device: e.gif; what was complete is as it was\n",
    )
    assert "nothing new" in run()[1]
