from collections import Counter

import dask
import numpy as np
import pytest

from data_prep import store
from pipeline import engine, plan
from pipeline.basis import Basis, Sums, basis_of
from pipeline.blocks import StoredBlocks, read_ahead
from pipeline.config import NMFConfig
from pipeline.factors import open_factors
from pipeline.job import factorize
from pipeline.one_pass import Arithmetic, BlockMatrix, _add_as_tree, add, visit_partition
from pipeline.solvers import hals

pytestmark = pytest.mark.usefixtures("synchronous")


def blocks_of(A, width):
    return [A[:, first : first + width] for first in range(0, A.shape[1], width)]


def keep(WtW, WtA, H):
    """Leaves H as it is, and shows that WᵀA arrived by adding it."""
    return (H + WtA).astype(np.float32)


def test_a_pass_returns_the_two_products(rng):
    A, Wt, H = (rng.random(shape, dtype=np.float32) for shape in ((7, 20), (3, 7), (3, 20)))
    matrix = BlockMatrix(
        partitions=[blocks_of(A[:, :8], 4), blocks_of(A[:, 8:], 4)], shape=A.shape, scale=0.5, norm_squared=1
    )
    parts, sums = matrix.visit(basis_of(Wt.T.copy()), [blocks_of(H[:, :8], 4), blocks_of(H[:, 8:], 4)], keep)
    H_new = np.concatenate([block for part in parts for block in part], axis=1)
    np.testing.assert_allclose(H_new, H + Wt @ (A / 2), rtol=1e-5)
    np.testing.assert_allclose(sums.AHt, (A / 2) @ H_new.T, rtol=1e-5)
    np.testing.assert_allclose(sums.HHt, H_new @ H_new.T, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_the_tree_adds_every_partition_once(n):
    graph = {f"visit-{k}": (None, Sums(np.full(1, k), np.full(1, 10**k))) for k in range(n)}
    root = _add_as_tree(graph, n)
    total = dask.get(graph, root)
    assert total[:2] == (sum(range(n)), sum(10**k for k in range(n)))


def test_sums_are_added_in_float64():
    one, small = (Sums(np.full((1, 1), value, np.float32), np.zeros((1, 1))) for value in (1, 2**-24))
    assert add(one, small).AHt == 1 + 2**-24


def test_partitions_cover_the_chunks_once_and_follow_from_the_store_alone(planted):
    matrix = store.open_matrix(planted)
    parts = plan.partitions(matrix)
    assert [k for part in parts for k in part] == list(range(matrix.n_chunks))
    assert len(parts) == 16


def memory_for(path, d, n_cached):
    """The least memory with which so many partitions are cached."""
    matrix = store.open_matrix(path)
    whole = plan.make_plan(matrix, NMFConfig(n_components=d))
    largest = max(len(part) for part in whole.partitions) * matrix.shape[0] * matrix.chunk_images * 4
    return whole.worker_nbytes - matrix.nbytes + n_cached * largest


@pytest.fixture
def reads(monkeypatch):
    """How often each chunk of A is read."""
    counts = Counter()
    original = store.read_chunk

    def counting(array, *index, **named):
        counts[array.path.split("/")[-1], index[-1]] += 1
        return original(array, *index, **named)

    monkeypatch.setattr(store, "read_chunk", counting)
    return counts


@pytest.mark.parametrize(("cached", "times"), [(True, 1), (False, 5)], ids=["cached", "streamed"])
def test_a_chunk_is_read_once_when_cached_and_once_a_pass_when_not(planted, reads, cached, times):
    memory_nbytes = memory_for(planted, 4, n_cached=16 if cached else 0)
    factorize(planted, 4, solver="hals", max_iter=5, tol=0, init="random", memory_nbytes=memory_nbytes)
    assert {key: count for key, count in reads.items() if key[0] == "A"} == {("A", k): times for k in range(19)}


def test_a_chunk_is_visited_once_a_pass(planted, monkeypatch):
    visits = Counter()
    original = hals.improve

    def counting(WtW, WtA, H, **how):
        visits[WtA.shape[1]] += 1
        return original(WtW, WtA, H, **how)

    monkeypatch.setattr(hals, "improve", counting)
    factorize(planted, 4, solver="hals", max_iter=5, tol=0)
    assert visits == {16: 5 * 18, 12: 5}


def test_cached_partly_cached_and_streamed_give_the_same_bits(planted):
    results = []
    for n_cached in (16, 5, 0):
        factorize(planted, 4, solver="hals", max_iter=6, fresh=True, memory_nbytes=memory_for(planted, 4, n_cached))
        factors = open_factors(planted, "d4")
        results.append((factors.W.compute().tobytes(), factors.H.compute().tobytes(), factors.loss.tobytes()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_h_kept_and_h_stored_every_pass_give_the_same_bits(planted, monkeypatch, solver):
    results = []
    for share in (0.25, 0.0):
        monkeypatch.setattr(plan, "H_SHARE", share)
        factors = factorize(planted, 4, solver=solver, max_iter=6, fresh=True).factors
        assert factors.attributes["plan"]["stores_H"] == (share == 0)
        results.append((factors.W.compute().tobytes(), factors.H.compute().tobytes(), factors.loss.tobytes()))
    assert results[0] == results[1]
    assert not list((planted / "nmf" / "d4").glob("scratch-*"))


@pytest.mark.parametrize("n_cached", [0, 5, 16])
def test_bytes_read_and_passes_are_recorded_as_they_were(planted, reads, n_cached):
    memory_nbytes = memory_for(planted, 4, n_cached)
    iterations = factorize(
        planted, 4, solver="hals", max_iter=3, tol=0, init="random", memory_nbytes=memory_nbytes
    ).factors.iterations
    columns = sum(count * (12 if k == 18 else 16) for (name, k), count in reads.items() if name == "A")
    assert iterations[-1].bytes_read == columns * 40 * 4
    assert [i.passes for i in iterations] == [1, 2, 3]


def test_what_is_read_ahead_is_what_is_read(planted):
    ahead = list(read_ahead(StoredBlocks(planted, "A", range(3, 9))))
    np.testing.assert_array_equal(np.concatenate(ahead, 1), store.open_array(planted, "A")[:, 48:144])


def unaligned(array):
    """The same values at an address that is no multiple of four, as after a transfer."""
    raw = np.empty(array.nbytes + 1, np.uint8)
    moved = raw[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


def test_where_arrays_lie_in_memory_changes_no_bit(rng):
    A, Wt, H = (rng.random(shape, dtype=np.float32) for shape in ((40, 50), (20, 40), (20, 50)))
    W = basis_of(Wt.T.copy())
    here = visit_partition([A], [H], W, hals.improve, Arithmetic(1.0, residual=True))
    moved = visit_partition(
        [unaligned(A)], [unaligned(H)], Basis(*map(unaligned, W)), hals.improve, Arithmetic(1.0, residual=True)
    )
    assert here[0][0].tobytes() == moved[0][0].tobytes()
    assert [s.tobytes() for s in here[1][:2]] == [s.tobytes() for s in moved[1][:2]]
    assert here[1].residual == moved[1].residual


def test_stored_blocks_can_be_iterated_again(planted):
    blocks = StoredBlocks(planted, "A", range(2, 5))
    first, second = np.concatenate(list(blocks), 1), np.concatenate(list(blocks), 1)
    np.testing.assert_array_equal(first, store.open_array(planted, "A")[:, 32:80])
    np.testing.assert_array_equal(first, second)


def test_the_engine_keeps_results_that_later_graphs_can_use():
    kept = engine.keep_each(pow, [(2, 3), (3, 2)])
    assert engine.call_each(pow, [(value, 2) for value in kept]) == [64, 81]
