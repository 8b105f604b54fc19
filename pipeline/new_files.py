"""Results outside a store: what is there is not written over, and what is half-written does not stay."""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from data_prep.folders import ASIDE, HALF, sync_path

FOLDER = os.O_RDONLY | os.O_DIRECTORY
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file aside; it gets its name once it is whole and on disk, and a failure leaves what was there."""
    aside = path.with_name(f"{ASIDE}{uuid.uuid4().hex}{HALF}")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        error.add_note(f"{path} was not written; the same command begins again")
        raise
    sync_path(path.parent)


class NewFolder:
    """A folder, new or empty, for files whose names are not to be trusted.

    Folders inside are opened one from the other, and links are not followed. So nothing is written elsewhere, even if
    somebody replaces a folder by a link meanwhile.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.count, self.nbytes = path, 0, 0
        self._root = os.open(path, FOLDER)
        self._inside: tuple[Sequence[str], int] = ((), os.dup(self._root))
        """The folder that the last file went to: those that come one after the other mostly share it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Say on an error what is there."""
        os.close(self._root)
        os.close(self._inside[1])
        if error is not None:
            error.add_note(f"{self.count:,} whole files are in {self.path}, but the same command needs it empty")

    def put(self, parts: Sequence[str], content: bytes) -> None:
        """Write a file whole; one that fails is removed.

        Parameters
        ----------
        parts
            Names of the folders inside this one that it is in, and its own: none is empty, `.` or `..`, or has a slash.
        content
            Of the file.

        Raises
        ------
        FileExistsError
            There is one of that name, or a folder.
        """
        folder = self._open(parts[:-1])
        descriptor = os.open(parts[-1], NEW, 0o666, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
        except BaseException:
            os.unlink(parts[-1], dir_fd=folder)
            raise
        self.count += 1
        self.nbytes += len(content)

    def _open(self, parts: Sequence[str]) -> int:
        """Open a folder inside, made where it is not there."""
        before, folder = self._inside
        if before == parts:
            return folder
        folder = os.dup(self._root)
        for part in parts:
            outer = folder
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=outer)
                folder = os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=outer)
            finally:
                os.close(outer)
        os.close(self._inside[1])
        self._inside = (parts, folder)
        return folder
