"""What has become of the files of a store since: which are new, gone, or have another content."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import tee
from typing import NamedTuple

import numpy as np

from data_prep.listing import UNKNOWN, Files, original_bytes, positions_of
from data_prep.manifest import read_rows
from data_prep.remote import Unreachable
from data_prep.sources import read, sha256_of
from data_prep.store import StoredMatrix

AT_ONCE = 256
"""Files that a task reads."""


class Changes(NamedTuple):
    """Files of the sources, compared with those of a store."""

    new: Files
    """Those that the store has not, in order."""
    gone: list[str]
    """Names of images of the store whose files are not among those of the sources."""
    changed: list[str]
    """Names of images whose files have another content now."""


class Suspect(NamedTuple):
    """A file that has another size or time than it had."""

    position: int
    image: str
    sha256: str
    """Of its content as it was."""


def changes(matrix: StoredMatrix, files: Files, executor: Executor) -> Changes:
    """Compare the files of sources with those that a store was prepared from.

    A file of another size or time is read, and only another content counts: a copy is no change.

    Parameters
    ----------
    matrix
        The stored matrix.
    files
        What the sources hold now, in order.
    executor
        Runs what reads.
    """
    _, n = matrix.shape
    taken = np.zeros(len(files), np.bool_)
    gone: list[str] = []
    suspects: list[Suspect] = []
    rows, again = tee(read_rows(matrix.path, n))
    names = (original_bytes(row.image) for row in again)
    for row, position in zip(rows, positions_of(files, names), strict=True):
        if position < 0:
            gone.append(row.image)
            continue
        taken[position] = True
        seen = files.nbytes[position], files.versions[position]
        if seen[0] != UNKNOWN and seen != (row.nbytes, row.version):
            suspects.append(Suspect(position, row.image, row.sha256))
    changed = [suspect.image for same, suspect in _contents_kept(files, suspects, executor) if not same]
    return Changes(files.take(np.flatnonzero(~taken)), gone, changed)


def _contents_kept(files: Files, suspects: Sequence[Suspect], executor: Executor) -> Iterator[tuple[bool, Suspect]]:
    """Whether some files have the content that they had."""
    lots = [suspects[k : k + AT_ONCE] for k in range(0, len(suspects), AT_ONCE)]
    tasks = [files.take(np.array([suspect.position for suspect in lot])) for lot in lots]
    for lot, digests in zip(lots, executor.map(_sha256s, tasks), strict=True):
        yield from ((digest == suspect.sha256, suspect) for suspect, digest in zip(lot, digests, strict=True))


def _sha256s(files: Files) -> list[str]:
    """SHA-256 of the content of each file; empty where it cannot be read, as in the manifest."""
    found = {}
    for k in files.places():
        try:
            found[k] = sha256_of(read(files[k]))
        except Unreachable:  # nobody knows whether it has changed
            raise
        except (OSError, ValueError):  # missing, damaged, or not to be read
            found[k] = ""
    return [found[k] for k in range(len(files))]
