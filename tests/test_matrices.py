"""Matrices of other tools become stores: the same bytes for every form, and nothing in a file is believed."""

import gzip
import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from data_prep import dense, market_files, npy_files, store
from data_prep.images import StoreDiffers
from data_prep.matrices import prepare_matrix
from data_prep.sample import read_sample
from tests.commands import nmf_batch


@pytest.fixture
def counts(rng, small_chunks):
    """Counts of 40 words in 70 documents, in 5 chunks, one of which is empty."""
    A = rng.poisson(0.4, (40, 70))
    A[:, 32:48] = 0
    return A


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The same as a store, made once."""
    path = tmp_path_factory.mktemp("expected")
    A = np.random.default_rng(20261122).poisson(0.4, (40, 70))
    A[:, 32:48] = 0
    sp.save_npz(path / "a.npz", sp.csr_matrix(A))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_NBYTES", 1024)
        prepare_matrix(path / "a.npz", path / "a.zarr")
    return path / "a.zarr"


def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("c/**/*") if file.is_file()}


def values(path):
    return store.open_array(path, "A")[...]


@pytest.fixture
def prepared(tmp_path):
    """Saves a matrix or bytes as a file, and prepares it; returns the path of the store."""

    def prepared(matrix, name="a.npz", zarr="a.zarr", **options):
        save(matrix, tmp_path / name)
        prepare_matrix(tmp_path / name, tmp_path / zarr, **options)
        return tmp_path / zarr

    return prepared


def save(matrix, file):
    if isinstance(matrix, bytes):
        file.write_bytes(matrix)
    elif file.suffix == ".npz":
        sp.save_npz(file, matrix)
    elif file.suffix == ".npy":
        np.save(file, matrix)
    else:
        scipy.io.mmwrite(file, matrix)


def scattered(A):
    """A in coordinates, the entries in any order and some of them cut in two."""
    i, j = np.nonzero(A)
    order = np.random.default_rng(1).permutation(len(i))
    i, j, a = i[order], j[order], A[i, j][order]
    half = np.flatnonzero(a > 1)
    a[half] -= 1
    places = np.append(i, i[half]), np.append(j, j[half])
    return sp.coo_matrix((np.append(a, np.ones(len(half), a.dtype)), places), shape=A.shape)


FORMS = {
    "csr": lambda A: (sp.csr_matrix(A), "b.npz"),
    "csc": lambda A: (sp.csc_array(A), "b.npz"),
    "coo, repeated": lambda A: (scattered(A), "b.npz"),
    "floats": lambda A: (sp.csr_matrix(A.astype("f4")), "b.npz"),
    "market": lambda A: (sp.coo_matrix(A), "b.mtx"),
    "dense market": lambda A: (A, "b.mtx"),
    "npy": lambda A: (A.astype(">f8"), "b.npy"),
    "npy by columns": lambda A: (np.asfortranarray(A.astype(np.uint8)), "b.npy"),
}


@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "transposed"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_a_matrix_makes_the_same_store(prepared, counts, expected, monkeypatch, form, turned):
    monkeypatch.setattr(npy_files, "BATCH_ENTRIES", 7)
    monkeypatch.setattr(market_files, "BLOCK_NBYTES", 50)
    monkeypatch.setattr(dense, "PIECE", 30)
    monkeypatch.setattr("data_prep.spill.PIECE", 30)
    matrix, name = form(counts.T if turned else counts)
    found = prepared(matrix, name, "b.zarr", transpose=turned)
    assert content(found) == content(expected)
    np.testing.assert_array_equal(values(found), counts)


def test_a_compressed_market_file_and_a_pattern_are_read(prepared, counts, tmp_path):
    scipy.io.mmwrite(tmp_path / "p.mtx", sp.coo_matrix(counts > 0), field="pattern")
    found = prepared(gzip.compress((tmp_path / "p.mtx").read_bytes()), "b.mtx.gz")
    np.testing.assert_array_equal(values(found), counts > 0)


@pytest.mark.parametrize("form", [sp.coo_matrix, np.asarray], ids=["coordinates", "array"])
def test_of_a_symmetric_matrix_both_halves_are_there(prepared, rng, form, tmp_path):
    half = np.tril(rng.poisson(0.7, (30, 30)))
    A = half + np.tril(half, -1).T
    scipy.io.mmwrite(tmp_path / "s.mtx", form(A), symmetry="symmetric")
    assert b"symmetric" in (tmp_path / "s.mtx").read_bytes()
    np.testing.assert_array_equal(values(prepared((tmp_path / "s.mtx").read_bytes(), "b.mtx")), A)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, np.uint8), (256, np.uint16), (65_535, np.uint16), (65_536, np.float32), (0.5, np.float32)],
)
def test_the_type_is_the_smallest_that_holds_the_sums(prepared, largest, dtype):
    A = sp.coo_matrix(([largest - 0.25, 0.25, 3], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    found = values(prepared(A))
    assert (found.dtype, found.tolist()) == (dtype, [[0, largest], [3, 0]])


def test_a_store_says_what_it_holds_and_its_sample_is_of_its_columns(prepared, counts):
    matrix = store.open_matrix(prepared(sp.csr_matrix(counts)))
    assert (matrix.attributes["kind"], matrix.shape, matrix.n_present) == ("matrix", (40, 70), None)
    assert (matrix.n_nonzero, matrix.norm_squared) == (np.count_nonzero(counts), np.square(counts).sum())
    columns = store.read_array(matrix.path, "sample_column")
    np.testing.assert_array_equal(read_sample(matrix, 70), counts[:, columns])


def test_rows_have_the_words_of_the_vocabulary(prepared, counts, tmp_path):
    words = [f"wörd{k}" for k in range(40)]
    (tmp_path / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    path = prepared(sp.csr_matrix(counts.T), vocabulary=tmp_path / "words.txt", transpose=True)
    assert store.read_array(path, "feature").tolist() == words
    assert not (path / "item").exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [(70, "70 lines, but A has 40 rows.*--transpose"), (39, "39 lines, but A has 40 rows.*name each")],
)
def test_a_vocabulary_of_another_length_is_refused(prepared, counts, tmp_path, lines, words):
    (tmp_path / "words.txt").write_text("word\n" * lines)
    with pytest.raises(store.BadInput, match=words):
        prepared(sp.csr_matrix(counts), vocabulary=tmp_path / "words.txt")
    assert not (tmp_path / "a.zarr").exists()


def member(array, shape=None):
    """An .npy file whose header may promise another shape."""
    file = io.BytesIO()
    header = {"descr": np.asarray(array).dtype.str, "fortran_order": False, "shape": shape or np.shape(array)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + np.asarray(array).tobytes()


def archive(compression=zipfile.ZIP_DEFLATED, **changed):
    """[[1, 0], [2, 3]] as an .npz, with some of its arrays replaced, or left out where they are None."""
    arrays = {"format": np.array(b"csr"), "shape": [2, 2], "indptr": [0, 1, 3], "indices": [0, 0, 1]}
    arrays |= {"data": np.array([1.0, 2, 3]), **changed}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, array in arrays.items():
            if array is not None:
                opened.writestr(f"{name}.npy", array if isinstance(array, bytes) else member(array))
    return file.getvalue()


MM = b"%%MatrixMarket matrix coordinate real general\n"
HOSTILE = {
    "column outside": (archive(indices=[0, 0, 2]), "row 1 and column 2, counted from 0, is outside of 2 × 2"),
    "negative index": (archive(indices=[0, 0, -1]), "column -1, counted from 0, is outside"),
    "fractions as indices": (archive(indices=[0.0, 0, 1]), "indices holds float64"),
    "falling indptr": (archive(indptr=[0, 3, 2]), "indptr must rise from 0 to 3"),
    "indptr from 1": (archive(indptr=[1, 1, 3]), "indptr must rise from 0 to 3"),
    "huge indptr": (archive(indptr=np.array([0, 2**63, 3], np.uint64)), "indptr must rise from 0 to 3"),
    "indptr ends early": (archive(indptr=[0, 1, 2]), "indptr ends at 2, but must at 3"),
    "short indptr": (archive(indptr=[0, 3]), "indptr has 2 entries, but must have 3"),
    "other lengths": (archive(indices=[0, 0]), "indices and data must be as long as each other"),
    "no data": (archive(data=None), "data is not there"),
    "a shape lie": (archive(shape=[10**18, 2]), "but must have 1 to 16,777,216 rows"),
    "a data lie": (archive(data=member([1.0], (10**18,)), indices=member([1], (10**18,))), "must rise|ends at|before"),
    "an indptr lie": (archive(indptr=member([0], (3,))), "indptr ends before its 3 entries do"),
    "three dimensions": (archive(shape=[2, 2, 2]), "has not two dimensions"),
    "block format": (archive(format=np.array(b"bsr")), "stored as 'bsr', but must be csr, csc or coo"),
    "pickled": (archive(data=np.array([None])), "data holds object|does not begin as an array"),
    "complex": (archive(data=np.array([1j, 2, 3])), "data holds complex128"),
    "negative": (archive(data=[1.0, 2, -3]), "row 1 and column 1, counted from 0, is -3, but must be finite"),
    "NaN": (archive(data=[1.0, np.nan, 3]), "row 1 and column 0, counted from 0, is nan"),
    "too large": (archive(data=[1.0, 1e13, 3]), r"is 1e\+13, but must be finite"),
    "too large together": (archive(indices=[0, 1, 1], data=[1, 7e11, 7e11]), r"row 1 and column 1 sum to 1\.4e\+12"),
    "too small": (archive(data=[1e-20] * 3), "largest value of A is 1e-20"),
    "nothing but zeros": (archive(data=[0.0] * 3), "no entry other than 0"),
    "bzip2": (archive(zipfile.ZIP_BZIP2), "compressed in another way"),
    "cut off": (archive()[:-30], r"b\.npz is damaged or cut off"),
    "flipped": (archive(zipfile.ZIP_STORED).replace(member([0, 0, 1]), member([0, 1, 1])), "Bad CRC-32"),
    "an npy lie": (member(np.ones((2, 2)), (2**20, 2**20)), "ends before its 1,099,511,627,776 entries do"),
    "one dimension": (member(np.ones(3)), "must have rows and columns"),
    "text array": (member(np.array([["a"]])), "must hold real numbers"),
    "no header": (archive(data=member([1.0, 2, 3]).replace(b"}", b"(")), "data does not begin as an array"),
    "no matrix": (b"word,count\n", "neither .npz, .npy nor a Matrix Market"),
    "empty file": (b"", "neither .npz"),
    "market lie": (MM + b"1000000 1000000 1\n1 1 1\n", "is 1,000,000 × 1,000,000 with 1 entries"),
    "market row 0": (MM + b"2 2 1\n0 1 1\n", "row -1 and column 0, counted from 0, is outside"),
    "market too few": (MM + b"2 2 3\n1 1 1\n", "says that it has 3 entries, but has 1"),
    "market too many": (MM + b"2 2 1\n1 1 1\n2 2 2\n", "says that it has 1 entries, but has more"),
    "market word": (MM + b"2 2 2\n1 1 1\n\n2 1 many\n", "line 5 is '2 1 many', but must be 3 numbers"),
    "market fields": (MM + b"2 2 2\n1 1 1\n2 1\n", "line 4 is '2 1'"),
    "market sizes": (MM + b"% a comment\n2 -2 2\n", "line 3: there must be rows, columns and entries"),
    "market no end": (MM, "ends, or goes on"),
    "market complex": (MM.replace(b"real", b"complex"), "coordinate complex general, but must be"),
    "market skew": (MM.replace(b"general", b"skew-symmetric"), "coordinate real skew-symmetric, but must be"),
    "market cut off": (gzip.compress(MM + b"2 2 1\n1 1 1\n")[:-12], "damaged or cut off"),
    "market line": (MM + b"2 2 1\n" + b"1" * 70_000, "line of more than 65,536 bytes"),
}


@pytest.mark.parametrize(("raw", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_wrong_is_named_and_leaves_nothing(prepared, tmp_path, raw, words):
    with pytest.raises(store.BadInput, match=words) as error:
        prepared(raw, "b.npz")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(("name", "words"), [("gone.npz", "is not there"), ("", "is a folder")])
def test_a_file_that_is_none_is_named(tmp_path, name, words):
    with pytest.raises(store.BadInput, match=f"{tmp_path / name}.*{words}"):
        prepare_matrix(tmp_path / name, tmp_path / "a.zarr")


def test_a_long_row_and_many_empty_ones_are_read_in_batches(prepared, monkeypatch):
    monkeypatch.setattr(npy_files, "BATCH_ENTRIES", 5)
    A = np.zeros((60, 40))
    A[30], A[59, 3] = np.arange(40), 7
    np.testing.assert_array_equal(values(prepared(sp.csr_matrix(A))), A)


def test_another_matrix_is_refused_and_a_copy_is_nothing_new(prepared, counts, tmp_path):
    path = prepared(sp.csr_matrix(counts))
    before = (path / "zarr.json").stat().st_mtime_ns
    (tmp_path / "copy.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    again = prepare_matrix(tmp_path / "copy.npz", path)
    assert (again.new, (path / "zarr.json").stat().st_mtime_ns) == (False, before)
    with pytest.raises(StoreDiffers, match="the file has another content"):
        prepared(sp.csr_matrix(counts + 1), "other.npz")
    with pytest.raises(StoreDiffers, match="transpose: False → True"):
        prepare_matrix(tmp_path / "a.npz", path, transpose=True)
    (tmp_path / "words.txt").write_text("word\n" * 40)
    with pytest.raises(StoreDiffers, match="the vocabulary is another one"):
        prepare_matrix(tmp_path / "a.npz", path, tmp_path / "words.txt")


def test_a_line_is_counted_from_the_first_one_on(prepared, monkeypatch):
    monkeypatch.setattr(market_files, "BLOCK_NBYTES", 16)
    with pytest.raises(store.BadInput, match="line 13 is '1 2 x'"):
        prepared(MM + b"2 20 12\n" + b"1 1 1\n" * 10 + b"1 2 x\n2 2 2\n", "b.mtx")


@pytest.fixture
def command(tmp_path):
    """Runs prep-matrix; returns the exit code, stdout and stderr."""
    (tmp_path / "b.npz").write_bytes(archive())
    return partial(nmf_batch, "prep-matrix", tmp_path / "b.npz", "--zarr", tmp_path / "a.zarr")


def test_the_command_says_what_it_made_and_mistakes_have_their_exit_codes(command, tmp_path):
    assert command() == (0, f"{tmp_path}/a.zarr: 2 × 2, 3 entries other than 0, 75 %\n", "")
    code, out, _ = command("--json")
    expected = {"zarr": f"{tmp_path}/a.zarr", "new": False, "shape": [2, 2], "n_nonzero": 3}
    assert (code, json.loads(out)) == (0, expected)
    assert command("--transpose")[0] == 5
    (tmp_path / "b.npz").write_bytes(b"PK")
    assert [command("--zarr", tmp_path / "c.zarr")[k] for k in (0, 1)] == [4, ""]
