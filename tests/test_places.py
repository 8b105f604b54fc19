"""Images behind patterns, lists, addresses and in arrays."""

import io
import os
import tarfile
import zipfile

import fsspec
import numpy as np
import pytest
import zarr
from PIL import Image

from data_prep import store
from data_prep.decode import Decoding
from data_prep.sources import list_sources, read
from data_prep.store import BadInput
from tests.conftest import save_png
from tests.test_images import prep, same_from_any_source
from tests.test_sources import names_of, tree


def test_a_pattern_is_all_that_it_matches(tmp_path):
    folder = tree(tmp_path, "a.png", "deep/b.png", "deep/c.jpg", "deep/er/d.png")
    assert names_of(list_sources([f"{folder}/**/*.png"])) == ["a.png", "b.png", "d.png"]
    assert names_of(list_sources([f"{folder}/dee?"])) == ["b.png", "c.jpg", "er/d.png"]
    with pytest.raises(BadInput, match=r"\*\.tif does not exist"):
        list_sources([f"{folder}/*.tif"])


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\0"], ids=["lines", "lines of Windows", "NUL"])
def test_a_list_names_images_whatever_they_are_called(tmp_path, monkeypatch, between):
    folder = tree(tmp_path, "a.png", "deep/noending", "é 1.jpg")
    names = [b"deep/noending", "é 1.jpg".encode(), os.fsencode(folder / "a.png"), b"lost.png"]
    (tmp_path / "list").write_bytes(between.join(names) + between)
    monkeypatch.chdir(folder)
    files = list_sources([], [str(tmp_path / "list")]).files
    assert files.names == sorted(names)
    assert {bytes(read(file)) for file in files if file.name != b"lost.png"} == {
        b"a.png",
        b"deep/noending",
        "é 1.jpg".encode(),
    }


def test_a_list_comes_from_standard_input_too(tmp_path, monkeypatch):
    tree(tmp_path, "a.png", "b.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{tmp_path}/b.png\n{tmp_path}/a.png".encode())))
    assert names_of(list_sources([], ["-"])) == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]


def test_a_listed_file_that_is_missing_is_an_image_that_cannot_be_read(faces, tmp_path):
    (tmp_path / "list").write_text(f"{faces}/01.png\n{faces}/lost.png\n")
    prepared = prep_lists(tmp_path / "f.zarr", tmp_path / "list")
    assert [broken.name for broken in prepared.unreadable] == [f"{faces}/lost.png"]
    assert "No such file" in prepared.unreadable[0].reason


def prep_lists(path, *lists, **settings):
    from concurrent.futures import ThreadPoolExecutor

    from data_prep.images import Options, prepare

    options = Options(decoding=Decoding(), lists=[str(file) for file in lists], max_skip=0.5, **settings)
    with ThreadPoolExecutor(2) as pool:
        return prepare([], path, options, pool)


@pytest.mark.parametrize("kind", ["npy", "zarr"])
@pytest.mark.parametrize("shape", [(12, 6, 5), (12, 6, 5, 1), (12, 6, 5, 3)], ids=["gray", "one channel", "colour"])
def test_images_of_an_array_are_what_its_files_would_be(tmp_path, rng, kind, shape):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "npy":
        np.save(tmp_path / "p.npy", pixels)
    else:
        zarr.save_array(tmp_path / "p.zarr", pixels, zarr_format=3)
    for k, image in enumerate(pixels):
        save_png(tmp_path / "files" / f"p.{kind}" / f"{k:02d}.png", image.squeeze())
    prep(tmp_path / f"p.{kind}", tmp_path / "a.zarr")
    prep(tmp_path / "files", tmp_path / "f.zarr")
    np.testing.assert_array_equal(
        store.open_array(tmp_path / "a.zarr", "A")[...], store.open_array(tmp_path / "f.zarr", "A")[...]
    )
    assert store.read_array(tmp_path / "a.zarr", "image").tolist()[:2] == [f"p.{kind}/00", f"p.{kind}/01"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 5)), r"has shape \(4, 5\), but must be"),
        (np.zeros((4, 5, 6, 7)), "with 1 to 4 channels"),
        (np.zeros((4, 5, 6), complex), "holds complex128"),
        (np.array([{}, {}], object), "no array that can be read"),
    ],
    ids=["one image", "channels", "complex", "pickled"],
)
def test_an_array_that_holds_no_images_is_bad_input(tmp_path, values, words):
    np.save(tmp_path / "p.npy", values)
    with pytest.raises(BadInput, match=words):
        list_sources([tmp_path / "p.npy"])


@pytest.fixture
def in_memory(faces, tmp_path):
    """The faces behind an address of fsspec's: as objects, and in archives."""
    files = fsspec.filesystem("memory")
    for path in faces.rglob("*.png"):
        files.pipe(f"/images/{path.relative_to(faces)}", path.read_bytes())
    files.pipe("/images/README.md", b"no image")
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in faces.rglob("*.png"):
            archive.write(path, path.relative_to(faces))
    with tarfile.open(tmp_path / "f.tar.gz", "w:gz") as archive:
        archive.add(faces, ".")
    for name in ("f.zip", "f.tar.gz"):
        files.pipe(f"/{name}", (tmp_path / name).read_bytes())
    yield
    files.rm("/", recursive=True)


@pytest.mark.parametrize("source", ["memory://images", "memory://f.zip", "memory://f.tar.gz"])
def test_what_is_behind_an_address_makes_the_same_store(faces, tmp_path, in_memory, source):
    prep(faces, tmp_path / "local.zarr")
    prep(source, tmp_path / "remote.zarr")
    assert same_from_any_source(tmp_path / "remote.zarr") == same_from_any_source(tmp_path / "local.zarr")


def test_a_list_names_addresses(faces, tmp_path, in_memory):
    (tmp_path / "list").write_text("memory://images/01.png\nmemory://images/deep/00.png\n")
    assert prep_lists(tmp_path / "f.zarr", tmp_path / "list").shape == (30, 2)
    again = prep_lists(tmp_path / "f.zarr", tmp_path / "list")
    assert (again.n_new, again.unreadable) == (0, [])


@pytest.mark.parametrize("source", ["s3://user:word@bucket/images", "s3://bucket/images?signature=x"])
def test_an_address_that_carries_a_secret_is_refused_without_it(source):
    with pytest.raises(ValueError, match="carries more than a place") as told:
        list_sources([source])
    assert "word" not in str(told.value)
    assert "signature" not in str(told.value)


def test_one_image_is_a_matrix(tmp_path, rng):
    from data_prep.as_matrix import as_matrix
    from data_prep.images import Options

    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    save_png(tmp_path / "a.png", pixels)
    shape = as_matrix([str(tmp_path / "a.png")], tmp_path / "a.zarr", Options(decoding=Decoding(mode="L")))
    matrix = store.open_matrix(tmp_path / "a.zarr")
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    assert (shape, matrix.shape, matrix.scale) == ((20, 30), (20, 30), 1 / 255)
    np.testing.assert_array_equal(store.open_array(matrix.path, "A")[...], gray)
    assert matrix.norm_squared == pytest.approx(np.linalg.norm(gray / 255) ** 2)
