"""What is exported: read back it is what is stored, and nothing is lost, written over, or put elsewhere."""

import csv
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import click
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.decode import Decoding
from data_prep.images import Options, prepare
from pipeline import factorize, written_out
from pipeline.commands import __name__ as commands_name
from pipeline.commands.export import export
from pipeline.commands.signals import Interrupted
from pipeline.file_names import picture_parts
from pipeline.labels import Along, labels
from pipeline.new_files import NewFolder, new_file
from pipeline.report.pictures import Chosen, png, write_basis, write_reconstructions
from pipeline.written_out import write_factor
from tests.commands import nmf_batch
from tests.conftest import save_png

pytestmark = pytest.mark.usefixtures("synchronous")
HOSTILE = [
    "../../x.jpg",
    "/etc/x.jpg",
    "C:\\x.jpg",
    "..",
    ".",
    "",
    "//",
    "a//b.png",
    "\0\n.png",
    "é" * 300,
    "d/" * 2000,
]


@pytest.fixture
def made(tmp_path, rng, small_chunks):
    """Factors of 20 RGBA images of 4 × 3, two of whose names give the same file, and a broken one, in chunks of 16."""
    for k in range(18):
        save_png(tmp_path / "in" / f"deep/{k:02d}.png", rng.integers(0, 256, (4, 3, 4), dtype=np.uint8))
    for name in ("a.png", "a.tiff"):
        save_png(tmp_path / "in" / name, rng.integers(0, 256, (4, 3, 4), dtype=np.uint8))
    (tmp_path / "in" / "zz.png").write_bytes(b"no image")
    with ThreadPoolExecutor(1) as pool:
        options = Options(decoding=Decoding(mode="RGBA"), max_skip=0.5)
        path = prepare([tmp_path / "in"], tmp_path / "s.zarr", options, pool).path
    return factorize(path, 5, max_iter=20).factors


@pytest.fixture
def named(tmp_path, rng, small_chunks):
    """Factors of a matrix whose rows and columns have names that a CSV file must quote."""
    names = {"features": [f'w "{i}", x' for i in range(40)], "items": [f"=d\n{j}" for j in range(50)]}
    write_matrix(tmp_path / "w.zarr", rng.random((40, 50)), **names)
    return factorize(tmp_path / "w.zarr", 3, max_iter=5).factors


def command(*arguments):
    """Run the command here, without the time that starting a process takes."""
    return export.main([*map(str, arguments)], standalone_mode=False)


def at(factors):
    return ("--zarr", factors.home, "--name", factors.path.parent.name)


def written(factors, name, path):
    with new_file(path) as file:
        write_factor(factors, name, path.suffix, file)
    return path


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def tree(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir())


@pytest.mark.parametrize("name", ["W", "H"])
def test_an_npy_file_holds_the_same_bits(made, tmp_path, name):
    found = np.load(written(made, name, tmp_path / "x.npy"), mmap_mode="r")
    np.testing.assert_array_equal(found, made.read(name))
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)


@pytest.mark.parametrize("name", ["W", "H"])
def test_a_csv_file_reads_back_as_the_same_bits_by_way_of_float64(named, tmp_path, name):
    path = written(named, name, tmp_path / "x.csv")
    head, *lines = csv.reader(io.StringIO(path.read_bytes().decode()))
    assert head == ["feature" if name == "W" else "item", "component0", "component1", "component2"]
    assert [line[0] for line in lines] == [
        f'w "{i}", x' if name == "W" else f"=d\n{i}" for i in range(40 if name == "W" else 50)
    ]
    values = np.array([line[1:] for line in lines], np.float64).astype(np.float32)
    np.testing.assert_array_equal(values if name == "W" else values.T, named.read(name))


def test_a_number_that_shortest_digits_would_change_is_kept():
    hard = np.nextafter(np.float32(7.038531e-26), np.float32(0))  # its shortest digits are read as its neighbour
    content = io.BytesIO()
    values = np.array([[hard, np.finfo(np.float32).tiny / 4, 0.1]], np.float32)
    written_out._csv(iter([written_out.Part({"item": ["a", "b", "c"]}, values)]), content, lambda done: None)
    found = [float(line.split(",")[1]) for line in content.getvalue().decode().splitlines()[1:]]
    np.testing.assert_array_equal(np.array(found).astype(np.float32), values[0])


@pytest.mark.parametrize("name", ["W", "H"])
def test_a_parquet_file_holds_the_same_bits_a_row_group_a_chunk(named, tmp_path, name):
    path = written(named, name, tmp_path / "x.parquet")
    table = parquet.read_table(path)
    assert table.schema.types == [pa.string(), *[pa.float32()] * 3]
    values = np.array([column.to_numpy() for column in table.columns[1:]])
    np.testing.assert_array_equal(values.T if name == "W" else values, named.read(name))
    assert parquet.ParquetFile(path).num_row_groups == (1 if name == "W" else 4)


def test_lines_of_W_say_where_their_pixel_is(made, tmp_path):
    table = parquet.read_table(written(made, "W", tmp_path / "x.parquet"))
    w = np.zeros((4, 3, 4), np.float32)
    w[tuple(table[name].to_numpy() for name in ("row", "column", "channel"))] = table["component2"].to_numpy()
    np.testing.assert_array_equal(w.ravel(), made.read("W")[:, 2])


def test_names_are_read_beside_the_chunks_that_they_go_with(named, monkeypatch):
    matrix = store.open_matrix(named.path.parent.parent.parent)
    store.write_array(matrix.path, "numbers", np.arange(50), ("item",))
    monkeypatch.setattr(store, "NAMES_PER_CHUNK", 7)
    store.write_array(matrix.path, "more", np.arange(50), ("item",))
    for along in (Along(matrix.path, "numbers"), Along(matrix.path, "more")):
        assert [along(slice(k, min(50, k + 16))).tolist() for k in range(0, 50, 16)][2] == list(range(32, 48))
    assert labels(matrix, "image")(slice(3, 5)) == ["3", "4"]


def test_basis_images_keep_their_alpha(made, tmp_path):
    with NewFolder(tmp_path / "b") as folder:
        write_basis(made, folder)
    W = made.read("W")
    assert tree(tmp_path / "b") == [f"component{k}.png" for k in range(5)]
    for k, w in enumerate(W.T):
        expected = np.rint(255 * w / w.max()).astype(np.uint8).reshape(4, 3, 4)
        np.testing.assert_array_equal(pixels(tmp_path / "b" / f"component{k}.png"), expected)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_picture_has_the_mode_of_the_images_and_rounds_to_the_next_level(rng, channels, mode):
    column = rng.random(6 * 5 * channels) * 3 - 1
    with Image.open(io.BytesIO(png(column, (6, 5, channels)))) as image:
        assert (image.mode, image.size) == (mode, (5, 6))
        assert np.abs(np.asarray(image).ravel() - 255 * np.clip(column, 0, 1)).max() <= 0.5


def test_each_readable_image_is_reconstructed_at_its_name_and_none_is_lost(made, tmp_path):
    with NewFolder(tmp_path / "r") as folder:
        done = write_reconstructions(made, folder, Chosen())
    names = store.column_names(made.path.parent.parent.parent, 21)
    assert (done.pictures, done.unreadable, done.numbered) == (20, 1, 1)
    WH, second = np.clip(made.read("W") @ made.read("H"), 0, 1), names.index("a.tiff")
    for j, name in enumerate(names[:-1]):
        file = tmp_path / "r" / (f"a.tiff.{second}.png" if j == second else PurePosixPath(name).with_suffix(".png"))
        assert np.abs(pixels(file).ravel() - 255 * WH[:, j]).max() <= 0.501
    assert (len(tree(tmp_path / "r")), names[-1]) == (20, "zz.png")


def test_names_and_limit_choose_what_is_reconstructed(made, tmp_path):
    command("reconstructions", *at(made), "--out", tmp_path / "r", "--names", "deep/0*", "--limit", 4)
    assert tree(tmp_path / "r") == [f"deep/0{k}.png" for k in range(4)]
    with NewFolder(tmp_path / "all") as folder:
        assert write_reconstructions(made, folder, Chosen("*", 20)).unreadable == 0  # the broken one comes after it


def test_hostile_names_stay_inside_and_none_is_lost(tmp_path):
    (tmp_path / "out").mkdir()
    with NewFolder(tmp_path / "out" / "inner") as folder:
        for j, name in enumerate(HOSTILE):
            taken = 0
            while True:
                parts = picture_parts(name, j, taken)
                assert all(part not in ("", ".", "..") and "/" not in part for part in parts)
                try:
                    folder.put(parts, name.encode())
                    break
                except FileExistsError:
                    taken += 1
    found = [(tmp_path / "out" / "inner" / file).read_bytes().decode() for file in tree(tmp_path / "out" / "inner")]
    assert sorted(found) == sorted(HOSTILE)
    assert os.listdir(tmp_path / "out") == ["inner"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("x/y.JPEG", ("x", "y.png")),
        ("caf%E9.v2", ("caf%E9.v2.png",)),
        ("../a\x85.jp2", ("%2E%2E", "a%C2%85.png")),
        ("x.png/0001", ("x.png_", "0001.png")),
        (".jpg", (".jpg.png",)),
    ],
)
def test_a_picture_is_called_as_its_image(name, parts):
    assert picture_parts(name, 17) == parts
    assert picture_parts("x/y.jpg", 17, 2) == ("x", "y.jpg.17.17.png")


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    (tmp_path / "else").mkdir()
    with NewFolder(tmp_path / "out") as folder:
        (tmp_path / "out" / "x").symlink_to(tmp_path / "else")
        (tmp_path / "out" / "y.png").symlink_to(tmp_path / "else" / "y.png")
        with pytest.raises(OSError, match="x"):
            folder.put(("x", "a.png"), b"")
        with pytest.raises(FileExistsError):
            folder.put(("y.png",), b"")
    assert list((tmp_path / "else").iterdir()) == []


def test_a_picture_that_cannot_be_finished_is_removed_and_the_others_are_told(tmp_path):
    def put():
        with NewFolder(tmp_path / "out") as folder:
            folder.put(("a.png",), b"whole")
            folder.put(("b.png",), "text is no content")

    with pytest.raises(TypeError) as caught:
        put()
    assert caught.value.__notes__ == [f"1 whole files are in {tmp_path}/out, but the same command needs it empty"]
    assert tree(tmp_path / "out") == ["a.png"]


@pytest.mark.parametrize("suffix", written_out.FORMATS)
def test_writing_that_is_interrupted_leaves_no_file(named, tmp_path, suffix):
    (tmp_path / "out").mkdir()

    def interrupted(done):
        assert len(os.listdir(tmp_path / "out")) == 1  # the one that is aside
        raise Interrupted(15)

    with pytest.raises(Interrupted) as caught, new_file(tmp_path / "out" / f"H{suffix}") as file:
        write_factor(named, "H", suffix, file, interrupted)
    assert os.listdir(tmp_path / "out") == []
    assert "was not written" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("what", "out", "more", "words"),
    [
        ("W", "w.txt", (), r"must end in one of \.npy, \.csv, \.parquet"),
        ("H", "there.npy", (), "is there already"),
        ("H", "none/h.npy", (), "cannot be written"),
        ("H", "h.npy", ("--limit", 3), "choose reconstructions"),
        ("basis", "full", (), "is there, and no empty folder"),
        ("basis", "there.npy", (), "is there, and no empty folder"),
        ("basis", "s3://bucket/x", (), "must be a path of this machine"),
        ("reconstructions", "new", ("--names", "q*"), r"no image is called like 'q\*'"),
        ("reconstructions", "new", ("--name", "../x"), "the name is '../x'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(made, tmp_path, monkeypatch, what, out, more, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    for name in ("there.npy", "full/x"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(click.UsageError, match=words):
        command(what, *at(made), "--out", out, *more)
    assert [(tmp_path / name).read_bytes() for name in ("there.npy", "full/x")] == [b"x", b"x"]


@pytest.mark.parametrize("what", ["basis", "reconstructions"])
def test_a_matrix_without_images_has_no_pictures(named, tmp_path, what):
    with pytest.raises(click.UsageError, match="holds no images; use `export W`"):
        command(what, *at(named), "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_without_pyarrow_it_says_what_to_install(named, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{commands_name}.export.find_spec", lambda name: None)
    with pytest.raises(click.UsageError, match=r"nmf-batch\[tables\]"):
        command("H", *at(named), "--out", tmp_path / "x.parquet")


def test_the_command_says_what_is_where(made, tmp_path, capsys):
    command("reconstructions", *at(made), "--out", tmp_path / "r")
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/r: 20 reconstructions as PNG, ")
    assert "1 more images were unreadable, and have none; 1 have the number of their column" in said
    command("H", *at(made), "--out", tmp_path / "h.npy", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["shape"], told["nbytes"]) == ([5, 21], (tmp_path / "h.npy").stat().st_size)


def test_a_failure_is_one_line_with_its_code(made, tmp_path):
    chunk = made.path.path / "H" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    shown = nmf_batch("export", "reconstructions", *at(made), "--out", tmp_path / "r")
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (4, "", 1)
    assert f"whole files are in {tmp_path}/r, but the same command needs it empty" in shown.stderr
