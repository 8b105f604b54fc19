"""The folders meet in the store: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cluster", "data_prep", "pipeline")


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(folder: str) -> list[Path]:
    return [file for file in sorted((ROOT / folder).rglob("*.py")) if "commands" not in file.parts]


def violations(folder: str, forbidden: tuple[str, ...], allowed: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files(folder)
        for name in imports(file)
        if name.startswith(forbidden) and not name.startswith(allowed or ("\0",))
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden", "allowed"),
    [
        ("cluster", ("data_prep", "pipeline"), ()),
        ("data_prep", ("cluster", "pipeline"), ()),
        (
            "pipeline",
            ("cluster", "data_prep"),
            (
                "data_prep.store",
                "data_prep.derived",
                "data_prep.folders",
                "data_prep.lock",
                "data_prep.matrix_store",
                "data_prep.sample",
            ),
        ),
    ],
)
def test_folders_import_only_what_they_may(folder, forbidden, allowed):
    assert violations(folder, forbidden, allowed) == []


def test_kernels_import_numpy_alone():
    outside = {name for name in imports(ROOT / "pipeline" / "kernels.py") if not name.startswith(("numpy", "typing"))}
    assert outside == set()


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        (
            "PIL",
            {f"data_prep/{name}.py" for name in ("decode", "drawn", "eight_bits")}
            | {f"pipeline/report/{name}.py" for name in ("curves", "evolution", "page", "pictures", "sheets")},
        ),
        ("distributed", {"cluster/connect.py", "pipeline/engine.py"}),
        (
            "zarr",
            {f"data_prep/{name}.py" for name in ("chunks", "digests", "folders", "image_arrays", "remote", "store")},
        ),
        ("obstore", {"data_prep/remote.py"}),
        ("pyarrow", {"data_prep/table_files.py", "pipeline/written_out.py"}),
        ("scipy", {"pipeline/sparse.py", "pipeline/report/pairs.py"}),
        ("matplotlib", {f"pipeline/report/{name}.py" for name in ("charts", "curves", "noise_chart", "rank_chart")}),
        ("jinja2", {"pipeline/report/page.py"}),
        (
            "sklearn",
            {"data_prep/vectorize.py"}
            | {f"pipeline/{name}.py" for name in ("conversions", "estimator", "quantization")},
        ),
        ("click", set()),
    ],
)
def test_a_library_has_few_homes(library, homes):
    users = {
        str(file.relative_to(ROOT))
        for folder in FOLDERS
        for file in files(folder)
        if any(name == library or name.startswith(f"{library}.") for name in imports(file))
    }
    assert users == homes


def test_the_check_sees_an_import_that_is_not_allowed(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("from data_prep import images\nimport cluster.connect")
    assert imports(file) == {"data_prep.images", "cluster.connect"}
