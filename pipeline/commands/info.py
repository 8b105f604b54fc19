"""nmf-batch info: what is in a store."""

import json
from collections.abc import Mapping
from typing import Any

import click

from data_prep.derived import FROM
from data_prep.folders import Folder
from data_prep.store import BadInput, StoredMatrix, open_matrix, read_array
from pipeline.commands import options, running
from pipeline.factors import Factors, names, newest, open_factors
from pipeline.loop import Stop
from pipeline.report.sparkline import course
from pipeline.under_way import under_way

SHOWN = 5
"""Results that a result came from, the last ones."""


@click.command(context_settings=options.CONTEXT)
@options.zarr
@options.as_json
def info(path: Folder, as_json: bool) -> None:
    """Say what is in a store: the matrix, every factorization of it, and how far runs are that are under way.

    \b
    Example:
      nmf-batch info --zarr faces.zarr
    """
    matrix = open_matrix(path)
    found = [open_factors(path, name) for name in names(path)]
    checkpoints = [checkpoint for name in names(path, "resume") if (checkpoint := newest(path, name))]
    runs = under_way(path)
    if as_json:
        summary = {
            "matrix": _matrix_summary(matrix),
            "nmf": {factors.path.parent.name: _summary(factors) for factors in found},
            "checkpoints": {factors.path.parent.name: _summary(factors) for factors in checkpoints},
            **running.summary(path, runs),
        }
        options.say(json.dumps({"zarr": str(path), **summary}))
        return
    options.say(_matrix_text(matrix))
    for factors in found:
        options.say(_text(factors))
    for checkpoint in checkpoints:
        options.say(_checkpoint_text(checkpoint, known=checkpoint.path.parent.name in runs))
    for name, state in runs.items():
        options.say(running.text(path, name, state))


def compression_ratio(m: int, n: int, d: int) -> float:
    """m n / d (m + n): how many numbers A has for each of W and H together."""
    return m * n / (d * (m + n))


def how_good(about: Mapping[str, Any]) -> list[str]:
    """Say what there is to compare a result with, a sentence an entry."""
    d, bound, gradient = about["parameters"]["n_components"], about.get("svd_bound"), about["projected_gradient"]
    said, held_out = [], about.get("holdout_error")
    if held_out is not None:
        share = about["parameters"]["holdout"]
        said.append(f"root mean squared error {held_out:.4f} on the {share:.3g} of the entries that is held out")
    if bound is not None and bound <= about["relative_error"]:  # of what is not like its sketch, that tells too much
        said.append(f"no rank-{d} factorization with any signs goes below about {bound:.3f}")
    if gradient is not None:
        said.append(f"projected gradient {gradient:.1e} of that at zero")
    errors = about.get("sketch", {}).get("errors", [])
    if len(errors) > 1:
        said.append(f"{len(errors)} starts ended between {min(errors):.4f} and {max(errors):.4f}")
    return [f"    {'; '.join(said)}"] if said else []


def how_it_grew(about: Mapping[str, Any]) -> list[str]:
    """Say what a result came from, and how far from that it is, a line an entry."""
    lineage = about.get("lineage", [])
    lines = [
        f"    from {one['revision'][:7]}: n = {one['n']:,}, relative error {one['relative_error']:.4f}, "
        f"{one['passes']:.3g} passes, {one['seconds']:.1f} s"
        for one in lineage[-SHOWN:]
    ]
    if len(lineage) > SHOWN:
        lines.insert(0, f"    {len(lineage) - SHOWN} earlier ones; --json lists them")
    if "drift" in about:
        turned = about.get("cosines", {}).get("min")
        least = "" if turned is None else f"; components turned to a cosine of {turned:.3f} at least"
        lines.append(f"    new columns drift by {about['drift']:+.3f} (relative error against the old ones'){least}")
    return lines


def _matrix_summary(matrix: StoredMatrix) -> dict[str, Any]:
    m, n = matrix.shape
    return {
        "shape": [m, n],
        "dtype": str(matrix.dtype),
        "image_shape": matrix.attributes.get("image_shape"),
        "mode": matrix.attributes.get("mode"),
        "chunk_images": matrix.chunk_images,
        "n_chunks": matrix.n_chunks,
        "nbytes": matrix.nbytes,
        "unreadable": n - matrix.n_ok,
        "norm": matrix.norm_squared**0.5,
        "fingerprint": matrix.fingerprint,
        "derived_from": matrix.attributes.get(FROM),
    }


def _summary(factors: Factors) -> dict[str, Any]:
    (m, n), d = factors.attributes["shape"], factors.attributes["parameters"]["n_components"]
    return {
        "revision": factors.path.name,
        "compression_ratio": compression_ratio(m, n, d),
        **factors.attributes,
    }


def _matrix_text(matrix: StoredMatrix) -> str:
    (m, n), shape = matrix.shape, matrix.attributes.get("image_shape")
    what = f"{n:,} images of {shape[0]} × {shape[1]} {matrix.attributes['mode']}" if shape else f"{n:,} columns"
    unreadable = f", {n - matrix.n_ok} unreadable" if n != matrix.n_ok else ""
    return (
        f"{matrix.path}: {what}{unreadable}; A is {m} × {n} {matrix.dtype}, {options.nbytes(matrix.nbytes)} "
        f"in {matrix.n_chunks} chunks of {matrix.chunk_images} columns{_origin(matrix)}"
    )


def _origin(matrix: StoredMatrix) -> str:
    about = matrix.attributes.get(FROM)
    if about is None:
        return ""
    if "parameters" not in about:  # made for a while, to try something on
        return "; computed from another store"
    return f"; W H of another store, by `nmf-batch denoise` with d = {about['parameters']['n_components']}"


def _checkpoint_text(checkpoint: Factors, *, known: bool) -> str:
    """Say what is stored of a result that is not complete; what is known of the run itself is said after it."""
    about, name = checkpoint.attributes, checkpoint.path.parent.name
    what = "checkpoint" if known else "under way or interrupted"
    where = f"at relative error {about['relative_error']:.4f} after {about['n_iter']} iterations, {about['ended']}"
    then = "" if known else "; the same `nmf-batch run` goes on from there"
    return "\n".join([f"  {name}: {what}, {where}{then}", *_course(checkpoint)])


def _course(factors: Factors) -> list[str]:
    """Draw how the error fell, where there is something to draw and the terminal has the characters."""
    try:
        errors, phases = (read_array(factors.path, name).tolist() for name in ("relative_error", "phase"))
    except BadInput:
        return ["      error: its record is damaged; `nmf-batch verify` names the file"]
    drawn = course(errors, phases)
    return [f"      error {drawn}"] if drawn and options.can_say(drawn) else []


def _text(factors: Factors) -> str:
    about = factors.attributes
    (m, n), parameters = about["shape"], about["parameters"]
    ratio = compression_ratio(m, n, parameters["n_components"])
    lines = [
        f"  {factors.path.parent.name}: d = {parameters['n_components']}, {about['objective']} by "
        f"{parameters['solver']}, relative error {about['relative_error']:.4f} after {about['n_iter']} iterations "
        f"({about['passes']:.3g} passes, {about['seconds']:.1f} s), {about['ended']}",
        *_course(factors),
        *(f"  {said}" for said in (*how_good(about), *how_it_grew(about))),
        f"      W and H hold 1 number for every {ratio:.1f} of A. {Stop[about['stop']]}",
    ]
    if ratio < 1:
        lines.append(f"      warning: they are larger than A itself; a d below {m * n / (m + n):.0f} would compress it")
    return "\n".join(lines)
