import json

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import ARRAYS, write_matrix
from data_prep.folders import folder
from data_prep.sample import read_sample, read_sample_mask


@pytest.mark.parametrize(
    ("m", "columns"), [(6177, 1024), (361, 16_384), (2304, 2048), (1, 16_384), (2**23, 1), (2**24, 1)]
)
def test_a_chunk_is_whole_images_within_8_mib(m, columns):
    assert store.chunk_images(m) == columns


def test_a_store_holds_the_documented_arrays_and_attributes(planted):
    matrix = store.open_matrix(planted)
    assert {entry.name for entry in planted.iterdir()} == {
        *("zarr.json", "A", "ok", "checksum", "sample", "sample_column"),
    }
    assert matrix.attributes["format"] == "nmf-batch/1"
    assert matrix.norm_squared == pytest.approx(np.linalg.norm(store.open_array(planted, "A")[...]) ** 2)
    assert (matrix.shape, matrix.chunk_images, matrix.n_chunks) == ((40, 300), 16, 19)


def test_checksums_are_those_at_the_end_of_the_stored_chunks(planted):
    stored = store.read_array(planted, "checksum")
    ends = [int.from_bytes((planted / "A" / "c" / "0" / str(k)).read_bytes()[-4:], "little") for k in range(19)]
    np.testing.assert_array_equal(stored, ends)


def test_a_chunk_of_zeros_is_written_like_any_other(tmp_path):
    write_matrix(tmp_path / "zeros.zarr", np.zeros((3, 5)))
    assert (tmp_path / "zeros.zarr" / "A" / "c" / "0" / "0").exists()


def test_a_missing_chunk_is_an_error_that_names_it(planted):
    (planted / "A" / "c" / "0" / "7").unlink()
    with pytest.raises(store.BadInput, match="A/c/0/7 is missing"):
        store.read_chunk(store.open_array(planted, "A"), 0, 7)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: b"", lambda raw: raw[:5] + b"\xff" + raw[6:]])
@pytest.mark.parametrize("name", ["A", "sample"])
def test_a_damaged_chunk_is_an_error_that_names_it(planted, name, damage):
    file = planted / name / "c" / "0" / "0"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(store.BadInput, match=f"{name}/c/0/0 is damaged"):
        store.read_chunk(store.open_array(planted, name), 0, 0)


def test_any_flipped_bit_of_a_chunk_is_noticed(planted, rng):
    file = planted / "A" / "c" / "0" / "3"
    whole = file.read_bytes()
    for bit in rng.integers(0, 8 * len(whole), 50):
        torn = bytearray(whole)
        torn[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(bytes(torn))
        with pytest.raises(store.BadInput, match="damaged"):
            store.read_chunk(store.open_array(planted, "A"), 0, 3)


def test_publish_leaves_the_old_attributes_when_it_fails(planted):
    before = store.group_attributes(planted)
    with pytest.raises(TypeError):
        store.publish(planted, {"cannot": object()})
    assert store.group_attributes(planted) == before


def test_an_unfinished_store_is_refused_with_the_way_on(tmp_path):
    store.begin(folder(tmp_path / "s.zarr"), expendable=())
    with pytest.raises(store.BadInput, match="run the same `nmf-batch prep`"):
        store.open_matrix(tmp_path / "s.zarr")


def test_somebody_elses_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(store.BadInput, match="not an nmf-batch store"):
        store.begin(folder(tmp_path), expendable=("A",))
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_matrix_whose_chunks_split_images_is_refused(planted):
    file = planted / "A" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [20, 32]
    file.write_text(json.dumps(metadata))
    store.publish(planted, {**store.group_attributes(planted), "digests": {}})
    with pytest.raises(store.BadInput, match="must hold whole images"):
        store.open_matrix(planted)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf], ids=str)
def test_a_value_that_nmf_has_no_meaning_for_is_named(tmp_path, value):
    A = np.ones((3, 4))
    A[1, 2] = value
    with pytest.raises(store.BadInput, match=rf"A\[1, 2\] is {value}"):
        write_matrix(tmp_path / "s.zarr", A)
    assert not (tmp_path / "s.zarr").exists()


def test_the_fingerprint_changes_with_a_value(tmp_path):
    A = np.ones((3, 4), np.uint8)
    write_matrix(tmp_path / "a.zarr", A)
    A[2, 3] = 2
    write_matrix(tmp_path / "b.zarr", A)
    a, b = (store.open_matrix(tmp_path / name).fingerprint for name in ("a.zarr", "b.zarr"))
    assert a != b


def test_xarray_would_decode_images_to_0_1(faces, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from data_prep.decode import Decoding
    from data_prep.images import Options, prepare

    with ThreadPoolExecutor(1) as threads:
        prepare([faces], tmp_path / "f.zarr", Options(decoding=Decoding()), threads)
    A = store.open_array(tmp_path / "f.zarr", "A")
    assert A.attrs["scale_factor"] == 1 / 255
    assert A.metadata.dimension_names == ("pixel", "image")


@pytest.fixture
def holes(rng, small_chunks):
    """60 × 50 values, some of them 0, and which of them are present: 70 %; the others are NaN."""
    present = rng.random((60, 50)) < 0.7
    return np.where(present, np.maximum(rng.random((60, 50)) - 0.2, 0), np.nan), present


def test_missing_entries_are_zero_and_in_the_mask(holes, tmp_path):
    A, present = holes
    write_matrix(tmp_path / "a.zarr", A, 0.5, present=present)
    matrix = store.open_matrix(tmp_path / "a.zarr")
    stored, mask = (store.open_array(matrix.path, name) for name in ("A", "mask"))
    np.testing.assert_array_equal(stored[...], np.nan_to_num(A).astype(np.float32))
    np.testing.assert_array_equal(mask[...], present)
    assert (mask.chunks, mask.metadata.dimension_names) == (stored.chunks, ("feature", "item"))
    assert (matrix.n_present, matrix.norm_squared) == (present.sum(), pytest.approx(np.nansum((A / 2) ** 2)))
    assert matrix.most_present == max(present[:, first : first + 16].sum() for first in range(0, 50, 16))
    nonzero = present & (A > 0)
    assert matrix.n_nonzero == nonzero.sum()
    assert matrix.most_nonzero == max(nonzero[:, first : first + 16].sum() for first in range(0, 50, 16))


def test_the_samples_mask_is_that_of_its_columns(holes, tmp_path):
    A, present = holes
    write_matrix(tmp_path / "a.zarr", A, present=present)
    matrix, columns = store.open_matrix(tmp_path / "a.zarr"), store.read_array(tmp_path / "a.zarr", "sample_column")
    np.testing.assert_array_equal(read_sample_mask(matrix, 20), present[:, columns[:20]])
    np.testing.assert_array_equal(read_sample(matrix, 50), np.nan_to_num(A[:, columns]).astype(np.float32))


@pytest.mark.parametrize(("known", "n_codecs"), [(49, 2), (50, 1)])
def test_less_than_half_of_the_entries_is_compressed(tmp_path, known, n_codecs):
    write_matrix(tmp_path / "a.zarr", np.ones((10, 10)), present=np.arange(100).reshape(10, 10) < known)
    arrays = [store.open_array(tmp_path / "a.zarr", name) for name in ("A", "sample", "mask", "sample_mask")]
    assert [len(array.compressors) for array in arrays] == [n_codecs, n_codecs, 2, 2]


def test_a_mask_without_holes_changes_nothing(tmp_path, rng):
    A = rng.random((5, 4))
    write_matrix(tmp_path / "a.zarr", A)
    write_matrix(tmp_path / "b.zarr", A, present=np.ones((5, 4), bool))
    a, b = (store.open_matrix(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    assert (a.attributes, a.n_present, a.most_present) == (b.attributes, None, None)
    assert {entry.name for entry in (tmp_path / "b.zarr").iterdir()} == {*ARRAYS, "zarr.json"}


def test_rows_and_columns_have_the_names_that_are_given(tmp_path):
    write_matrix(tmp_path / "a.zarr", np.ones((2, 3)), features=["é", "b"], items=["x", "y", "z"])
    assert store.read_array(tmp_path / "a.zarr", "feature").tolist() == ["é", "b"]
    assert store.read_array(tmp_path / "a.zarr", "item").tolist() == ["x", "y", "z"]
    assert {"feature", "item"} < store.open_matrix(tmp_path / "a.zarr").attributes["digests"].keys()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"present": np.ones((3, 2), bool)}, r"present is bool \(3, 2\), but must be bool \(2, 3\)"),
        ({"present": np.ones((2, 3))}, "present is float64"),
        ({"present": np.zeros((2, 3), bool)}, "no entry of A is present"),
        ({"features": ["a", "b", "c"]}, "3 features are named, but A has 2"),
        ({"items": []}, "0 items are named, but A has 3"),
    ],
)
def test_what_does_not_fit_the_matrix_is_refused(tmp_path, given, words):
    with pytest.raises(store.BadInput, match=words):
        write_matrix(tmp_path / "s.zarr", np.ones((2, 3)), **given)
    assert not (tmp_path / "s.zarr").exists()


def test_a_wrong_value_counts_only_where_it_is_present(tmp_path):
    A, present = np.array([[1, np.inf], [1, -1]]), np.array([[True, False], [True, True]])
    with pytest.raises(store.BadInput, match=r"A\[1, 1\] is -1"):
        write_matrix(tmp_path / "s.zarr", A, present=present)
