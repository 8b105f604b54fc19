"""Noise that is added on purpose, and noise that is removed: against slow formulas, and against images without it."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import nnls

from data_prep import store
from data_prep.decode import Decoding
from data_prep.folders import folder
from data_prep.images import Options, StoreDiffers, prepare
from data_prep.lock import HeldError, only_writer
from pipeline import factorize, open_factors
from pipeline.commands import cli
from pipeline.commands.signals import Interrupted
from pipeline.commands.values import Counts
from pipeline.denoised import write_denoised
from pipeline.denoising_rank import recommend_rank
from pipeline.factors import names
from pipeline.noise import restored, with_noise
from pipeline.noise_experiment import Asked, noise_experiment
from pipeline.noise_level import noise_level
from pipeline.noisy_stores import drawn, noisy_images, scratch, some_images
from tests.commands import nmf_batch

SIDE, PARTS = 10, 4


def pictures(rng, n, channels):
    """Images (n, SIDE, SIDE, channels), mixtures of PARTS parts; with four channels transparent outside a disc.

    Weights add up to one, so that opacity is a mixture of the parts', too.
    """
    y, x = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    bumps = [np.exp(-((y - 3 * np.cos(k)) ** 2 + (x - 3 * np.sin(k)) ** 2) / 12) for k in 1.6 * np.arange(PARTS)]
    parts = np.stack(bumps)[..., None] * rng.uniform(0.5, 1, (PARTS, 1, 1, channels))
    if channels == 4:
        parts[..., 3] = 1
        parts[:, y**2 + x**2 > (SIDE / 2) ** 2] = 0
    mixed = np.tensordot(rng.dirichlet(np.full(PARTS, 0.4), n), parts, axes=1)
    return np.rint(255 * (0.25 * (mixed > 0) + 0.5 * mixed)).astype(np.uint8)


def stored(path, images):
    np.save(path.with_suffix(".npy"), images)
    options = Options(decoding=Decoding(mode={1: "L", 3: "RGB", 4: "RGBA"}[images.shape[3]]))
    with ThreadPoolExecutor(1) as pool:
        return prepare([path.with_suffix(".npy")], path, options, pool).path


def columns_of(path):
    array = store.open_array(path, "A")
    return np.concatenate([store.read_chunk(array, 0, k) for k in range(array.cdata_shape[1])], axis=1)


@pytest.fixture
def chunks_of_128(monkeypatch):
    monkeypatch.setattr(store, "CHUNK_NBYTES", 128 * SIDE * SIDE * 4)


@pytest.fixture
def punks(tmp_path, rng, chunks_of_128):
    """A store of 300 RGBA images of rank 4, in three chunks."""
    return stored(tmp_path / "punks.zarr", pictures(rng, 300, 4))


@pytest.fixture
def noisy(tmp_path, rng, chunks_of_128):
    """A store of 600 RGBA images of rank 4 with σ = 0.1, in five chunks; and the images without noise (m, n)."""
    clean = pictures(rng, 600, 4)
    A = clean.reshape(len(clean), -1).T
    images = with_noise(A, np.arange(A.shape[1]), 0.1, 0, 4).T.reshape(clean.shape)
    return stored(tmp_path / "noisy.zarr", images), A


# --- noise


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_noise_has_the_standard_deviation_that_is_asked_for(channels):
    A = np.full((1200, 40), 128, np.uint8)
    difference = with_noise(A, np.arange(40), 0.1, 0, channels).astype(float) - A
    colours = difference.reshape(-1, channels, 40)[:, :3]
    assert colours.std() / 255 == pytest.approx(0.1, rel=0.02)
    assert colours.mean() / 255 == pytest.approx(0, abs=2e-3)


def test_what_is_zero_and_opacity_stay_to_the_bit(rng):
    A = rng.integers(0, 256, (400, 30), dtype=np.uint8) * (rng.random((400, 30)) < 0.6)
    noisy = with_noise(A.astype(np.uint8), np.arange(30), 0.5, 0, 4)
    assert np.array_equal(noisy[3::4], A[3::4])
    assert not noisy[A == 0].any()
    assert (noisy != A)[np.arange(400) % 4 != 3].mean() > 0.5


def test_an_image_has_the_same_noise_whatever_is_beside_it_and_sigma_scales_it():
    A = np.full((300, 5), 128, np.uint8)
    weak = with_noise(A, np.array([4, 8, 15, 16, 23]), 0.05, 0, 1).astype(int) - 128
    strong = with_noise(A[:, :2], np.array([8, 23]), 0.1, 0, 1).astype(int) - 128
    assert np.abs(strong - 2 * weak[:, [1, 4]]).max() <= 2
    assert np.any(weak[:, 0] != weak[:, 1])


def test_what_leaves_the_range_of_pixels_is_cut_off():
    noisy = with_noise(np.repeat(np.array([[1], [254]], np.uint8), 500, axis=0), np.arange(1), 0.5, 0, 1)
    assert (noisy[:500] == 0).mean() == pytest.approx(0.5, abs=0.1)
    assert (noisy[500:] == 255).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_the_level_of_noise_is_found(tmp_path, channels, sigma):
    flat = np.full((100, 16, 16, channels), 128, np.uint8)
    flat[:, :, 8:] = 60
    A = with_noise(flat.reshape(100, -1).T, np.arange(100), sigma, 0, channels)
    path = stored(tmp_path / "A.zarr", A.T.reshape(flat.shape))
    assert noise_level(store.open_matrix(path)) == pytest.approx(sigma, rel=0.03)


def test_of_large_images_fewer_are_looked_at(noisy, monkeypatch):
    asked = []
    monkeypatch.setattr("pipeline.noise_level.VALUES", 2000)
    monkeypatch.setattr(
        "pipeline.noise_level.read_sample_as", lambda matrix, k, convert: asked.append(k) or [np.ones(1)]
    )
    noise_level(store.open_matrix(noisy[0]))
    assert asked == [5]


def test_transparent_pixels_and_single_rows_tell_nothing_of_noise(tmp_path, rng):
    images = rng.integers(1, 256, (20, 1, 16, 3), dtype=np.uint8)
    assert noise_level(store.open_matrix(stored(tmp_path / "A.zarr", images))) is None


def test_pictures_of_W_H_keep_opacity_and_the_colours_that_cannot_be_seen(rng):
    noisy = rng.integers(0, 256, (40, 6), dtype=np.uint8)
    noisy[3::8] = 0
    W, H = rng.random((40, 3)).astype(np.float32), rng.random((3, 6)).astype(np.float32)
    for j, column in enumerate(restored(noisy, W, H, 4).T):
        for (*colour, alpha), before, true in zip(
            column.reshape(-1, 4), noisy[:, j].reshape(-1, 4), (W @ H[:, j]).reshape(-1, 4), strict=True
        ):
            wanted = before[:3] if before[3] == 0 else [round(255 * min(1, float(one))) for one in true[:3]]
            assert alpha == before[3]
            assert np.abs(np.array(colour, int) - wanted).max() <= 1


# --- the experiment


def test_errors_are_those_of_a_slow_formula(punks, rng):
    matrix = store.open_matrix(punks)
    W = rng.random((SIDE * SIDE * 4, 3)).astype(np.float32)
    with scratch(matrix) as home:
        columns = drawn(matrix, 9)
        pair = noisy_images(some_images(matrix, home / "clean", columns), home / "noisy", columns, 0.2, 0)
        found, added = pair.measure(W), pair.noise()
        clean, noisy = columns_of(pair.clean.path), columns_of(pair.noisy.path)
        assert "; computed from another store" in nmf_batch("info", "--zarr", pair.noisy.path).stdout
    assert np.array_equal(clean, columns_of(punks)[:, columns])
    WH = np.stack([W @ nnls(W, a / 255)[0] for a in noisy.T], axis=1)
    shown = (clean.reshape(-1, 4, 9)[:, 3] > 0)[:, None] & (np.arange(4) < 3)[None, :, None]
    differs = np.where(shown, (clean / 255 - np.rint(255 * WH.clip(0, 1)) / 255).reshape(-1, 4, 9), 0)
    assert found.clean == pytest.approx(np.square(clean / 255 - WH).sum(), rel=1e-3)
    assert found.noisy == pytest.approx(np.square(noisy / 255 - WH).sum(), rel=1e-3)
    assert found.pictures == pytest.approx(np.square(differs).sum(), rel=1e-2)
    assert found.n_seen == added.n_seen == shown.sum()
    assert added.clean == pytest.approx(np.square(clean / 255 - noisy / 255).sum(), rel=1e-5)
    assert added.noisy == 0


def test_the_planted_rank_removes_most_noise_and_more_images_less_of_it_stays(punks):
    few, many = noise_experiment(punks, Asked(ranks=[1, 4, 12, 40], sigmas=[0.1], counts=[60, 300]))
    assert [few.best.d, many.best.d] == [4, 4]
    assert many.inside
    assert many.best.to_clean < few.best.to_clean < few.error
    assert [fit.to_noisy for fit in few.fits] == sorted((fit.to_noisy for fit in few.fits), reverse=True)
    assert few.psnr < few.best.psnr
    added, left = (np.square(one / 255 - few.clean / 255).sum() for one in (few.noisy, few.denoised))
    assert left < added / 3


def test_noise_is_as_strong_as_it_was_asked_for_and_black_stays_black(punks):
    [found] = noise_experiment(punks, Asked(ranks=[1], sigmas=[0.05], counts=[300]))
    A = columns_of(punks) / 255
    n_noisy = (A.reshape(-1, 4, 300)[:, :3] > 0).sum()
    assert found.error == pytest.approx(0.05 * np.sqrt(n_noisy / np.square(A).sum()), rel=0.03)
    assert not found.noisy[found.clean == 0].any()
    assert np.array_equal(found.denoised[3::4], found.clean[3::4])


def test_more_images_than_the_sample_holds_are_read_from_A(punks, monkeypatch):
    monkeypatch.setattr("pipeline.noisy_stores.sample_size", lambda m, itemsize: 20)
    matrix = store.open_matrix(punks)
    few, many = drawn(matrix, 20), drawn(matrix, 200)
    assert set(few) < set(many)
    with scratch(matrix) as home:
        for columns in (few, many):
            assert np.array_equal(
                columns_of(some_images(matrix, home / "some", columns).path), columns_of(punks)[:, columns]
            )


def test_fewer_images_are_among_more_and_unreadable_ones_are_never_drawn(tmp_path, faces):
    (faces / "05.png").write_bytes(b"no image")
    with ThreadPoolExecutor(1) as pool:
        prepare([faces], tmp_path / "s.zarr", Options(decoding=Decoding(), max_skip=0.5), pool)
    matrix = store.open_matrix(tmp_path / "s.zarr")
    few, all_ = drawn(matrix, 10), drawn(matrix, 29)
    assert set(few) < set(all_)
    assert set(range(30)) - set(all_.tolist()) == set(np.flatnonzero(~store.read_array(matrix.path, "ok")))


def test_nothing_is_left_of_an_experiment_and_what_a_killed_one_left_is_removed(punks):
    left = punks / "nmf" / ".noise" / "noisy"
    left.make()
    left.replace("junk", b"")
    noise_experiment(punks, Asked(ranks=[2], sigmas=[0.1], counts=[20]))
    assert names(punks) == (punks / "nmf").entries() == []
    assert nmf_batch("verify", "--zarr", punks).returncode == 0


def test_two_experiments_at_once_are_refused(punks):
    with only_writer(punks / "nmf" / ".noise"), pytest.raises(HeldError, match="another process is writing"):
        noise_experiment(punks, Asked(ranks=[2], sigmas=[0.1]))


def test_an_experiment_is_the_same_on_a_cluster(punks, cluster_of):
    asked = Asked(ranks=[2, 5], sigmas=[0.1], counts=[100])

    def figures():
        return [[fit._replace(seconds=0) for fit in one.fits] for one in noise_experiment(punks, asked)]

    alone = figures()
    with cluster_of(2):
        assert figures() == alone


# --- the rank that is recommended


def test_the_rank_that_is_recommended_is_that_which_is_best_and_its_error_that_which_it_has(noisy):
    path, clean = noisy
    found = recommend_rank(path)
    assert found.d == 5  # the first one that is tried which is not below 4
    assert found.sigma == pytest.approx(0.1, rel=0.1)
    A, factors = columns_of(path), factorize(path, 5).factors
    W, H = (factors.read(name) for name in "WH")
    noise, left = (np.linalg.norm(clean / 255 - one) / np.linalg.norm(A / 255) for one in (A / 255, W @ H))
    assert found.errors[5] == pytest.approx(left, abs=0.1 * noise)
    assert found.errors[10] > 1.2 * found.errors[5]


def test_ranks_that_are_worse_again_and_again_end_the_search(noisy):
    assert list(recommend_rank(noisy[0]).errors) == [5, 7, 10]


def test_images_without_noise_recommend_nothing(tmp_path):
    path = stored(tmp_path / "flat.zarr", np.full((30, 8, 8, 1), 100, np.uint8))
    with pytest.raises(store.BadInput, match=r"no noise is found in .*give -d"):
        recommend_rank(path)


# --- noise away


def test_what_is_written_is_W_H_with_the_opacity_and_the_names_of_the_images(noisy, tmp_path):
    path, clean = noisy
    factors = factorize(path, 4).factors
    made = write_denoised(factors, folder(tmp_path / "clean.zarr"))
    A, written = columns_of(path), columns_of(tmp_path / "clean.zarr")
    WH = np.rint(255 * (factors.read("W") @ factors.read("H")).clip(0, 1))
    visible = np.repeat(A[3::4] > 0, 4, axis=0) & (np.arange(len(A)) % 4 != 3)[:, None]
    assert np.array_equal(written[~visible], A[~visible])
    assert np.abs(written[visible] - WH[visible]).max() <= 1
    assert np.abs(written.astype(int) - clean).mean() < 0.3 * np.abs(A.astype(int) - clean).mean()
    changed = np.square((written.astype(float) - A)[visible] / 255).mean() ** 0.5
    assert made == (600, pytest.approx(changed, rel=1e-6))
    assert store.column_names(tmp_path / "clean.zarr", 600) == store.column_names(path, 600)


def test_what_is_written_is_a_store_that_everything_else_takes(noisy, tmp_path):
    out = tmp_path / "clean.zarr"
    done = nmf_batch("denoise", "--zarr", noisy[0], "-d", "4", "--out", out, "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["n"], summary["d"]) == (0, 600, 4)
    assert nmf_batch("verify", "--zarr", out).returncode == 0
    assert "W H of another store, by `nmf-batch denoise` with d = 4" in nmf_batch("info", "--zarr", out).stdout
    again = factorize(out, 4).factors
    assert again.attributes["relative_error"] < factorize(noisy[0], 4).factors.attributes["relative_error"] / 3
    assert nmf_batch("transform", out, "--zarr", noisy[0], "--name", "d4", "--out", "-").returncode == 0


def test_what_was_computed_is_neither_prepared_again_nor_repaired_from_images(noisy, tmp_path):
    path, source = noisy[0], noisy[0].path.with_suffix(".npy")
    out = folder(tmp_path / "clean.zarr")
    write_denoised(factorize(path, 4).factors, out)
    with ThreadPoolExecutor(1) as pool, pytest.raises(StoreDiffers, match="was computed from another store"):
        prepare([source], out, Options(decoding=Decoding(mode="RGBA")), pool)
    chunk = out.path / "A" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    mended = nmf_batch("repair", "--zarr", out, "--source", source)
    assert mended.returncode == 4
    assert "computed from another store" in mended.stdout + mended.stderr


def test_images_that_could_not_be_read_stay_so(tmp_path, faces):
    (faces / "05.png").write_bytes(b"no image")
    with ThreadPoolExecutor(1) as pool:
        path = prepare([faces], tmp_path / "s.zarr", Options(decoding=Decoding(), max_skip=0.5), pool).path
    write_denoised(factorize(path, 3).factors, folder(tmp_path / "out.zarr"))
    ok = store.read_array(tmp_path / "out.zarr", "ok")
    assert (ok.sum(), store.open_matrix(tmp_path / "out.zarr").n_ok) == (29, 29)
    assert not columns_of(tmp_path / "out.zarr")[:, ~ok].any()


def test_bits_do_not_depend_on_workers(noisy, tmp_path, cluster_of):
    factors = factorize(noisy[0], 4).factors
    write_denoised(factors, folder(tmp_path / "here.zarr"))
    with cluster_of(2):
        write_denoised(factors, folder(tmp_path / "there.zarr"))
    here, there = (store.open_matrix(tmp_path / f"{name}.zarr") for name in ("here", "there"))
    assert here.fingerprint == there.fingerprint
    assert here.norm_squared == there.norm_squared


def test_an_attempt_that_was_interrupted_is_no_store_and_is_begun_again(noisy, tmp_path):
    out, factors = folder(tmp_path / "clean.zarr"), factorize(noisy[0], 4).factors

    def stop(done):
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        write_denoised(factors, out, stop)
    with pytest.raises(store.BadInput, match="is unfinished"):
        store.open_matrix(out)
    write_denoised(factors, out)
    assert store.open_matrix(out).shape == (400, 600)


def test_a_store_that_is_there_is_not_written_over(noisy, tmp_path):
    refused = nmf_batch("denoise", "--zarr", noisy[0], "-d", "4", "--out", noisy[0])
    assert (refused.returncode, names(noisy[0])) == (4, [])
    assert "is a store already, and is not written over" in refused.stderr
    with pytest.raises(store.BadInput, match="is a store already"):
        write_denoised(factorize(noisy[0], 4).factors, noisy[0])


def test_a_factorization_of_fewer_images_is_refused(noisy, tmp_path, rng):
    factors = factorize(noisy[0], 4).factors
    images = np.load(noisy[0].path.with_suffix(".npy"))
    np.save(tmp_path / "zz.npy", images[:5])
    with ThreadPoolExecutor(1) as pool:
        sources = [noisy[0].path.with_suffix(".npy"), tmp_path / "zz.npy"]
        prepare(sources, noisy[0], Options(decoding=Decoding(mode="RGBA")), pool)
    with pytest.raises(store.BadInput, match=r"d4 is of 600 images, but .* holds 605; run `nmf-batch run` again"):
        write_denoised(factors, folder(tmp_path / "out.zarr"))


def test_a_factorization_that_is_there_can_be_named(noisy, tmp_path):
    factorize(noisy[0], 3, name="mine")
    done = nmf_batch("denoise", "--zarr", noisy[0], "--name", "mine", "--out", tmp_path / "out.zarr")
    assert "600 images, d = 3; colours have changed by 0." in done.stdout
    assert names(noisy[0]) == ["mine"]


# --- the command


def test_the_table_names_the_best_rank_of_each_level_and_pictures_are_drawn(punks, tmp_path):
    given = ("--sigma", "0.05,0.1", "-d", "2,4,9", "--n", "40", "--plot", tmp_path / "p.png")
    done = nmf_batch("denoise", "--zarr", punks, *given, "--sheet", tmp_path / "s.png")
    heading, *rows = done.stdout.splitlines()
    assert [len(row) for row in rows[:6]] == [len(heading)] * 6
    assert [row.split(" is best")[0] for row in rows[6:]] == [
        f"sigma = {sigma}, 40 images: d = 4" for sigma in (0.05, 0.1)
    ]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("p.png", "s.png"))


def test_json_has_an_object_a_factorization_and_the_levels_last(punks):
    done = nmf_batch("denoise", "--zarr", punks, "--sigma", "0.1", "-d", "4,2", "--n", "30", "--json")
    *fits, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(fit["n"], fit["d"]) for fit in fits] == [(30, 2), (30, 4)]
    assert last["levels"][0]["best"]["d"] == 4
    assert last["levels"][0]["inside"] is False


def test_noise_too_weak_to_change_a_pixel_is_no_infinity_in_json(punks):
    done = nmf_batch("denoise", "--zarr", punks, "--sigma", "0.0001", "-d", "2", "--n", "30", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["levels"][0]["noise_psnr"] is None


def test_without_a_rank_one_is_recommended_and_said(noisy, tmp_path):
    done = nmf_batch("denoise", "--zarr", noisy[0], "--out", tmp_path / "out.zarr")
    assert "d = 5: noise of 0.099" in done.stderr
    assert "600 images, d = 5;" in done.stdout
    assert open_factors(noisy[0], "d5").attributes["shape"] == [400, 600]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "give --out STORE to remove noise"),
        (("--out", "o.zarr", "--sigma", "0.1"), "give --out STORE to remove noise"),
        (("--out", "o.zarr", "-d", "3,4"), "--out takes one rank"),
        (("--out", "o.zarr", "-d", "3", "--name", "d3"), "leave out -d"),
        (("--out", "o.zarr", "--n", "3"), "--n and --out do not go together"),
        (("--sigma", "0.1"), "-d is missing"),
        (("--sigma", "0.1", "-d", "3", "--name", "d3"), "--name and --sigma do not go together"),
        (("--sigma", "0,0.1", "-d", "3"), "is not a list of levels"),
        (("--sigma", "x", "-d", "3"), "is not a list of levels"),
        (("--sigma", "0.1", "-d", "3", "--n", "0"), "is not a list of numbers"),
        (("--sigma", "0.1", "-d", "30", "--n", "20"), "d is 30, but A is 400 × 20"),
    ],
)
def test_mistakes_are_a_line_and_exit_code_2(punks, given, words):
    refused = nmf_batch("denoise", "--zarr", punks, *given)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert words in refused.stderr


def test_more_images_than_there_are_and_no_images_are_refused(punks, planted):
    refused = nmf_batch("denoise", "--zarr", punks, "--sigma", "0.1", "-d", "3", "--n", "301")
    assert (refused.returncode, "holds 300 images, but --n asks for 301" in refused.stderr) == (4, True)
    refused = nmf_batch("denoise", "--zarr", planted, "--sigma", "0.1", "-d", "3")
    assert (refused.returncode, "does not hold images" in refused.stderr) == (4, True)


def test_an_experiment_that_is_interrupted_does_not_say_that_it_goes_on(punks, monkeypatch):
    def stop(*_):
        raise Interrupted(2)

    monkeypatch.setattr("pipeline.commands.denoise.noise_experiment", stop)
    with pytest.raises(Interrupted) as ended:
        CliRunner().invoke(cli, ["denoise", "--zarr", str(punks), "--sigma", "0.1", "-d", "2"], standalone_mode=False)
    assert "begins it again" in ended.value.__notes__[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5,10,...,30", (5, 10, 15, 20, 25, 30)),
        ("1,2,…,4,9", (1, 2, 3, 4, 9)),
        ("7,3", (3, 7)),
        ("5,10,...,22", (5, 10, 15, 20, 22)),
    ],
)
def test_lists_may_leave_out_what_is_between(written, meant):
    assert Counts("ranks").convert(written, None, None) == meant
