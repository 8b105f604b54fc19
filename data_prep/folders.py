"""Where stores are: folders of this machine, or of an object store behind an address such as s3://bucket/faces.zarr.

Both offer the same few things to the layout in store.py, which knows nothing else of where it is. What is replaced is
replaced in one step that survives a crash: a rename with syncs here, a single put there.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore, StorePath, WrapperStore

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

ASIDE = ".aside-"
LEASE = ".lease"
"""Names, or beginnings of names, that are no part of a store: what was written aside, and who writes."""
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "http", "https")
"""Schemes that obstore serves, twice as fast as fsspec does; every other one is fsspec's."""
RETRIES: Any = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
}


class Unreachable(ConnectionError):
    """An object store does not answer, though it was asked again and again: exit code 75."""


class Forbidden(PermissionError):
    """An object store refuses what was asked: exit code 4."""


class Changed(Exception):
    """Somebody else replaced what was to be replaced."""


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

    def zarr(self) -> str | StorePath:
        """Return what Zarr opens."""

    def exists(self) -> bool:
        """Whether there is anything of that name, be it a file."""

    def entries(self) -> list[str]:
        """Names in it, sorted; none where it does not exist."""

    def read(self, name: str) -> bytes | None:
        """Content of a small file, or None where there is none."""

    def replace(self, name: str, content: bytes) -> None:
        """Write a small file whole, in one step that survives a crash."""

    def make(self) -> None:
        """Make it and the folders above it, where such a thing is needed."""

    def remove(self) -> None:
        """Remove it with all that is in it; nothing is said where it is not there."""

    def put_on_disk(self) -> None:
        """Make sure that all in it survives a crash."""


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
    _check_scheme(parts.scheme)
    return RemoteFolder(text.rstrip("/"))


def _check_scheme(scheme: str) -> None:
    """Raise ValueError where nothing that is installed opens such an address."""
    if scheme in OBJECT_STORES:
        if find_spec("obstore") is None:
            raise ValueError(f"{scheme}:// is an object store; install nmf-batch[remote] to reach it")
        return
    import fsspec  # here: a folder needs none of it

    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{scheme}:// cannot be opened ({error}); mend the address, or install that") from error


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
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def replace(self, name: str, content: bytes) -> None:
        """Write aside, sync, rename, sync."""
        aside = self.path / f"{ASIDE}{uuid.uuid4().hex}"
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path / name)
        sync_path(self.path)

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
        """Put every file below it, the folders themselves, and its own name on disk."""
        for found, _, files in os.walk(self.path, topdown=False):
            for name in files:
                sync_path(Path(found, name))
            sync_path(Path(found))
        sync_path(self.path.parent)


def sync_path(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind an address. It can be sent to workers, who open it themselves with their own credentials."""

    url: str
    """Of the store; everything that is opened is opened there."""
    below: str = ""
    """Path in the store."""

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(self.url, f"{self.below}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"{self.url}/{self.below}".rstrip("/")

    @property
    def name(self) -> str:
        """Last part of the address."""
        return str(self).rpartition("/")[2]

    @property
    def parent(self) -> "RemoteFolder":
        """The folder that it is in; that of the store itself is not ours."""
        return RemoteFolder(self.url, self.below.rpartition("/")[0])

    def zarr(self) -> StorePath:
        """Return what Zarr opens."""
        return StorePath(_open(self.url), self.below)

    def exists(self) -> bool:
        """Whether there is anything below it."""
        return self.read("zarr.json") is not None or bool(self.entries())

    def entries(self) -> list[str]:
        """Names in it, sorted; none where it does not exist."""

        async def listed() -> list[str]:
            return sorted([name async for name in _open(self.url).list_dir(self.below)])

        return [name for name in sync(listed()) if name]

    def read(self, name: str) -> bytes | None:
        """Content of a small object, or None where there is none."""
        found = sync((self.zarr() / name).get(default_buffer_prototype()))
        return None if found is None else found.to_bytes()

    def replace(self, name: str, content: bytes) -> None:
        """Put an object: in one step, and durable once it is answered."""
        sync((self.zarr() / name).set(default_buffer_prototype().buffer.from_bytes(content)))

    def make(self) -> None:
        """There are no folders without objects in them."""

    def remove(self) -> None:
        """Remove it with all that is in it; nothing is said where it is not there."""
        sync(_open(self.url).delete_dir(self.below))

    def put_on_disk(self) -> None:
        """What a put has answered is durable."""

    def read_versioned(self, name: str) -> tuple[bytes | None, str | None]:
        """Content of an object and a name for just this version of it; nothing of both where there is none."""
        bucket = _bucket(self.url)
        if bucket is None:
            content = self.read(name)
            return content, None if content is None else content.hex()
        try:
            with _translated(self.url):
                answer = bucket.get(self._key(name))
                return bytes(answer.bytes()), answer.meta["e_tag"]
        except FileNotFoundError:
            return None, None

    def replace_version(self, name: str, content: bytes, version: str | None) -> str | None:
        """Replace just this version of an object, or make it where that is None; returns the new version.

        Stores that obstore does not serve compare and write one after the other: two that do so within the same
        moment both believe that they were first.

        Raises
        ------
        Changed
            Another version is there.
        """
        bucket = _bucket(self.url)
        if bucket is None:
            if self.read_versioned(name)[1] != version:
                raise Changed
            self.replace(name, content)
            return content.hex()
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with _translated(self.url):
                mode: Any = "create" if version is None else {"e_tag": version}
                return bucket.put(self._key(name), content, mode=mode)["e_tag"]
        except (AlreadyExistsError, PreconditionError) as error:
            raise Changed from error

    def _key(self, name: str) -> str:
        return f"{self.below}/{name}".lstrip("/")


class Reaching(WrapperStore[Store]):
    """A remote store whose failures say what they mean to a user."""

    def __init__(self, store: Store, url: str = "") -> None:
        super().__init__(store)
        self.url = url

    def __str__(self) -> str:
        return self.url

    def _with_store(self, store: Store) -> "Reaching":
        return Reaching(store, self.url)

    async def get(self, *arguments: Any, **named: Any) -> Any:
        """Read an object."""
        with _translated(self.url):
            return await super().get(*arguments, **named)

    async def set(self, *arguments: Any, **named: Any) -> None:
        """Write an object."""
        with _translated(self.url):
            await super().set(*arguments, **named)

    async def exists(self, *arguments: Any, **named: Any) -> bool:
        """Whether there is an object."""
        with _translated(self.url):
            return await super().exists(*arguments, **named)

    async def list_dir(self, prefix: str) -> Any:
        """List names."""
        with _translated(self.url):
            async for name in super().list_dir(prefix):
                yield name

    async def delete_dir(self, *arguments: Any, **named: Any) -> None:
        """Remove all below a prefix."""
        with _translated(self.url):
            await super().delete_dir(*arguments, **named)


@cache
def _open(url: str) -> Reaching:
    bucket = _bucket(url)
    return Reaching(FsspecStore.from_url(url) if bucket is None else ObjectStore(bucket), url)


@cache
def _bucket(url: str) -> "Bucket | None":
    """Return obstore's view of an address, with credentials from the usual environment; None where it has none."""
    if urlsplit(url).scheme not in OBJECT_STORES:
        return None
    from obstore.store import from_url

    with _translated(url):
        return from_url(url, retry_config=RETRIES)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Tell obstore's errors apart by what a user can do; what it adds for its developers stays behind."""
    if urlsplit(url).scheme not in OBJECT_STORES:
        yield
        return
    from obstore import exceptions

    try:
        yield
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise Forbidden(
            f"{url} is refused to these credentials ({_first_line(error)}); set those that may use it"
        ) from error
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise
    except exceptions.BaseError as error:
        raise Unreachable(f"{url} cannot be reached ({_first_line(error)}); run the same command again") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()
