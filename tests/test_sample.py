import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep import store
from data_prep.sample import column_hash, sample_columns, sample_size


def test_the_sample_holds_the_columns_it_names(planted):
    A, sample = (store.open_array(planted, name)[...] for name in ("A", "sample"))
    columns = store.read_array(planted, "sample_column")
    np.testing.assert_array_equal(sample, A[:, columns])


def test_hashes_are_those_of_splitmix64():
    """The first outputs of SplitMix64 seeded with 0, as published with the generator."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert column_hash(np.arange(3)).tolist() == expected


@given(n=st.integers(1, 300), more=st.integers(0, 300), k=st.integers(1, 50))
def test_an_append_only_displaces_columns(n, more, k):
    before, after = (set(sample_columns(np.ones(size, bool), k).tolist()) for size in (n, n + more))
    assert {column for column in after if column < n} <= before


def test_the_first_part_of_a_sample_is_the_smaller_sample():
    ok = np.ones(1000, bool)
    np.testing.assert_array_equal(sample_columns(ok, 100)[:30], sample_columns(ok, 30))


def test_columns_without_an_image_are_not_drawn():
    ok = np.arange(100) % 3 == 0
    assert (sample_columns(ok, 100) % 3 == 0).all()


def test_the_draw_is_uniform():
    columns = sample_columns(np.ones(10_000, bool), 1000)
    counts = np.bincount(columns // 1000, minlength=10)
    assert counts.min() > 70
    assert counts.max() < 130


def test_a_sample_is_bounded_in_columns_and_bytes():
    assert sample_size(361, 1) == 16_384
    assert sample_size(2**20, 1) == 256
    assert sample_size(2**30, 1) == 1
