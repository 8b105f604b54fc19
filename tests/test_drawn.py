import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from data_prep.arrays import write_matrix
from data_prep.drawn import draw_faces, save_faces
from data_prep.mixed import mix_gaussians
from pipeline import factorize
from pipeline.commands.demo import SLOWLY
from pipeline.report.pairs import pairs
from tests.commands import nmf_batch
from tests.naive import matched_cosine


@pytest.fixture
def demo(tmp_path):
    """Runs the demo of Gaussians; returns the exit code, stdout and stderr."""
    return partial(nmf_batch, "demo", "--kind", "gaussians", "--out", tmp_path / "demo")


def test_images_are_the_sum_of_their_parts():
    faces = draw_faces(50, seed=1)
    np.testing.assert_allclose(faces.images.reshape(50, -1).T / 255, faces.parts @ faces.amounts, atol=0.51 / 255)


def test_a_seed_gives_the_same_faces_and_another_seed_others():
    first, same, other = (draw_faces(20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, same.images)
    assert (first.images != other.images).any()


def test_saved_files_hold_the_images(tmp_path):
    faces = draw_faces(3, seed=0)
    save_faces(faces, tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "face00002.png")), faces.images[2])


def test_the_true_parts_are_recovered(tmp_path):
    faces = draw_faces(1500, seed=0)
    write_matrix(tmp_path / "f.zarr", faces.images.reshape(1500, -1).T.copy())
    d = faces.parts.shape[1]
    found = factorize(tmp_path / "f.zarr", d, max_iter=300).factors.W.compute()
    assert matched_cosine(found, faces.parts) > 0.9


def test_samples_are_the_sum_of_their_gaussians_and_a_third_hold_one_alone():
    mixture = mix_gaussians(2000, seed=1)
    np.testing.assert_allclose(mixture.A, mixture.shapes @ mixture.amounts, rtol=1e-6, atol=1e-7)
    assert 0.3 < (np.count_nonzero(mixture.amounts, axis=0) == 1).mean() < 0.4


def test_each_gaussian_is_somewhere_below_a_hundredth_of_any_other():
    shapes = mix_gaussians(1, seed=0).shapes
    least = (shapes[:, :, None] / shapes[:, None, :]).min(axis=0)
    assert least[~np.eye(4, dtype=bool)].max() < 0.01
    unit = shapes / np.linalg.norm(shapes, axis=0)
    assert 0.25 < np.triu(unit.T @ unit, 1).max() < 0.3  # and yet neighbours overlap


@pytest.mark.parametrize("seed", range(5))
def test_the_four_gaussians_are_recovered(tmp_path, seed):
    mixture = mix_gaussians(500, seed)
    write_matrix(tmp_path / "g.zarr", mixture.A)
    found = factorize(tmp_path / "g.zarr", 4, seed=seed, **SLOWLY).factors.read("W")
    assert pairs(found.T, mixture.shapes.T).cosines.min() >= 0.99


def test_the_demo_finds_the_gaussians_and_leaves_its_pictures(demo, tmp_path):
    code, out, error = demo("--images", 200)
    assert (code, "cosines of each pair: 0.99" in out or "1.0000" in out) == (0, True)
    assert f"-d 4 --solver mu --init random --max-iter {SLOWLY['max_iter']} --seed 0" in error
    for name in ("shapes.png", "samples.png", "loss.png", "evolution.gif"):
        with Image.open(tmp_path / "demo" / name) as picture:
            assert min(picture.size) > 400
            assert getattr(picture, "n_frames", 1) == (46 if name == "evolution.gif" else 1)


def test_without_matplotlib_the_demo_says_what_to_install_before_it_makes_anything(demo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, error = demo()
    assert (code, error.count("\n"), "pip install 'nmf-batch[plots]'" in error) == (2, 1, True)
    assert not (tmp_path / "demo").exists()
