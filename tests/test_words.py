"""Documents become the matrices that scikit-learn makes of them; new ones are read as those were."""

import csv
import gzip
import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from data_prep import document_files, store, vectorize, words
from data_prep.batches import batches
from data_prep.document_files import Fields
from data_prep.documents import documents, parts
from data_prep.images import StoreDiffers
from data_prep.word_counts import Settings
from data_prep.words import prepare_words
from tests.commands import nmf_batch

ALL = {"min_df": 1, "max_df": 1.0}
TEXTS = [
    "The cat sat on the mat",
    "the DOG sat",
    "",
    "a cat and a dog; a Straße",
    "cat cat cat cat",
    "naïve dog's\0mat",
]


@pytest.fixture(scope="module")
def corpus():
    """60 texts of 80 words, some of which are common and some rare."""
    rng = np.random.default_rng(20261122)
    names = [f"w{k:02}" for k in range(77)] + ["the", "and", "of"]
    shares = 1 / np.arange(1, 81)
    return [" ".join(rng.choice(names, rng.integers(0, 30), p=shares / shares.sum())) for _ in range(60)]


@pytest.fixture
def saved(tmp_path):
    """Saves texts as rows, lines or files; returns the source, the names and the settings that find them."""

    def saved(texts, form="rows", folder="t"):
        home = tmp_path / folder
        home.mkdir()
        names = [f"d/{k:03}.txt" for k in range(len(texts))]
        if form == "files":
            (home / "d").mkdir()
            for name, text in zip(names, texts, strict=True):
                (home / name).write_text(text, encoding="utf-8")
            return home, names, {}
        file = home / {"rows": "t.csv", "tabs": "t.tsv.gz", "lines": "t.jsonl"}[form]
        with (gzip.open if file.suffix == ".gz" else open)(file, "wt", encoding="utf-8", newline="") as opened:
            if form == "lines":
                opened.writelines(json.dumps({"no": k, "body": t}) + "\n\n" for k, t in zip(names, texts, strict=True))
            else:
                table = csv.writer(opened, delimiter="\t" if form == "tabs" else ",")
                table.writerows([["no", "body"], *zip(names, texts, strict=True)])
        return file, names, {"text": "body", "id": "no"}

    return saved


@pytest.fixture
def prepared(saved, tmp_path, small_chunks):
    """Prepares texts; returns the path of the store."""

    def prepared(texts, form="rows", zarr="w.zarr", **options):
        source, _, fields = saved(texts, form, f"of {zarr}")
        return prepare_words([source], tmp_path / zarr, Settings(**fields, **options)).path

    return prepared


def values(path):
    return store.open_array(path, "A")[...]


OPTIONS = {
    "defaults": {},
    "all": ALL,
    "shares": {"min_df": 0.05, "max_df": 40},
    "few": {**ALL, "max_features": 7},
    "few of equals": {**ALL, "max_features": 60},
    "stop words": {**ALL, "stop_words": "english"},
}


@pytest.mark.parametrize("weights", ["counts", "tf-idf"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_matrix_is_that_of_scikit_learn(prepared, corpus, monkeypatch, options, weights):
    monkeypatch.setattr(words, "TOGETHER", 7)
    path = prepared(corpus, weights=weights, **options)
    kind = CountVectorizer if weights == "counts" else TfidfVectorizer
    oracle = kind(**{"min_df": 2, "max_df": 0.5, **options})
    expected = oracle.fit_transform(corpus).T.toarray()
    assert store.read_array(path, "feature").tolist() == oracle.get_feature_names_out().tolist()
    np.testing.assert_array_equal(values(path), expected.astype(np.float32))
    if weights == "tf-idf":
        np.testing.assert_array_equal(store.read_array(path, "idf"), oracle.idf_)


@pytest.mark.parametrize("form", ["tabs", "lines", "files"])
def test_the_matrix_does_not_depend_on_how_documents_are_saved(prepared, form):
    path, other = prepared(TEXTS, **ALL), prepared(TEXTS, form, "o.zarr", **ALL)
    assert store.open_matrix(other).fingerprint == store.open_matrix(path).fingerprint
    for name in ("feature", "item"):
        assert store.read_array(other, name).tolist() == store.read_array(path, name).tolist()


def test_a_store_says_what_it_holds(prepared):
    matrix = store.open_matrix(prepared(TEXTS, **ALL))
    assert (matrix.attributes["kind"], matrix.dtype, matrix.shape[1], matrix.n_ok) == ("words", np.uint8, 6, 6)
    assert (matrix.attributes["n_wordless"], matrix.n_present) == (1, None)
    assert {"feature", "item"} < matrix.attributes["digests"].keys()


def named(source):
    return [(one.name, one.text) for one in documents([source], Fields("body", None))]


def test_files_are_sorted_by_the_bytes_of_their_names_below_the_folder(tmp_path):
    for name in ("b.txt", "a/z.md", "a.txt", "a/é", ".hidden", ".git/x"):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / name).write_bytes(b"\xef\xbb\xbfab \xff cd")
    assert named(tmp_path / "t") == [(name, "ab � cd") for name in ("a.txt", "a/z.md", "a/é", "b.txt")]


def test_rows_and_lines_are_named_by_where_they_stand(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfbody,x\r\n"two\r\nlines",1\r\n\r\n"says ""so""",2\r\n')
    assert named(tmp_path / "t.csv") == [("t.csv:2", "two\r\nlines"), ("t.csv:5", 'says "so"')]
    (tmp_path / "t.jsonl").write_text('{"body": "one \\ud800"}\n\n{"body": "two"}')
    assert named(tmp_path / "t.jsonl") == [("t.jsonl:1", "one ?"), ("t.jsonl:3", "two")]


@pytest.mark.parametrize("form", ["rows", "tabs", "lines", "files"])
def test_parts_are_the_documents_a_few_at_a_time(saved, form):
    source, names, fields = saved([f"{text}\nmore" for text in TEXTS], form)
    fields = Fields(**{"text": None, "id": None, **fields})
    found = [list(part) for part in parts([source], fields, 4)]
    assert [len(part) for part in parts([source], fields, 4)] == [4, 2]
    assert [one for part in found for one in part] == list(documents([source], fields))
    assert [one.name for part in found for one in part] == names


WRONG = {
    "no such column": ("t.csv", b"text\na b\n", r"t\.csv has no column 'body', but 'text'; name one"),
    "a column twice": ("t.csv", b"body,body\na,b\n", "more than one column 'body'"),
    "an empty table": ("t.csv", b"", "no column 'body', but nothing"),
    "fields": ("t.csv", b"body,x\na,1\nb\n", r"t\.csv, line 3 has 1 fields, but the header has 2"),
    "an open quote": ("t.csv", b'body\n"a b\nc\n', r"t\.csv, line 2 cannot be read as CSV"),
    "no object": ("t.jsonl", b'{"body": "a b"}\n["a"]\n', r"t\.jsonl, line 2 must be a JSON object with text"),
    "no key": ("t.json", b'{"text": "a b"}\n', r"t\.json, line 1 must be a JSON object with text as 'body'"),
    "no text": ("t.ndjson", b'{"body": 7}\n', "line 1 must be a JSON object with text"),
    "no JSON": ("t.jsonl", b"[" * 100_000, "line 1 must be a JSON object with text"),
    "cut off": ("t.txt.gz", gzip.compress(b"a b " * 99)[:-9], r"t\.txt\.gz is damaged or cut off"),
    "no words": ("t.txt", b"", "have no words of two letters or more"),
    "rare words": ("t.txt", b"one two", "none of 2 words is in 2 to 0.5 of 1 documents"),
    "large text": ("t.txt", b"a " * 600, r"t\.txt is larger than .* MiB, but must be one document"),
    "large row": ("t.csv", b"body\n" + b"a " * 600, r"t\.csv, line 2 is larger than"),
    "rows that are large together": ("t.csv", b'body\n"' + b"a\n" * 600 + b'"\n', r"t\.csv, line 2 is larger than"),
    "large line": ("t.jsonl", b'{"body": "' + b"a " * 600, r"t\.jsonl, line 1 is larger than"),
}


@pytest.mark.parametrize(("name", "raw", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_and_leaves_nothing(tmp_path, monkeypatch, name, raw, said):
    if "large" in said:
        monkeypatch.setattr(document_files, "MOST_NBYTES", 1000)
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(store.BadInput, match=said) as error:
        prepare_words([tmp_path / name], tmp_path / "w.zarr", Settings(text="body"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "w.zarr").exists()


def test_sources_that_are_no_documents_are_named(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t.csv").write_text("a\nb\n")
    for name, said in (("gone", "is not there"), ("t", "without files"), ("t.csv", "no --text says which column")):
        with pytest.raises(store.BadInput, match=f"{tmp_path / name} .*{said}"):
            list(documents([tmp_path / name], Fields(None, None)))


def test_a_field_may_be_longer_than_pythons_csv_module_allows(tmp_path):
    (tmp_path / "t.csv").write_text(f"body\n{'word ' * 50_000}\n")
    assert len(named(tmp_path / "t.csv")[0][1]) == 250_000


def test_documents_that_change_between_the_readings_are_noticed(prepared, tmp_path, monkeypatch):
    begin, file = store.begin, tmp_path / "of w.zarr" / "t.csv"
    monkeypatch.setattr(store, "begin", lambda *a, **k: (begin(*a, **k), file.write_text("no,body\nx,cat dog\n")))
    with pytest.raises(store.BadInput, match=r"t\.csv changed while being read"):
        prepared(TEXTS)
    assert not (tmp_path / "w.zarr").exists()


def test_other_documents_or_options_are_refused_and_the_same_are_nothing_new(prepared, saved, tmp_path):
    path = prepared(TEXTS)
    source, _, fields = saved(TEXTS, "lines", "again")
    assert not prepare_words([source], path, Settings(**fields)).new
    with pytest.raises(StoreDiffers, match=r"max_df: 0\.5 → 1\.0\); choose another --zarr"):
        prepare_words([source], path, Settings(**fields, max_df=1.0))
    source, _, fields = saved(TEXTS[1:], "rows", "fewer")
    with pytest.raises(StoreDiffers, match="the documents have other names or another content"):
        prepare_words([source], path, Settings(**fields))


@pytest.mark.parametrize("weights", ["counts", "tf-idf"])
def test_new_documents_are_counted_as_those_of_the_store(prepared, saved, corpus, weights):
    matrix = store.open_matrix(prepared(corpus, weights=weights, stop_words="english"))
    new = [*corpus[7:30], "w03 " * 300 + "unheard of"]
    source, names, _ = saved(new, "lines", "new")
    found = [batch() for batch in batches(matrix, [str(source)])]
    kind = CountVectorizer if weights == "counts" else TfidfVectorizer
    oracle = kind(min_df=2, max_df=0.5, stop_words="english").fit(corpus)
    expected = oracle.transform(new).T.toarray().astype(np.float32)
    np.testing.assert_array_equal(np.hstack([one.columns for one in found]), expected)
    assert [name for one in found for name in one.names] == names


def test_matrices_take_stores_alone(tmp_path, saved):
    from data_prep.arrays import write_matrix

    write_matrix(tmp_path / "a.zarr", np.ones((3, 4)))
    with pytest.raises(store.BadInput, match=r"does not hold images or words \(kind: matrix\); give a store"):
        batches(store.open_matrix(tmp_path / "a.zarr"), [str(saved(TEXTS)[0])])


def test_a_document_of_the_collection_finds_itself(saved, corpus, tmp_path):
    source, names, _ = saved(corpus, "files")
    at = ("--zarr", tmp_path / "w.zarr")
    assert nmf_batch("prep-text", source, *at)[0] == 0
    assert nmf_batch("run", *at, "-d", 4, "--solver", "hals", "--tol", 1e-7, "--name", "t")[0] == 0
    code, out, _ = nmf_batch("match", source / names[5], *at, "--name", "t", "--top", 2, "--json")
    best = json.loads(out)["matches"][0]
    assert (code, best["image"], round(best["score"], 4)) == (0, names[5], 1.0)
    code, out, _ = nmf_batch("transform", source / names[5], *at, "--name", "t", "--out", "-")
    assert (code, out.splitlines()[1].split(",")[0]) == (0, '"005.txt"')


def test_a_document_that_cannot_be_read_has_its_reason(saved, corpus, tmp_path, monkeypatch):
    source, names, _ = saved(corpus, "files")
    at = ("--zarr", tmp_path / "w.zarr")
    nmf_batch("prep-text", source, *at)
    nmf_batch("run", *at, "-d", 2, "--max-iter", 3)
    monkeypatch.setattr(document_files, "MOST_NBYTES", 1000)
    (tmp_path / "large.txt").write_text("w01 " * 500)
    code, out, err = nmf_batch(
        "transform", tmp_path / "large.txt", source / names[0], *at, "--name", "d2", "--out", "-"
    )
    assert (code, out.count("\n"), "unreadable: large.txt:" in err) == (3, 2, True)


def test_the_command_says_what_it_made_and_mistakes_have_their_exit_codes(saved, tmp_path, monkeypatch):
    source, _, _ = saved(TEXTS)
    prep = ("prep-text", source, "--text", "body", "--max-df", "100%", "--zarr", tmp_path / "w.zarr")
    said = f"{tmp_path}/w.zarr: 5 words × 6 documents, 1 of them without any, 40 % other than 0"
    assert nmf_batch(*prep) == (0, f"{said}\n", "")
    code, out, _ = nmf_batch(*prep, "--json")
    told = {"new": False, "shape": [5, 6], "n_nonzero": 12, "n_wordless": 1}
    assert (code, json.loads(out)) == (0, {"zarr": f"{tmp_path}/w.zarr", **told})
    assert nmf_batch(*prep, "--min-df", 3)[0] == 5
    assert nmf_batch(*prep, "--min-df", "-1")[0] == 2
    assert nmf_batch(*prep, "--text", "title", "--zarr", tmp_path / "o.zarr")[0] == 4
    monkeypatch.setattr(vectorize, "installed", lambda: False)
    code, _, err = nmf_batch(*prep)
    assert (code, "pip install 'nmf-batch[text]'" in err, err.count("\n")) == (2, True, 1)
