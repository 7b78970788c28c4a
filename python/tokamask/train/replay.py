"""The merges of a tokenizer replayed on a corpus: the counter that data-mixture inference needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokamask import _core
from tokamask._core import Tokenizer
from tokamask.errors import CorpusError
from tokamask.train.counts import PretokenCounts
from tokamask.train.progress import Report, reporter


@dataclass(frozen=True)
class Replay:
    """Counts of pairs of tokens through the merges, as changes. Made by :func:`replay_merges`.

    Attributes
    ----------
    pairs : uint32 [p, 2]
        All pairs of ids that are ever adjacent, and those of the merges.
    merges : uint32 [m]
        Which of the pairs each merge is.
    steps : uint32 [d]
        Merges done when a count changed, ascending; 0 for the counts at the start.
    places : uint32 [d]
        Which pair's count changed.
    counts : uint64 [d]
        To what. A pair that was merged counts 0 from then on.

    Examples
    --------
    >>> counts = tm.train.count(["low low lower"])
    >>> tok = tm.train.bpe(counts, vocab_size=258)
    >>> replay = tm.train.replay_merges(tok, counts)
    >>> [int(replay.at(t)[replay.merges[t]]) for t in range(2)]
    [3, 3]

    """

    pairs: npt.NDArray[np.uint32]
    merges: npt.NDArray[np.uint32]
    steps: npt.NDArray[np.uint32]
    places: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint64]

    def at(self, step: int) -> npt.NDArray[np.uint64]:
        """Counts of all pairs, uint64 [p], when ``step`` merges are done."""
        end = int(np.searchsorted(self.steps, step, side="right"))
        now = np.zeros(len(self.pairs), np.uint64)
        now[self.places[:end]] = self.counts[:end]  # of equal places the last one stays
        return now


def replay_merges(tok: Tokenizer, counts: PretokenCounts, *, progress: bool | Report = True) -> Replay:
    """Applies the merges of a byte-level BPE tokenizer to counted pretokens, and counts all pairs at every step.

    The trainer without its choice of the most frequent pair. A merge was chosen because its pair was the most
    frequent in the text that the tokenizer was trained on; what was how frequent in samples of other text at that
    moment tells how much of each the training text held.

    Source: Hayase et al., "Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?", 2024.

    Parameters
    ----------
    tok : Tokenizer
    counts : PretokenCounts
        Counted by the tokenizer's own split rule, without runs.
    progress : bool or function
        As in :func:`bpe`.

    Raises
    ------
    CorpusError
        The counts hold runs.

    Examples
    --------
    >>> counts = tm.train.count(["low low lower"])
    >>> replay = tm.train.replay_merges(tm.train.bpe(counts, vocab_size=258), counts)
    >>> replay.pairs[replay.merges].shape
    (2, 2)

    """
    if counts.has_runs:
        raise CorpusError("merges are replayed on pretokens, and these counts hold runs")
    tell = reporter(progress)
    pairs, merges, steps, places, changed = _core.replay_merges(
        tok, counts.arrays, lambda done: tell("replaying", done, None)
    )
    return Replay(pairs.reshape(-1, 2), merges, steps, places, changed)
