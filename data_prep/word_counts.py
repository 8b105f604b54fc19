"""Which words some documents have, and in how many of them: what decides which are kept."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import vectorize
from data_prep.document_files import Document
from data_prep.groups import BadInput


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where texts are, and what of them is counted; as in scikit-learn where it has the name."""

    text: str | None = None
    """Column, or key, of the text where a file holds several documents."""
    id: str | None = None
    """Column, or key, of the name; the file and the number of the line unless given."""
    weights: str = vectorize.COUNTS
    """`counts`, or `tf-idf`: counts × idf, each document scaled to norm 1."""
    min_df: float = 2
    max_df: float = 0.5
    """Documents that a word must and may be in: an int is their number, a float a share of all."""
    max_features: int | None = None
    """How many words are kept, those with the highest counts."""
    stop_words: str | None = None
    """`english`: leave out what says little there."""

    def __post_init__(self) -> None:
        if self.weights not in vectorize.WEIGHTS:
            raise ValueError(f"weights are {self.weights!r}, but must be {' or '.join(vectorize.WEIGHTS)}")
        if self.stop_words not in (None, *vectorize.STOP_WORDS):
            raise ValueError(f"stop_words are {self.stop_words!r}, but must be {' or '.join(vectorize.STOP_WORDS)}")
        for name in ("min_df", "max_df"):
            value = getattr(self, name)
            if not (value >= 1 if isinstance(value, int) else 0 <= value <= 1):
                raise ValueError(f"{name} is {value}, but must be a number of documents, or a share from 0.0 to 1.0")
        if self.max_features is not None and self.max_features < 1:
            raise ValueError(f"max_features is {self.max_features}, but must be at least 1")

    def made_of(self) -> dict[str, Any]:
        """What a store keeps of it; frequencies as text, since 1 is a document there and 1.0 are all."""
        return {**asdict(self), "min_df": str(self.min_df), "max_df": str(self.max_df), **vectorize.ANALYSIS}


class Kept(NamedTuple):
    """Words that are kept."""

    words: list[str]
    """Sorted, (m,)."""
    idf: NDArray[np.float64] | None
    """What their counts are multiplied with, (m,)."""


class Told:
    """A hash of documents with their names, which tells whether they are the same."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Take a document into it."""
        for text in (document.name, document.text):
            content = text.encode()
            self._hash.update(b"%d:" % len(content) + content)

    def hexdigest(self) -> str:
        """Return it as text."""
        return self._hash.hexdigest()


class Survey:
    """What the first reading finds; memory is the words with two counts each, and the names of the documents."""

    def __init__(self, analyze: Callable[[str], list[str]]) -> None:
        self.names: list[str] = []
        self.told = Told()
        self._analyze = analyze
        self._counts, self._frequencies = Counter[str](), Counter[str]()

    def add(self, document: Document) -> None:
        """Count the words of a document."""
        self.names.append(document.name)
        self.told.add(document)
        words = Counter(self._analyze(document.text))
        self._counts.update(words)
        self._frequencies.update(words.keys())

    def kept(self, settings: Settings) -> Kept:
        """Return the words that scikit-learn keeps; BadInput where there is none."""
        words, n = sorted(self._counts), len(self.names)
        if not words:
            raise BadInput(f"the {n:,} documents have no words of two letters or more, but must have one; name others")
        frequencies = np.array([self._frequencies[word] for word in words])
        least, most = (limit if isinstance(limit, int) else limit * n for limit in (settings.min_df, settings.max_df))
        kept = np.flatnonzero((frequencies >= least) & (frequencies <= most))
        if settings.max_features is not None and len(kept) > settings.max_features:
            counts = np.array([self._counts[words[k]] for k in kept])
            kept = np.sort(kept[(-counts).argsort()[: settings.max_features]])  # of equals, those that it takes
        if not len(kept):
            raise BadInput(
                f"none of {len(words):,} words is in {least:g} to {most:g} of {n:,} documents; "
                f"lower --min-df, or raise --max-df"
            )
        idf = vectorize.idf_of(frequencies[kept], n) if settings.weights == vectorize.TF_IDF else None
        return Kept([words[k] for k in kept], idf)
