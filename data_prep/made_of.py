"""What a store was made of: the same again is nothing new, other files or options are refused."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from data_prep import store
from data_prep.folders import Folder
from data_prep.images import StoreDiffers
from data_prep.lock import only_writer
from data_prep.matrix_store import EXPENDABLE

NOUNS = {
    "table": ("a table", "another table"),
    "matrix": ("a matrix", "another matrix"),
    "words": ("words", "other documents"),
}
"""What a store of a kind holds, and what one of that kind is that was made of something else."""


class Prepared(NamedTuple):
    """What a preparation did."""

    path: Folder
    attributes: Mapping[str, Any]
    """Of the store."""
    new: bool
    """False where the store held just this before."""


def prepared_before(
    home: Folder, kind: str, made_of: Mapping[str, Any], contents: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """Return the attributes of a store that is complete and was made of just this; None where there is none.

    Parameters
    ----------
    home
        The store.
    kind
        What it must hold.
    made_of
        What it must have been made of.
    contents
        Of what in `made_of` the values mean nothing to people: what to say where such differ, and nothing else does.

    Raises
    ------
    StoreDiffers
        The store holds something else.
    BadInput
        The path is taken by no store.
    """
    if store.group_attributes(home).get("status") != "complete":
        store.check_vacant(home, expendable=EXPENDABLE)
        return None
    attributes = store.open_matrix(home).attributes
    stored = attributes.get("prep", {})
    noun, another = NOUNS[kind]
    if attributes["kind"] != kind:
        raise StoreDiffers(f"{home} does not hold {noun} (kind: {attributes['kind']}); choose another --zarr")
    other = [key for key in made_of if key not in stored or stored[key] != made_of[key]]
    said = [f"{key}: {stored.get(key)} → {made_of[key]}" for key in other if key not in contents]
    if other:
        told = "; ".join(said or [contents[key] for key in other])
        raise StoreDiffers(f"{home} was made of {another} ({told}); choose another --zarr, or remove it first")
    return attributes


def prepare(home: Folder, made_of: Mapping[str, Any], write: Callable[[], dict[str, Any]]) -> Mapping[str, Any]:
    """Make a store, whose arrays `write` writes; returns its attributes. What is refused leaves nothing behind."""
    with only_writer(home) as still_ours:
        store.begin(home, expendable=EXPENDABLE)
        try:
            attributes = write()
        except store.BadInput:
            home.remove()
            raise
        still_ours()
        store.publish(home, {**attributes, "prep": made_of})
    return attributes
