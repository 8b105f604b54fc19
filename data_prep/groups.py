"""Groups of a store: their attributes, which are published in one step and checked each time they are read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.folders import ASIDE, HALF, LEASE, Folder, LocalFolder, Where, folder
from data_prep.lock import HeldError
from data_prep.remote import Changed

FORMAT = "nmf-batch/1"


class BadInput(ValueError):
    """What was given or stored cannot be used: the command ends with exit code 4."""


def group_attributes(path: Where) -> dict[str, Any]:
    """Attributes of a group, or none where there is no group; BadInput where they are not as they were published."""
    return attributes_and_version(folder(path))[0]


def attributes_and_version(path: Folder) -> tuple[dict[str, Any], str | None]:
    """Attributes of a group, and a name for just this version of them, None where there is no group."""
    content, version = path.read_versioned("zarr.json")
    if content is None:
        return {}, None
    try:
        attributes = dict(json.loads(content)["attributes"])
        as_published = not attributes or _rendered(attributes) == content  # Zarr itself makes groups without any
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}/zarr.json is damaged ({error}); restore the file") from error
    if not as_published:
        raise BadInput(f"{path}/zarr.json is damaged, or not of nmf-batch: its digest is not that of its content")
    return attributes, version


def publish(path: Where, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group, and make it one, in one step that survives a crash."""
    folder(path).replace("zarr.json", _rendered(attributes))


def switch(path: Folder, attributes: Mapping[str, Any], version: str | None) -> None:
    """Publish where that version of the attributes is still there; HeldError where somebody else has published."""
    try:
        path.replace_version("zarr.json", _rendered(attributes), version)
    except Changed as error:
        raise HeldError(f"another process has published {path} meanwhile, so this one does not") from error


def _rendered(attributes: Mapping[str, Any]) -> bytes:
    """Return the file of a group, with a digest of its attributes among them."""
    content = {key: value for key, value in attributes.items() if key != "digest"}
    content["digest"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": content}, indent=2).encode()


def begin(path: Folder, *, expendable: Sequence[str]) -> None:
    """Make an empty store that readers refuse until `publish`; what an interrupted attempt left is removed."""
    check_vacant(path, expendable=expendable)
    path.make()
    publish(path, {"format": FORMAT, "status": "preparing"})
    for name in path.entries():
        if not name.startswith(LEASE) and name != "zarr.json":
            (path / name).remove()


def check_vacant(path: Folder, *, expendable: Sequence[str]) -> None:
    """Raise BadInput where a path holds anything but the `expendable` arrays of an interrupted attempt."""
    if isinstance(path, LocalFolder) and path.exists() and not path.path.is_dir():
        raise BadInput(f"{path} is a file, but a store is a folder; choose another path")
    entries = {name for name in path.entries() if not name.startswith((ASIDE, LEASE)) and not name.endswith(HALF)}
    if "A" in entries and "zarr.json" not in entries:
        raise BadInput(f"{path}/zarr.json is missing, but {path}/A is there; restore the file, or remove {path}")
    strangers = entries - {"zarr.json", *expendable}
    if strangers or (entries and group_attributes(path).get("status") != "preparing"):
        raise BadInput(f"{path} exists and is not an nmf-batch store; choose another path or remove it")
