"""Tables in long form become a matrix with missing entries, the same however they are written."""

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest

from data_prep import spill, store, table_files, tables
from data_prep.arrays import write_matrix
from data_prep.folders import folder
from data_prep.images import StoreDiffers
from data_prep.lock import HeldError, only_writer
from data_prep.repair import repair
from data_prep.sample import read_sample, read_sample_mask
from data_prep.table_files import Names
from data_prep.tables import prepare_table
from data_prep.verify import verify
from tests.commands import nmf_batch
from tests.conftest import real

NAMES = Names("movie", "user", "rating")
FEW = "user,movie,rating\n7,10,2.5\n7,9,4\n30,9,0\n"


@pytest.fixture
def written(tmp_path):
    """Saves text as a file, and prepares it."""

    def written(text, name="r.csv", zarr="r.zarr", names=NAMES):
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(content)
        return prepare_table([tmp_path / name], tmp_path / zarr, names)

    return written


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """1,000 ratings of 40 movies by 50 users, as r.csv and as a store in 4 chunks, made once."""
    home, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(20261122)
    flat = rng.choice(40 * 50, 1000, replace=False)
    table = {"user": flat % 50, "rating": rng.integers(0, 11, 1000) / 2, "movie": flat // 50, "when": 1}
    pd.DataFrame(table).to_csv(home / "r.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_NBYTES", 1024)
        prepare_table([home / "r.csv"], home / "r.zarr", NAMES)
    return home


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The store of three ratings, and their file beside it."""
    home = tmp_path_factory.mktemp("few")
    (home / "r.csv").write_text(FEW)
    return prepare_table([home / "r.csv"], home / "r.zarr", NAMES).path


@pytest.fixture
def ratings(made, small_chunks):
    """The same as a table."""
    return pd.read_csv(made / "r.csv")


@pytest.fixture
def path(made, tmp_path):
    """A copy of the store."""
    return folder(shutil.copytree(made / "r.zarr", tmp_path / "r.zarr"))


def entries(path):
    """The table of a store: names and values of the entries that are not missing, sorted as A is."""
    A, mask = (store.open_array(path, name)[...] for name in ("A", "mask"))
    features, items = (store.read_array(path, name) for name in ("feature", "item"))
    return [(features[i], items[j], float(A[i, j])) for i, j in np.argwhere(mask)]


def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("c/**/*") if file.is_file()}


def test_movielens_has_its_values_and_the_others_are_missing(tmp_path):
    file = real("movielens/ml-latest-small_ratings.csv")
    found = prepare_table([file], tmp_path / "r.zarr", Names("movieId", "userId", "rating"))
    assert (found.shape, found.n_entries) == ((9066, 671), 100_004)
    expected = pd.read_csv(file).pivot(index="movieId", columns="userId", values="rating")
    A, mask = (store.open_array(tmp_path / "r.zarr", name)[...] for name in ("A", "mask"))
    np.testing.assert_array_equal(np.where(mask, A, np.nan), expected.to_numpy(np.float32))
    assert not A[~mask].any()
    assert [*map(int, store.read_array(tmp_path / "r.zarr", "feature"))] == [*expected.index]


def test_entries_are_where_their_labels_say(few):
    assert entries(few) == [("9", "7", 4.0), ("9", "30", 0.0), ("10", "7", 2.5)]


def test_a_store_says_what_it_holds(few):
    matrix = store.open_matrix(few)
    assert (matrix.attributes["kind"], matrix.shape, matrix.n_ok) == ("table", (2, 2), 2)
    assert (matrix.n_present, matrix.most_present, matrix.norm_squared) == (3, 3, 2.5**2 + 4**2)


@pytest.mark.parametrize("way", ["other order", "two files", "parquet", "gzip", "tabs", "small batches", "categories"])
def test_the_result_does_not_depend_on_how_the_entries_are_written(made, ratings, tmp_path, monkeypatch, way):
    monkeypatch.setattr(table_files, "BATCH_ENTRIES", 100)
    if way == "small batches":
        monkeypatch.setattr(table_files, "BLOCK_NBYTES", 500)
    prepare_table(save(ratings, tmp_path, way), tmp_path / "other.zarr", NAMES)
    assert content(tmp_path / "other.zarr") == content(made / "r.zarr")


def save(ratings, home, way):
    """Save a table in some way; returns the files."""
    if way in ("parquet", "categories"):
        labels = {} if way == "parquet" else {"user": "category", "movie": "category"}
        ratings.astype(labels).to_parquet(home / "other.table")
        return [home / "other.table"]
    if way == "two files":
        ratings[700:].to_csv(home / "1.csv", index=False)
        ratings[["movie", "rating", "user"]][:700].to_csv(home / "2.csv", index=False)
        return [home / "1.csv", home / "2.csv"]
    name, separator = {"gzip": ("o.csv.gz", ","), "tabs": ("o.tsv", "\t")}.get(way, ("o.csv", ","))
    (ratings[::-1] if way == "other order" else ratings).to_csv(home / name, index=False, sep=separator)
    return [home / name]


def test_numbers_are_sorted_as_numbers_and_come_first(written):
    labels = ["0100000000000000000001", "é", "9", "1e2", "z", "-3", "100000000000000000000", "09", "2.5", "B"]
    path = written("user,movie,rating\n" + "".join(f"{label},1,1\n" for label in labels)).path
    expected = ["-3", "2.5", "09", "9", "1e2", "100000000000000000000", "0100000000000000000001", "B", "z", "é"]
    assert store.read_array(path, "item").tolist() == expected


def test_a_number_of_thousands_of_digits_is_a_label_as_any(written):
    path = written(f"user,movie,rating\n{'1' * 5000},1,1\n7,1,1\n").path
    assert store.read_array(path, "item").tolist() == ["7", "1" * 5000]


def test_a_line_end_inside_quotes_may_stand_anywhere(written, monkeypatch):
    monkeypatch.setattr(table_files, "BLOCK_NBYTES", 64)
    lines = [f'"a\n\n{k:02}",1,1\n' for k in range(60)]
    assert written("user,movie,rating\n" + "".join(lines)).shape == (1, 60)


def test_labels_are_what_stands_there(written):
    path = written('user,movie,rating\n"a, ""b""\nc",NA,1\n1.0,null,2\n1,true,3\n').path
    assert set(store.read_array(path, "item")) == {'a, "b"\nc', "1.0", "1"}
    assert set(store.read_array(path, "feature")) == {"NA", "null", "true"}


WRONG = {
    "empty value": ("1,1,2\n1,2,\n", r"r\.csv: rating of entry 2 is empty, but must be a number"),
    "NaN": ("1,1,NaN\n", "entry 1 is 'NaN'"),
    "negative": ("1,1,-2\n", "entry 1 is '-2'"),
    "infinite": ("1,1,inf\n", "entry 1 is 'inf'"),
    "too large": ("1,1,1e13\n", r"entry 1 is '1e13'.*at most 1e\+12"),
    "a word": ("1,1,2\n1,2,good\n", "entry 2 is 'good'"),
    "too small": ("1,1,1e-20\n", "largest value of A is 1e-20"),
    "no user": (",1,2\n", r"r\.csv: user of entry 1 is empty"),
    "no movie": ("1,1,2\n2, ,2\n", r"r\.csv: movie of entry 2 is empty"),
    "twice": ("5,6,2\n5,7,1\n5,6,2\n", "row '6' and column '5' is given more than once"),
    "nothing": ("", r"r\.csv: there are no entries"),
    "a short line": ("1,1,2\n1,2\n", r"r\.csv cannot be read as a table .*Row #3"),
    "no UTF-8": ("1,1,2\n\udcff,1,1\n", "invalid UTF8"),
}


@pytest.mark.parametrize(("lines", "words"), WRONG.values(), ids=WRONG.keys())
def test_an_error_names_what_is_wrong_and_leaves_nothing(written, tmp_path, lines, words):
    with pytest.raises(store.BadInput, match=words):
        written(("user,movie,rating\n" + lines).encode(errors="surrogateescape"))
    assert not (tmp_path / "r.zarr").exists()


def test_entries_are_counted_from_the_first_line_on(ratings, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BLOCK_NBYTES", 500)
    ratings.loc[734, "rating"] = -1
    ratings.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(store.BadInput, match="entry 735 is"):
        prepare_table([tmp_path / "r.csv"], tmp_path / "r.zarr", NAMES)


@pytest.mark.parametrize(("column", "value"), [("rating", None), ("rating", np.inf), ("rating", -1.0), ("user", None)])
def test_what_is_wrong_in_parquet_is_named(tmp_path, column, value):
    table = pd.DataFrame({"user": ["a", "b"], "movie": [1, 2], "rating": [1.0, 2.0]}).astype({column: object})
    table.loc[1, column] = value
    table.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(store.BadInput, match=rf"r\.parquet: {column} of entry 2 is (empty|inf|-1\.0)"):
        prepare_table([tmp_path / "r.parquet"], tmp_path / "r.zarr", NAMES)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "Empty CSV file"),
        (b"a,b\n1,2\n", "no column 'movie', but a, b; name one of these"),
        (b"movie,movie,user,rating\n1,2,3,4\n", "more than one column 'movie'"),
        (b"PAR1 and no more", "cannot be read as a table"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "neither CSV nor Parquet"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(written, tmp_path, raw, words):
    with pytest.raises(store.BadInput, match=rf"r\.csv.*{words}"):
        written(raw)
    assert not (tmp_path / "r.zarr").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("gone.csv", "is not there"), ("", "is a folder"), ("x.csv.gz", "inflate")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, words):
    (tmp_path / "x.csv.gz").write_bytes(b"user,movie,rating\n")
    with pytest.raises(store.BadInput, match=f"{tmp_path / name}.*{words}"):
        prepare_table([tmp_path / name], tmp_path / "r.zarr", NAMES)


def test_a_table_without_holes_has_no_mask(written):
    found = written("user,movie,rating\n1,1,1\n1,2,2\n2,1,0\n2,2,4\n")
    assert (found.n_entries, store.open_matrix(found.path).n_present) == (4, None)
    assert not {"mask", "sample_mask"} & set(found.path.entries())


def test_the_sample_and_its_mask_are_those_of_its_columns(made):
    matrix, columns = store.open_matrix(made / "r.zarr"), store.read_array(made / "r.zarr", "sample_column")[:30]
    A, mask = (store.open_array(matrix.path, name)[...] for name in ("A", "mask"))
    np.testing.assert_array_equal(read_sample(matrix, 30), A[:, columns])
    np.testing.assert_array_equal(read_sample_mask(matrix, 30), mask[:, columns])


@pytest.mark.parametrize("name", ["mask", "sample_mask", "feature", "item"])
def test_damage_is_found_and_what_follows_from_the_mask_is_mended(path, name):
    chunk = next(file for file in (path.path / name / "c").rglob("*") if file.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:9] + bytes([whole[9] ^ 1]) + whole[10:])
    with ThreadPoolExecutor(1) as threads:
        damages = verify([path], threads)
    assert [damage.file for damage in damages] == [str(chunk)]
    (mended,) = repair(path, damages, [])
    assert (not mended.why_not, chunk.read_bytes() == whole) == (name == "sample_mask", name == "sample_mask")


def test_a_damaged_chunk_is_named_with_its_items(path):
    (path.path / "mask" / "c" / "0" / "1").unlink()
    with pytest.raises(store.Damaged, match=r"mask/c/0/1 is missing, with columns 16 to 31 \(16 to 31\)"):
        store.read_chunk(store.open_array(path, "mask"), 0, 1)


def test_the_same_table_again_is_nothing_new(few, tmp_path):
    before = os.stat(few.path / "zarr.json").st_mtime_ns
    shutil.copy(few.path.parent / "r.csv", tmp_path / "copy.csv")
    again = prepare_table([tmp_path / "copy.csv"], few, NAMES)
    assert (again.new, again.shape, again.n_entries) == (False, (2, 2), 3)
    assert os.stat(few.path / "zarr.json").st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        (FEW + "30,10,1\n", NAMES, "the files have another content"),
        (FEW, Names("user", "movie", "rating"), "rows: movie → user; columns: user → movie"),
    ],
    ids=["file", "columns"],
)
def test_another_table_is_refused_with_the_difference(written, few, text, names, words):
    with pytest.raises(StoreDiffers, match=rf"{words}\); choose another --zarr, or remove it"):
        written(text, names=names, zarr=few.path)


def test_a_store_of_something_else_is_refused(written, tmp_path):
    write_matrix(tmp_path / "a.zarr", np.ones((2, 2)))
    with pytest.raises(StoreDiffers, match="kind: matrix"):
        written(FEW, zarr="a.zarr")


def test_an_interrupted_attempt_is_made_again(made, small_chunks, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill.shutil, "rmtree", lambda *_, **__: None)  # as if it was killed
        with pytest.raises(KeyboardInterrupt):
            prepare_table([made / "r.csv"], tmp_path / "r.zarr", NAMES, interrupted)
    assert (tmp_path / "r.zarr" / spill.SPILLED).exists()
    with pytest.raises(store.BadInput, match="is unfinished"):
        store.open_matrix(tmp_path / "r.zarr")
    prepare_table([made / "r.csv"], tmp_path / "r.zarr", NAMES)
    assert content(tmp_path / "r.zarr") == content(made / "r.zarr")
    assert not (tmp_path / "r.zarr" / spill.SPILLED).exists()


def test_a_full_disk_leaves_no_spilled_entries(made, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write_blocks", full)
    with pytest.raises(OSError, match="No space"):
        prepare_table([made / "r.csv"], tmp_path / "r.zarr", NAMES)
    assert [entry.name for entry in (tmp_path / "r.zarr").iterdir()] == ["zarr.json"]


@pytest.mark.parametrize("now", [FEW.replace("30", "31"), FEW + "30,10,1\n"], ids=["a label", "an entry"])
def test_a_file_that_changes_between_the_readings_is_noticed(written, tmp_path, monkeypatch, now):
    begin = store.begin
    monkeypatch.setattr(store, "begin", lambda *a, **k: (begin(*a, **k), (tmp_path / "r.csv").write_text(now)))
    with pytest.raises(store.BadInput, match=r"r\.csv changed while being read"):
        written(FEW)
    assert not (tmp_path / "r.zarr").exists()


def test_a_store_that_another_process_writes_is_left_alone(written, tmp_path):
    with only_writer(folder(tmp_path / "r.zarr")), pytest.raises(HeldError):
        written(FEW)


@pytest.fixture
def command(tmp_path):
    """Runs prep-table; returns the exit code, stdout and stderr."""
    (tmp_path / "r.csv").write_text(FEW)
    named = ("--rows", "movie", "--columns", "user", "--values", "rating", "--zarr", tmp_path / "r.zarr")
    return partial(nmf_batch, "prep-table", tmp_path / "r.csv", *named)


def test_the_command_says_what_it_made(command, tmp_path):
    assert command() == (0, f"{tmp_path}/r.zarr: 3 entries of 2 movie × 2 user, 75 % present\n", "")
    code, out, _ = command("--json")
    assert (code, json.loads(out)) == (
        *(0,),
        {"zarr": f"{tmp_path}/r.zarr", "new": False, "shape": [2, 2], "n_entries": 3},
    )


def test_a_mistake_is_one_line_and_its_exit_code(command, monkeypatch):
    said = [command("--rows", name) for name in ("film", "user")]
    command()
    said.append(command("--rows", "user", "--columns", "movie"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said.append(command())
    assert [code for code, _, _ in said] == [4, 2, 5, 2]
    assert all(error.count("\n") == 1 for _, _, error in said)
    assert "pip install 'nmf-batch[tables]'" in said[3][2]
