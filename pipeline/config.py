"""What to compute."""

from dataclasses import asdict, dataclass
from typing import Any

SOLVERS = ("hals", "mu")
INITS = ("random", "nndsvd")
DEFAULT_INIT = {"hals": "nndsvd", "mu": "random"}
BUDGET = ("max_iter", "tol", "target_error")
"""Settings that say when to stop, not what to compute: a rerun may change them and continues."""


@dataclass(frozen=True, kw_only=True)
class NMFConfig:
    """What to compute. Written beside the result, so that a rerun can compare."""

    n_components: int
    """Rank d: columns of W, rows of H."""

    solver: str = "hals"
    """`hals`: hierarchical alternating least squares; `mu`: Lee & Seung's multiplicative updates to the letter."""

    loss: str = "frobenius"
    """The objective, ‖A − W H‖²."""

    init: str = ""
    """`random`: uniform; `nndsvd`: from the singular vectors of the stored sample; empty: what suits the solver."""

    seed: int = 0
    """Of everything random."""

    max_iter: int = 200
    """Iterations at most, those of earlier runs of the same factorization included."""

    tol: float = 1e-4
    """Stop once three passes lower the loss by less than this fraction of it; 0 never stops."""

    target_error: float | None = None
    """Stop at this relative error ‖A − W H‖ / ‖A‖."""

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, with a ValueError."""
        if self.n_components < 1:
            raise ValueError(f"d is {self.n_components}, but is a number of basis images: 1 or more")
        _one_of("solver", self.solver, SOLVERS)
        object.__setattr__(self, "init", self.init or DEFAULT_INIT[self.solver])
        _one_of("init", self.init, INITS)
        _one_of("loss", self.loss, ("frobenius",))
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, but must be 0 or more")
        if self.max_iter < 1:
            raise ValueError(f"max_iter is {self.max_iter}, but must be 1 or more")
        if not 0 <= self.tol < 1:
            raise ValueError(f"tol is {self.tol}, but is a fraction of the loss: 0 <= tol < 1")
        if self.target_error is not None and not 0 <= self.target_error < 1:
            raise ValueError(f"target_error is {self.target_error}, but is ‖A − WH‖ / ‖A‖: 0 <= target_error < 1")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")


def differences(stored: dict[str, Any], config: NMFConfig) -> list[str]:
    """Settings that make another factorization, as `name: stored → asked`; those that only say when to stop do not."""
    asked = {name: value for name, value in asdict(config).items() if name not in BUDGET}
    return [f"{name}: {stored.get(name)} → {value}" for name, value in asked.items() if stored.get(name) != value]
