"""Folders behind an address: in an object store through obstore, in any other file system through fsspec.

Credentials are those of the usual environment of whoever opens an address; none is kept, sent or written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore, StorePath, WrapperStore

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

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

    def note(self, name: str, content: bytes) -> None:
        """Put an object."""
        self.replace(name, content)

    def make(self) -> None:
        """There are no folders without objects in them."""

    def remove(self) -> None:
        """Remove it with all that is in it; nothing is said where it is not there."""
        sync(_open(self.url).delete_dir(self.below))

    def put_on_disk(self) -> None:
        """What a put has answered is durable."""

    def free_nbytes(self) -> int | None:
        """Object stores do not say."""
        return None

    def read_versioned(self, name: str) -> tuple[bytes | None, str | None]:
        """Content of an object and a name for just this version of it; nothing of both where there is none."""
        bucket = bucket_of(self.url)
        if bucket is None:
            content = self.read(name)
            return content, None if content is None else content.hex()
        try:
            with translated(self.url):
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
        bucket = bucket_of(self.url)
        if bucket is None:
            if self.read_versioned(name)[1] != version:
                raise Changed
            self.replace(name, content)
            return content.hex()
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with translated(self.url):
                mode: Any = "create" if version is None else {"e_tag": version}
                return bucket.put(self._key(name), content, mode=mode)["e_tag"]
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:  # the last: it was removed
            there, by_now = self.read_versioned(name)
            if there != content:  # else it was an earlier try of ours, whose answer got lost
                raise Changed from error
            return by_now

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
        with translated(self.url):
            return await super().get(*arguments, **named)

    async def set(self, *arguments: Any, **named: Any) -> None:
        """Write an object."""
        with translated(self.url):
            await super().set(*arguments, **named)

    async def exists(self, *arguments: Any, **named: Any) -> bool:
        """Whether there is an object."""
        with translated(self.url):
            return await super().exists(*arguments, **named)

    async def list_dir(self, prefix: str) -> Any:
        """List names."""
        with translated(self.url):
            async for name in super().list_dir(prefix):
                yield name

    async def delete_dir(self, *arguments: Any, **named: Any) -> None:
        """Remove all below a prefix."""
        with translated(self.url):
            await super().delete_dir(*arguments, **named)


@cache
def _open(url: str) -> Reaching:
    bucket = bucket_of(url)
    return Reaching(FsspecStore.from_url(url) if bucket is None else ObjectStore(bucket), url)


@cache
def bucket_of(url: str) -> "Bucket | None":
    """Return obstore's view of an address, with credentials from the usual environment; None where it has none."""
    if urlsplit(url).scheme not in OBJECT_STORES:
        return None
    from obstore.store import from_url

    with translated(url):
        more: Any = {"client_options": {"allow_http": True}} if urlsplit(url).scheme == "http" else {}
        return from_url(url, retry_config=RETRIES, **more)


@contextmanager
def translated(url: str) -> Iterator[None]:
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


def check_scheme(scheme: str) -> None:
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
