"""Trainers: from counted parts to a model, with the original's order of merges."""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from tokamask.compat.tokenizers import models
from tokamask.compat.tokenizers.added import AddedToken
from tokamask.compat.tokenizers.alphabet import characters
from tokamask.compat.tokenizers.component import Component
from tokamask.compat.tokenizers.parity import ParityBpeTrainer as ParityBpeTrainer
from tokamask.train import PretokenCounts


class Trainer(Component, kind=True):
    """Base of all trainers."""

    MODEL: ClassVar[str]
    _special: list[AddedToken]

    @property
    def special_tokens(self) -> list[AddedToken]:
        """Tokens that come first."""
        return self._special

    @special_tokens.setter
    def special_tokens(self, tokens: Iterable[Any]) -> None:
        found = [AddedToken.of(token, special=True) for token in tokens]
        object.__setattr__(self, "_special", found)

    def _train(self, counts: dict[str, int]) -> models.Model:
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        special = [{"id": None, **token.to_json()} for token in self._special]
        special = [{k: v for k, v in token.items() if k != "id"} for token in special]
        state = {field: getattr(self, field) for field in self.FIELDS}
        state["special_tokens"] = special
        if "initial_alphabet" in state:
            state["initial_alphabet"] = sorted(state["initial_alphabet"])
        return {self.TYPE: {**state, **self._words()}}

    def _words(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Any:
        """The trainer of a state."""
        ((name, fields),) = state.items()
        fields = {
            k: v for k, v in fields.items() if k not in ("words", "progress_format", "seed_size", "min_score")
        }
        fields["special_tokens"] = [AddedToken(**token) for token in fields["special_tokens"]]
        return cls.KIND._TYPES[name](**fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({json.dumps(self.to_json(), ensure_ascii=False)})"


class BpeTrainer(Trainer):
    """Learns merges: the most frequent pair first, of equals the one with the smaller ids."""

    MODEL = "BPE"
    FIELDS = (
        "min_frequency",
        "vocab_size",
        "show_progress",
        "progress_format",
        "special_tokens",
        "limit_alphabet",
        "initial_alphabet",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "max_token_length",
    )
    progress_format = "Indicatif"

    def __init__(
        self,
        vocab_size: int = 30000,
        min_frequency: int = 0,
        show_progress: bool = True,
        special_tokens: Iterable[Any] = (),
        limit_alphabet: int | None = None,
        initial_alphabet: Iterable[str] = (),
        continuing_subword_prefix: str | None = None,
        end_of_word_suffix: str | None = None,
        max_token_length: int | None = None,
        **_: Any,
    ) -> None:
        self.vocab_size, self.min_frequency, self.show_progress = vocab_size, min_frequency, show_progress
        self.limit_alphabet, self.max_token_length = limit_alphabet, max_token_length
        self.initial_alphabet = [text[0] for text in initial_alphabet if text]
        self.continuing_subword_prefix, self.end_of_word_suffix = (
            continuing_subword_prefix,
            end_of_word_suffix,
        )
        self.special_tokens = list(special_tokens)

    def _words(self) -> dict[str, Any]:
        return {"words": {}}

    def _learn(self, counts: dict[str, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
        vocab: dict[str, int] = {}
        for token in self._special:
            vocab.setdefault(token.content, len(vocab))
        alphabet = characters(counts, self.initial_alphabet, self.limit_alphabet)
        for char in alphabet:
            vocab.setdefault(char, len(vocab))
        known, prefix, suffix = (
            set(alphabet),
            self.continuing_subword_prefix or "",
            self.end_of_word_suffix or "",
        )
        words: list[list[str]] = []
        weights: list[int] = []
        for word, count in counts.items():
            symbols = []
            for at, char in enumerate(word):
                if char in known:
                    symbol = (prefix if at else "") + char + (suffix if at == len(word) - 1 else "")
                    vocab.setdefault(symbol, len(vocab))
                    symbols.append(symbol)
            words.append(symbols)
            weights.append(count)
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        where: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
        for nth, word_symbols in enumerate(words):
            for pair in itertools.pairwise(word_symbols):
                pairs[pair] += weights[nth]
                where[pair].add(nth)
        merges: list[tuple[str, str]] = []
        while len(vocab) < self.vocab_size and pairs:
            best = min(pairs, key=lambda pair: (-pairs[pair], vocab[pair[0]], vocab[pair[1]]))
            if pairs[best] < max(1, self.min_frequency):
                break
            left, right = best
            joined = left + right[len(prefix) :]
            vocab.setdefault(joined, len(vocab))
            merges.append(best)
            long = self.max_token_length is not None and len(joined) >= self.max_token_length
            for nth in where.pop(best):
                symbols, weight = words[nth], weights[nth]
                for pair in itertools.pairwise(symbols):
                    pairs[pair] -= weight
                merged, at = [], 0
                while at < len(symbols):
                    if symbols[at : at + 2] == [left, right]:
                        merged.append(joined)
                        at += 2
                    else:
                        merged.append(symbols[at])
                        at += 1
                words[nth] = merged
                for pair in itertools.pairwise(merged):
                    if not (long and joined in pair):
                        pairs[pair] += weight
                        where[pair].add(nth)
            pairs.pop(best, None)
        return vocab, merges

    def _train(self, counts: dict[str, int]) -> models.Model:
        vocab, merges = self._learn(counts)
        return models.BPE(
            vocab,
            merges,
            continuing_subword_prefix=self.continuing_subword_prefix,
            end_of_word_suffix=self.end_of_word_suffix,
        )


class WordPieceTrainer(BpeTrainer):
    """Merges as :class:`BpeTrainer` learns them, for a model that takes the longest token."""

    MODEL = "WordPiece"

    def __init__(
        self,
        vocab_size: int = 30000,
        min_frequency: int = 0,
        show_progress: bool = True,
        special_tokens: Iterable[Any] = (),
        limit_alphabet: int | None = None,
        initial_alphabet: Iterable[str] = (),
        continuing_subword_prefix: str | None = "##",
        end_of_word_suffix: str | None = None,
        **_: Any,
    ) -> None:
        super().__init__(
            vocab_size,
            min_frequency,
            show_progress,
            special_tokens,
            limit_alphabet,
            initial_alphabet,
            continuing_subword_prefix,
            end_of_word_suffix,
        )

    def _train(self, counts: dict[str, int]) -> models.Model:
        vocab, _ = self._learn(counts)
        return models.WordPiece(vocab, continuing_subword_prefix=self.continuing_subword_prefix or "##")


class WordLevelTrainer(Trainer):
    """The most frequent parts, of equals in order of the alphabet."""

    MODEL = "WordLevel"
    FIELDS = ("min_frequency", "vocab_size", "show_progress", "special_tokens")

    def __init__(
        self,
        vocab_size: int = 30000,
        min_frequency: int = 0,
        show_progress: bool = True,
        special_tokens: Iterable[Any] = (),
        **_: Any,
    ) -> None:
        self.vocab_size, self.min_frequency, self.show_progress = vocab_size, min_frequency, show_progress
        self.special_tokens = list(special_tokens)

    def _words(self) -> dict[str, Any]:
        return {"words": {}}

    def _train(self, counts: dict[str, int]) -> models.Model:
        often = [word for word, count in counts.items() if count >= self.min_frequency]
        often.sort(key=lambda word: (-counts[word], word))
        words = [*(token.content for token in self._special), *often][: self.vocab_size]
        return models.WordLevel({word: at for at, word in enumerate(dict.fromkeys(words))})


class UnigramTrainer(Trainer):
    """Learns pieces and their scores; :func:`tokamask.train.unigram` does the work."""

    MODEL = "Unigram"
    FIELDS = (
        "show_progress",
        "vocab_size",
        "n_sub_iterations",
        "shrinking_factor",
        "special_tokens",
        "initial_alphabet",
        "unk_token",
        "max_piece_length",
    )

    def __init__(
        self,
        vocab_size: int = 8000,
        show_progress: bool = True,
        special_tokens: Iterable[Any] = (),
        initial_alphabet: Iterable[str] = (),
        shrinking_factor: float = 0.75,
        unk_token: str | None = None,
        max_piece_length: int = 16,
        n_sub_iterations: int = 2,
        **_: Any,
    ) -> None:
        self.vocab_size, self.show_progress, self.unk_token = vocab_size, show_progress, unk_token
        self.shrinking_factor, self.max_piece_length = shrinking_factor, max_piece_length
        self.n_sub_iterations = n_sub_iterations
        self.initial_alphabet = [text[0] for text in initial_alphabet if text]
        self.special_tokens = list(special_tokens)

    def _train(self, counts: dict[str, int]) -> models.Model:
        from tokamask.train.models import train_unigram

        state, special = train_unigram(
            _counted(counts),
            vocab_size=self.vocab_size,
            special_tokens=[token.content for token in self._special],
            unk_token=self.unk_token,
            initial_alphabet=self.initial_alphabet,
            shrinking_factor=self.shrinking_factor,
            max_piece_length=self.max_piece_length,
            n_sub_iterations=self.n_sub_iterations,
        )
        object.__setattr__(self, "_found", special)
        return models.Unigram(state["vocab"], state["unk_id"], state["byte_fallback"])


def _counted(counts: dict[str, int]) -> PretokenCounts:
    """Counted parts in the form that the trainers of the core read."""
    words = sorted((word.encode(), count) for word, count in counts.items())
    offsets = np.cumsum([0, *(len(word) for word, _ in words)]).astype(np.uint64)
    data = np.frombuffer(b"".join(word for word, _ in words), np.uint8).copy()
    runs = (np.zeros(1, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint64))
    arrays = (offsets, data, np.array([count for _, count in words], np.uint64), *runs)
    rules = {"pre_tokenizer": None, "normalizer": None, "run_pre_tokenizer": None}
    return PretokenCounts(arrays, rules, texts=0, text_bytes=len(data), skipped=[])
