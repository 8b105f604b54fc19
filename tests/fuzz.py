"""Mutates images of ten formats and decodes them, in a process of its own: what does that cost, and does it end?

    python -m tests.fuzz COUNT SEED

Prints a JSON object: how many could be read, the slowest in seconds, and the growth of the peak memory in bytes.
"""

import io
import json
import random
import resource
import sys
import time
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from data_prep import columns
from data_prep.columns import How
from data_prep.decode import Decoding
from data_prep.listing import Container, SourceFile
from data_prep.manifest import Status
from tests.test_archives import mutated

FORMATS = {
    "JPEG": {"quality": 80, "progressive": True},
    "PNG": {},
    "GIF": {"save_all": True, "append_images": [Image.new("RGB", (48, 40), "red")]},
    "BMP": {},
    "PPM": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {},
    "JPEG2000": {},
    "TGA": {"compression": "tga_rle"},
    "DIB": {},
}


def whole() -> Iterator[bytes]:
    """One image of each format, with EXIF where it has it."""
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, settings in FORMATS.items():
        file = io.BytesIO()
        more = {"exif": exif.tobytes()} if name in ("JPEG", "PNG", "WEBP") else {}
        Image.fromarray(pixels).save(file, name, **settings, **more)
        yield file.getvalue()


def main(count: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    images, chance = list(whole()), random.Random(seed)
    how, readable, slowest = How(Decoding(mode="RGB", size=(16, 16)), (16, 16, 3), time_limit_s=10), 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(count):
        raw = mutated(images[k % len(images)], chance) if k >= len(images) else images[k]
        columns.read = lambda file, raw=raw: raw
        began = time.perf_counter()
        row, _ = columns.examine(SourceFile(b"fuzzed", Container("folder", ""), len(raw)), how)
        slowest = max(slowest, time.perf_counter() - began)
        readable += row.status == Status.OK
        assert k >= len(images) or row.status == Status.OK, (list(FORMATS)[k], row)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps({"count": count, "readable": readable, "slowest_s": slowest, "grown": grown}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
