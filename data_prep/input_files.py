"""Files that a matrix is made of: what is said where one is not there, and what tells whether it is the same."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.groups import BadInput


@contextmanager
def readable(file: Path, what: str) -> Iterator[None]:
    """Say of a file that is missing, or is a folder, that it must be a file of that kind."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"{file} is not there; name {what} of this machine") from error
    except IsADirectoryError as error:
        raise BadInput(f"{file} is a folder; name {what} in it") from error


def digest(file: Path, what: str) -> tuple[str, int]:
    """Return sha256 and size of a file, which tell whether it is the same; BadInput where it cannot be read."""
    with readable(file, what), file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest(), content.tell()
