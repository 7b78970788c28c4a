"""Models: from a part of a text to tokens. Written to be read; :class:`Tokenizer` hands what it can to the Rust core."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from tokamask.compat.tokenizers.component import Component
from tokamask.compat.tokenizers.pretokenized import Token


class Model(Component, kind=True):
    """Base of all models: a vocabulary, and a way to write a text in it."""

    _vocab: dict[str, int]
    _spelled: dict[int, str] | None = None

    def tokenize(self, sequence: str) -> list[Token]:
        """The tokens of a part; their offsets are in bytes of it."""
        raise NotImplementedError

    def token_to_id(self, token: str) -> int | None:
        """The id of a token."""
        return self._vocab.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The token of an id."""
        if self._spelled is None:
            object.__setattr__(self, "_spelled", {i: token for token, i in self._vocab.items()})
        return cast(dict[int, str], self._spelled).get(id)

    def get_trainer(self) -> Any:
        """A trainer for this kind of model."""
        from tokamask.compat.tokenizers import trainers

        return {"BPE": trainers.BpeTrainer, "WordPiece": trainers.WordPieceTrainer,
                "WordLevel": trainers.WordLevelTrainer, "Unigram": trainers.UnigramTrainer}[self.TYPE]()  # fmt: skip

    def save(self, folder: str, prefix: str | None = None) -> list[str]:
        """Writes the model's own files into a folder; their paths."""
        paths = []
        for name, text in self._files().items():
            path = Path(folder) / (f"{prefix}-{name}" if prefix else name)
            path.write_text(text, encoding="utf-8")
            paths.append(str(path))
        return paths

    def _files(self) -> dict[str, str]:
        ordered = dict(sorted(self._vocab.items(), key=lambda item: item[1]))
        return {"vocab.json": json.dumps(ordered, ensure_ascii=False)}

    def _setup(self, vocab: dict[str, int]) -> None:
        object.__setattr__(self, "_vocab", dict(vocab))
        object.__setattr__(self, "_spelled", None)

    def _by_id(self) -> dict[str, int]:
        return dict(sorted(self._vocab.items(), key=lambda item: item[1]))


def _pairs(merges: Any) -> list[tuple[str, str]]:
    return [tuple(m.split(" ", 1)) if isinstance(m, str) else (m[0], m[1]) for m in merges]  # type: ignore[misc]


class BPE(Model):
    """Byte-pair encoding over characters (or over the letters of a byte-level pre-tokenizer).

    Raises
    ------
    ValueError
        A merge names a token that the vocabulary lacks, or ``dropout`` is not from 0 to 1.
    """

    FIELDS = (
        "dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "fuse_unk",
        "byte_fallback",
        "ignore_merges",
    )

    _merges: list[tuple[str, str]]
    _table: dict[tuple[int, int], tuple[int, int]]
    _cache: dict[str, list[tuple[int, int]]]

    def __init__(
        self,
        vocab: Any = None,
        merges: Any = None,
        *,
        cache_capacity: int | None = None,
        dropout: float | None = None,
        unk_token: Any = None,
        continuing_subword_prefix: str | None = None,
        end_of_word_suffix: str | None = None,
        fuse_unk: bool = False,
        byte_fallback: bool = False,
        ignore_merges: bool = False,
    ) -> None:
        if isinstance(vocab, (str, Path)):
            vocab, merges = BPE.read_file(str(vocab), str(merges))
        if (vocab is None) != (merges is None):
            raise ValueError("`vocab` and `merges` must be both specified")
        if dropout is not None and not 0 <= dropout <= 1:
            raise ValueError("The `dropout` value must be between 0 and 1")
        self.dropout, self.fuse_unk, self.byte_fallback = dropout, fuse_unk, byte_fallback
        self.unk_token = None if unk_token is None else str(unk_token)
        self.continuing_subword_prefix, self.end_of_word_suffix = (
            continuing_subword_prefix,
            end_of_word_suffix,
        )
        self.ignore_merges = ignore_merges
        self._setup(vocab or {})
        self._set_merges(_pairs(merges or []))

    def _set_merges(self, merges: list[tuple[str, str]]) -> None:
        cut = len(self.continuing_subword_prefix or "")
        table: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, (left, right) in enumerate(merges):
            try:
                pair = (self._vocab[left], self._vocab[right])
                table[pair] = (rank, self._vocab[left + right[cut:]])
            except KeyError as error:
                raise ValueError(
                    f"Error while initializing BPE: Token `{error.args[0]}` out of vocabulary"
                ) from None
        object.__setattr__(self, "_merges", merges)
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "_cache", {})

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        object.__setattr__(self, "_cache", {})

    @staticmethod
    def read_file(vocab: str, merges: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """The vocabulary and merges of ``vocab.json`` and ``merges.txt``."""
        listed = json.loads(Path(vocab).read_text(encoding="utf-8"))
        lines = Path(merges).read_text(encoding="utf-8").split("\n")
        pairs = []
        for nth, line in enumerate(lines):
            if not line or line.startswith("#version"):
                continue
            pair = line.rstrip("\r").split(" ")
            if len(pair) != 2:
                raise ValueError(f"Merges text file invalid at line {nth + 1}")
            pairs.append((pair[0], pair[1]))
        return listed, pairs

    @classmethod
    def from_file(cls, vocab: str, merges: str, **options: Any) -> BPE:
        """The model of ``vocab.json`` and ``merges.txt``."""
        return cls(*cls.read_file(vocab, merges), **options)

    def to_json(self) -> dict[str, Any]:
        merges = [list(pair) for pair in self._merges]
        return {**super().to_json(), "vocab": self._by_id(), "merges": merges}

    def _shown(self) -> dict[str, Any]:
        shown = super()._shown()
        shown["merges"] = [tuple(pair) for pair in self._merges]
        return shown

    def _files(self) -> dict[str, str]:
        merges = "".join(f"{left} {right}\n" for left, right in self._merges)
        return {**super()._files(), "merges.txt": "#version: 0.2\n" + merges}

    def tokenize(self, sequence: str) -> list[Token]:
        if not sequence:
            return []
        if self.ignore_merges and sequence in self._vocab:
            return [Token(self._vocab[sequence], sequence, (0, len(sequence.encode())))]
        known = None if self.dropout else self._cache.get(sequence)
        if known is None:
            known = self._merged(*self._symbols(sequence))
            if not self.dropout and len(self._cache) < 10_000 and len(sequence) < 256:
                self._cache[sequence] = known
        tokens, at = [], 0
        for token_id, length in known:
            tokens.append(Token(token_id, cast(str, self.id_to_token(token_id)), (at, at + length)))
            at += length
        return tokens

    def _symbols(self, sequence: str) -> tuple[list[int], list[int]]:
        """Ids of the characters, and how many bytes each stands for."""
        ids: list[int] = []
        sizes: list[int] = []
        unknown = 0  # bytes of unknown characters before this one, to be one token
        unk = None if self.unk_token is None else self._vocab.get(self.unk_token)
        if self.unk_token is not None and unk is None:
            raise Exception(f"The `UNK` token (`{self.unk_token}`) is not in the vocabulary")

        def flush() -> None:
            nonlocal unknown
            if unknown:
                ids.append(cast(int, unk))
                sizes.append(unknown)
                unknown = 0

        for at, char in enumerate(sequence):
            data = char.encode("utf-8", "surrogatepass")
            symbol = char
            if at and self.continuing_subword_prefix:
                symbol = self.continuing_subword_prefix + symbol
            if at == len(sequence) - 1 and self.end_of_word_suffix:
                symbol += self.end_of_word_suffix
            if symbol in self._vocab:
                flush()
                ids.append(self._vocab[symbol])
                sizes.append(len(data))
                continue
            if self.byte_fallback:
                found = [
                    self._vocab.get(f"<0x{byte:02X}>") for byte in symbol.encode("utf-8", "surrogatepass")
                ]
                if None not in found:
                    flush()
                    ids += cast(list[int], found)
                    sizes += [1] * len(found)
                    continue
            if unk is not None:
                if not self.fuse_unk:
                    flush()
                unknown += len(data)
        flush()
        return ids, sizes

    def _merged(self, ids: list[int], sizes: list[int]) -> list[tuple[int, int]]:
        table = self._table
        while True:
            found = [
                (*table[pair], at)
                for at, pair in enumerate(itertools.pairwise(ids))
                if pair in table and not (self.dropout and random.random() < self.dropout)
            ]
            if not found:
                return list(zip(ids, sizes, strict=True))
            _, token_id, at = min(found, key=lambda entry: (entry[0], entry[2]))
            ids[at : at + 2] = [token_id]
            sizes[at : at + 2] = [sizes[at] + sizes[at + 1]]


class WordPiece(Model):
    """The longest token from the left; tokens inside words begin with a prefix."""

    FIELDS = ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word")

    def __init__(
        self,
        vocab: Any = None,
        unk_token: Any = "[UNK]",
        max_input_chars_per_word: int = 100,
        continuing_subword_prefix: str = "##",
    ) -> None:
        self.unk_token, self.max_input_chars_per_word = str(unk_token), max_input_chars_per_word
        self.continuing_subword_prefix = continuing_subword_prefix
        self._setup(WordPiece.read_file(str(vocab)) if isinstance(vocab, (str, Path)) else vocab or {})

    @staticmethod
    def read_file(vocab: str) -> dict[str, int]:
        """The vocabulary of a ``vocab.txt``, a token a line."""
        lines = Path(vocab).read_text(encoding="utf-8").split("\n")
        return {line.rstrip(): at for at, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}

    @classmethod
    def from_file(cls, vocab: str, **options: Any) -> WordPiece:
        """The model of a ``vocab.txt``."""
        return cls(cls.read_file(vocab), **options)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "vocab": self._by_id()}

    def _files(self) -> dict[str, str]:
        return {"vocab.txt": "".join(f"{token}\n" for token in self._by_id())}

    def tokenize(self, sequence: str) -> list[Token]:
        size = len(sequence.encode())
        tokens: list[Token] = []
        start = at = 0
        while start < len(sequence) and len(sequence) <= self.max_input_chars_per_word:
            for end in range(len(sequence), start, -1):
                piece = (self.continuing_subword_prefix if start else "") + sequence[start:end]
                if piece in self._vocab:
                    length = len(sequence[start:end].encode())
                    tokens.append(Token(self._vocab[piece], piece, (at, at + length)))
                    start, at = end, at + length
                    break
            else:
                break
        if start == len(sequence):
            return tokens
        if self.unk_token not in self._vocab:
            raise Exception("WordPiece error: Missing [UNK] token from the vocabulary")
        return [Token(self._vocab[self.unk_token], self.unk_token, (0, size))]


class WordLevel(Model):
    """Whole parts, or the unknown token."""

    FIELDS = ()

    def __init__(self, vocab: Any = None, unk_token: Any = "<unk>") -> None:
        self.unk_token = str(unk_token)
        self._setup(WordLevel.read_file(str(vocab)) if isinstance(vocab, (str, Path)) else vocab or {})

    @staticmethod
    def read_file(vocab: str) -> dict[str, int]:
        """The vocabulary of a ``vocab.json``."""
        return cast(dict[str, int], json.loads(Path(vocab).read_text(encoding="utf-8")))

    @classmethod
    def from_file(cls, vocab: str, unk_token: str = "<unk>") -> WordLevel:
        """The model of a ``vocab.json``."""
        return cls(cls.read_file(vocab), unk_token)

    def to_json(self) -> dict[str, Any]:
        return {"type": "WordLevel", "vocab": self._by_id(), "unk_token": self.unk_token}

    def tokenize(self, sequence: str) -> list[Token]:
        token = sequence if sequence in self._vocab else self.unk_token
        if token not in self._vocab:
            raise Exception("WordLevel error: Missing [UNK] token from the vocabulary")
        return [Token(self._vocab[token], token, (0, len(sequence.encode())))]


class Unigram(Model):
    """The likeliest way to write a part, by the scores of tokens."""

    FIELDS = ("unk_id",)
    _scores: list[tuple[str, float]]
    _longest: int
    _unknown: float

    def __init__(
        self,
        vocab: Sequence[tuple[str, float]] | None = None,
        unk_id: int | None = None,
        byte_fallback: bool | None = None,
        *,
        alpha: float | None = None,
        nbest_size: int | None = None,
    ) -> None:
        listed = [(str(token), float(score)) for token, score in vocab or [("<unk>", 0.0)]]
        if vocab is None and unk_id is None:
            unk_id = 0
        if unk_id is not None and unk_id >= len(listed):
            raise ValueError("The `unk_id` is larger than vocabulary size")
        self.unk_id, self.byte_fallback = unk_id, bool(byte_fallback)
        self.alpha, self.nbest_size = alpha, nbest_size
        object.__setattr__(self, "_scores", listed)
        self._setup({token: at for at, (token, _) in enumerate(listed)})
        longest = max((len(token) for token, _ in listed), default=1)
        object.__setattr__(self, "_longest", longest)
        object.__setattr__(self, "_unknown", min((score for _, score in listed), default=0.0) - 10.0)

    def to_json(self) -> dict[str, Any]:
        scores = [[token, score] for token, score in self._scores]
        return {
            "type": "Unigram",
            "unk_id": self.unk_id,
            "vocab": scores,
            "byte_fallback": self.byte_fallback,
        }

    def _shown(self) -> dict[str, Any]:
        return {
            "unk_id": self.unk_id,
            "vocab": [tuple(p) for p in self._scores],
            "byte_fallback": self.byte_fallback,
        }

    def _files(self) -> dict[str, str]:
        return {"unigram.json": json.dumps(self.to_json(), ensure_ascii=False)}

    def _best(self, text: str) -> list[str]:
        """The pieces of the likeliest cover; unknown neighbours are one piece."""
        best = [(-math.inf, -1)] * (len(text) + 1)
        best[0] = (0.0, -1)
        for start in range(len(text)):
            here, single = best[start][0], False
            for end in range(start + 1, min(len(text), start + self._longest) + 1):
                token_id = self._vocab.get(text[start:end])
                if token_id is None:
                    continue
                score = here + self._scores[token_id][1]
                if best[end][1] < 0 or score > best[end][0]:
                    best[end] = (score, start)
                single |= end == start + 1
            if not single and (best[start + 1][1] < 0 or here + self._unknown > best[start + 1][0]):
                best[start + 1] = (here + self._unknown, start)
        pieces, at, unknown = [], len(text), ""
        while at > 0:
            start = best[at][1]
            piece = text[start:at]
            if piece in self._vocab and self._vocab[piece] != self.unk_id:
                if unknown:
                    pieces.append(unknown)
                    unknown = ""
                pieces.append(piece)
            else:
                unknown = piece + unknown
            at = start
        return [*pieces, *([unknown] if unknown else [])][::-1]

    def tokenize(self, sequence: str) -> list[Token]:
        tokens, at = [], 0
        for piece in self._best(sequence):
            data = piece.encode("utf-8", "surrogatepass")
            span = (at, at + len(data))
            at += len(data)
            token_id = self._vocab.get(piece)
            if token_id is None and self.byte_fallback:
                names = [f"<0x{byte:02X}>" for byte in data]
                if all(name in self._vocab for name in names):
                    tokens += [Token(self._vocab[name], name, span) for name in names]
                    continue
            if token_id is None and self.unk_id is None:
                raise Exception("Encountered an unknown token but `unk_id` is missing")
            tokens.append(Token(cast(int, self.unk_id if token_id is None else token_id), piece, span))
        return tokens


Tokenize = Callable[[str], list[Token]]
