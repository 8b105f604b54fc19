"""A factorization as what other tools know: scikit-learn's NMF, an xarray Dataset, images by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.sample import read_columns
from data_prep.store import StoredMatrix
from pipeline.kernels import Matrix

if TYPE_CHECKING:
    from pipeline.factors import Factors


def to_sklearn(factors: "Factors") -> Any:
    """See `Factors.to_sklearn`."""
    from sklearn.decomposition import NMF

    about, matrix = factors.attributes, store.open_matrix(factors.home)
    parameters = about["parameters"]
    d, alpha_H = parameters["n_components"], parameters["alpha_H"]
    divergence = parameters["loss"] == "kullback-leibler"
    model = NMF(
        d,
        solver="mu" if divergence else "cd",
        beta_loss=parameters["loss"],
        tol=parameters["tol"],
        max_iter=max(200, parameters["max_iter"]),
        random_state=parameters["seed"],
        alpha_W=parameters["alpha_W"],
        alpha_H="same" if alpha_H is None else alpha_H,
        l1_ratio=parameters["l1_ratio"],
    )
    model.components_ = np.ascontiguousarray(factors.read("W").T, np.float64)  # the type that X must have then
    model.n_components_, model.n_features_in_ = d, matrix.shape[0]
    model.n_iter_ = about["n_iter"]
    model.reconstruction_err_ = reconstruction_error(factors)
    return model


def reconstruction_error(factors: "Factors") -> float:
    """‖A − W H‖, or the root of twice the divergence, without penalties: scikit-learn's `reconstruction_err_`."""
    about = factors.attributes
    if about["parameters"]["loss"] == "frobenius":
        return float(about["relative_error"] * np.sqrt(store.open_matrix(factors.home).norm_squared))
    return float(np.sqrt(2 * max(factors.loss[-1] - about.get("penalty", 0.0), 0.0)))


def to_xarray(factors: "Factors") -> Any:
    """See `Factors.to_xarray`."""
    import xarray as xr

    matrix = store.open_matrix(factors.home)
    n = factors.attributes["shape"][1]
    row, column = ("pixel", "image") if "image_shape" in matrix.attributes else ("feature", "item")
    coordinates: dict[str, Any] = {column: (column, store.column_names(matrix.path, n))}
    if (matrix.path / "feature").exists():
        coordinates[row] = (row, [str(one) for one in store.read_array(matrix.path, "feature")])
    variables: dict[str, Any] = {
        "W": ((row, "component"), factors.W),
        "H": (("component", column), factors.H),
        "loss": ("iteration", factors.loss),
    }
    if "image_shape" in matrix.attributes:
        height, width, channels = matrix.attributes["image_shape"]
        basis = factors.W.T.reshape((-1, height, width, channels))
        variables["basis"] = (("component", "y", "x", "channel"), basis)
        coordinates["channel"] = ("channel", list(matrix.attributes["mode"]))
    told = {"relative_error": factors.attributes["relative_error"], "revision": factors.path.name}
    return xr.Dataset(variables, coordinates, told)


def reconstruct(factors: "Factors", names: Sequence[str]) -> NDArray[np.float32]:
    """See `Factors.reconstruct`."""
    matrix = store.open_matrix(factors.home)
    known = {name: j for j, name in enumerate(store.column_names(matrix.path, factors.attributes["shape"][1]))}
    missing = [name for name in names if name not in known]
    if missing:
        raise KeyError(f"{factors.home} has no {matrix.noun} called {missing[0]!r}")
    columns = np.array([known[name] for name in names], np.int64)
    found = read_columns(factors.path, columns, "H")
    H = np.stack([found[int(j)] for j in columns], axis=1)
    return as_images(factors.read("W") @ H, matrix)


def as_images(columns: Matrix, matrix: StoredMatrix) -> NDArray[np.float32]:
    """Columns (m, k) as (k, height, width) or (k, height, width, channels); as (k, m) where they are no images."""
    rows = np.ascontiguousarray(columns.T)
    shape = matrix.attributes.get("image_shape")
    if shape is None:
        return rows
    height, width, channels = shape
    return rows.reshape((-1, height, width) if channels == 1 else (-1, height, width, channels))
