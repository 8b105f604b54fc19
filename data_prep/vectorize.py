"""How words of texts are told apart and weighed: scikit-learn's vectorizers, to the letter.

scikit-learn comes with the extra `text` and is imported where it is used: nothing else here needs it.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.groups import BadInput

COUNTS, TF_IDF = WEIGHTS = ("counts", "tf-idf")
STOP_WORDS = ("english",)
ANALYSIS = {"lowercase": True, "token_pattern": r"(?u)\b\w\w+\b"}
"""What scikit-learn does unless told otherwise, said here so that a later version does the same."""
MISSING = "documents are read by scikit-learn, which is not installed: pip install 'nmf-batch[text]'"


class Counts(NamedTuple):
    """Words of some documents: entries of a matrix with a column for each of them, each (entries,)."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    values: NDArray[np.float64]
    n: int
    """Documents."""


Vectorize = Callable[[Iterable[str]], Counts]
"""Counts the words of texts, of which there is one at least."""


def installed() -> bool:
    """Whether scikit-learn is there."""
    return find_spec("sklearn") is not None


def analyzer(stop_words: str | None) -> Callable[[str], list[str]]:
    """Return what finds the words of a text, in their order."""
    _check_installed()
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(stop_words=stop_words, **ANALYSIS).build_analyzer()


def vectorizer(words: Sequence[str], stop_words: str | None, idf: NDArray[np.float64] | None) -> Vectorize:
    """Return what counts the words of texts; or weighs them, where an idf is given."""
    _check_installed()
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    if idf is None:
        made = CountVectorizer(vocabulary=words, stop_words=stop_words, **ANALYSIS)
    else:
        made = TfidfVectorizer(vocabulary=words, stop_words=stop_words, **ANALYSIS)
        made.idf_ = idf

    def vectorize(texts: Iterable[str]) -> Counts:
        found: Any = made.transform(texts)  # a compressed row for each text
        n = found.shape[0]
        j = np.repeat(np.arange(n), np.diff(found.indptr))
        return Counts(found.indices.astype(np.int64), j, found.data.astype(np.float64), n)

    return vectorize


def idf_of(frequencies: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Smooth inverse document frequency of words that so many of n documents have, rounded as scikit-learn does."""
    return np.log(np.full(len(frequencies), n + 1.0) / (frequencies.astype(np.float64) + 1.0)) + 1.0


def _check_installed() -> None:
    if not installed():
        raise BadInput(MISSING)
