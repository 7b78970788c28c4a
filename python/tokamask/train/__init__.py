"""Training tokenizers: count pretokens once, in shards if need be, then learn from the counts.

>>> counts = tm.train.count([Path("a.txt"), Path("b.txt")])
>>> tok = tm.train.bpe(counts, vocab_size=32_000, special_tokens=["<|endoftext|>"])

Counts of shards add up (``a + b``) to exactly the counts of the whole, so the counting can run on any
number of machines and the learning on one; the merges do not depend on how the text was sharded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask import _core
from tokamask._core import Tokenizer
from tokamask.train.corpus import Source
from tokamask.train.counting import count
from tokamask.train.counts import PretokenCounts
from tokamask.train.progress import Report, reporter
from tokamask.train.rules import Component

__all__ = ["PretokenCounts", "bpe", "count"]

ALL_BYTES = bytes(range(256))


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
    report = reporter(progress)
    counts = _counted(source, pre_tokenizer=pre_tokenizer, report=report)
    return train_bpe(
        counts,
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
        initial_alphabet=initial_alphabet,
        report=report,
    )[0]


def train_bpe(
    counts: PretokenCounts,
    *,
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    min_frequency: int = 0,
    max_token_length: int | None = None,
    initial_alphabet: Iterable[int] = ALL_BYTES,
    report: Report | None = None,
) -> tuple[Tokenizer, npt.NDArray[np.uint32], list[bytes]]:
    """A tokenizer, its merges (pairs of ids) and the bytes of its tokens."""
    report = report or reporter(False)
    tok, merges, tokens = _core.train_bpe(
        counts.arrays,
        json.dumps(counts.rules["pre_tokenizer"]),
        list(special_tokens),
        bytes(initial_alphabet),
        vocab_size,
        min_frequency,
        max_token_length,
        lambda done: report("learning", done, vocab_size),
    )
    report("learning", vocab_size, vocab_size)
    return tok, merges.reshape(-1, 2), tokens


def _counted(
    source: PretokenCounts | Source, *, pre_tokenizer: Any, report: Report, runs: Any = False
) -> PretokenCounts:
    if isinstance(source, PretokenCounts):
        return source
    return count(source, pre_tokenizer=pre_tokenizer, runs=runs, progress=report)
