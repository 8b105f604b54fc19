"""What components say where rows have names: the top words of each, its share of the collection, its typical documents.

Shares are of masses: component k puts Σ_i w_ik · h_kj into column j, all rows of it together, however W and H share
their scale. A row is called a word and a column a document, though they may be films and people.
"""

from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import store
from pipeline.factors import Factors
from pipeline.kernels import Matrix
from pipeline.labels import names_at

Listed = list[tuple[str, float]]
"""Names, each with a share."""


class Topic(NamedTuple):
    """A component, in words."""

    component: int
    share: float
    """Of all that W H adds up to."""
    words: Listed
    """The heaviest first, with their share of the topic: w_ik / Σ_i w_ik."""
    documents: Listed
    """The most typical first, with the share of each that the topic has."""


class _Typical(NamedTuple):
    """The most typical columns of each component so far, (d, k), the most typical first."""

    columns: NDArray[np.int64]
    scores: NDArray[np.float64]
    shares: NDArray[np.float64]

    def of(self, k: int) -> list[tuple[int, float]]:
        """Columns of one component that it has a share of, each with that."""
        return [(int(j), float(share)) for j, share in zip(self.columns[k], self.shares[k], strict=True) if share > 0]


def find_topics(factors: Factors, top: int = 10, documents: int = 3) -> list[Topic]:
    """Describe each component by its words and documents, the largest share of the collection first.

    Typical are documents that hold much of a topic and little else: they are ordered by the topic's amount in the
    document times its share of the document. By share alone a document of two words that is wholly of the topic would
    come first, by amount alone a very long one that is a little of everything. Of equals the first column comes first.

    H is read a chunk at a time, and of the names only the chunks that hold what is listed.

    Parameters
    ----------
    factors
        The factorization.
    top, documents
        How many words and documents of each topic at most: those that the topic has nothing of are not listed. A
        component that puts nothing into any document has share 0, neither words nor documents, and comes last.
    """
    W, matrix = factors.read("W"), store.open_matrix(factors.home)
    sums = W.sum(axis=0, dtype=np.float64)
    shares, typical = _survey(factors, sums, documents)
    order = [int(k) for k in np.argsort(-shares, kind="stable")]
    rows = {k: _heaviest(W[:, k], top) if shares[k] > 0 else [] for k in order}
    words = names_at(matrix, "feature", chain.from_iterable(rows.values()))
    items = names_at(matrix, "item", typical.columns[typical.shares > 0].tolist())
    return [
        Topic(
            component=k,
            share=float(shares[k]),
            words=[(words[i], float(W[i, k] / sums[k])) for i in rows[k]],
            documents=[(items[j], share) for j, share in typical.of(k)],
        )
        for k in order
    ]


def _survey(factors: Factors, sums: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], _Typical]:
    """Share of each component in all that W H adds up to, (d,), and its k most typical columns, in one pass over H."""
    d = len(sums)
    totals, typical = np.zeros(d), _Typical(np.zeros((d, 0), np.int64), np.zeros((d, 0)), np.zeros((d, 0)))
    for span, H in factors.chunks_of_H():
        amounts = sums[:, np.newaxis] * H
        totals += amounts.sum(axis=1)
        typical = _first(typical, _scored(amounts, span), k)
    return np.divide(totals, totals.sum(), out=np.zeros(d), where=totals > 0), typical


def _scored(amounts: NDArray[np.float64], span: slice) -> _Typical:
    """Columns of a chunk with their scores and shares, of amounts (d, c)."""
    # Added row by row: `sum` adds a chunk of one column in another order, and equal columns would differ in a bit.
    in_column = np.add.accumulate(amounts, axis=0)[-1]
    shares = np.divide(amounts, in_column, out=np.zeros_like(amounts), where=in_column > 0)
    return _Typical(np.broadcast_to(np.arange(span.start, span.stop), shares.shape), amounts * shares, shares)


def _first(typical: _Typical, more: _Typical, k: int) -> _Typical:
    """First k by score of two; a stable sort, so of equals the first column stays first."""
    scores = np.hstack([typical.scores, more.scores])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return _Typical(
        columns=np.take_along_axis(np.hstack([typical.columns, more.columns]), order, axis=1),
        scores=np.take_along_axis(scores, order, axis=1),
        shares=np.take_along_axis(np.hstack([typical.shares, more.shares]), order, axis=1),
    )


def _heaviest(w: Matrix, top: int) -> list[int]:
    """Rows of the largest weights in a column of W, the largest first; none that is zero."""
    return [int(i) for i in np.argsort(-w, kind="stable")[:top] if w[i] > 0]
