"""The sums of the last visit, as they are kept with a result: from them W goes on, and takes in columns to come."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.basis import Added, EntrySums, Sums
from pipeline.factors import Factors
from pipeline.kernels import Matrix


class Kept(NamedTuple):
    """What a revision holds of them."""

    tall: dict[str, Matrix]
    """Arrays with a row a pixel."""
    exact: dict[str, NDArray[np.float64]]
    """Arrays in float64."""
    attributes: dict[str, Any]


def kept(sums: Added) -> Kept:
    """Say what to write."""
    if isinstance(sums, Sums):
        return Kept({"AHt": sums.AHt}, {"HHt": sums.HHt}, {"total_H": sums.total_H})
    return Kept(
        {"AHt": sums.AHt, "MHt": sums.MHt},
        {"HHt": sums.HHt, "rows": np.hstack([sums.row_counts, sums.row_sums])},
        {
            "entries": {
                "loss": sums.loss,
                "power": sums.power,
                "penalty_H": sums.penalty_H,
                "held_out": sums.held_out.tolist(),
            }
        },
    )


def read_sums(previous: Factors) -> Added | None:
    """Read what a revision holds of them; None where it was written before there were any."""
    about = previous.attributes
    if not about.get("keeps_sums"):
        return None
    AHt, HHt = previous.read("AHt"), previous.read_exact("HHt")
    told = about.get("entries")
    if told is None:
        return Sums(AHt, HHt, total_H=about.get("total_H"))
    rows = previous.read_exact("rows")
    return EntrySums(
        AHt=AHt,
        HHt=HHt,
        MHt=previous.read("MHt"),
        row_counts=rows[:, :1],
        row_sums=rows[:, 1:],
        loss=told["loss"],
        power=told["power"],
        penalty_H=told["penalty_H"],
        held_out=np.array(told["held_out"]),
    )
