"""What is minimised over which entries, and by which solver: settled once the matrix is known."""

from dataclasses import replace

from data_prep.store import StoredMatrix
from pipeline import penalties
from pipeline.config import FROBENIUS, KULLBACK_LEIBLER, NMFConfig
from pipeline.entries import SPARSE
from pipeline.entry_pass import EntryVisit
from pipeline.one_pass import BlockMatrix
from pipeline.solvers.entrywise import LEAST_LEFT, LEFT_OF_COUNTS, Entrywise
from pipeline.solvers.hals import HALS, LISTED_SWEEPS, WARM_SWEEPS
from pipeline.solvers.mu import MU
from pipeline.solvers.state import Solver
from pipeline.which import Which

DEFAULT_INIT = {"sketch": "nnsvd_lrc", "hals": "nnsvd_lrc", "amu": "nnsvd_lrc", "mu": "random"}
UPDATES, COLD_UPDATES = 5, 30
"""Of H in a visit of `amu`: a visit costs W H once more than that, and a read."""
FILLINGS, COLD_FILLINGS = 3, 6
"""How often a visit of `hals` fills what is missing."""


class Unsuitable(ValueError):
    """A solver or a mask that does not go with the objective or the matrix: the command ends with exit code 2."""


def settled(config: NMFConfig, matrix: StoredMatrix) -> NMFConfig:
    """Return the settings with the solver and the start that suit the objective, where none were asked for.

    Raises
    ------
    Unsuitable
        The solver asked for cannot minimise the objective, or the mask needs images with transparency.
    """
    if config.mask == "alpha" and matrix.attributes.get("mode") != "RGBA":
        raise Unsuitable(
            f"the mask is 'alpha', but {matrix.path} holds no images with transparency; prepare them with --mode RGBA"
        )
    solver = config.solver or _suitable(config, matrix)
    if solver == "sketch" and is_entrywise(config, matrix):
        why = "the loss is a divergence" if config.loss == KULLBACK_LEIBLER else "entries are missing or held out"
        raise Unsuitable(f"the solver is 'sketch', whose sketch has signs, but {why}; leave --solver out")
    if solver == "hals" and config.loss == KULLBACK_LEIBLER:
        raise Unsuitable(
            "the solver is 'hals', which minimises squares, but the loss is a divergence; take 'amu' or 'mu'"
        )
    if solver == "hals" and few_present(matrix):
        raise Unsuitable(
            "the solver is 'hals', which fills in what is missing, but that is nearly all; take 'amu' or 'mu'"
        )
    if solver == "amu" and not is_entrywise(config, matrix):
        raise Unsuitable("the solver is 'amu', for entries one by one, but no entry is missing; leave --solver out")
    few = few_present(matrix) and solver == "amu"
    try:
        return replace(config, solver=solver, init=config.init or ("random" if few else DEFAULT_INIT[solver]))
    except ValueError as error:  # an option of the sketch, say
        raise Unsuitable(str(error)) from error


def _suitable(config: NMFConfig, matrix: StoredMatrix) -> str:
    if not is_entrywise(config, matrix):
        return "sketch"
    return "hals" if config.loss == FROBENIUS and not few_present(matrix) else "amu"


def is_masked(config: NMFConfig, matrix: StoredMatrix) -> bool:
    """Whether entries are missing or held out."""
    return bool(config.mask or config.holdout) or matrix.n_present is not None


def is_entrywise(config: NMFConfig, matrix: StoredMatrix) -> bool:
    """Whether the objective needs W H at each entry: it is no ‖A − W H‖² over all of them."""
    return config.loss == KULLBACK_LEIBLER or is_masked(config, matrix)


def few_present(matrix: StoredMatrix) -> bool:
    """Whether nearly all entries are missing."""
    return matrix.n_present is not None and matrix.n_present < SPARSE * matrix.shape[0] * matrix.shape[1]


def nearly_all_zero(matrix: StoredMatrix) -> bool:
    """Whether so few entries are known and not zero that a list of them costs less than all."""
    return matrix.n_nonzero is not None and matrix.n_nonzero < SPARSE * matrix.shape[0] * matrix.shape[1]


def few_nonzero(config: NMFConfig, matrix: StoredMatrix) -> bool:
    """Whether all entries are present, and nearly all are zero."""
    return not is_masked(config, matrix) and nearly_all_zero(matrix)


def is_sparse(config: NMFConfig, matrix: StoredMatrix) -> bool:
    """Whether blocks list few entries: those that are present, or, where all are, those that are not zero."""
    return few_present(matrix) or few_nonzero(config, matrix)


def solver_of(config: NMFConfig, matrix: StoredMatrix) -> Solver[BlockMatrix]:
    """Make the solver that settled settings name."""
    for_H, for_W = penalties.of_H(config), penalties.of_W(config)
    if not is_entrywise(config, matrix):
        of_W, of_H = for_W.times(matrix.n_ok), for_H.times(matrix.shape[0])
        if config.solver == "mu":
            return MU(penalty_W=of_W, penalty_H=of_H)
        sweeps = LISTED_SWEEPS if few_nonzero(config, matrix) else WARM_SWEEPS
        return HALS(sweeps=sweeps, penalty_W=of_W, penalty_H=of_H)
    fills, letter = config.solver == "hals", config.solver == "mu"
    visit = EntryVisit(
        scale=matrix.scale,
        loss=config.loss,
        masked=is_masked(config, matrix),
        fills=fills,
        updates=1 if letter else FILLINGS if fills else UPDATES,
        cold_updates=1 if letter else COLD_FILLINGS if fills else COLD_UPDATES,
        penalty=for_H,
    )
    idle = matrix.shape[1] - matrix.n_ok
    left = LEFT_OF_COUNTS if few_nonzero(config, matrix) else LEAST_LEFT
    return Entrywise(visit=visit, extrapolates=not letter, least_left=left, penalty=for_W, idle=idle)


def which(config: NMFConfig, matrix: StoredMatrix) -> Which:
    """Say which entries count."""
    stored = matrix.n_present is not None
    return Which(stored, config.mask == "alpha", config.holdout, config.seed, is_sparse(config, matrix))
