"""scikit-learn's contract: `NMF(n_components=49).fit(X)`, for X that need not fit in memory.

Samples are in the ROWS of X there, and in the columns of A here: X = Aᵀ. So what scikit-learn calls W, and returns from
`transform`, is our Hᵀ, and its H, `components_`, is our Wᵀ.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from data_prep.folders import folder
from pipeline.conversions import reconstruction_error
from pipeline.job import Result, factorize
from pipeline.kernels import Matrix
from pipeline.loop import Stop
from pipeline.rows import is_dask, is_zarr, row_blocks, write_rows
from pipeline.starts import Given
from pipeline.transform import Transform, transform_of

LOSSES = {2: "frobenius", 1: "kullback-leibler"}
ROWS_TOGETHER = 4096
DTYPES = (np.float64, np.float32, np.uint8)


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Non-negative matrix factorization X ≈ W H with scikit-learn's names and contract; samples are in ROWS.

    X is written to a store first, and factorized from there with the settings of `nmf-batch run`, on threads or on the
    current Dask client: neither a Dask nor a Zarr array needs to fit in memory. The parameters that scikit-learn's
    `NMF` has mean what they mean there.

    Parameters
    ----------
    n_components
        Rank d; "auto" is the number of features, or of samples where these are fewer.
    init
        `random`, `nndsvd`, `nndsvda`, `nndsvdar`, `nnsvd_lrc`, `custom` (W and H are given to `fit_transform`), or
        None: what suits.
    solver
        `sketch`, `hals`, `mu`, `amu`, or "auto": what suits the loss. `cd`, scikit-learn's coordinate descent, is
        "auto" too: it minimises the same.
    beta_loss
        `frobenius` (or 2) or `kullback-leibler` (or 1).
    tol
        Stop once three passes lower the loss by less than this fraction of it.
    max_iter
        Iterations of a phase at most.
    random_state
        Seed, generator, or None.
    alpha_W, alpha_H, l1_ratio
        Penalties, as in scikit-learn.
    memory
        Bytes that the factorization may use in this process, or in a worker; a share of what it has unless given. While
        X is written before that, up to 256 MiB of it are held, and a chunk.
    scratch
        Folder for the store of X while `fit` runs, which all workers see; the system's unless given.

    Attributes
    ----------
    components_
        (n_components, n_features): scikit-learn's H, our Wᵀ.
    n_components_, n_features_in_, n_iter_
        Numbers.
    reconstruction_err_
        ‖X − W H‖, or the square root of twice the divergence.
    loss_
        The objective after each iteration.
    """

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        init: str | None = None,
        solver: str = "auto",
        beta_loss: str | float = "frobenius",
        tol: float = 1e-4,
        max_iter: int = 500,
        random_state: Any = None,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        memory: int | None = None,
        scratch: str | Path | None = None,
    ) -> None:
        self.n_components = n_components
        self.init = init
        self.solver = solver
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.memory = memory
        self.scratch = scratch

    def fit(self, X: Any, y: Any = None, W: Matrix | None = None, H: Matrix | None = None) -> "NMF":
        """Factorize X (samples, features); y is ignored.

        Parameters
        ----------
        X
            NumPy array, SciPy sparse matrix, Dask array or Zarr array of finite numbers ≥ 0, samples in ROWS.
        y
            Ignored.
        W, H
            Factors to start from, (samples, d) and (d, features), with `init="custom"`.
        """
        self._fit(X, W, H)
        return self

    def fit_transform(self, X: Any, y: Any = None, W: Matrix | None = None, H: Matrix | None = None) -> Any:
        """Factorize X and return scikit-learn's W (samples, d): our Hᵀ. Of a Dask or Zarr array it is a Dask array."""
        found = self._fit(X, W, H)
        return self.transform(X) if found is None else found

    def transform(self, X: Any) -> Any:
        """W ≥ 0 (samples, d) with the least loss for the components as they are; lazy for a Dask or Zarr array."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        if is_dask(X):
            rows = X.rechunk({1: -1})
            meta = np.empty((0, 0), np.float32)
            return rows.map_blocks(self._weights, chunks=(rows.chunks[0], (self.n_components_,)), meta=meta)
        found = [self._weights(rows) for rows in row_blocks(X, ROWS_TOGETHER)]
        return np.concatenate(found).astype(_as_given(X), copy=False)

    def inverse_transform(self, X: Any) -> Any:
        """X ≈ W H (samples, features) for W (samples, d), which scikit-learn calls X here."""
        check_is_fitted(self)
        return X @ self.components_

    def __sklearn_tags__(self) -> Any:
        """Say that X is to be non-negative, and may be sparse."""
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def _fit(self, X: Any, W: Matrix | None, H: Matrix | None) -> NDArray[np.floating[Any]] | None:
        """Factorize; return scikit-learn's W, unless X is lazy, which its W would not fit in memory with."""
        X = self._checked(X, reset=True)
        n, m = X.shape
        d = min(n, m) if self.n_components == "auto" else int(self.n_components)
        start = _start(self.init, W, H)
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix="nmf-batch-") as scratch:
            home = folder(Path(scratch) / "X.zarr")
            write_rows(home, X)
            made = factorize(home, d, name="fit", start=start, memory_nbytes=self.memory, **self._settings())
            found = None if is_dask(X) else made.factors.read("H").T
            self._keep(made, transform_of(made.factors))
        self.n_components_ = d
        return None if found is None else found.astype(_as_given(X), copy=False)

    def _settings(self) -> dict[str, Any]:
        """What `factorize` is asked for."""
        loss = LOSSES.get(self.beta_loss, self.beta_loss)  # type: ignore[call-overload]  # any value: it is looked up
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        return {
            "solver": "" if self.solver in ("auto", "cd") else self.solver,
            "loss": loss,
            "init": "" if self.init in (None, "custom") else self.init,
            "tol": self.tol,
            "max_iter": self.max_iter,
            "seed": int(seed),
            "alpha_W": self.alpha_W,
            "alpha_H": None if self.alpha_H == "same" else self.alpha_H,
            "l1_ratio": self.l1_ratio,
        }

    def _keep(self, made: Result, transform: Transform) -> None:
        """Keep what was found, as attributes."""
        about = made.factors.attributes
        self._transform = transform
        self.components_ = np.ascontiguousarray(transform.W.T)
        self.loss_ = made.factors.loss
        self.n_iter_ = int(about["n_iter"])
        self.reconstruction_err_ = reconstruction_error(made.factors)
        if made.stop is Stop.MAX_ITER and self.tol > 0:
            warnings.warn(str(made.stop), ConvergenceWarning, stacklevel=4)

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """X as an array of two dimensions: what is in memory is looked at whole, a chunk at a time what is not."""
        if is_zarr(X):
            import dask.array as da  # here: it takes a quarter of a second to load

            X = da.from_zarr(X)
        if not is_dask(X):
            X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=DTYPES, reset=reset)
            check_non_negative(X, "NMF (input X)")
            return X
        if X.ndim != 2:
            raise ValueError(f"X has shape {X.shape}, but must be (samples, features)")
        if reset:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but NMF is expecting {self.n_features_in_} features as input"
            )
        return X

    def _weights(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """scikit-learn's W of some rows of X."""
        H, _ = self._transform.weights(np.ascontiguousarray(rows.T))
        return np.ascontiguousarray(H.T)


def _start(init: str | None, W: Matrix | None, H: Matrix | None) -> Given | None:
    """Factors to start from, turned to ours."""
    if init != "custom":
        return None
    if W is None or H is None:
        raise ValueError("init is 'custom', but W or H is missing; give both to fit_transform")
    return Given(W=np.asarray(H, np.float32).T, H=np.asarray(W, np.float32).T)


def _as_given(X: Any) -> type[np.floating[Any]]:
    """Type of results: that of X, and float32 for bytes."""
    return np.float64 if X.dtype == np.float64 else np.float32
