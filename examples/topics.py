"""Twenty-four sentences on three subjects: three components of their counts of words find which is about what."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from data_prep.arrays import write_matrix
from pipeline import factorize
from pipeline.match import dominant
from pipeline.topics import find_topics

SENTENCES = {
    "kitchen": """
        Stir the flour and the butter into the warm milk.
        Bread needs flour, water, salt and a hot oven.
        Melt butter in the pan before the onions go in.
        Salt the water before the pasta goes into the pot.
        Bake the bread in a hot oven until the crust is brown.
        A soup of onions wants butter, salt and a deep pot.
        Knead flour and water, and let the dough rest.
        Brush the dough with milk and put it into the oven.
    """,
    "sea": """
        The boat left the harbour under full sail.
        Waves broke over the deck when the wind rose.
        A captain reads the wind before the waves.
        The crew lowered the sail as the storm came near.
        In the harbour the boat lay safe from the storm.
        The captain steered the boat between the waves.
        The crew washed the deck and mended the sail.
        Wind and storm kept the crew in the harbour.
    """,
    "music": """
        The violin took the melody from the piano.
        An orchestra tunes to the note of the oboe.
        The choir sang the melody, and the piano followed.
        The conductor raised a hand, and the orchestra began.
        Each violin of the orchestra held one long note.
        The conductor let the choir sing the last note alone.
        A melody for violin and piano opened the concert.
        Choir and orchestra shared the stage of the concert.
    """,
}
COMMON = {"and", "before", "from", "into", "let", "the"}
"""Words that say nothing of a subject."""


def counted(sentences: list[str]) -> tuple[list[str], np.ndarray]:
    """Words of two sentences or more, but for common ones, and how often each is in each sentence."""
    counters = [Counter(re.findall(r"[a-z]{3,}", sentence.lower())) for sentence in sentences]
    found_in = Counter(word for counter in counters for word in counter)
    words = sorted(word for word, times in found_in.items() if times > 1 and word not in COMMON)
    return words, np.array([[counter[word] for counter in counters] for word in words])


def main() -> None:
    """Factorize the counts, and print each topic with its sentences."""
    subjects = {subject: text.strip().splitlines() for subject, text in SENTENCES.items()}
    items = [f"{subject} {k}" for subject, lines in subjects.items() for k in range(1, len(lines) + 1)]
    words, counts = counted([line for lines in subjects.values() for line in lines])
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "words.zarr"
        write_matrix(store, counts, features=words, items=items)
        factors = factorize(store, 3, loss="kullback-leibler").factors
        topics, components = find_topics(factors, top=5), dominant(factors)
    for topic in topics:
        print(f"topic {topic.component}, {topic.share:.0%}: {', '.join(word for word, _ in topic.words)}")
        print(f"  {', '.join(item for item, k in zip(items, components, strict=True) if k == topic.component)}")


if __name__ == "__main__":
    main()
