"""What a preparation would do: listed, tried on a few images, and estimated."""

import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import numpy as np

from data_prep.columns import examine
from data_prep.folders import Folder
from data_prep.images import Options, first_image
from data_prep.manifest import Status, Unreadable
from data_prep.sample import sample_size
from data_prep.sources import Listing

TRIED = 200
TRIED_S = 3.0
"""At most so many images are decoded, and for so long."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a preparation would do."""

    n: int
    """Images, each a column of A."""
    nbytes: int
    """Of their files."""
    n_passed: int
    """Files that would get no column."""
    why_passed: dict[str, int]
    """How many for which reason."""
    shape: tuple[int, int]
    image_shape: tuple[int, int, int]
    mode: str
    store_nbytes: int
    """Of A and its sample, uncompressed."""
    free_nbytes: int | None
    tried: int
    """Images that were decoded to estimate, spread over all."""
    unreadable: list[Unreadable]
    """Those of them that would be columns of zeros."""
    images_per_s: float
    """In one thread."""


def estimate(path: Folder, listing: Listing, options: Options) -> Estimate:
    """Say what preparing these files would make, and try some of them. Nothing is written.

    Raises
    ------
    BadInput
        None of the images can be read.
    """
    files = listing.files
    how = first_image(files, options)
    m, n = int(np.prod(how.image_shape)), len(files)
    began, tried, broken = time.perf_counter(), 0, []
    for k in islice(range(0, n, max(1, n // TRIED)), TRIED):
        row, _ = examine(files[k], how)
        tried += 1
        if row.status != Status.OK:
            broken.append(Unreadable(row.image, row.reason))
        if time.perf_counter() - began > TRIED_S:
            break
    return Estimate(
        n=n,
        nbytes=int(files.nbytes.sum()),
        n_passed=len(listing.passed),
        why_passed=dict(Counter(passed.reason for passed in listing.passed)),
        shape=(m, n),
        image_shape=how.image_shape,
        mode=how.decoding.mode or "",
        store_nbytes=m * (n + min(n, sample_size(m, 1))),
        free_nbytes=path.free_nbytes(),
        tried=tried,
        unreadable=broken,
        images_per_s=tried / (time.perf_counter() - began),
    )
