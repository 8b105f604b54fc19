"""How values of options are written: 256MiB, 5min, 50it, 0.1%, 48x40."""

import math
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from dask.utils import parse_bytes, parse_timedelta

from data_prep.folders import Folder, folder
from pipeline.checkpoints import Every
from pipeline.factors import check_name


class StoreFolder(click.ParamType[Folder]):
    """Where a store is: a path, or an address."""

    name = "path|address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Folder:
        """Refuse addresses that hold more than a place."""
        try:
            return folder(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Name(click.ParamType[str]):
    """What a factorization is called."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what could lead elsewhere."""
        try:
            check_name(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class NewFile(click.ParamType[Path]):
    """A file to write in the end: what makes that impossible is said in the beginning."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse what is a folder, and what is in none that can be written to."""
        path = Path(value)
        if path.is_dir():
            self.fail(f"{path} is a folder; name a file", param, ctx)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            self.fail(f"{path} cannot be written; name a file in a folder that is there and yours", param, ctx)
        return path


class Chart(NewFile):
    """A file that Matplotlib draws."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse it where Matplotlib, which is an extra, is not installed."""
        if find_spec("matplotlib") is None:
            self.fail("Matplotlib, which draws it, is not installed: pip install 'nmf-batch[plots]'", param, ctx)
        return super().convert(value, param, ctx)


class Memory(click.ParamType[int]):
    """An amount of memory: 2GiB, 500MB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a number with a unit."""
        try:
            return int(parse_bytes(str(value)))
        except ValueError:
            self.fail(f"{value!r} is not a size; write 2GiB or 500MB", param, ctx)


class Duration(click.ParamType[float]):
    """A time: 30s, 5min."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number with a unit, to seconds."""
        try:
            seconds = float(parse_timedelta(re.sub(r"min$", "m", str(value).strip())))
        except (ValueError, KeyError):
            self.fail(f"{value!r} is not a duration; write 30s or 5min", param, ctx)
        if not seconds >= 0:
            self.fail(f"{value} is negative; write 30s or 5min", param, ctx)
        return seconds


class CheckpointEvery(click.ParamType[Every]):
    """A time, or a number of iterations: 5min, 50it."""

    name = "duration|iterations"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Every:
        """Parse."""
        if isinstance(value, Every):
            return value
        count = str(value).strip().removesuffix("it")
        if count != str(value).strip():
            if not count.isdecimal() or int(count) < 1:
                self.fail(f"{value!r} is not a number of iterations; write 50it", param, ctx)
            return Every(iterations=int(count))
        return Every(seconds=Duration().convert(value, param, ctx))


class Share(click.ParamType[float]):
    """A share of a whole: 0.1% or 0.001."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, and refuse what is not between 0 and 1."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is not a share; write 0.1% or 0.001", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{value} is not between 0% and 100%", param, ctx)
        return share


class Size(click.ParamType[tuple[int, int]]):
    """The size of images: HEIGHTxWIDTH."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse two whole numbers."""
        if isinstance(value, tuple):
            return value
        height, _, width = str(value).lower().partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            self.fail(f"{value!r} is not a size; write height x width as 48x40", param, ctx)
        return int(height), int(width)


class Counts(click.ParamType[tuple[int, ...]]):
    """Whole numbers: 10,25,49, or 5,10,...,200 in even steps."""

    name = "n,n,…"

    def __init__(self, noun: str) -> None:
        self._noun = noun

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse, in ascending order and each once."""
        if isinstance(value, tuple):
            return value
        found: list[int] = []
        written = [one.strip() for one in str(value).split(",")]
        for k, one in enumerate(written):
            if one in ("...", "…") and 2 <= k < len(written) - 1:
                continue
            if not (one.isascii() and one.isdecimal() and int(one)):
                self.fail(f"{value!r} is not a list of {self._noun}, each 1 or more; write 10,25,49", param, ctx)
            if k and written[k - 1] in ("...", "…"):
                found += range(found[-1], int(one), max(1, found[-1] - found[-2]))
            found.append(int(one))
        return tuple(sorted(set(found)))


class Levels(click.ParamType[tuple[float, ...]]):
    """Levels of noise: 0.05,0.1,0.2."""

    name = "x,x,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parse, in ascending order and each once."""
        if isinstance(value, tuple):
            return value
        try:
            levels = {float(one) for one in str(value).split(",")}
        except ValueError:
            levels = {math.nan}
        if not all(0 < one <= 1 for one in levels):
            self.fail(f"{value!r} is not a list of levels above 0 and up to 1; write 0.05,0.1,0.2", param, ctx)
        return tuple(sorted(levels))
