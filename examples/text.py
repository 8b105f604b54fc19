"""Topics of documents of which only word counts are known, in the divergence, which suits counts.

    python examples/text.py docs_x_words.npz --vocabulary words.txt --out words.zarr -d 20

The file is what `scipy.sparse.save_npz` writes, a row a document; the vocabulary has a word a line.
"""

from pathlib import Path

import click
import numpy as np

from data_prep.matrices import prepare_matrix
from pipeline import factorize
from pipeline.match import dominant
from pipeline.topics import find_topics


@click.command()
@click.argument("counts", type=click.Path(exists=True))
@click.option("--vocabulary", type=click.Path(exists=True), required=True, help="File with a word a line.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Store to make.")
@click.option("-d", "d", default=20, show_default=True)
def main(counts: str, vocabulary: str, out: Path, d: int) -> None:
    """Factorize the counts, and print what each topic is about, the largest first."""
    prepare_matrix(counts, out, vocabulary, transpose=True)
    factors = factorize(out, d, loss="kullback-leibler").factors
    print(f"divergence, of what the mean document leaves: {factors.attributes['relative_error']:.4f}")
    mainly = np.bincount(dominant(factors) + 1, minlength=d + 1)[1:]  # −1 is a document without any of these words
    for topic in find_topics(factors, top=8, documents=2):
        words, typical = ([name for name, _ in listed] for listed in (topic.words, topic.documents))
        print(f"topic {topic.component}, {topic.share:.1%} of all words: {', '.join(words)}")
        print(f"  main topic of {mainly[topic.component]} documents, such as {', '.join(typical)}")


if __name__ == "__main__":
    main()
