"""Topics of named rows: planted ones are found, and what is listed is what slow formulas say."""

import json

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from data_prep import store
from data_prep.arrays import write_matrix
from data_prep.folders import folder
from pipeline import factorize
from pipeline.factors import Factors
from pipeline.match import dominant
from pipeline.topics import find_topics
from tests.commands import nmf_batch
from tests.test_images import prep


@pytest.fixture
def articles(tmp_path, rng):
    """A store of counts, 300 words × 400 documents; its six topics, which share words; and each document's."""
    topics, of = rng.dirichlet(np.full(300, 0.2), 6).T, rng.integers(0, 6, 400)
    mixing = 0.6 * np.eye(6)[of] + 0.4 * rng.dirichlet(np.ones(6), 400)
    counts = rng.poisson(rng.integers(60, 300, 400) * (topics @ mixing.T))
    names = {"features": [f"word{i}" for i in range(300)], "items": [f"doc{j}" for j in range(400)]}
    write_matrix(tmp_path / "words.zarr", counts, **names)
    return tmp_path / "words.zarr", topics, of


@pytest.fixture
def factored(tmp_path, small_chunks):
    """Make a store, and in it W and H just as given, in chunks of so many columns."""

    def factored(W, H, chunk=4, **names):
        path = tmp_path / f"{chunk}.zarr"
        write_matrix(path, W @ H, **names)
        revision = folder(path / "nmf" / "x" / "r000001-x")
        for name, values, chunks in (("W", W, W.shape), ("H", H, (len(H), chunk))):
            array = store.create_array(
                revision, name, shape=values.shape, chunks=chunks, dtype=np.float32, dimension_names=("a", "b")
            )
            array[...] = values
        return Factors(revision, {"shape": (len(W), H.shape[1])})

    return factored


@pytest.fixture
def some(rng):
    """W (30, 5) and H (5, 37), a third of them zero."""
    return tuple((rng.random(shape) * (rng.random(shape) < 0.67)).astype(np.float32) for shape in ((30, 5), (5, 37)))


def slow_topics(W, H):
    """What there is to say of each component, from its outer product: all rows, and all columns, in order."""
    mass = np.array([np.outer(w, h) for w, h in zip(W.T.astype(np.float64), H, strict=True)])
    shares = mass.sum(axis=1) / mass.sum(axis=(0, 1))
    listed = []
    for k, part in enumerate(mass):
        rows, columns = part.sum(axis=1) / part.sum(), part.sum(axis=0) * shares[k]
        words = [(str(i), rows[i]) for i in np.argsort(-rows) if rows[i]]
        documents = [(str(j), shares[k, j]) for j in np.argsort(-columns) if columns[j]]
        listed.append((k, part.sum() / mass.sum(), words, documents))
    return sorted(listed, key=lambda topic: -topic[1])


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one[0], one[1]) == (other[0], pytest.approx(other[1]))
        for entries, others in zip(one[2:], other[2:], strict=True):
            assert entries == [(name, pytest.approx(share)) for name, share in others]


@pytest.mark.parametrize("loss", ["kullback-leibler", "frobenius"])
def test_documents_fall_into_the_topics_they_were_made_of(articles, loss):
    path, topics, of = articles
    factors, together = factorize(path, 6, loss=loss).factors, np.zeros((6, 6))
    np.add.at(together, (dominant(factors), of), 1)
    found, true = linear_sum_assignment(-together)
    assert together[found, true].sum() / 400 >= 0.95
    for topic in find_topics(factors):
        t = true[topic.component]
        assert len({f"word{i}" for i in np.argsort(-topics[:, t])[:10]} & {word for word, _ in topic.words}) >= 7
        assert all(of[int(name.removeprefix("doc"))] == t for name, _ in topic.documents)


def test_what_is_listed_is_what_the_formulas_say(factored, some):
    found = find_topics(factored(*some), top=30, documents=37)
    assert_same(found, slow_topics(*some))
    assert sum(topic.share for topic in found) == pytest.approx(1)


def test_it_does_not_depend_on_chunks(factored, some):
    for chunk in (1, 4, 36):
        assert_same(*(find_topics(factored(*some, c), documents=7) for c in (chunk, 37 + chunk)))


def test_neither_a_tiny_document_nor_a_long_one_of_everything_is_typical(factored):
    W, H = np.eye(2, dtype=np.float32), np.array([[2, 100, 90, 60], [0, 900, 10, 240]], np.float32)
    topic = next(topic for topic in find_topics(factored(W, H)) if topic.component == 0)
    assert [name for name, _ in topic.documents] == ["2", "3", "1"]


def test_of_equal_documents_the_first_comes_first_in_whatever_chunk(factored):
    rng = np.random.default_rng(0)
    W, H = rng.random((40, 40), dtype=np.float32), rng.random((40, 201), dtype=np.float32)
    H[:, ::2] = H[:, :1]  # the last one is alone in its chunk
    for topic in find_topics(factored(W, H, 50), documents=201):
        assert [j for name, _ in topic.documents if (j := int(name)) % 2 == 0] == list(range(0, 201, 2))


def test_a_component_of_nothing_is_last_and_empty(factored, some):
    W, H = (factor.copy() for factor in some)
    W[:, 1], H[3] = 0, 0
    found = find_topics(factored(W, H))
    assert found[3:] == [(1, 0, [], []), (3, 0, [], [])]
    assert all(share > 0 for topic in found for _, share in (*topic.words, *topic.documents))
    assert [topic[1:] for topic in find_topics(factored(0 * W, H, 5))] == [(0, [], [])] * 5


def test_names_are_read_from_the_chunks_that_hold_them(factored, some, monkeypatch):
    monkeypatch.setattr(store, "NAMES_PER_CHUNK", 4)
    names = {"features": [f"w{i}" for i in range(30)], "items": [f"d{j}" for j in range(37)]}
    found, expected = find_topics(factored(*some, **names)), find_topics(factored(*some, 5))
    for topic, numbered in zip(found, expected, strict=True):
        assert (len(topic.words), len(topic.documents)) == (10, 3)
        assert topic.words == [(f"w{i}", weight) for i, weight in numbered.words]
        assert topic.documents == [(f"d{j}", share) for j, share in numbered.documents]


def test_the_command_tells_them_in_json_and_in_lines_that_fit(articles):
    found = find_topics(factorize(articles[0], 6).factors, top=12, documents=2)
    shared = ("topics", "--zarr", articles[0], "--name", "d6", "--top", 12, "--documents", 2)
    told = [json.loads(line) for line in nmf_batch(*shared, "--json").stdout.splitlines()]
    assert [(one["topic"], one["share"]) for one in told] == [topic[:2] for topic in found]
    assert [[(w["word"], w["weight"]) for w in one["words"]] for one in told] == [topic.words for topic in found]
    assert [[(d["document"], d["share"]) for d in one["documents"]] for one in told] == [one[3] for one in found]
    lines = nmf_batch(*shared, COLUMNS="60").stdout.splitlines()
    assert lines[0] == f"topic {found[0].component} · {100 * found[0].share:.1f} % of the collection"
    assert all(f" {word} {weight:.2g}" in " ".join(lines) for topic in found for word, weight in topic.words)
    assert 50 < max(map(len, lines)) <= 60


def test_images_and_unknown_names_are_refused(articles, faces, tmp_path):
    images = prep(faces, tmp_path / "f.zarr").path.path
    for path, code, words in (
        (images, 2, "`nmf-batch report` shows them"),
        (articles[0], 4, "has no factorization 'd7'"),
    ):
        refused = nmf_batch("topics", "--zarr", path, "--name", "d7")
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (code, "", 1)
        assert words in refused.stderr
