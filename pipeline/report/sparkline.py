"""The course of an error as a line of text: ▇▅▃▂▁▁▁ 0.2310 → 0.1579."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40


def sparkline(errors: Sequence[float], width: int = WIDTH) -> str:
    """Draw positive numbers on a logarithmic scale, from the least to the largest, in a character each.

    Where there are more than `width` of them, the last one of each of as many equal parts is drawn, so that the line
    ends with the last one of all. Zero counts as the least; what is not finite is a gap.
    """
    count = len(errors)
    columns = min(count, width)
    drawn = [errors[(k + 1) * count // columns - 1] for k in range(columns)]
    positive = [math.log(error) for error in drawn if 0 < error < math.inf]
    least, most = min(positive, default=0.0), max(positive, default=0.0)
    return "".join(_block(error, least, most) for error in drawn)


def _block(error: float, least: float, most: float) -> str:
    if not math.isfinite(error):
        return " "
    height = (math.log(error) - least) / (most - least) if error > 0 and most > least else 0.0
    return BLOCKS[min(int(height * len(BLOCKS)), len(BLOCKS) - 1)]


def course(errors: Sequence[float], phases: Sequence[str]) -> str:
    """Draw the errors after each iteration, with the first and the last one, and say from where on they are exact.

    Those on a small problem are errors there, which differ a little from those on A. Empty where there is one only.
    """
    if len(errors) < 2:
        return ""
    first = len(phases)
    while first and phases[first - 1] == phases[-1]:
        first -= 1
    since = f", {phases[-1]} from iteration {first + 1}" if first else ""
    return f"{sparkline(errors)} {errors[0]:.4f} → {errors[-1]:.4f}{since}"
