"""From the names of images, which may be anything, to the names of PNG files inside a folder.

Each name has its own way, so that no table of names is needed. Two images may still be meant to have the same file, as
a.jpg and a.tif; the second one gets the number of its column.
"""

import hashlib
import re

ENDING = ".png"
LONGEST, LONGEST_PATH = 255, 1024
"""Bytes of a name, which file systems have in common; and of a path, of which they take four times as many."""
IMAGE_SUFFIX = re.compile(r"(?<=.)\.[a-z][a-z0-9]{2,3}\Z", re.IGNORECASE)
"""As in .jpg, .j2k and .webp, but not in 12.5 or .v2, which are names that happen to have a point."""
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
"""Control characters, and what separates folders elsewhere."""


def picture_parts(name: str, column: int, attempt: int = 0) -> tuple[str, ...]:
    """Folders, and the name of the file in them, for the image of a name.

    It is the name with .png in place of its suffix: `x/y.jpg` becomes `x/y.png`. What no file can be called, or what
    would lead elsewhere, is percent-encoded; empty parts are left out; what is too long is cut, and ends in a hash of
    the whole.

    Parameters
    ----------
    name
        Of the image: a path inside its source.
    column
        Its number.
    attempt
        How many of the names that this returned before were taken: from the first on the suffix stays, with the number
        of the column behind it, as in `x/y.jpg.17.png`.
    """
    *folders, last = [_fit(part) for part in name.split("/") if part not in ("", ".")] or ["unnamed"]
    if len("/".join(folders).encode()) > LONGEST_PATH:
        folders, last = [], "/".join([*folders, last]).replace("/", "%2F")
    ending = f".{column}" * attempt + ENDING
    stem = last if attempt else IMAGE_SUFFIX.sub("", last)
    return (*(_cut(_folder(part), LONGEST) for part in folders), _cut(stem, LONGEST - len(ending)) + ending)


def _fit(part: str) -> str:
    """Percent-encode what a part of a path must not hold."""
    if part == "..":
        return "%2E%2E"
    return UNFIT.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), part)


def _folder(part: str) -> str:
    """Name a folder unlike any file that is written, so that x.png beside x.png/y.png is no conflict."""
    return f"{part}_" if part.endswith(ENDING) else part


def _cut(text: str, longest: int) -> str:
    """Cut a text to so many bytes, and end it in a hash of the whole where that takes something away."""
    content = text.encode()
    if len(content) <= longest:
        return text
    ending = "~" + hashlib.sha256(content).hexdigest()[:16]
    return content[: longest - len(ending)].decode(errors="ignore") + ending
