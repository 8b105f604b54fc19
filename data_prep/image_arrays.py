"""Images that are arrays already: .npy files and Zarr arrays of (n, height, width) or (n, height, width, channels)."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from data_prep.folders import folder
from data_prep.groups import BadInput
from data_prep.listing import Container, SourceFile
from data_prep.ranges import Stamp, is_address, stamp_of


def is_zarr_array(location: str) -> bool:
    """Whether a folder holds a Zarr array."""
    home = folder(location)
    return home.read(".zarray") is not None or b'"node_type": "array"' in (home.read("zarr.json") or b"")


def list_array(kind: str, location: str) -> Iterator[SourceFile]:
    """List the images of an array; they are called by its name and their number.

    Raises
    ------
    BadInput
        It cannot be opened, is not of such a shape, or holds no real numbers.
    """
    container = Container(kind, location)
    array = _opened(container, _stamp(container))
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 2, 3, 4)):
        raise BadInput(
            f"{location} has shape {array.shape}, but must be (images, height, width) or "
            f"(images, height, width, channels) with 1 to 4 channels; --as-matrix takes a single image"
        )
    if array.dtype.kind not in "buf":
        raise BadInput(f"{location} holds {array.dtype}, but must hold uint8, uint16, bool or floats from 0 to 1")
    n, *shape = array.shape
    name, digits = location.rstrip("/").rpartition("/")[2], len(str(max(0, n - 1)))
    nbytes, version = int(np.prod(shape)) * array.dtype.itemsize, _stamp(container).time_ns
    for j in range(n):
        yield SourceFile(f"{name}/{j:0{digits}d}".encode(), container, nbytes, version, j)


def read_image(file: SourceFile, limit: int) -> NDArray[Any]:
    """Read one image of an array, (height, width) or (height, width, channels); ValueError above the limit."""
    if file.nbytes > limit:
        raise ValueError(f"it has {file.nbytes} bytes, more than {limit}")
    array = _opened(file.container, _stamp(file.container))
    if file.container.kind == "npy":
        return np.array(array[file.offset])
    first = file.offset - file.offset % array.chunks[0]
    return _block(file.container, _stamp(file.container), first)[file.offset - first]


def _stamp(container: Container) -> Stamp:
    """What changes with an array; of a Zarr array, whose chunks are many files, only its metadata."""
    if container.kind == "npy":
        return stamp_of(container.location)
    return Stamp(0, 0) if is_address(container.location) else stamp_of(container.location)


@lru_cache(maxsize=4)
def _opened(container: Container, stamp: Stamp) -> Any:
    location = container.location
    try:
        if container.kind == "npy":
            return np.load(Path(location), mmap_mode="r", allow_pickle=False)
        return zarr.open_array(folder(location).zarr(), mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{location} is no array that can be read ({error}); make it again") from error


@lru_cache(maxsize=2)
def _block(container: Container, stamp: Stamp, first: int) -> NDArray[Any]:
    """Images of one chunk of a Zarr array: who reads one reads the next ones too."""
    array = _opened(container, stamp)
    return np.asarray(array[first : first + array.chunks[0]])
