"""Whatever happens to a file of a store: nothing wrong is read, it is named, and what came from images is mended."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep import folders, store
from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from data_prep.repair import repair
from data_prep.sums import read_mean
from data_prep.verify import verify
from pipeline import factorize, open_factors
from pipeline.factors import groups
from tests.commands import nmf_batch
from tests.conftest import SOAK, save_faces
from tests.test_images import OneTask, content, prep


def flip(file: Path, rng: np.random.Generator) -> None:
    content = bytearray(file.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    file.write_bytes(content)


def truncate(file: Path, rng: np.random.Generator) -> None:
    os.truncate(file, rng.integers(1, file.stat().st_size))


def empty(file: Path, rng: np.random.Generator) -> None:
    os.truncate(file, 0)


def delete(file: Path, rng: np.random.Generator) -> None:
    file.unlink()


HARMS = (flip, truncate, empty, delete)


@pytest.fixture
def made(tmp_path, rng, monkeypatch):
    """A store of 30 faces in 4 chunks, one of them unreadable, and a factorization of it."""
    monkeypatch.setattr(store, "CHUNK_NBYTES", 8 * 30)
    save_faces(tmp_path / "images", rng)
    (tmp_path / "images" / "04.png").write_bytes(b"no image")
    (tmp_path / "images" / "README.txt").write_bytes(b"no image either")
    with ThreadPoolExecutor(1) as thread:
        prepare([tmp_path / "images"], tmp_path / "f.zarr", Options(decoding=Decoding(), max_skip=0.1), thread)
    factorize(tmp_path / "f.zarr", 4, solver="hals", max_iter=3)
    return tmp_path / "f.zarr"


def some(path: Path, harm) -> list[str]:
    """Every fourth file of a store, for each harm others; in the long form each, more often where chance decides."""
    if SOAK:
        return files(path) * (10 if harm in (flip, truncate) else 1)
    return files(path)[HARMS.index(harm) :: 4]


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def pointing(path: Path, harm) -> list[str]:
    """What leads to results: each group, and every fourth array, for each harm others; in the long form all arrays."""
    names = [name for name in files(path) if name.startswith("nmf") and name.endswith("zarr.json")]
    arrays = [name for name in names if (path / name).with_name("c").exists()]
    return [*(set(names) - set(arrays)), *(arrays if SOAK else arrays[HARMS.index(harm) :: 4])]


def everything(path: Path) -> list[bytes]:
    """All that a reader can ask for."""
    matrix = store.open_matrix(path)
    checksums = store.read_checksums(matrix)
    A = store.open_array(path, "A")
    sample = store.open_array(path, "sample")
    factors = open_factors(path, "d4")
    return [
        *(store.read_chunk(A, 0, k, checksum=int(checksum)).tobytes() for k, checksum in enumerate(checksums)),
        "\n".join(store.read_array(path, "image")).encode(),
        *(store.read_array(path, name).tobytes() for name in ("ok", "norm", "sample_column")),
        *("\n".join(store.read_array(path, name)).encode() for name in ("manifest", "skipped")),
        read_mean(matrix).tobytes(),
        *(store.read_chunk(sample, 0, k).tobytes() for k in range(sample.cdata_shape[1])),
        *(X.compute().tobytes() for X in (factors.W, factors.H)),
        repr(factors.iterations).encode(),
    ]


def attempt(path: Path, whole: list[bytes]) -> str:
    try:
        return "the same" if everything(path) == whole else "something else"
    except store.BadInput as error:
        return str(error)


def harmed(made: Path, name: str, harm, rng) -> Path:
    """A copy of a store, with one file that is no more what it was."""
    copy = made.parent / "copy.zarr"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(made, copy)
    harm(copy / name, rng)
    return copy


def damages(path: Path):
    home = store.folder(path)
    with ThreadPoolExecutor(2) as threads:
        return verify([home, *groups(home)], threads)


@pytest.mark.parametrize("harm", HARMS)
def test_no_harm_to_a_file_is_read_as_a_result(made, rng, harm):
    whole = everything(made)
    for name in some(made, harm):
        copy = harmed(made, name, harm, rng)
        said = attempt(copy, whole)
        assert said == "the same" or str(copy / name) in said, (name, said)


@pytest.mark.parametrize("harm", HARMS)
def test_verify_names_each_harmed_file_and_repair_mends_what_came_from_images(made, rng, harm):
    assert damages(made) == []
    for name in some(made, harm):
        copy = harmed(made, name, harm, rng)
        found = damages(copy)
        assert str(copy / name) in [damage.file for damage in found], name
        mended = repair(store.folder(copy), found, [made.parent / "images"])
        of_a_group = not (made / name).parent.joinpath("c").exists() and "/c/" not in name
        lost = of_a_group or (name.startswith("nmf") and "/c/" in name)
        assert [bool(one.why_not) for one in mended] == [lost] * len(mended), (name, mended)
        assert lost or (copy / name).read_bytes() == (made / name).read_bytes()


def test_chunks_that_changed_places_are_found(made):
    revision = open_factors(made, "d4").path.path
    one, other = (revision / "H" / "c" / "0" / str(k) for k in range(2))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert {damage.array for damage in damages(made)} == {"H"}
    A = made / "A" / "c" / "0"
    shutil.copy(A / "0", A / "1")
    (found,) = [damage for damage in damages(made) if damage.array == "A"]
    assert (found.file, found.columns) == (str(A / "1"), range(8, 16))


def test_several_damages_are_mended_together(made):
    before = {name: (made / name).read_bytes() for name in files(made)}
    for name in (
        "A/c/0/0",
        "A/c/0/3",
        "image/c/0",
        "ok/zarr.json",
        "checksum/c/0",
        "manifest/c/0",
        "norm/c/0",
        "pixel_sum/c/0/0",
        "skipped/c/0",
        "sample/c/0/1",
        "sample_column/c/0",
    ):
        (made / name).unlink()
    assert {one.why_not for one in repair(store.folder(made), damages(made), [made.parent / "images"])} == {""}
    assert {name: (made / name).read_bytes() for name in files(made)} == before


def test_what_follows_from_a_needs_no_images(planted):
    for name in ("checksum", "sample_column", "sample", "ok"):
        shutil.rmtree(planted / name / "c")
    assert {one.why_not for one in repair(store.folder(planted), damages(planted), [])} == {""}
    assert damages(planted) == []


def test_images_that_changed_mend_nothing(made, rng):
    (made / "A" / "c" / "0" / "1").unlink()
    save_faces(made.parent / "images", rng)
    (one,) = repair(store.folder(made), damages(made), [made.parent / "images"])
    assert "changed" in one.why_not
    assert not (made / "A" / "c" / "0" / "1").exists()


def test_images_that_are_gone_are_named(made):
    (made / "A" / "c" / "0" / "0").unlink()
    (made.parent / "images" / "01.png").unlink()
    (one,) = repair(store.folder(made), damages(made), [made.parent / "images"])
    assert one.why_not == "the sources have no 01.png"


def test_the_commands_find_and_mend(made):
    (made / "A" / "c" / "0" / "2").write_bytes(b"short")
    failed = nmf_batch("run", "--zarr", made, "-d", "3")
    assert failed.returncode == 4
    assert f"{made}/A/c/0/2 is damaged" in failed.stderr
    assert "columns 16 to 23" in failed.stderr
    verified = nmf_batch("verify", "--zarr", made)
    assert (verified.returncode, verified.stdout.count("\n")) == (4, 1)
    assert "8 in all" in verified.stdout
    (line, last) = map(json.loads, nmf_batch("verify", "--zarr", made, "--json").stdout.splitlines())
    assert (len(line["images"]), last["damaged"]) == (8, 1)
    mended = nmf_batch("repair", "--zarr", made, "--source", made.parent / "images")
    assert (mended.returncode, mended.stdout[:8]) == (0, "mended: ")
    assert nmf_batch("verify", "--zarr", made).stdout == f"{made}: everything is as it was written\n"


def test_verify_says_of_an_unfinished_store_what_to_do(tmp_path):
    store.begin(store.folder(tmp_path / "f.zarr"), expendable=())
    shown = nmf_batch("verify", "--zarr", tmp_path / "f.zarr")
    assert (shown.returncode, "run the same `nmf-batch prep`" in shown.stderr) == (4, True)


def test_a_sample_of_a_matrix_is_drawn_again_as_it_was(tmp_path, rng):
    write_matrix(tmp_path / "a.zarr", rng.random((40, 300)))
    before = (tmp_path / "a.zarr" / "sample" / "c" / "0" / "0").read_bytes()
    shutil.rmtree(tmp_path / "a.zarr" / "sample")
    repair(store.folder(tmp_path / "a.zarr"), damages(tmp_path / "a.zarr"), [])
    assert (tmp_path / "a.zarr" / "sample" / "c" / "0" / "0").read_bytes() == before


def test_a_read_that_fails_for_a_moment_is_tried_again(made, monkeypatch):
    read, failures, pauses = Path.read_bytes, [errno.ESTALE, errno.EIO], []

    def failing(path):
        if path.name == "2" and failures:
            raise OSError(failures.pop(), "for a moment", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    monkeypatch.setattr(folders, "time", SimpleNamespace(sleep=pauses.append))
    assert store.read_chunk(store.open_array(made, "A"), 0, 2).shape == (30, 8)
    assert pauses == [0.1, 0.4]


@pytest.mark.parametrize("harm", HARMS)
def test_a_fresh_run_mends_what_points_at_results(made, rng, harm):
    whole = everything(made)
    for name in pointing(made, harm):
        copy = harmed(made, name, harm, rng)
        factorize(copy, 4, solver="hals", max_iter=3, fresh=True)
        assert everything(copy)[:-1] == whole[:-1], name  # but for the seconds that it took


def test_records_of_an_interrupted_preparation_are_not_trusted(made, rng, tmp_path):
    images = tmp_path / "images"
    with pytest.raises(OSError, match="gone"):
        prep(images, tmp_path / "begun.zarr", executor=OneTask(), max_skip=0.1)
    expected = content(prep(images, tmp_path / "whole.zarr", max_skip=0.1).path.path)
    for name in [name for name in files(tmp_path / "begun.zarr") if name != "zarr.json"] * (3 if SOAK else 1):
        copy = harmed(tmp_path / "begun.zarr", name, flip, rng)
        prep(images, copy, max_skip=0.1)
        assert content(copy) == expected, name
        assert store.open_matrix(copy).norm_squared == store.open_matrix(made).norm_squared


def test_a_run_that_was_killed_before_it_had_a_result_is_no_damage(made):
    (made / "nmf" / "d9" / "scratch-1").mkdir(parents=True)
    assert damages(made) == []
