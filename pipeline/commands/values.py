"""How values of options are written: 256MiB, 5min, 50it, 0.1%, 48x40."""

import os
import re
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


class Ranks(click.ParamType[tuple[int, ...]]):
    """Ranks: 10,25,49."""

    name = "d,d,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse, in ascending order and each once."""
        if isinstance(value, tuple):
            return value
        written = [one.strip() for one in str(value).split(",")]
        if not all(one.isascii() and one.isdecimal() and int(one) for one in written):
            self.fail(f"{value!r} is not a list of ranks, each 1 or more; write 10,25,49", param, ctx)
        return tuple(sorted({int(one) for one in written}))
