"""Every source file is accounted for: a column with what it was made of, or a reason."""

import csv
import hashlib
import io
import json
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas
import pytest
import xarray
import zarr

from data_prep import columns, rebuild, store
from data_prep.append import n_skipped
from data_prep.decode import Decoding
from data_prep.folders import ASIDE, folder
from data_prep.images import Options, StoreDiffers, prepare
from data_prep.listing import original_bytes
from data_prep.manifest import duplicates, read_rows, read_skipped
from data_prep.sums import read_mean
from tests.commands import nmf_batch
from tests.conftest import real, save_png
from tests.killed import in_child, kill, watch
from tests.test_images import content, go_down, prep
from tests.test_integrity import damages


def rows_of(path):
    return list(read_rows(folder(path), store.open_matrix(path).shape[1]))


def skipped_of(path):
    matrix = store.open_matrix(path)
    return list(read_skipped(matrix.path, n_skipped(matrix)))


def test_a_row_says_what_its_column_was_made_of(faces, tmp_path):
    (faces / "03.png").write_bytes(b"no image")
    save_png(faces / "05.png", np.zeros((9, 7, 3), np.uint8))
    path = prep(faces, tmp_path / "f.zarr", max_skip=0.1).path.path
    rows = {row.image: row for row in rows_of(path)}
    assert list(rows) == store.read_array(path, "image").tolist()
    raw = (faces / "01.png").read_bytes()
    assert rows["01.png"]._replace(version=0) == (
        *("01.png", str(faces), "ok", "", len(raw), 0, hashlib.sha256(raw).hexdigest(), "PNG", "L", 6, 5, 1),
    )
    broken, other = rows["03.png"], rows["05.png"]
    assert (broken.status, broken.format, broken.height, broken.orientation) == ("unreadable", "", 0, 0)
    assert (other.status, other.mode, other.height, other.width) == ("size", "RGB", 9, 7)
    assert store.read_array(path, "ok").tolist() == [row.status == "ok" for row in rows.values()]


def test_what_is_no_image_is_listed_with_its_reason_and_appended_to(faces, tmp_path):
    for name in ("README.txt", "deep/._x.png"):
        (faces / name).write_bytes(b"no image")
    path = prep(faces, tmp_path / "f.zarr").path.path
    reasons = {one["file"]: one["reason"] for one in skipped_of(path)}
    assert reasons == {
        "README.txt": "its name does not promise an image",
        "deep/._x.png": "it is hidden, or made by a system for itself",
    }
    (faces / "zz.txt").write_bytes(b"no image")
    save_png(faces / "zz.png", np.ones((6, 5), np.uint8))
    prep(faces, path)
    assert [one["file"] for one in skipped_of(path)] == ["README.txt", "deep/._x.png", "zz.txt"]
    assert damages(path) == []


def test_pandas_and_xarray_read_it(faces, tmp_path):
    path = prep(faces, tmp_path / "f.zarr").path.path
    with xarray.open_zarr(path, consolidated=False) as opened:
        lines = "\n".join(opened.manifest.values)
        assert opened.norm.dims == ("image",)
    table = pandas.read_json(io.StringIO(lines), lines=True)
    assert (len(table), set(table.status), set(table["format"])) == (30, {"ok"}, {"PNG"})


def test_names_of_any_bytes_can_be_had_back(faces, tmp_path):
    import os

    raws = [b"a b.png", b"new\nline.png", b"\xff\xfe.png", b"100%.png", b"x" * 251 + b".png"]
    for raw in raws:
        shutil.copy(faces / "01.png", os.path.join(os.fsencode(faces), raw))
    path = prep(faces, tmp_path / "f.zarr").path.path
    assert {original_bytes(row.image) for row in rows_of(path)} >= set(raws)


def test_images_that_are_the_same_to_the_byte_are_found(faces, tmp_path):
    shutil.copy(faces / "01.png", faces / "zz.png")
    shutil.copy(faces / "01.png", faces / "deep" / "zz.png")
    path = prep(faces, tmp_path / "f.zarr").path
    assert duplicates(path, 32) == [["01.png", "deep/zz.png", "zz.png"]]


def test_norms_and_the_mean_are_kept_by_appends(faces, tmp_path, rng):
    path = prep(faces, tmp_path / "f.zarr").path.path
    for k in range(2):
        save_png(faces / f"later{k}.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))
        (faces / f"broken{k}.png").write_bytes(b"no image")
        prep(faces, path, max_skip=0.5)
    A = store.open_array(path, "A")[...] / 255
    ok = store.read_array(path, "ok")
    np.testing.assert_allclose(store.read_array(path, "norm"), np.linalg.norm(A, axis=0), rtol=1e-12)
    np.testing.assert_allclose(read_mean(store.open_matrix(path)), A[:, ok].mean(axis=1), rtol=1e-12)
    assert damages(path) == []


def test_a_copy_is_no_change(faces, tmp_path):
    path = prep(faces, tmp_path / "f.zarr").path.path
    shutil.copytree(faces, tmp_path / "copy", copy_function=shutil.copyfile)
    assert prep(tmp_path / "copy", path).n_new == 0


def test_twins_of_two_sources_are_told_apart(tmp_path, rng):
    for folder_name in ("one", "two"):
        save_png(tmp_path / folder_name / "a.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))
    sources, path = [tmp_path / "one", tmp_path / "two"], tmp_path / "f.zarr"
    options = Options(decoding=Decoding())
    with ThreadPoolExecutor(1) as pool:
        prepare(sources, path, options, pool)
        assert prepare(sources, path, options, pool).n_new == 0
        assert [Path(row.source).name for row in rows_of(path)] == ["one", "two"]
        save_png(tmp_path / "two" / "a.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))
        with pytest.raises(StoreDiffers, match=r"have changed since: 1 \(a\.png\)"):
            prepare(sources, path, options, pool)


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_rebuild_takes_the_place_of_a_store_and_leaves_its_results(faces, tmp_path, rng, harm):
    path = prep(faces, tmp_path / "f.zarr").path.path
    (path / "nmf").mkdir()
    (path / "nmf" / "result").write_text("kept")
    if harm == "gone":
        (faces / "01.png").unlink()
    else:
        save_png(faces / "01.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))
    with pytest.raises(StoreDiffers, match="--rebuild prepares it anew"):
        prep(faces, path)
    prep(faces, path, rebuild=True)
    clean = prep(faces, tmp_path / "clean.zarr").path.path
    assert (path / "nmf" / "result").read_text() == "kept"
    shutil.rmtree(path / "nmf")
    assert content(path) == content(clean)
    assert not list(tmp_path.glob(f"{ASIDE}*"))


def test_a_rebuild_that_is_refused_changes_nothing(faces, tmp_path):
    path = prep(faces, tmp_path / "f.zarr").path.path
    before = content(path)
    for k in (1, 2, 4):
        (faces / f"{k:02d}.png").write_bytes(b"no image")
    with pytest.raises(store.BadInput, match="more than --max-skip"):
        prep(faces, path, rebuild=True)
    assert content(path) == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks beside threads
@pytest.mark.parametrize("share", [0.5, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98])
def test_a_rebuild_that_is_killed_goes_on(faces, tmp_path, share):
    path = prep(faces, tmp_path / "f.zarr").path.path
    (faces / "01.png").unlink()
    shutil.copytree(path, tmp_path / "copy.zarr")
    operations = in_child(lambda: counted(faces, tmp_path / "copy.zarr"))

    def work():
        shutil._use_fd_functions = False
        watch(tmp_path, int(int(operations) * share), kill)
        prep(faces, path, threads=1, rebuild=True)
        return b"done"

    in_child(work)
    prep(faces, path, rebuild=True)
    assert content(path) == content(prep(faces, tmp_path / "clean.zarr").path.path)


def counted(faces, path):
    seen = watch(path.parent, 0, lambda *_: None)
    prep(faces, path, threads=1, rebuild=True)
    return str(seen[0]).encode()


def test_a_rebuild_killed_when_all_but_its_place_was_made_goes_on(faces, tmp_path, monkeypatch):
    path = prep(faces, tmp_path / "f.zarr").path.path
    (faces / "01.png").unlink()
    monkeypatch.setattr(rebuild, "_take_place", go_down)
    monkeypatch.setattr(store, "publish", go_down_at(path, store.publish))
    with pytest.raises(OSError, match="gone"):
        prep(faces, path, rebuild=True)
    monkeypatch.undo()
    assert store.open_matrix(path).shape == (30, 30)
    assert prep(faces, path, rebuild=True).shape == (30, 29)


def go_down_at(home, publish):
    def publishes(path, attributes):
        if str(path) == str(home):
            go_down()
        publish(path, attributes)

    return publishes


def test_an_image_that_takes_too_long_is_unreadable(faces, tmp_path, monkeypatch):
    decode = columns.decode

    def slow(image, how):
        if image.width == 7:
            for _ in range(10**6):
                sum(range(1000))
        return decode(image, how)

    monkeypatch.setattr(columns, "decode", slow)
    save_png(faces / "07.png", np.zeros((6, 7), np.uint8))
    prepared = prep(faces, tmp_path / "f.zarr", max_skip=0.1, time_limit_s=2.0)
    assert [tuple(broken) for broken in prepared.unreadable] == [("07.png", "TooLongError: it took longer than 2 s")]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_each_messy_file_gets_what_its_manifest_says(tmp_path):
    files = real("messy/files")
    with ThreadPoolExecutor(2) as pool:
        options = Options(decoding=Decoding(mode="RGB", size=(32, 32)), max_skip=1.0)
        path = prepare([files], tmp_path / "messy.zarr", options, pool).path.path
    found = {original_bytes(row.image).decode(): row for row in rows_of(path)}
    passed = {one["file"] for one in skipped_of(path)}
    expected = list(csv.DictReader((files.parent / "MANIFEST.csv").read_text(encoding="utf-8").splitlines()))
    assert (len(expected), found.keys() | passed) == (45, {row["file"] for row in expected})
    assert passed == {"README.txt", "Thumbs.db", "._resource.jpg"}
    for row in expected:
        if row["file"] not in passed:
            ours = found[row["file"]]
            assert (ours.status == "ok") == (row["load"] == "ok"), row
            assert (ours.sha256, ours.nbytes) == (row["sha256"], int(row["bytes"]))
            assert row["load"] != "ok" or (ours.mode, f"{ours.width}x{ours.height}") == (row["mode"], row["size"])
            assert row["load"] != "ok" or (ours.format, ours.orientation) == (
                row["format"],
                int(row["exif_orientation"] or 1),
            )


def test_messy_files_among_faces_end_with_3_or_4(tmp_path):
    faces = zipfile.ZipFile(real("celeba/celeba_178x218_first4000.zip"))
    with faces, zipfile.ZipFile(tmp_path / "some.zip", "w") as some:
        for name in sorted(faces.namelist())[:500]:
            some.writestr(name, faces.read(name))
    sources, size = [real("messy/files"), tmp_path / "some.zip"], ("--mode", "L", "--size", "8x8", "--json")
    path = tmp_path / "mixed.zarr"
    refused = nmf_batch("prep", *sources, "--zarr", path, *size, "--max-skip", "1%")
    assert (refused.returncode, "11 of 542 images cannot be used" in refused.stderr, path.exists()) == (4, True, False)
    done = nmf_batch("prep", *sources, "--zarr", path, *size, "--max-skip", "3%")
    summary = json.loads(done.stdout)
    assert (done.returncode, len(summary["unreadable"]), len(summary["not_images"])) == (3, 11, 3)
    assert store.open_matrix(path).n_ok == 531


def test_a_dry_run_tells_and_writes_nothing(faces, tmp_path):
    (faces / "01.png").write_bytes(b"no image")
    (faces / "README.txt").write_bytes(b"no image")
    shown = nmf_batch("prep", faces, "--zarr", tmp_path / "f.zarr", "--dry-run")
    assert (shown.returncode, (tmp_path / "f.zarr").exists()) == (0, False)
    assert "30 images" in shown.stdout
    assert "A is 30 × 30" in shown.stdout
    assert "1 files would be passed over: its name does not promise an image" in shown.stdout
    assert "unreadable: 01.png" in shown.stdout


def test_the_manifest_is_compressed_and_checked(faces, tmp_path):
    path = prep(faces, tmp_path / "f.zarr").path.path
    array = zarr.open_array(path / "manifest", mode="r")
    assert [type(codec).__name__ for codec in array.compressors] == ["ZstdCodec", "Crc32cCodec"]
