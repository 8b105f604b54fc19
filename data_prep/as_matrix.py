"""One image as the matrix itself, as in factorizing a photograph: A (height, width), a column of pixels an item."""

from collections.abc import Sequence

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.decode import decode, opened
from data_prep.folders import Where
from data_prep.images import Options, list_images
from data_prep.listing import printable
from data_prep.remote import Unreachable
from data_prep.sources import read


def as_matrix(sources: Sequence[str], path: Where, options: Options) -> tuple[int, int]:
    """Write an image as A, with values of 0..1; returns its shape (m, n).

    Colours and transparency, if they are kept, are below each other: m = height × channels.

    Raises
    ------
    BadInput
        There is not just one image, or it cannot be read; or the path is taken.
    """
    files = list_images(sources, options).files
    if len(files) != 1:
        raise store.BadInput(f"{len(files)} images are given, but --as-matrix takes just one; name it")
    try:
        with opened(read(files[0])) as image:
            pixels = decode(image, options.decoding).pixels
    except Unreachable:
        raise
    except Exception as error:  # Pillow raises far more than OSError
        raise store.BadInput(
            f"{printable(files[0].name)} cannot be read ({type(error).__name__}: {error}); give another"
        ) from error
    height, width, channels = pixels.shape
    write_matrix(path, pixels.transpose(2, 0, 1).reshape(channels * height, width), scale=1 / 255)
    return channels * height, width
