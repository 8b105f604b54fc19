"""Groups of a store: their attributes, which are published in one step and checked each time they are read."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from data_prep.folders import Folder, Where, folder
from data_prep.lock import HeldError
from data_prep.remote import Changed


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
