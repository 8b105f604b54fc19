"""The text job: documents in, a matrix A (m, n) of how often word i is in document j out.

The documents are read twice. The first time, the documents that have a word are counted for each, which tells which
words are kept; the second time, the words of each document are counted or weighed. What is held is the words with
their counts, the names of the documents, some documents, and one chunk of A.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from data_prep import store, vectorize
from data_prep.dense import Entries, nothing, write_summed
from data_prep.document_files import Document, Fields
from data_prep.documents import Sources, documents
from data_prep.folders import Folder, Where, folder
from data_prep.made_of import Prepared, prepare, prepared_before
from data_prep.matrix_store import EXPENDABLE
from data_prep.vectorize import Vectorize
from data_prep.word_counts import Settings, Survey, Told

TOGETHER, LETTERS_TOGETHER = 2**10, 2**24
"""Documents, and characters of them, that are counted at once."""
CONTENTS = {"documents": "the documents have other names or another content"}


def prepare_words(
    sources: Sources, path: Where, settings: Settings, on_progress: Callable[[int, int], None] = nothing
) -> Prepared:
    """Turn documents into a store: a row for each word that is kept, a column for each document.

    Parameters
    ----------
    sources
        Text files, folders of such, CSV files and JSON lines of this machine, in the order of the columns.
    path
        The store to make. One that holds just this is left alone.
    settings
        Where the texts are, and which words are kept.
    on_progress
        Called with the number of columns of A that are written and of all.

    Raises
    ------
    BadInput
        A source is missing or no such file, a document is too large, no word is left, or the path is taken.
    StoreDiffers
        The store was made from other documents, or with other options.
    """
    home, fields = folder(path), Fields(settings.text, settings.id)
    if store.group_attributes(home).get("status") == "complete":
        return _again(home, documents(sources, fields), settings)
    store.check_vacant(home, expendable=EXPENDABLE)
    survey = Survey(vectorize.analyzer(settings.stop_words))
    for document in documents(sources, fields):
        survey.add(document)
    made_of = {**settings.made_of(), "documents": survey.told.hexdigest()}
    write = _Writing(home, sources, settings, survey, on_progress)
    return Prepared(home, prepare(home, made_of, write), new=True)


def _again(home: Folder, found: Iterable[Document], settings: Settings) -> Prepared:
    """Return what a complete store holds, where it was made of just this."""
    told = Told()
    for document in found:
        told.add(document)
    made_of = {**settings.made_of(), "documents": told.hexdigest()}
    before = prepared_before(home, "words", made_of, CONTENTS)
    assert before is not None
    return Prepared(home, before, new=False)


@dataclass(frozen=True)
class _Writing:
    """The second reading."""

    home: Folder
    sources: Sources
    settings: Settings
    survey: Survey
    on_progress: Callable[[int, int], None]

    def __call__(self) -> dict[str, Any]:
        """Write A; returns the attributes to publish. BadInput where the documents are not what they were."""
        kept, names = self.survey.kept(self.settings), self.survey.names
        about = {"kind": "words", "shape": (len(kept.words), len(names)), "features": kept.words, "items": names}
        counts = _Counts(documents(self.sources, Fields(self.settings.text, self.settings.id)))
        count = vectorize.vectorizer(kept.words, self.settings.stop_words, kept.idf)
        attributes = write_summed(self.home, {**about, "idf": kept.idf}, counts.entries(count), self.on_progress)
        if counts.told.hexdigest() != self.survey.told.hexdigest():
            named = ", ".join(map(str, self.sources))
            raise store.BadInput(f"{named} changed while being read; run the same command again")
        return {**attributes, "n_wordless": counts.n_wordless}


class _Counts:
    """Documents on their way into a matrix."""

    def __init__(self, found: Iterator[Document]) -> None:
        self._documents = found
        self.told, self.n_wordless = Told(), 0

    def entries(self, count: Vectorize) -> Iterator[Entries]:
        """Entries of the matrix, those of some documents at a time."""
        n = 0
        for document in self._documents:
            found = count(self._texts(document))
            yield Entries(found.i, n + found.j, found.values)
            n += found.n
            self.n_wordless += found.n - len(np.unique(found.j))

    def _texts(self, document: Document) -> Iterator[str]:
        """Texts of that document and some after it."""
        letters = 0
        for k, one in enumerate(chain([document], self._documents), 1):
            self.told.add(one)
            yield one.text
            letters += len(one.text)
            if k >= TOGETHER or letters >= LETTERS_TOGETHER:
                return


@lru_cache(maxsize=2)
def stored_vectorizer(path: str, fingerprint: str) -> Vectorize:
    """Return what counts words as it was done for the store of that fingerprint."""
    matrix = store.open_matrix(path)
    if matrix.fingerprint != fingerprint:
        raise store.BadInput(f"{path} was made anew meanwhile; run the same command again")
    words = store.read_array(path, "feature").tolist()
    idf = store.read_array(path, "idf") if (folder(path) / "idf").exists() else None
    return vectorize.vectorizer(words, matrix.attributes["prep"]["stop_words"], idf)
