"""What to compute."""

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

SOLVERS = ("sketch", "hals", "amu", "mu")
FROBENIUS, KULLBACK_LEIBLER = "frobenius", "kullback-leibler"
LOSSES = (FROBENIUS, KULLBACK_LEIBLER)
MASKS = ("alpha",)
INITS = ("random", "nndsvd", "nndsvda", "nndsvdar", "nnsvd_lrc")
BUDGET = ("max_iter", "max_passes", "max_time", "tol", "target_error", "polish")
"""Settings that say when to stop, not what to compute: a rerun may change them and continues."""


@dataclass(frozen=True, kw_only=True)
class NMFConfig:
    """What to compute. Written beside the result, so that a rerun can compare."""

    n_components: int
    """Rank d: columns of W, rows of H."""

    solver: str = ""
    """`sketch`: HALS on a small sketch of A, then a few passes over A; `hals`: hierarchical alternating least squares,
    all of it on A; `amu`: accelerated multiplicative updates, several of H a visit; `mu`: Lee & Seung's multiplicative
    updates to the letter; empty: what suits the objective, see `objective.settled`."""

    loss: str = FROBENIUS
    """The objective: ‖A − W H‖², or the generalised Kullback–Leibler divergence D(A ‖ W H)."""

    init: str = ""
    """`random`: uniform; the others from singular vectors of the stored sample: `nndsvd`, with zeros filled by the mean
    (`nndsvda`) or by small random numbers (`nndsvdar`), or low-rank correction (`nnsvd_lrc`); empty: what suits."""

    mask: str = ""
    """Which entries are missing besides those that the store says are: `alpha`, the colours of transparent pixels."""

    holdout: float = 0.0
    """Share of the entries that is kept out of the fit, and on which each pass reports its error."""

    alpha_W: float = 0.0
    """Weight of the penalty that scikit-learn puts on its W, which is our H: see `penalties`."""

    alpha_H: float | None = None
    """Weight of the penalty that scikit-learn puts on its H, which is our W; that of alpha_W unless given."""

    l1_ratio: float = 0.0
    """Share of the penalties that is of absolute values; the rest is of squares."""

    seed: int = 0
    """Of everything random."""

    max_iter: int = 500
    """Iterations of a phase at most, those of earlier runs of the same factorization included."""

    max_passes: float | None = None
    """Visits of A at most, those of the sketch included: 2.5 times as many columns as there are, say."""

    max_time: float | None = None
    """Seconds after which no iteration begins, earlier runs included; the one setting that makes results depend on
    the machine."""

    sketch_rank: int | None = None
    """Rows l of the sketch; 2 d + 10 unless given."""

    polish: int | None = None
    """Passes over A that follow the sketch; unless given, until they gain little or four were made in all."""

    restarts: int = 1
    """Starts of the iterations on the sketch, each from another seed; the best is polished."""

    tol: float = 1e-4
    """Stop once three passes lower the loss by less than this fraction of it; 0 never stops."""

    target_error: float | None = None
    """Stop at this relative error ‖A − W H‖ / ‖A‖."""

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, with a ValueError."""
        if self.n_components < 1:
            raise ValueError(f"d is {self.n_components}, but is a number of basis images: 1 or more")
        for name, choices in {"solver": SOLVERS, "init": INITS, "mask": MASKS}.items():
            _one_of(name, getattr(self, name) or choices[0], choices)
        _one_of("loss", self.loss, LOSSES)
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, but must be 0 or more")
        self._check_budget()
        self._check_sketch()
        self._check_objective()

    def _check_budget(self) -> None:
        if self.max_iter < 1:
            raise ValueError(f"max_iter is {self.max_iter}, but must be 1 or more")
        if self.max_passes is not None and not self.max_passes >= 1:
            raise ValueError(f"max_passes is {self.max_passes}, but H takes a pass to compute: 1 or more")
        if self.max_time is not None and not self.max_time > 0:
            raise ValueError(f"max_time is {self.max_time}, but must be above 0 seconds")
        if not 0 <= self.tol < 1:
            raise ValueError(f"tol is {self.tol}, but is a fraction of the loss: 0 <= tol < 1")
        if self.target_error is not None and not 0 <= self.target_error < 1:
            raise ValueError(f"target_error is {self.target_error}, but is ‖A − WH‖ / ‖A‖: 0 <= target_error < 1")

    def _check_sketch(self) -> None:
        if self.sketch_rank is not None and self.sketch_rank < self.n_components:
            raise ValueError(f"sketch_rank is {self.sketch_rank}, but must be d = {self.n_components} or more")
        if self.restarts < 1:
            raise ValueError(f"restarts is {self.restarts}, but must be 1 or more")
        if self.polish is not None and self.polish < 1:
            raise ValueError(f"polish is {self.polish}, but H takes a pass to compute: 1 or more")
        asked = {"sketch_rank": self.sketch_rank, "polish": self.polish, "restarts": self.restarts - 1}
        for name in (name for name, value in asked.items() if value and self.solver not in ("", "sketch")):
            raise ValueError(f"{name} is an option of --solver sketch, but the solver is {self.solver}")

    def _check_objective(self) -> None:
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}, but is a share of the entries: 0 <= holdout < 1")
        for name, weight in {"alpha_W": self.alpha_W, "alpha_H": self.alpha_H}.items():
            if weight is not None and not 0 <= weight < float("inf"):
                raise ValueError(f"{name} is {weight}, but is the weight of a penalty: 0 or more, and finite")
        if not 0 <= self.l1_ratio <= 1:
            raise ValueError(f"l1_ratio is {self.l1_ratio}, but is a share of the penalties: 0 <= l1_ratio <= 1")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")


def differences(stored: dict[str, Any], config: NMFConfig) -> list[str]:
    """Settings that make another factorization, as `name: stored → asked`; those that only say when to stop do not."""
    asked = {name: value for name, value in asdict(config).items() if name not in BUDGET}
    earlier = {one.name: one.default for one in fields(config) if one.default is not MISSING} | stored
    return [f"{name}: {earlier.get(name)} → {value}" for name, value in asked.items() if earlier.get(name) != value]
