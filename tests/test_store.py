import json

import numpy as np
import pytest

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.folders import folder


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
    with pytest.raises(store.BadInput, match="run the same `nmf-batch prep` again"):
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
