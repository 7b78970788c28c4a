"""Vocabularies of other models than byte-level BPE, learnt from the same counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokamask import _core
from tokamask.train.counts import PretokenCounts
from tokamask.train.progress import Report, reporter
from tokamask.train.rules import Component


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
