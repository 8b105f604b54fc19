"""Which rank to take, and why: from what fits miss of entries they have not seen, and what stands out of noise."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.held_out import HeldOut, Misses

ALIKE = 5e-3
"""Share of the error by which fits of one rank differ that end in other local minima."""


class Advice(NamedTuple):
    """A rank, and why."""

    d: int
    why: str
    above_noise: int
    """Singular values above the threshold for white noise."""
    least: int
    """Rank of the least error on entries that are held out."""
    errors: dict[int, float]
    """Relative, on entries that are held out, by rank; with that of `above_noise`, where it lies between those asked
    for."""


def advise(part: HeldOut, ranks: Sequence[int], above_noise: int) -> Advice | None:
    """Recommend a rank; None where the part of A is too small to tell.

    It is the smallest one whose error on entries that are held out is within one standard error of the least, or within
    what another start would change. The number of singular values that stand out of white noise is tried beside the
    ranks that were asked for, where it lies between them.
    """
    tried = {*ranks, above_noise} if ranks[0] < above_noise < ranks[-1] else set(ranks)
    found = {d: misses for d in sorted(tried) if (misses := part.misses(d)) is not None}
    if not found:
        return None
    least = min(found, key=lambda d: found[d].error)
    d = next(d for d in found if _as_good(found[d], found[least]))
    errors = {rank: misses.error for rank, misses in found.items()}
    rows, columns = part.part.shape
    why = f"{_why(d, least, above_noise, errors, asked=ranks)} (held out of {rows:,} × {columns:,} entries of A)"
    return Advice(d, why, above_noise, least, errors)


def _as_good(one: Misses, best: Misses) -> bool:
    """Whether an error is not above another by more than one standard error, of columns in pairs, or by little."""
    worse = one.squares - best.squares
    standard_error = float(worse.std()) / np.sqrt(len(worse))
    return bool(worse.mean() <= standard_error or one.error <= (1 + ALIKE) * best.error)


def _why(d: int, least: int, above: int, errors: Mapping[int, float], asked: Sequence[int]) -> str:
    said = f"the error on entries held out is least there ({errors[d]:.4f})"
    if d != least:
        best = f"{errors[least]:.4f} at d = {least}"
        said = f"the error on entries held out ({errors[d]:.4f}) is as good there as its least, {best}"
    beside = "" if d in asked else ", which was not among those asked for"
    falls = "; it still falls there, so that larger d may be better" if d == asked[-1] else ""
    return f"d = {d}{beside}: {said}{falls}{_threshold(d, above, asked)}"


def _threshold(d: int, above: int, asked: Sequence[int]) -> str:
    """What the singular values say to it."""
    if above == d:
        return "; as many singular values stand out of white noise, so both agree"
    if abs(above - d) == 1:
        return f"; {above} singular values stand out of white noise, so both agree within one"
    if above > asked[-1]:
        return f"; {above} singular values stand out of white noise, so what any d here leaves is not white"
    return f"; that decides, though {above} singular values stand out of white noise: the two disagree"
