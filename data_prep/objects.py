"""Objects behind an address that images are read from: what is below it, and any part of one."""

from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.remote import bucket_of, translated


def stamp_of(home: str, name: str) -> tuple[int, int]:
    """Size and time of change of an object, in nanoseconds; FileNotFoundError where there is none."""
    bucket = bucket_of(home)
    if bucket is None:
        files, root = _file_system(home)
        found = files.info(f"{root}/{name}")
        return int(found["size"]), _nanoseconds(found)
    with translated(home):
        meta = bucket.head(name)
    return meta["size"], int(meta["last_modified"].timestamp() * 10**9)


def read_whole(home: str, name: str, limit: int) -> bytes:
    """Read an object; ValueError where it is larger than the limit."""
    bucket = bucket_of(home)
    if bucket is None:
        nbytes, _ = stamp_of(home, name)
        return read_range(home, name, 0, nbytes) if nbytes <= limit else _too_large(nbytes, limit)
    with translated(home):
        answer = bucket.get(name)
        nbytes = answer.meta["size"]
        return bytes(answer.bytes()) if nbytes <= limit else _too_large(nbytes, limit)


def _too_large(nbytes: int, limit: int) -> bytes:
    raise ValueError(f"it has {nbytes} bytes, more than {limit}")


def read_range(home: str, name: str, offset: int, length: int) -> bytes:
    """Read so many bytes of an object from there on; fewer where it ends."""
    bucket = bucket_of(home)
    if bucket is None:
        files, root = _file_system(home)
        return files.cat_file(f"{root}/{name}", start=offset, end=offset + length)
    with translated(home):
        if not length:
            return b""
        return bytes(bucket.get_range(name, start=offset, length=length))


def list_below(home: str) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of each object below an address."""
    bucket = bucket_of(home)
    if bucket is None:
        files, root = _file_system(home)
        for path, found in files.find(root, detail=True).items():
            yield path[len(root) :].lstrip("/"), int(found["size"]), _nanoseconds(found)
        return
    with translated(home):
        for page in bucket.list():
            for meta in page:
                yield meta["path"], meta["size"], int(meta["last_modified"].timestamp() * 10**9)


def _file_system(home: str) -> tuple[Any, str]:
    """Return fsspec's view of an address."""
    import fsspec  # here: a folder needs none of it

    files, root = fsspec.core.url_to_fs(home)
    return files, root.rstrip("/")


def _nanoseconds(found: Mapping[str, Any]) -> int:
    """Time of change as fsspec's file systems say it, each in its way; 0 where they do not."""
    changed = next((found[key] for key in ("mtime", "LastModified", "last_modified", "created") if key in found), 0)
    return int(getattr(changed, "timestamp", lambda: changed)() * 10**9) if changed else 0
