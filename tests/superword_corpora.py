"""Corpora for the trainers of superwords, and their runs as Python objects."""

import itertools

from hypothesis import strategies as st


def runs_of(counts):
    """Runs and single pretokens, as tuples of bytes with their counts."""
    words = [word for word, _ in counts.items()]
    alone = dict(counts.items())
    runs = {}
    for (start, end), count in zip(
        itertools.pairwise(counts.run_offsets.tolist()), counts.run_counts.tolist(), strict=True
    ):
        run = tuple(words[word] for word in counts.run_words[start:end])
        runs[run] = count
        for word in run:
            alone[word] -= count
    return runs | {(word,): count for word, count in alone.items() if count}


lines = st.text(st.sampled_from("aab   cé日.:,-1\n"), max_size=30)
phrases = st.lists(
    st.sampled_from(["of the", "in", " the", "way", ":", " -", "\n", " 12345", "a", "  "]), max_size=12
)
corpora = st.lists(lines | phrases.map("".join), min_size=1, max_size=10)
