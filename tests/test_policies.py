"""Every mode, orientation and policy, against a decoder that shares nothing with ours but Pillow's opening of files."""

import csv
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from data_prep.decode import Decoding, decode, opened
from tests.conftest import DATA, real
from tests.naive_decode import naive_decode

SIZE = (29, 23)
MESSY = DATA / "messy" / "MANIFEST.csv"
ROWS = list(csv.DictReader(MESSY.read_text(encoding="utf-8").splitlines())) if MESSY.exists() else []
READABLE = [row["file"] for row in ROWS if row["load"] == "ok"]


def ours(raw, how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged files
        with opened(raw) as image:
            found = decode(image, how).pixels.astype(float)
    if how.mode == "RGBA":
        found[..., :3] *= found[..., 3:] / 255
    return found


def check(raw, mode, fit="stretch", background=None, bound=3.0, mean=0.6):
    """Rounding to 8 bits at every step of ours against none: few levels, and hardly any on average."""
    found = ours(raw, Decoding(mode=mode, size=SIZE, fit=fit, background=background))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = naive_decode(raw, mode, SIZE, fit, background or "black")
    off = np.abs(found - expected)
    assert (off.max() <= bound, off.mean() <= mean) == (True, True), (off.max(), off.mean())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("name", READABLE)
def test_files_that_break_readers_are_what_a_slow_decoder_makes_of_them(name, mode):
    raw = real(f"messy/files/{name}").read_bytes()
    check(raw, mode, bound=6 if name.endswith((".jpg", ".JPG", "lab.tif")) else 3)  # a JPEG's own luma; gamut


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (10, 12)])
def test_an_image_of_other_proportions_is_cut_or_bordered(rng, shape, mode, fit):
    check(png(rng.integers(0, 256, (*shape, 4), dtype=np.uint8)), mode, fit)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_is_transparent_lies_on_the_background(rng, mode):
    raw = png(rng.integers(0, 256, (30, 40, 4), dtype=np.uint8))
    check(raw, mode, background="#ff8800")
    check(raw, mode, "pad", background="#ff8800")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_orientation_is_undone(rng, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    check(jpeg(pixels, exif=exif.tobytes()), mode, bound=6)


@pytest.mark.parametrize("shape", [(960, 1280), (966, 1278)], ids=["at a quarter", "at full size"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_large_jpeg_decoded_at_a_part_of_its_size_is_as_good(rng, mode, shape):
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(shape[::-1])
    check(jpeg(np.asarray(coarse)), mode, bound=6)


@pytest.mark.parametrize(
    ("values", "gray"),
    [
        (np.array([[0, 128, 255, 257, 65535]], np.uint16), [0, 0, 1, 1, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.4, 255.0]], np.float64), [0, 100, 255]),
        (np.array([[False, True, True]]), [0, 255, 255]),
        (np.array([[7, 8, 9]], np.uint8), [7, 8, 9]),
    ],
    ids=["16 bits", "floats to 1", "floats to 255", "bool", "8 bits"],
)
def test_arrays_are_scaled_to_8_bits_and_not_clipped(values, gray):
    with opened(values) as image:
        assert decode(image, Decoding()).pixels[..., 0].tolist() == [gray]


@pytest.mark.parametrize("values", [np.array([[-1.0, 2.0]]), np.array([[np.nan]]), np.array([[300.0]])])
def test_floats_beyond_what_they_can_mean_are_refused(values):
    with pytest.raises(ValueError, match="must be 0 to 1, or 0 to 255"):
        opened(values)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fit": "crop"}, "give --size"),
        ({"background": "no colour"}, "such as white"),
        ({"background": "#11223344"}, "must not be transparent"),
        ({"background": "red", "mode": "RGBA"}, "keeps what is transparent"),
    ],
)
def test_policies_that_contradict_each_other_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Decoding(**settings)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def jpeg(pixels, **settings):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92, **settings)
    return file.getvalue()
