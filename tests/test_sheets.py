from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_prep import store
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline import factorize
from pipeline.report.sheets import basis_picture, basis_sheet, panel, to_picture
from tests.conftest import save_png

pytestmark = pytest.mark.usefixtures("synchronous")


@pytest.fixture
def factors(tmp_path, rng):
    """Of 12 RGBA images of 4 × 3, some transparent."""
    for k in range(12):
        pixels = rng.integers(0, 256, (4, 3, 4), dtype=np.uint8)
        pixels[..., 3] = 255 * (k % 2)
        save_png(tmp_path / "images" / f"{k:02d}.png", pixels)
    with ThreadPoolExecutor(1) as pool:
        path = prepare([tmp_path / "images"], tmp_path / "s.zarr", Options(decoding=Decoding()), pool).path
    return factorize(path, 5, max_iter=10).factors


def test_a_sheet_has_a_cell_for_each_component(factors):
    sheet = np.asarray(basis_sheet(factors))
    paper = (sheet == 255).all(axis=(1, 2))
    assert sheet.shape[2] == 4
    assert 3 <= paper.sum() // 2 <= 4  # the gaps above, between and below two or three rows of images


def test_a_panel_has_a_row_for_each_column(factors):
    one, three = (np.asarray(panel(factors, columns)) for columns in ([0], [0, 1, 2]))
    assert three.shape[0] == 3 * one.shape[0]
    np.testing.assert_array_equal(three[: one.shape[0]], one)


def test_transparent_pixels_show_the_board_not_their_colour():
    column = np.zeros((4, 4, 4))
    column[..., 0] = 1
    column[:2, :, 3] = 1
    picture = to_picture(column.ravel(), (4, 4, 4))
    assert picture[0, 0].tolist() == [255, 0, 0, 255]
    assert set(map(tuple, picture[2:].reshape(-1, 4).tolist())) <= {(204, 204, 204, 255), (255, 255, 255, 255)}


def test_a_basis_image_of_colours_without_opacity_is_seen():
    w = np.array([[0.5, 0, 0, 0], [0, 0, 0, 0.5], [0, 0, 0, 0]], np.float32).ravel()
    picture = basis_picture(w, (1, 3, 4))
    assert picture[0, :2, :3].tolist() == [[255, 0, 0], [0, 0, 0]]
    assert picture[0, 2, 0] in (204, 255)


def test_values_above_one_are_shown_as_one():
    assert to_picture(np.array([2.0]), (1, 1, 1))[0, 0].tolist() == [255, 255, 255, 255]


def test_a_matrix_that_holds_no_images_is_not_drawn(planted):
    with pytest.raises(store.BadInput, match="does not hold images"):
        basis_sheet(factorize(planted, 2, max_iter=2).factors)
