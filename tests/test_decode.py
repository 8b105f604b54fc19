import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from data_prep import decode as decoding
from data_prep.decode import Decoding, opened, own_mode


def encoded(pixels, file_format="PNG", **settings):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=file_format, **settings)
    return file.getvalue()


def decode(raw, how):
    with opened(raw) as image:
        return decoding.decode(image, how).pixels


def mode_of(raw):
    with opened(raw) as image:
        return own_mode(image)


@pytest.fixture
def colours(rng):
    return rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_come_as_they_are(rng, channels):
    pixels = rng.integers(0, 256, (8, 10, channels), dtype=np.uint8)
    found = decode(encoded(pixels.squeeze()), Decoding())
    np.testing.assert_array_equal(found, pixels)


def test_gray_is_the_luma_of_the_colours(colours):
    found = decode(encoded(colours), Decoding(mode="L"))[..., 0]
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found - luma).max() <= 1


def test_conversion_comes_before_resizing(colours):
    found = decode(encoded(colours), Decoding(mode="L", size=(4, 5)))
    expected = Image.fromarray(colours).convert("L").resize((5, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[..., 0], np.asarray(expected))


@pytest.mark.parametrize(
    ("height", "width", "scale", "result"),
    [(218, 178, 0.4, (87, 71)), (100, 100, 0.29, (29, 29)), (10, 30, 0.1, (1, 3)), (3, 5, 2, (6, 10))],
)
def test_a_scale_rounds_down_and_is_exact_in_decimals(height, width, scale, result):
    assert (int(Fraction(str(scale)) * height), int(Fraction(str(scale)) * width)) == result
    found = decode(encoded(np.zeros((height, width), np.uint8)), Decoding(scale=scale))
    assert found.shape == (*result, 1)


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied(rng, orientation, turn):
    pixels = rng.integers(0, 256, (8, 16), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(pixels, exif=exif), Decoding())[..., 0]
    np.testing.assert_array_equal(found, np.rot90(pixels, turn))


def test_hidden_colours_of_transparent_pixels_stay_hidden():
    pixels = np.full((2, 2, 4), 200, np.uint8)
    pixels[0, 0, 3] = 0
    found = decode(encoded(pixels), Decoding(mode="RGB"))
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[1, 1].tolist() == [157, 157, 157]


@pytest.mark.parametrize(
    ("mode", "own"), [("1", "L"), ("L", "L"), ("LA", "RGBA"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGBA")]
)
def test_the_default_mode_is_what_the_image_has(mode, own):
    file = io.BytesIO()
    Image.new(mode, (3, 3)).save(file, format="PNG")
    assert mode_of(file.getvalue()) == own
    assert decode(file.getvalue(), Decoding()).shape == (3, 3, len(own))


def test_a_palette_with_transparency_becomes_rgba():
    file = io.BytesIO()
    Image.new("P", (3, 3)).save(file, format="PNG", transparency=0)
    assert decode(file.getvalue(), Decoding())[..., 3].max() == 0


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
def test_a_file_cut_short_is_an_error(rng, cut):
    raw = encoded(rng.integers(0, 256, (20, 20), dtype=np.uint8))
    with pytest.raises(Exception, match=r"no image of a known|truncated|broken|bytes"):
        decode(raw[:cut], Decoding())


def test_a_claim_of_too_many_pixels_is_refused_before_decoding():
    header = b"P5 100000 100000 255\n"
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        decode(header, Decoding())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": 0.5, "size": (3, 3)}, "both a scale and a size"),
        ({"scale": 0.0}, "above 0"),
        ({"size": (0, 3)}, "both sides must be 1 or more"),
        ({"size": (100_000, 100_000)}, "pixels in all"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Decoding(**settings)
