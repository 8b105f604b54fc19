"""Where stores are: folders of this machine, or of an object store behind an address such as s3://bucket/faces.zarr.

Both offer the same few things to the layout in store.py, which knows nothing else of where it is. What is replaced is
replaced in one step that survives a crash: a rename with syncs here, a single put there.
"""

import errno
import hashlib
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from data_prep.remote import Changed, RemoteFolder, check_scheme

if TYPE_CHECKING:
    from zarr.storage import StorePath

ASIDE = ".aside-"
LEASE = ".lease"
"""Names, or beginnings of names, that are no part of a store: what was written aside, and who writes."""
HALF = ".partial"
"""How Zarr ends the name of a file while it writes it; one that is killed leaves it behind."""


class Folder(Protocol):
    """A folder that holds a store, or a group of it."""

    @property
    def name(self) -> str:
        """Last part of the path."""

    @property
    def parent(self) -> "Folder":
        """The folder that it is in."""

    def __truediv__(self, name: str) -> "Folder":
        """Return the folder of that name in it."""

    def zarr(self) -> "str | StorePath":
        """Return what Zarr opens."""

    def exists(self) -> bool:
        """Whether there is anything of that name, be it a file."""

    def entries(self) -> list[str]:
        """Names in it, sorted; none where it does not exist."""

    def read(self, name: str) -> bytes | None:
        """Content of a small file, or None where there is none."""

    def replace(self, name: str, content: bytes) -> None:
        """Write a small file whole, in one step that survives a crash."""

    def note(self, name: str, content: bytes) -> None:
        """Write a small file whole, in one step that a crash may take back; only one at a time may write it."""

    def read_versioned(self, name: str) -> tuple[bytes | None, str | None]:
        """Content of a small file and a name for just this version of it; nothing of both where there is none."""

    def replace_version(self, name: str, content: bytes, version: str | None) -> str | None:
        """Replace just this version of a file, or make it where that is None; Changed where another is there."""

    def make(self) -> None:
        """Make it and the folders above it, where such a thing is needed."""

    def remove(self) -> None:
        """Remove it with all that is in it; nothing is said where it is not there."""

    def put_on_disk(self) -> None:
        """Make sure that all in it survives a crash."""

    def free_nbytes(self) -> int | None:
        """Bytes that can still be written there; None where nobody says."""


PASSING = {errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE}
"""Errors of a disk that may be gone in a moment."""

Where = str | os.PathLike[str] | Folder
"""A path, an address, or a folder, which has one of them."""


def folder(where: Where) -> Folder:
    """Return the folder at a path or an address; a folder is returned as it is.

    Raises
    ------
    ValueError
        The address carries credentials or a query, which belong into the environment and not into logs; or nothing
        that is installed opens such an address.
    """
    if not isinstance(where, str | os.PathLike):
        return where
    text = os.fspath(where)
    if "://" not in text:
        return LocalFolder(Path(text).absolute())
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"the address of {parts.scheme}://{parts.hostname}{parts.path} carries more than a place; "
            f"credentials are taken from the environment (AWS_ACCESS_KEY_ID and the like)"
        )
    if parts.scheme == "file":
        return LocalFolder(Path(parts.path).absolute())
    check_scheme(parts.scheme)
    return RemoteFolder(text.rstrip("/"))


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, or one that is mounted at the same path on all of them."""

    path: Path

    def __truediv__(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.name

    @property
    def parent(self) -> "LocalFolder":
        """The folder that it is in."""
        return LocalFolder(self.path.parent)

    def zarr(self) -> str:
        """Return what Zarr opens."""
        return str(self.path)

    def exists(self) -> bool:
        """Whether there is anything of that name, be it a file."""
        return self.path.exists()

    def entries(self) -> list[str]:
        """Names in it, sorted; none where it does not exist."""
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []

    def read(self, name: str) -> bytes | None:
        """Content of a small file, or None where there is none."""
        return read_file(self.path / name)

    def replace(self, name: str, content: bytes) -> None:
        """Write aside, sync, rename, sync."""
        aside = self.path / f"{ASIDE}{uuid.uuid4().hex}{HALF}"
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path / name)
        sync_path(self.path)

    def note(self, name: str, content: bytes) -> None:
        """Write aside, rename: nobody waits for the disk."""
        aside = self.path / f"{ASIDE}{name}{HALF}"
        aside.write_bytes(content)
        aside.replace(self.path / name)

    def read_versioned(self, name: str) -> tuple[bytes | None, str | None]:
        """Content of a small file and its hash; nothing of both where there is none."""
        content = self.read(name)
        return content, None if content is None else hashlib.sha256(content).hexdigest()

    def replace_version(self, name: str, content: bytes, version: str | None) -> str | None:
        """Replace just this version of a file, for its only writer: the two steps are not one to others."""
        if self.read_versioned(name)[1] != version:
            raise Changed
        self.replace(name, content)
        return hashlib.sha256(content).hexdigest()

    def make(self) -> None:
        """Make it and the folders above it, and put their names on disk."""
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_path(path.parent)

    def remove(self) -> None:
        """Remove it with all that is in it; nothing is said where it is not there."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)

    def put_on_disk(self) -> None:
        """Put every file below it, the folders themselves, and its own name on disk; half a file is removed."""
        for found, _, files in os.walk(self.path, topdown=False):
            for name in files:
                if name.endswith(HALF):
                    Path(found, name).unlink()
                else:
                    sync_path(Path(found, name))
            sync_path(Path(found))
        sync_path(self.path.parent)

    def free_nbytes(self) -> int | None:
        """Bytes that can still be written on its disk."""
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        return shutil.disk_usage(there).free


def read_file(path: Path) -> bytes | None:
    """Content of a file, or None where there is none; what a network disk may get over is tried again for 2 seconds."""
    for pause_s in (0.1, 0.4, 1.6, 0.0):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in PASSING or not pause_s:
                raise
            time.sleep(pause_s)
    raise AssertionError


def sync_path(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # the system names no file here
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
