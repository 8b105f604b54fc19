"""What a group keeps of its arrays: their metadata as they are, and a digest of their chunks."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from zarr.core.array_spec import ArrayConfigLike
from zarr.storage import LocalStore, StorePath

from data_prep.chunks import stored_checksum
from data_prep.folders import Folder
from data_prep.groups import group_attributes
from data_prep.remote import RemoteFolder

ALWAYS_WRITE: ArrayConfigLike = {"write_empty_chunks": True}
"""Not part of an array's metadata, so it is said each time one is opened: a chunk left out could not be missed."""


def published_array(path: Folder, name: str) -> zarr.Array[Any]:
    """Open an array with the metadata that its group says it has, whatever became of its own."""
    metadata = json.loads(group_attributes(path)["digests"][name]["metadata"])
    home = path / name
    location = home.zarr() if isinstance(home, RemoteFolder) else StorePath(LocalStore(str(home)))
    return zarr.Array(zarr.AsyncArray(metadata, location)).with_config(ALWAYS_WRITE)


def digest(path: Folder, name: str, checksums: Sequence[int] | None = None) -> dict[str, str]:
    """What is kept of an array in the attributes of its group: its metadata as they are, a digest of its chunks.

    Parameters
    ----------
    path
        The group.
    name
        Of the array.
    checksums
        Of its chunks, where they are known; else they are read.
    """
    array = zarr.open_array(path.zarr(), path=name, mode="r")  # what is published may still speak of the one before it
    if checksums is None:
        checksums = [stored_checksum(array, *index) for index in np.ndindex(array.cdata_shape)]
    metadata = (path / name).read("zarr.json")
    assert metadata is not None
    return {"metadata": metadata.decode(), "chunks": digest_of_chunks(checksums)}


def digest_of_chunks(checksums: Sequence[int]) -> str:
    """Digest of the checksums of the chunks of an array, in C order."""
    return hashlib.sha256(np.asarray(checksums, "<u4").tobytes()).hexdigest()
