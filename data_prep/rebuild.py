"""A store whose files are gone or have changed is prepared anew beside itself, and takes its place once it is whole."""

from collections.abc import Callable, Sequence

from data_prep import store
from data_prep.folders import ASIDE, Folder, LocalFolder, sync_path
from data_prep.lock import only_writer

STATUS = "rebuilding"
"""Of a store whose arrays are being replaced: nobody reads it, and the same command goes on."""


def rebuild(home: Folder, arrays: Sequence[str], prepare: Callable[[Folder], object]) -> None:
    """Prepare beside a store, and replace its arrays. Its factorizations stay: they say of what A they are.

    Parameters
    ----------
    home
        The store.
    arrays
        Names of its arrays.
    prepare
        Makes a store at a place that it is given, or goes on with one.

    Raises
    ------
    BadInput
        The store is behind an address, where nothing can be moved.
    """
    if not isinstance(home, LocalFolder):
        raise store.BadInput(f"{home} is behind an address, where a store cannot be rebuilt; choose another --zarr")
    beside = _beside(home)
    with only_writer(home):
        if store.group_attributes(beside).get("status") == "complete":  # of files that may have changed since
            beside.remove()
        prepare(beside)
        store.publish(home, {"format": store.FORMAT, "status": STATUS})
        _take_place(home, arrays)


def go_on(home: Folder, arrays: Sequence[str]) -> None:
    """End what was interrupted while arrays were replaced."""
    assert isinstance(home, LocalFolder)
    with only_writer(home):
        _take_place(home, arrays)


def _beside(home: LocalFolder) -> LocalFolder:
    return LocalFolder(home.path.parent / f"{ASIDE}{home.name}")


def _take_place(home: LocalFolder, arrays: Sequence[str]) -> None:
    beside = _beside(home)
    for name in arrays:
        if (beside / name).exists():  # else it has been moved already
            (home / name).remove()
            (beside.path / name).rename(home.path / name)
    sync_path(home.path)
    store.publish(home, store.group_attributes(beside))
    beside.remove()
