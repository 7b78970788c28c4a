"""Proposing and learning, one request after another: the time of a step's propose and update at 32 nodes.

The text is generated from a seed: paragraphs that repeat earlier ones with changes, as edits and answers do. How many tokens
the methods save on recorded outputs is not a matter of time: ``tokamask draft --replay traces.jsonl --all`` prints that.
"""

import numpy as np
import pytest

from bench.rivals import contestants

STEPS = 400


def requests(turn):
    """Texts that share phrases with one another and with themselves."""
    rng = np.random.default_rng(turn)
    phrases = [rng.zipf(1.4, rng.integers(3, 12)) % 20_000 for _ in range(200)]
    return [
        np.concatenate([phrases[i] for i in rng.zipf(1.3, 150) % 200]).astype(np.uint32) for _ in range(8)
    ]


@pytest.mark.parametrize("contestant", contestants("draft"))
def test_draft(measure, contestant, turn):
    serve = contestant.draft()
    texts = requests(turn)
    serve(texts, STEPS)  # warm: the store has seen other requests
    texts = requests(turn + 100)
    measure(
        lambda: serve(texts, STEPS), work=STEPS, unit="us", input="repetitive text, 32 nodes", headline=True
    )
