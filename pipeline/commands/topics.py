"""nmf-batch topics: the words and documents of each component."""

import json
import shutil
import textwrap
from collections.abc import Iterable

import click

from data_prep.folders import Folder
from data_prep.store import open_matrix
from pipeline.commands import options
from pipeline.factors import open_factors
from pipeline.topics import Topic, find_topics

WIDEST = 120
"""Longer lines are hard to read, however wide the terminal."""
KEPT = "\N{NO-BREAK SPACE}"
"""Between what is not to be torn apart at the end of a line."""


@click.command(context_settings=options.CONTEXT)
@options.zarr
@options.factorization
@click.option("--top", type=click.IntRange(min=1), default=10, help="How many words of each topic.")
@click.option("--documents", type=click.IntRange(min=0), default=3, help="How many documents of each topic.")
@options.as_json
def topics(path: Folder, name: str, top: int, documents: int, as_json: bool) -> None:
    """List what each component of named rows is about: top words, share of the collection, typical documents.

    A word comes with its share of the topic, a document with the topic's share of the document. Typical are documents
    that hold much of a topic and little else. Rows and columns without names are told by their numbers.

    \b
    Example:
      nmf-batch topics --zarr words.zarr --name d20 --top 8
    """
    if "image_shape" in open_matrix(path).attributes:
        raise click.UsageError(
            f"topics lists rows by name, but {path} holds images, whose rows are pixels; `nmf-batch report` shows them"
        )
    for topic in find_topics(open_factors(path, name), top, documents):
        options.say(_json(topic) if as_json else _text(topic))


def _json(topic: Topic) -> str:
    words = [{"word": word, "weight": weight} for word, weight in topic.words]
    documents = [{"document": document, "share": share} for document, share in topic.documents]
    return json.dumps({"topic": topic.component, "share": topic.share, "words": words, "documents": documents})


def _text(topic: Topic) -> str:
    headline = f"topic {topic.component} · {100 * topic.share:.1f} % of the collection"
    words = _wrapped("", (f"{word} {weight:.2g}" for word, weight in topic.words))
    documents = _wrapped("typical: ", (f"{document} ({100 * share:.0f} %)" for document, share in topic.documents))
    return "\n".join([headline, *words, *documents])


def _wrapped(label: str, entries: Iterable[str]) -> list[str]:
    """Lines of entries, none of them torn apart; no line where there are no entries."""
    text = ", ".join(entry.replace(" ", KEPT) for entry in entries)
    lines = textwrap.wrap(
        label + text,
        width=min(WIDEST, shutil.get_terminal_size().columns),
        initial_indent="  ",
        subsequent_indent=" " * (2 + len(label)),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(KEPT, " ") for line in lines] if text else []
