"""What a report says, in figures: what `report.json` holds, and the page beside it shows."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from data_prep.sample import read_columns
from data_prep.store import StoredMatrix
from pipeline.factors import Factors
from pipeline.labels import names_at, of_columns
from pipeline.loop import Stop
from pipeline.report.survey import Survey, columns_of_H, present_in
from pipeline.topics import find_topics

BINS = 40
QUANTILES = {"least": 0.0, "lower_5_percent": 0.05, "median": 0.5, "upper_5_percent": 0.95, "largest": 1.0}
ENTRIES, TYPICAL = 10, 3
"""Rows told of a component or a column, and columns of a component, where rows are no pixels."""
ALIKE = 10
"""Pairs of components."""
RESULT = ("objective", "relative_error", "svd_bound", "projected_gradient", "holdout_error", "n_iter", "passes")
PROVENANCE = ("began", "ended", "host", "parent", "fingerprint", "parameters", "versions", "blas")
Account = dict[str, Any]


def account(factors: Factors, found: Survey) -> Account:
    """Return all figures of a report, as JSON knows them."""
    matrix, about = store.open_matrix(factors.home), factors.attributes
    columns = [found.components.users[found.components.users >= 0], *found.shown.values()]
    names = names_at(matrix, of_columns(matrix), map(int, chain.from_iterable(columns)))
    d = about["parameters"]["n_components"]
    m, n = about["shape"]
    return {
        "store": factors.home.name,
        "name": factors.path.parent.name,
        "revision": factors.path.name,
        "matrix": _matrix(matrix, n),
        "result": {
            "d": d,
            "solver": about["parameters"]["solver"],
            **{key: about.get(key) for key in RESULT},
            "seconds": about["seconds"],
            "bytes_read": about["bytes_read"],
            "stop": about["stop"],
            "why_stopped": str(Stop[about["stop"]]),
            "compression_ratio": m * n / (d * (m + n)),
        },
        "iterations": _iterations(factors),
        "components": _components(factors, matrix, found, names),
        "alike": _alike(found),
        "cosines": found.components.cosines.round(4).tolist(),
        "correlations": found.components.correlations.round(4).tolist(),
        "errors": _errors(found, n),
        "reconstructions": _reconstructions(factors, matrix, found, names),
        "lineage": about.get("lineage", []),
        "drift": about.get("drift"),
        "plan": about["plan"],
        "outcome": about["outcome"],
        "provenance": {key: about.get(key) for key in PROVENANCE},
    }


def _matrix(matrix: StoredMatrix, n: int) -> Account:
    told = matrix.attributes
    return {
        "kind": told["kind"],
        "noun": matrix.noun,
        "shape": [matrix.shape[0], n],
        "appended_since": matrix.shape[1] - n,
        "dtype": str(matrix.dtype),
        "image_shape": told.get("image_shape"),
        "mode": told.get("mode"),
        "unreadable": matrix.shape[1] - matrix.n_ok,
        "present": matrix.n_present,
    }


def _iterations(factors: Factors) -> Account:
    """Return the record by field; JSON has no NaN."""
    record = factors.iterations
    by_field = {field: [getattr(one, field) for one in record] for field in record[0]._fields}
    return {field: [None if value != value else value for value in values] for field, values in by_field.items()}


def _components(factors: Factors, matrix: StoredMatrix, found: Survey, names: Mapping[int, str]) -> Sequence[Account]:
    told, users = found.components, found.components.users
    listed: list[Account] = [
        {"component": int(k), "energy": float(energy), "users": [names[int(j)] for j in of if j >= 0]}
        for k, energy, of in zip(told.order, told.energy, users, strict=True)
    ]
    if "image_shape" in matrix.attributes:
        return listed
    topics = {topic.component: topic for topic in find_topics(factors, ENTRIES, TYPICAL)}
    for one in listed:
        topic = topics[one["component"]]
        one["share"] = topic.share
        one["entries"] = [{"name": name, "share": share} for name, share in topic.words]
        one["typical"] = [{"name": name, "share": share} for name, share in topic.documents]
    return listed


def _alike(found: Survey) -> list[Account]:
    """Pairs of components that are used together, or one in place of the other, most."""
    correlations, order = found.components.correlations, found.components.order
    i, j = np.triu_indices(len(correlations), 1)
    first = np.argsort(-np.abs(correlations[i, j]), kind="stable")[:ALIKE]
    return [
        {
            "components": [int(order[i[k]]), int(order[j[k]])],
            "correlation": float(correlations[i[k], j[k]]),
            "cosine": float(found.components.cosines[i[k], j[k]]),
        }
        for k in first
    ]


def _errors(found: Survey, n: int) -> Account:
    relative = found.errors.relative
    told = {"examined": len(relative), "of": n, "whole": found.errors.whole}
    if not len(relative):
        return {**told, "quantiles": None, "histogram": None}
    most = max(float(relative.max()), float(np.finfo(np.float32).eps))
    counts, edges = np.histogram(relative, BINS, range=(0.0, most))
    return {
        **told,
        "quantiles": {name: float(np.quantile(relative, share)) for name, share in QUANTILES.items()},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _reconstructions(
    factors: Factors, matrix: StoredMatrix, found: Survey, names: Mapping[int, str]
) -> dict[str, list[Account]]:
    listed = {
        kind: [
            {matrix.noun: names[int(j)], "column": int(j), "relative_error": float(error)}
            for j, error in zip(columns, found.errors.of(columns), strict=True)
        ]
        for kind, columns in found.shown.items()
    }
    if "image_shape" not in matrix.attributes:
        for kind, columns in found.shown.items():
            for one, entries in zip(listed[kind], _entries(factors, matrix, found.W, columns), strict=True):
                one["entries"] = entries
    return listed


def _entries(
    factors: Factors, matrix: StoredMatrix, W: NDArray[np.float32], columns: NDArray[np.int64]
) -> list[list[Account]]:
    """Largest entries of some columns, beside what W H has there; missing ones are left out."""
    stored = read_columns(matrix.path, columns)
    masks = {} if matrix.n_present is None else read_columns(matrix.path, columns, "mask")
    rebuilt, told = W @ columns_of_H(factors, columns), []
    for k, j in enumerate(map(int, columns)):
        a = stored[j].astype(np.float64) * matrix.scale
        present = present_in(factors, stored[j][:, None], masks[j][:, None] if masks else None)
        counted = np.where(True if present is None else present[:, 0], a, -np.inf)
        rows = [int(i) for i in np.argsort(-counted, kind="stable")[:ENTRIES] if counted[i] > 0]
        told.append([(i, float(a[i]), float(rebuilt[i, k])) for i in rows])
    features = names_at(matrix, "feature", [i for rows in told for i, _, _ in rows])
    return [[{"name": features[i], "value": a, "rebuilt": x} for i, a, x in rows] for rows in told]
