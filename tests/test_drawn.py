import numpy as np
from PIL import Image

from data_prep.arrays import write_matrix
from data_prep.drawn import draw_faces, save_faces
from pipeline import factorize
from tests.naive import matched_cosine


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
