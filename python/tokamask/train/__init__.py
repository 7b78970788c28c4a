"""Training tokenizers: count pretokens once, in shards if need be, then learn from the counts.

>>> counts = tm.train.count([Path("a.txt"), Path("b.txt")])
>>> tok = tm.train.bpe(counts, vocab_size=32_000, special_tokens=["<|endoftext|>"])

Counts of shards add up (``a + b``) to exactly the counts of the whole, so the counting can run on any
number of machines and the learning on one; the merges do not depend on how the text was sharded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tokamask import _core
from tokamask._core import Tokenizer
from tokamask.errors import CorpusError
from tokamask.train.corpus import Source
from tokamask.train.counting import count, counted
from tokamask.train.counts import PretokenCounts
from tokamask.train.models import unigram, wordlevel, wordpiece
from tokamask.train.progress import Report, reporter
from tokamask.train.replay import Replay, replay_merges
from tokamask.train.report import report
from tokamask.train.rules import Component, characters, components, digit_groups, triads

__all__ = [
    "PretokenCounts",
    "Replay",
    "boundless",
    "bpe",
    "characters",
    "count",
    "digit_groups",
    "extend",
    "replay_merges",
    "report",
    "superbpe",
    "triads",
    "unigram",
    "wordlevel",
    "wordpiece",
]

ALL_BYTES = bytes(range(256))
Learnt: TypeAlias = tuple[Tokenizer, npt.NDArray[np.uint32], list[bytes]]
"""A tokenizer, its merges (pairs of ids) and the bytes of its tokens."""
NO_RUNS = "superwords are learnt from runs, and these counts hold none: count(..., runs=True)"


def bpe(
    source: PretokenCounts | Source,
    *,
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 0,
    max_token_length: int | None = None,
    initial_alphabet: Iterable[int] = ALL_BYTES,
    pre_tokenizer: str | Component | object = "gpt2",
    progress: bool | Report = True,
) -> Tokenizer:
    """Byte-level BPE: merges and vocabulary byte for byte those of HF ``tokenizers``' ``BpeTrainer``.

    The pair with the highest count is merged first, of equals the one with the smaller ids. Ids:
    special tokens in the order given, then the alphabet in the order of its printable characters, then
    one id per merge. Counts are 64-bit, where HF's overflow at 2**31.

    Parameters
    ----------
    source : PretokenCounts, paths or texts
        What :func:`count` takes, or what it returned.
    vocab_size : int
        Size of the vocabulary, special tokens and alphabet included. Fewer if no pair is left.
    special_tokens : sequence of str
        Never produced by merging text; they get the first ids.
    min_frequency : int
        A pair below this count is not merged.
    max_token_length : int, optional
        As in HF: two tokens that reach this length (in bytes) together are no pair, but pairs of the
        text's own bytes are.
    initial_alphabet : iterable of int
        Bytes that have an id whether or not they occur.
    pre_tokenizer : str, component or HF object
        Only if the source has yet to be counted.
    progress : bool or function
        A bar on a terminal; or ``report(stage, done, total)``.

    Examples
    --------
    >>> tok = tm.train.bpe(["low lower lowest"] * 9, vocab_size=262)
    >>> [tok.decode([i]) for i in tok.encode("lowest low")]
    ['low', 'e', 'st', ' low']

    """
    tell = reporter(progress)
    counts = counted(source, pre_tokenizer=pre_tokenizer, tell=tell)
    return train_bpe(
        counts,
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
        initial_alphabet=initial_alphabet,
        tell=tell,
    )[0]


def train_bpe(
    counts: PretokenCounts,
    *,
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 0,
    max_token_length: int | None = None,
    initial_alphabet: Iterable[int] = ALL_BYTES,
    tell: Report | None = None,
) -> Learnt:
    """What :func:`bpe` makes a tokenizer of."""
    return _learn(
        counts,
        _core.train_bpe,
        (vocab_size, min_frequency, max_token_length),
        (special_tokens, initial_alphabet),
        tell,
    )


def superbpe(
    source: PretokenCounts | Source,
    *,
    vocab_size: int,
    transition: int,
    max_words: int = 4,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 0,
    initial_alphabet: Iterable[int] = ALL_BYTES,
    pre_tokenizer: str | Component | object = "superbpe",
    progress: bool | Report = True,
) -> Tokenizer:
    """SuperBPE: plain BPE up to ``transition`` tokens, then superwords, tokens across word boundaries.

    Superwords need fewer tokens for the same text. The merges of the first part are replayed on runs of
    pretokens (those that never apply there are dropped), and learning goes on over the runs, with the
    vetoes of the method's authors: no token holds ``": "`` or more than ``max_words`` words, and none
    reaches over a newline or a group of digits. Unlike theirs this works from counts, not from
    documents in memory. The result is an ordinary BPE tokenizer whose split rule keeps only the digits.

    Source: Liu et al., "SuperBPE: Space Travel for Language Models", 2025.

    Parameters
    ----------
    source : PretokenCounts, paths or texts
        Counts must hold runs: ``count(..., pre_tokenizer="superbpe", runs=True)``.
    vocab_size : int
        Size of the vocabulary, special tokens and alphabet included.
    transition : int
        Size at which superwords begin, below ``vocab_size``. The authors take 0.9 of it for quality,
        0.4 for the fewest tokens.
    max_words : int
        Words that a token may hold.
    special_tokens, min_frequency, initial_alphabet, pre_tokenizer, progress
        As in :func:`bpe`.

    Raises
    ------
    CorpusError
        The counts hold no runs.

    Examples
    --------
    >>> tok = tm.train.superbpe(["by the way, it is on the way"] * 9, vocab_size=280, transition=272)
    >>> [tok.decode([i]) for i in tok.encode("by the way")]
    ['by the way']

    """
    tell = reporter(progress)
    counts = counted(source, pre_tokenizer=pre_tokenizer, tell=tell, runs=True)
    return train_superbpe(
        counts,
        vocab_size=vocab_size,
        transition=transition,
        max_words=max_words,
        special_tokens=special_tokens,
        min_frequency=min_frequency,
        initial_alphabet=initial_alphabet,
        tell=tell,
    )[0]


def train_superbpe(
    counts: PretokenCounts,
    *,
    vocab_size: int,
    transition: int,
    max_words: int = 4,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 0,
    initial_alphabet: Iterable[int] = ALL_BYTES,
    tell: Report | None = None,
) -> Learnt:
    """What :func:`superbpe` makes a tokenizer of."""
    return _learn(
        counts,
        _core.train_superbpe,
        (vocab_size, min(transition, vocab_size), max_words, min_frequency),
        (special_tokens, initial_alphabet),
        tell,
        runs=True,
    )


def boundless(
    source: PretokenCounts | Source,
    *,
    vocab_size: int,
    max_words: int | None = None,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 0,
    initial_alphabet: Iterable[int] = ALL_BYTES,
    pre_tokenizer: str | Component | object = "superbpe",
    progress: bool | Report = True,
) -> Tokenizer:
    """BoundlessBPE: superwords out of whole words only, and the transition found by counts.

    Words are learnt as in plain BPE. Superwords are learnt over sequences of pretokens that are single tokens with a
    letter in them. At each step the more frequent of the next word merge and the next superword merge is taken, a
    word of equals. The result is an ordinary BPE tokenizer with the merges of words first; unlike the authors' encoder
    it may also join the last token of a longer word with what follows.

    Sources: Schmidt et al., "Boundless Byte Pair Encoding: Breaking the Pre-tokenization Barrier", 2025, and its
    authors' two-phase order. Deletion of intermediate tokens (PickyBPE) is not done.

    Parameters
    ----------
    source : PretokenCounts, paths or texts
        Counts must hold runs: ``count(..., pre_tokenizer="superbpe", runs=True)``.
    vocab_size : int
        Size of the vocabulary, special tokens and alphabet included.
    max_words : int or None
        Words that a token may hold; also refuses tokens with ``": "``. None refuses nothing.
    special_tokens, min_frequency, initial_alphabet, pre_tokenizer, progress
        As in :func:`bpe`.

    Raises
    ------
    CorpusError
        The counts hold no runs.

    Examples
    --------
    >>> tok = tm.train.boundless(["by the way, it is on the way"] * 9, vocab_size=272)
    >>> [tok.decode([i]) for i in tok.encode("by the way")]
    ['by the way']

    """
    tell = reporter(progress)
    counts = counted(source, pre_tokenizer=pre_tokenizer, tell=tell, runs=True)
    return train_boundless(
        counts,
        vocab_size=vocab_size,
        max_words=max_words,
        special_tokens=special_tokens,
        min_frequency=min_frequency,
        initial_alphabet=initial_alphabet,
        tell=tell,
    )[0]


def train_boundless(
    counts: PretokenCounts,
    *,
    vocab_size: int,
    max_words: int | None = None,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 0,
    initial_alphabet: Iterable[int] = ALL_BYTES,
    tell: Report | None = None,
) -> Learnt:
    """What :func:`boundless` makes a tokenizer of."""
    return _learn(
        counts,
        _core.train_boundless,
        (vocab_size, max_words, min_frequency),
        (special_tokens, initial_alphabet),
        tell,
        runs=True,
    )


def _learn(
    counts: PretokenCounts,
    train: Callable[..., Learnt],
    options: tuple[Any, ...],
    start: tuple[Sequence[str], Iterable[int]],
    tell: Report | None,
    *,
    runs: bool = False,
) -> Learnt:
    """Runs a trainer of the core on counts; ``options`` are its own, the size first, ``start`` special tokens and alphabet."""
    tell, vocab_size = tell or reporter(False), options[0]
    if runs and not counts.has_runs:
        raise CorpusError(NO_RUNS)
    tok, merges, tokens = train(
        counts.arrays,
        components(counts.rules, "run_pre_tokenizer" if runs else "pre_tokenizer"),
        list(start[0]),
        bytes(start[1]),
        *options,
        lambda done: tell("learning", done, vocab_size),
    )
    tell("learning", vocab_size, vocab_size)
    return tok, merges.reshape(-1, 2), tokens


def extend(
    tok: Tokenizer,
    counts: PretokenCounts,
    *,
    vocab_size: int,
    max_words: int | None = 4,
    veto: Callable[[bytes], bool] | None = None,
    min_frequency: int = 0,
    progress: bool | Report = True,
) -> Tokenizer:
    """A tokenizer with more merges; the ids it had keep their tokens.

    From counts with runs it learns superwords (and its split rule becomes the one that the runs were
    counted by); from counts without runs, which must be made by its own split rule, it learns more
    tokens of the ordinary kind.

    Parameters
    ----------
    tok : Tokenizer
        A byte-level BPE tokenizer, of whatever file.
    counts : PretokenCounts
        What to learn from.
    vocab_size : int
        Size to reach, special tokens included. Fewer if no pair is left.
    max_words : int or None
        Words that a token may hold; also refuses tokens with ``": "``. None refuses nothing.
    veto : function of bytes, optional
        True for tokens that are not wanted. Called once per token that is about to be learnt.
    min_frequency, progress
        As in :func:`bpe`.

    Raises
    ------
    CorpusError
        Counts without runs were made by another split rule than the tokenizer's.

    Examples
    --------
    >>> text = ["by the way, it is on the way"] * 9
    >>> words = tm.train.bpe(text, vocab_size=266, pre_tokenizer="superbpe")
    >>> tok = tm.train.extend(words, tm.train.count(text, pre_tokenizer="superbpe", runs=True), vocab_size=272)
    >>> len(words), len(tok), tok.encode("by") == words.encode("by")
    (266, 272, True)

    """
    tell = reporter(progress)
    extended = _core.train_extend(
        tok,
        counts.arrays,
        components(counts.rules, "run_pre_tokenizer" if counts.has_runs else "pre_tokenizer"),
        vocab_size,
        max_words if counts.has_runs else None,
        veto,
        min_frequency,
        lambda done: tell("learning", done, vocab_size),
    )
    tell("learning", vocab_size, vocab_size)
    return extended
