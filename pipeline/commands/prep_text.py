"""nmf-batch prep-text: documents in, how often each word is in each of them out."""

import json
from typing import Any

import click

from data_prep import vectorize
from data_prep.folders import Folder
from data_prep.made_of import Prepared
from data_prep.word_counts import Settings
from data_prep.words import prepare_words
from pipeline.commands import options, progress, values
from pipeline.commands.signals import safe_point


class Frequency(click.ParamType[float]):
    """A number of documents, 2, or a share of all, 0.5 or 50%."""

    name = "number|share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; whole numbers are numbers of documents."""
        text = str(value).strip()
        return int(text) if text.isdecimal() and len(text) < 10 else values.Share().convert(value, param, ctx)


@click.command("prep-text", context_settings=options.CONTEXT)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@options.zarr
@click.option("--text", help="Column, or key, of the text in CSV files and JSON lines.")
@click.option("--id", help="Column, or key, of the names of documents there; file and line unless given.")
@click.option(
    "--weights",
    type=click.Choice(vectorize.WEIGHTS),
    default=Settings.weights,
    help="tf-idf: counts × (1 + log((1 + n) / (1 + documents with the word))), each document scaled to norm 1.",
)
@click.option("--min-df", type=Frequency(), default=Settings.min_df, help="Documents that a word must be in.")
@click.option("--max-df", type=Frequency(), default=Settings.max_df, help="Documents that a word may be in: 50%.")
@click.option("--max-features", type=click.IntRange(min=1), help="Words at most, those with the highest counts.")
@click.option("--stop-words", type=click.Choice(vectorize.STOP_WORDS), help="Leave out words that say little.")
@options.as_json
def prep_text(sources: tuple[str, ...], path: Folder, as_json: bool, **given: Any) -> int:
    """Turn documents into the matrix A (m, n) of a store: how often word i is in document j.

    SOURCES are text files, a document each; folders of such; CSV, TSV or JSON lines files, a document a row or line;
    each also as .gz. Words are told apart, kept and weighed as scikit-learn's CountVectorizer and TfidfVectorizer do,
    with a whole number or a share for --min-df and --max-df. Run again, the same command does nothing.

    \b
    Example:
      nmf-batch prep-text articles/ --weights tf-idf --stop-words english --zarr words.zarr
    """
    if not vectorize.installed():
        raise click.UsageError(vectorize.MISSING)
    with options.as_usage_error():
        settings = Settings(**given)
    shown = progress.Progress("document")
    with safe_point():
        prepared = prepare_words(sources, path, settings, shown)
    shown.close()
    options.say(json.dumps(_summary(prepared)) if as_json else _text(prepared))
    return 0


def _summary(prepared: Prepared) -> dict[str, Any]:
    about = {name: prepared.attributes[name] for name in ("shape", "n_nonzero", "n_wordless")}
    return {"zarr": str(prepared.path), "new": prepared.new, **about}


def _text(prepared: Prepared) -> str:
    about = prepared.attributes
    (m, n), wordless = about["shape"], about["n_wordless"]
    without = f", {wordless:,} of them without any" if wordless else ""
    share = 100 * about["n_nonzero"] / (m * n)
    again = "" if prepared.new else " (nothing new)"
    return f"{prepared.path}: {m:,} words × {n:,} documents{without}, {share:.3g} % other than 0{again}"
