"""Writing a report: the page, its figures beside it, and its pictures as files."""

import json
from pathlib import Path

from pipeline.factors import Factors
from pipeline.new_files import new_file
from pipeline.report import charts, sheets
from pipeline.report.account import Account, account
from pipeline.report.page import page, pictures_of
from pipeline.report.survey import Survey, survey


def write_report(factors: Factors, out: Path, folder: Path | None = None) -> Account:
    """Write a report on a factorization, in place of one that is there; returns its figures.

    Parameters
    ----------
    factors
        The factorization.
    out
        The page. Its figures go beside it, under the same name with .json at the end.
    folder
        For the pictures as PNG, where they are wanted.
    """
    found = survey(factors)
    told = account(factors, found)
    drawn = charts.charts(told, found.map_weights)
    images = told["matrix"]["image_shape"] is not None
    if folder is not None:
        _write_sheets(factors, found, drawn, folder, images)
    text = page(told, pictures_of(factors, found) if images else {}, drawn)
    _write(out.with_suffix(".json"), json.dumps(told, allow_nan=False))
    _write(out, text)
    return told


def _write_sheets(factors: Factors, found: Survey, drawn: charts.Charts, folder: Path, images: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in drawn.items():
        charts.save_png(draw, folder / f"{name}.png")
    if images:
        sheets.save(sheets.basis_sheet(factors), folder / "basis.png")
    if images and len(found.errors.columns):  # else they are all black, or unreadable
        sheets.save(sheets.panel(factors, found.shown["random"].tolist()), folder / "panel.png")
        sheets.save(sheets.reconstruction_sheet(factors, found.shown), folder / "reconstructions.png")


def _write(path: Path, text: str) -> None:
    with new_file(path) as file:
        file.write(text.encode())
