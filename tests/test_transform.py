"""Weights of images that nobody had seen, and the stored images that are like them."""

import csv
import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from data_prep import store
from data_prep.batches import batches
from data_prep.folders import folder
from data_prep.store import BadInput
from pipeline import factorize, open_factors
from pipeline.match import component_norms, dominant, matches
from pipeline.transform import transformed, weights, write_weights
from tests.commands import nmf_batch
from tests.conftest import save_png
from tests.naive import nnls_columns
from tests.test_images import prep

NAME = "d3"


@pytest.fixture
def made(faces, tmp_path, small_chunks):
    """A store of 30 faces, factorized."""
    path = prep(faces, tmp_path / "f.zarr").path.path
    factorize(path, 3, tol=0, max_iter=50)
    return path


def weights_of(path, sources, **how):
    with ThreadPoolExecutor(2) as pool:
        found = list(transformed(open_factors(path, NAME), batches(store.open_matrix(path), sources, **how), pool))
    return np.concatenate([one.H for one in found], axis=1), [name for one in found for name in one.names], found


@pytest.mark.parametrize("d", [5, 40])
def test_weights_are_exact_non_negative_least_squares(rng, d):
    W, A = rng.random((60, d)), rng.integers(0, 256, (60, 50), dtype=np.uint8)
    H, errors = weights(W.astype(np.float32), A, 1 / 255)
    exact = nnls_columns(W, A / 255)
    losses = [np.linalg.norm(A / 255 - W @ X, axis=0) for X in (H, exact)]
    assert (losses[0] ** 2).sum() <= (1 + 1e-4) * (losses[1] ** 2).sum()
    np.testing.assert_allclose(errors, losses[0] / np.linalg.norm(A / 255, axis=0), atol=1e-3)


def test_images_of_the_store_get_the_weights_they_have(made, faces):
    H, names, _ = weights_of(made, [str(faces)])
    factors = open_factors(made, NAME)
    A, W = store.open_array(made, "A")[...] / 255, factors.W.compute()
    assert names == store.read_array(made, "image").tolist()
    assert np.linalg.norm(A - W @ H) <= np.linalg.norm(A - W @ factors.H.compute()) * (1 + 1e-5)


def test_a_prepared_store_is_a_source_too(made, faces):
    from_files, from_store = weights_of(made, [str(faces)]), weights_of(made, [str(made)])
    np.testing.assert_array_equal(from_files[0], from_store[0])
    assert from_files[1] == from_store[1]


def test_images_of_another_size_or_kind_are_refused_or_named(made, faces, tmp_path):
    save_png(faces / "zz.png", np.zeros((9, 9), np.uint8))
    _, names, found = weights_of(made, [str(faces)])
    assert "it is 9 × 9, the others are 6 × 5" in dict(zip(names, found[0].reasons, strict=True))["zz.png"]
    other = prep(faces / "zz.png", tmp_path / "other.zarr").path.path
    with pytest.raises(BadInput, match=r"holds images of \[9, 9, 1\], but must hold images of \[6, 5, 1\]"):
        batches(store.open_matrix(made), [str(other)])


def test_weights_are_written_once_and_checked(made, faces, tmp_path):
    factors = open_factors(made, NAME)
    images = batches(store.open_matrix(made), [str(faces)])
    with ThreadPoolExecutor(2) as pool:
        assert write_weights(folder(tmp_path / "w.zarr"), factors, images, pool) == 0
        with pytest.raises(BadInput, match="holds weights already"):
            write_weights(folder(tmp_path / "w.zarr"), factors, images, pool)
    assert store.open_array(tmp_path / "w.zarr", "H").shape == (3, 30)
    assert store.read_array(tmp_path / "w.zarr", "image").tolist() == store.read_array(made, "image").tolist()
    assert store.group_attributes(tmp_path / "w.zarr")["of"]["revision"] == factors.path.name


def test_matches_are_those_of_scikit_learn(made, rng):
    factors = open_factors(made, NAME)
    queries = rng.random((3, 20)).astype(np.float32)
    found = matches(factors, queries, 7)
    lengths = component_norms(factors)
    theirs = NearestNeighbors(n_neighbors=7, metric="cosine").fit((factors.H.compute() * lengths).T)
    distances, columns = theirs.kneighbors((queries * lengths).T)
    np.testing.assert_allclose(1 - found.scores, distances, atol=1e-5)
    assert (found.columns == columns).mean() > 0.97  # but for ties in rounding


def test_of_equal_scores_the_first_column_comes_first(faces, tmp_path, small_chunks):
    for k in range(80):
        shutil.copy(faces / ("01.png" if k % 2 else "02.png"), faces / f"twin{k:02d}.png")
    path = prep(faces, tmp_path / "f.zarr").path.path
    factorize(path, 3, tol=0, max_iter=20)
    factors, names = open_factors(path, NAME), store.read_array(path, "image").tolist()
    twins = [names.index(name) for name in ("01.png", *(f"twin{k:02d}.png" for k in range(1, 80, 2)))]
    assert np.ptp(factors.H.compute()[:, twins], axis=1).max() == 0  # to the bit, in whatever chunk
    query = factors.H[:, twins[7]].compute()[:, np.newaxis]
    assert matches(factors, query, len(twins)).columns[0].tolist() == twins


def test_more_matches_than_images_and_broken_ones_are_left_out(faces, tmp_path, small_chunks):
    (faces / "02.png").write_bytes(b"no image")
    path = prep(faces, tmp_path / "f.zarr", max_skip=0.1).path.path
    factorize(path, 3, tol=0, max_iter=20)
    shown = nmf_batch("match", faces / "01.png", "--zarr", path, "--name", NAME, "--top", 50, "--json")
    (row,) = map(json.loads, shown.stdout.splitlines())
    assert (len(row["matches"]), row["matches"][0]["image"]) == (29, "01.png")
    assert "02.png" not in [one["image"] for one in row["matches"]]


def test_dominant_components_are_those_that_put_most_into_an_image(made):
    factors = open_factors(made, NAME)
    W, H = factors.W.compute(), factors.H.compute()
    parts = [[np.linalg.norm(W[:, k] * h[k]) for k in range(3)] for h in H.T]
    assert dominant(factors).tolist() == [int(np.argmax(part)) for part in parts]


def test_copies_that_are_slightly_changed_are_found_first(made, faces, tmp_path):
    """With as many components as make them differ; docs/benchmarks.md has the figures of real faces."""
    for name in (name for name in os.listdir(faces) if name.endswith(".png")):
        with Image.open(faces / name) as opened:
            image = np.asarray(opened).astype(float)
        save_png(tmp_path / "changed" / name, np.clip(0.9 * image + 3, 0, 255).astype(np.uint8))
    factorize(made, 12, tol=0, max_iter=50)
    shown = nmf_batch("match", tmp_path / "changed", "--zarr", made, "--name", "d12", "--top", 1, "--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert np.mean([row["matches"][0]["image"] == row["image"] for row in rows]) >= 0.95


def test_the_commands_write_csv_json_a_store_and_a_sheet(made, faces, tmp_path):
    (faces / "zz.png").write_bytes(b"no image")
    shutil.copy(faces / "01.png", faces / 'a "b", c.png')
    shared = ("--zarr", made, "--name", NAME)
    table = nmf_batch("transform", faces, *shared, "--out", "-")
    rows = list(csv.reader(io.StringIO(table.stdout)))
    assert (table.returncode, len(rows), len(rows[0])) == (3, 32, 5)
    assert 'a "b", c.png' in [row[0] for row in rows]
    assert "unreadable: zz.png" in table.stderr
    lines = nmf_batch("transform", faces, *shared, "--out", "-", "--json").stdout.splitlines()
    assert json.loads(lines[0])["weights"] == pytest.approx([float(value) for value in rows[1][2:]], rel=1e-4, abs=1e-6)
    done = nmf_batch("transform", faces, *shared, "--out", tmp_path / "w.zarr")
    assert (done.returncode, "weights of 32 images, 1 of them unreadable" in done.stdout) == (3, True)
    shown = nmf_batch("match", faces / "01.png", *shared, "--sheet", tmp_path / "s.png")
    assert shown.stdout.splitlines()[:2] == ["01.png:", "  1.0000  01.png"]
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size[0] > 500
    counted = nmf_batch("match", *shared, "--clusters").stdout
    assert sum(int(line.split(": ")[1].split()[0]) for line in counted.splitlines()) == 30


def test_mistakes_are_one_line(made, faces):
    for command in (("transform", "--out", "-"), ("match",)):
        nothing = nmf_batch(*command, "--zarr", made, "--name", NAME)
        assert (nothing.returncode, "no images are given" in nothing.stderr) == (2, True)
        unknown = nmf_batch(*command, faces, "--zarr", made, "--name", "d99")
        assert (unknown.returncode, "has no factorization 'd99'" in unknown.stderr) == (4, True)
