"""Vocabularies of other models than byte-level BPE, learnt from the same counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokamask import _core
from tokamask._core import Tokenizer
from tokamask.train.corpus import Source
from tokamask.train.counting import counted
from tokamask.train.counts import PretokenCounts
from tokamask.train.progress import Report, reporter
from tokamask.train.rules import Component

WORDS: Component = {"type": "Whitespace"}
METASPACE: Component = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def unigram(
    source: PretokenCounts | Source,
    *,
    vocab_size: int = 8000,
    special_tokens: Sequence[str] = (),
    unk_token: str | None = None,
    initial_alphabet: Sequence[str] = (),
    shrinking_factor: float = 0.75,
    max_piece_length: int = 16,
    n_sub_iterations: int = 2,
    seed_size: int = 1_000_000,
    pre_tokenizer: str | Component | object = METASPACE,
    progress: bool | Report = True,
) -> Tokenizer:
    """A Unigram model: pieces with probabilities, as HF ``tokenizers``' ``UnigramTrainer`` learns them.

    The repeated substrings of the words are the seeds; expectation maximisation fits their probabilities, and the
    pieces that are missed least go, until the size is reached. HF adds probabilities in the order of a hash table, so
    its scores differ in the last digits from run to run; ours do not.

    Source: Kudo, "Subword Regularization", 2018.

    Parameters
    ----------
    source : PretokenCounts, paths or texts
        What :func:`count` takes, or what it returned.
    vocab_size : int
        Size of the vocabulary, special tokens included.
    special_tokens : sequence of str
        They get the first ids.
    unk_token : str, optional
        Stands for characters that no piece has; the first special token if it is not among them.
    initial_alphabet : sequence of str
        Characters that are pieces whether or not they occur.
    shrinking_factor : float
        Share of the pieces that each pruning leaves.
    max_piece_length : int
        Characters of a piece at most.
    n_sub_iterations : int
        Rounds of expectation maximisation between prunings.
    seed_size : int
        Seeds at most.
    pre_tokenizer : str, component or HF object
        Only if the source has yet to be counted.
    progress : bool or function
        A bar on a terminal; or ``report(stage, done, total)``, where ``done`` is the number of pieces left.

    Raises
    ------
    CorpusError
        There are more characters than the vocabulary has room for.

    Examples
    --------
    >>> tok = tm.train.unigram(["to be or not to be"] * 9, vocab_size=14, unk_token="<unk>")
    >>> tok.decode(tok.encode("to be"))
    'to be'

    """
    counts = counted(source, pre_tokenizer=pre_tokenizer, tell=reporter(progress))
    model, special = train_unigram(
        counts,
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        unk_token=unk_token,
        initial_alphabet=initial_alphabet,
        shrinking_factor=shrinking_factor,
        max_piece_length=max_piece_length,
        n_sub_iterations=n_sub_iterations,
        seed_size=seed_size,
        tell=reporter(progress),
    )
    return _tokenizer(counts, model, special, METASPACE)


def train_unigram(
    counts: PretokenCounts,
    *,
    vocab_size: int = 8000,
    special_tokens: Sequence[str] = (),
    unk_token: str | None = None,
    initial_alphabet: Sequence[str] = (),
    shrinking_factor: float = 0.75,
    max_piece_length: int = 16,
    n_sub_iterations: int = 2,
    seed_size: int = 1_000_000,
    tell: Report | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The model of a tokenizer.json, and all special tokens."""
    tell = tell or reporter(False)
    special = [*special_tokens]
    if unk_token is not None and unk_token not in special:
        special.insert(0, unk_token)
    pieces = _core.train_unigram(
        counts.arrays,
        max(vocab_size - len(special), 0),
        vocab_size,
        n_sub_iterations,
        shrinking_factor,
        max_piece_length,
        seed_size,
        "".join(initial_alphabet),
        lambda left: tell("pruning", left, None),
    )
    tell("pruning", vocab_size, vocab_size)
    vocab = [*((token, 0.0) for token in special), *pieces]
    unk_id = None if unk_token is None else special.index(unk_token)
    return {"type": "Unigram", "unk_id": unk_id, "vocab": vocab, "byte_fallback": False}, special


def wordpiece(
    source: PretokenCounts | Source,
    *,
    vocab_size: int = 30_000,
    special_tokens: Sequence[str] = ("[UNK]",),
    unk_token: str = "[UNK]",
    min_frequency: int = 0,
    limit_alphabet: int = 1000,
    initial_alphabet: Sequence[str] = (),
    continuing_subword_prefix: str = "##",
    pre_tokenizer: str | Component | object = WORDS,
    progress: bool | Report = True,
) -> Tokenizer:
    """A WordPiece vocabulary, learnt by BPE over characters as HF ``tokenizers``' ``WordPieceTrainer`` does.

    HF numbers the characters with a prefix, and drops rare ones, in the order of a hash table, so equal counts are
    decided differently from run to run there; here by code point.

    Parameters
    ----------
    source : PretokenCounts, paths or texts
        What :func:`count` takes, or what it returned.
    vocab_size : int
        Size of the vocabulary, special tokens and alphabet included.
    special_tokens : sequence of str
        They get the first ids.
    unk_token : str
        What a word becomes that cannot be spelled; a special token.
    min_frequency : int
        A pair below this count is not merged.
    limit_alphabet : int
        Characters that get an id at most: the most frequent.
    initial_alphabet : sequence of str
        Characters that get an id in any case.
    continuing_subword_prefix : str
        Stands before a token that does not begin a word.
    pre_tokenizer : str, component or HF object
        Only if the source has yet to be counted.
    progress : bool or function
        A bar on a terminal; or ``report(stage, done, total)``.

    Examples
    --------
    >>> tok = tm.train.wordpiece(["low lower lowest"] * 9, vocab_size=20)
    >>> tok.vocabulary.bytes(tok.encode("lower")[0])
    b'lower'

    """
    counts = counted(source, pre_tokenizer=pre_tokenizer, tell=reporter(progress))
    model = train_wordpiece(
        counts,
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        unk_token=unk_token,
        min_frequency=min_frequency,
        limit_alphabet=limit_alphabet,
        initial_alphabet=initial_alphabet,
        continuing_subword_prefix=continuing_subword_prefix,
        tell=reporter(progress),
    )
    decoder = {"type": "WordPiece", "prefix": continuing_subword_prefix, "cleanup": True}
    return _tokenizer(counts, model, special_tokens, decoder)


def train_wordpiece(
    counts: PretokenCounts,
    *,
    vocab_size: int = 30_000,
    special_tokens: Sequence[str] = ("[UNK]",),
    unk_token: str = "[UNK]",
    min_frequency: int = 0,
    limit_alphabet: int = 1000,
    initial_alphabet: Sequence[str] = (),
    continuing_subword_prefix: str = "##",
    tell: Report | None = None,
) -> dict[str, Any]:
    """The model of a tokenizer.json."""
    tell = tell or reporter(False)
    tokens = _core.train_wordpiece(
        counts.arrays,
        vocab_size,
        len(special_tokens),
        min_frequency,
        limit_alphabet,
        "".join(initial_alphabet),
        continuing_subword_prefix,
        lambda done: tell("learning", done, vocab_size),
    )
    tell("learning", vocab_size, vocab_size)
    return {
        "type": "WordPiece",
        "unk_token": unk_token,
        "continuing_subword_prefix": continuing_subword_prefix,
        "max_input_chars_per_word": 100,
        "vocab": {token: nth for nth, token in enumerate([*special_tokens, *tokens])},
    }


def wordlevel(
    source: PretokenCounts | Source,
    *,
    vocab_size: int = 30_000,
    special_tokens: Sequence[str] = ("[UNK]",),
    unk_token: str = "[UNK]",
    min_frequency: int = 0,
    pre_tokenizer: str | Component | object = WORDS,
    progress: bool | Report = True,
) -> Tokenizer:
    """A vocabulary of whole words, the most frequent first: that of HF ``tokenizers``' ``WordLevelTrainer``.

    Parameters
    ----------
    source : PretokenCounts, paths or texts
        What :func:`count` takes, or what it returned.
    vocab_size : int
        Size of the vocabulary, special tokens included.
    special_tokens : sequence of str
        They get the first ids.
    unk_token : str
        What other words become; a special token.
    min_frequency : int
        Words below this count have no id.
    pre_tokenizer : str, component or HF object
        Only if the source has yet to be counted.
    progress : bool or function
        A bar on a terminal; or ``report(stage, done, total)``.

    Examples
    --------
    >>> tok = tm.train.wordlevel(["to be or not to be"], vocab_size=4)
    >>> tok.encode("to be or")
    [2, 1, 0]

    """
    counts = counted(source, pre_tokenizer=pre_tokenizer, tell=reporter(progress))
    model = train_wordlevel(
        counts,
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        unk_token=unk_token,
        min_frequency=min_frequency,
    )
    return _tokenizer(counts, model, special_tokens, None)


def train_wordlevel(
    counts: PretokenCounts,
    *,
    vocab_size: int = 30_000,
    special_tokens: Sequence[str] = ("[UNK]",),
    unk_token: str = "[UNK]",
    min_frequency: int = 0,
) -> dict[str, Any]:
    """The model of a tokenizer.json."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = (word.decode() for word, count in ranked if count >= min_frequency)
    tokens = [*special_tokens, *words][:vocab_size]
    return {
        "type": "WordLevel",
        "vocab": {token: nth for nth, token in enumerate(tokens)},
        "unk_token": unk_token,
    }


def _tokenizer(
    counts: PretokenCounts, model: dict[str, Any], special_tokens: Sequence[str], decoder: Component | None
) -> Tokenizer:
    """The tokenizer of a model with the rules that its words were counted by."""
    return Tokenizer.from_bytes(json.dumps(tokenizer_json(counts, model, special_tokens, decoder)).encode())


def tokenizer_json(
    counts: PretokenCounts, model: dict[str, Any], special_tokens: Sequence[str], decoder: Component | None
) -> dict[str, Any]:
    """The file of a model with the rules that its words were counted by."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": nth, "content": text, **flags} for nth, text in enumerate(special_tokens)],
        "normalizer": counts.rules.get("normalizer"),
        "pre_tokenizer": counts.rules["pre_tokenizer"],
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
