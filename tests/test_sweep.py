"""Several ranks on one sketch, and which one to take."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from data_prep.arrays import write_matrix
from data_prep.folders import folder
from pipeline import factorize, open_factors
from pipeline.advice import advise
from pipeline.commands import cli
from pipeline.factors import names
from pipeline.held_out import HeldOut, above_noise
from pipeline.job import ParametersDiffer
from pipeline.objective import Unsuitable
from pipeline.plan import RefusedPlan
from pipeline.ranks import sweep
from tests.conftest import SOAK, sparse

RANKS = [2, 4, 6]


def noisy(rng, shape, d, noise):
    """W H of rank d with white noise, a share of how W H varies; what is below zero is cut off."""
    m, n = shape
    true = sparse(rng, m, d) @ sparse(rng, d, n)
    return np.maximum(true + noise * true.std() * rng.standard_normal(shape), 0).astype(np.float32)


def recommended(A, ranks, seed=0):
    return advise(HeldOut(A, seed), ranks, above_noise(A))


@pytest.fixture(scope="module")
def A():
    return noisy(np.random.default_rng(5), (130, 300), 4, 0.2)


@pytest.fixture(scope="module")
def made(A, tmp_path_factory):
    """A store and its sweep, made once; 2 d + 10 rows for d = 6 are a sketch of 130."""
    path = tmp_path_factory.mktemp("sweep") / "noisy.zarr"
    write_matrix(path, A)
    return path, sweep(path, RANKS)


@pytest.fixture
def small(tmp_path, rng):
    """A store of 24 × 90, d = 3 and no noise, too small to be compressed."""
    write_matrix(tmp_path / "small.zarr", sparse(rng, 24, 3) @ sparse(rng, 3, 90))
    return tmp_path / "small.zarr"


def run(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in arguments], standalone_mode=False)


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
def test_the_planted_rank_is_recommended(rng, noise):
    assert abs(recommended(noisy(rng, (150, 500), 6, noise), [3, 5, 6, 7, 9]).d - 6) <= 1


def test_a_planted_rank_between_those_asked_for_is_recommended(rng):
    advice = recommended(noisy(rng, (150, 500), 6, 0.3), [3, 9])
    assert abs(advice.d - 6) <= 1
    assert "not among those asked for" in advice.why


@pytest.mark.skipif(not SOAK, reason="the long form: make soak")
@pytest.mark.parametrize("ranks", [[4, 6, 8, 10, 11, 12, 13, 14, 16, 20, 24], [5, 10, 20, 40]], ids=["near", "far"])
@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_twelve_planted_components_are_recommended(seed, noise, ranks):
    A = noisy(np.random.default_rng(seed), (300, 1500), 12, noise)
    assert abs(recommended(A, ranks, seed).d - 12) <= 1


def test_the_bound_is_that_of_the_singular_values(A, made):
    s = np.linalg.svd(A, compute_uv=False)
    true = [np.sqrt(np.square(s[d:]).sum() / np.square(s).sum()) for d in RANKS]
    assert [rank.svd_bound for rank in made[1].ranks] == pytest.approx(true, rel=0.02)


def test_the_error_falls_with_d_and_stays_above_the_bound(made):
    errors = [rank.error for rank in made[1].ranks]
    assert errors == sorted(errors, reverse=True)
    assert all(rank.error > rank.svd_bound for rank in made[1].ranks)


def test_a_rank_is_as_good_as_alone(made):
    path, swept = made
    alone = factorize(path, 4, name="alone", seed=0).factors.attributes["relative_error"]
    assert swept.ranks[1].error == pytest.approx(alone, rel=5e-3)


def test_k_means_is_that_of_scikit_learn(A, made):
    cluster = pytest.importorskip("sklearn.cluster")
    found = cluster.KMeans(4, n_init=1, max_iter=10, random_state=0).fit(A.T)
    assert made[1].ranks[1].k_means == pytest.approx(np.sqrt(found.inertia_) / np.linalg.norm(A), rel=0.02)


def test_components_of_the_planted_rank_are_found_again(made):
    stability = [rank.cosine for rank in made[1].ranks]
    assert stability[1] > 0.95
    assert stability[1] > stability[2]


def test_a_seed_gives_the_same_figures(small):
    once, again = ([rank._replace(seconds=0) for rank in sweep(small, [2, 3]).ranks] for _ in range(2))
    assert once == again


def test_a_visit_of_A_serves_all_ranks(made):
    assert made[1].passes < 4


def test_columns_as_they_are_do_where_there_is_nothing_to_compress(small):
    swept = sweep(small, [2, 3])
    assert [rank.phase for rank in swept.ranks] == ["all", "all"]
    assert swept.ranks[1].error < 0.05 < swept.ranks[0].error


def test_what_is_kept_is_as_good_as_that_of_run_and_run_finds_nothing_to_do(A, tmp_path):
    write_matrix(tmp_path / "A.zarr", A)
    kept = sweep(tmp_path / "A.zarr", [2, 4], keep=True)
    alone = factorize(tmp_path / "A.zarr", 4, name="alone").factors.attributes["relative_error"]
    assert [(rank.kept, rank.phase) for rank in kept.ranks] == [("d2", "exact"), ("d4", "exact")]
    assert kept.ranks[1].error == pytest.approx(alone, rel=5e-3)
    again = factorize(tmp_path / "A.zarr", 4)
    assert (again.n_new, again.factors.iterations[0].phase) == (0, "sketch")
    assert "d4: d = 4" in run("info", "--zarr", tmp_path / "A.zarr").stdout


def test_a_factorization_of_the_same_parameters_stays_when_it_is_kept(small):
    before = factorize(small, 2).factors.path
    sweep(small, [2, 3], keep=True)
    assert open_factors(small, "d2").path == before


def test_a_factorization_of_other_parameters_refuses_to_keep_before_anything_is_written(small):
    factorize(small, 3, seed=5, max_iter=2)
    with pytest.raises(ParametersDiffer, match="seed: 5 → 0"):
        sweep(small, [2, 3], keep=True)
    assert names(folder(small)) == ["d3"]


def test_missing_entries_are_refused(tmp_path, rng):
    write_matrix(tmp_path / "A.zarr", rng.random((20, 30)), present=rng.random((20, 30)) < 0.5)
    with pytest.raises(Unsuitable, match="are missing; compare ranks with `nmf-batch run --holdout"):
        sweep(tmp_path / "A.zarr", [2])


def test_zeros_are_refused(tmp_path):
    write_matrix(tmp_path / "A.zarr", np.zeros((5, 6)))
    with pytest.raises(Unsuitable, match="zeros alone"):
        sweep(tmp_path / "A.zarr", [2])


def test_a_rank_that_is_too_large_is_refused(small):
    with pytest.raises(RefusedPlan, match="d is 25, but A is 24 × 90"):
        sweep(small, [2, 25])


@pytest.mark.parametrize("ranks", ["", "5,x", "0,3", "-2", "4,,5"])
def test_what_is_no_list_of_ranks_is_refused(small, ranks):
    refused = run("sweep", "--zarr", small, "-d", ranks)
    assert "is not a list of ranks" in str(refused.exception)


def test_json_has_an_object_a_rank_and_the_summary_last(small):
    shown = run("sweep", "--zarr", small, "-d", "3,2,2", "--json")
    *ranks, summary = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [rank["d"] for rank in ranks] == [2, 3]
    assert summary["recommended"] == 3


def test_the_table_ends_with_the_rank_to_take_and_the_picture_is_drawn(small, tmp_path):
    pytest.importorskip("matplotlib")
    shown = run("sweep", "--zarr", small, "-d", "2,3,4", "--plot", tmp_path / "d.png")
    heading, *rows, _, last = shown.stdout.splitlines()
    assert [len(row) for row in rows] == [len(heading)] * 3
    assert last.startswith("d = 3: the error on entries held out is")
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
