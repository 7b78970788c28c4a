"""A text cut into parts, some of which are tokens already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokamask.compat.tokenizers.encoding import Encoding
from tokamask.compat.tokenizers.normalized import NormalizedString


@dataclass
class Token:
    """A token of a part; ``offsets`` in bytes of the part's normal form."""

    id: int
    value: str
    offsets: tuple[int, int]

    def as_tuple(self) -> tuple[int, str, tuple[int, int]]:
        """The three fields."""
        return (self.id, self.value, self.offsets)


@dataclass
class Split:
    """A part, and its tokens if it has been tokenized."""

    normalized: NormalizedString
    tokens: list[Token] | None = None


class PreTokenizedString:
    """A text on its way to tokens: split, then normalized and tokenized part by part.

    Parameters
    ----------
    sequence : str

    Examples
    --------
    >>> text = PreTokenizedString("a b")
    >>> text.split(lambda i, part: part.split(" ", "removed"))
    >>> [part for part, _, _ in text.get_splits()]
    ['a', 'b']
    """

    def __init__(self, sequence: str | NormalizedString) -> None:
        whole = NormalizedString(sequence) if isinstance(sequence, str) else sequence
        self.original = whole._root
        self.splits = [Split(whole)]

    def split(self, func: Callable[[int, NormalizedString], Sequence[Any]]) -> None:
        """Puts the parts that ``func(index, part)`` gives in the place of each part that is not tokenized."""
        parts: list[Split] = []
        for index, split in enumerate(self.splits):
            if split.tokens is not None:
                parts.append(split)
                continue
            for part in func(index, split.normalized):
                part = part if isinstance(part, Split) else Split(part)
                if part.normalized.normalized:
                    parts.append(part)
        self.splits = parts

    def normalize(self, func: Callable[[NormalizedString], Any]) -> None:
        """Calls ``func`` with each part that is not tokenized."""
        for split in self.splits:
            if split.tokens is None:
                func(split.normalized)

    def tokenize(self, func: Callable[[str], Sequence[Token]]) -> None:
        """Gives each part that is not tokenized the tokens that ``func(text)`` returns."""
        for split in self.splits:
            if split.tokens is None:
                split.tokens = list(func(split.normalized.normalized))

    def get_splits(self, offset_referential: Any = "original", offset_type: Any = "char") -> list[Any]:
        """Text, offsets and tokens of each part."""
        original = str(getattr(offset_referential, "value", offset_referential)) == "original"
        in_bytes = str(getattr(offset_type, "value", offset_type)) == "byte"
        found, at = [], 0
        for split in self.splits:
            text = split.normalized.normalized
            if original:
                start, end = split.normalized.span(0, len(text))
                base = self.original
            else:
                start, end, base = at, at + len(text), "".join(s.normalized.normalized for s in self.splits)
                at = end
            if in_bytes:
                start, end = len(base[:start].encode()), len(base[:end].encode())
            found.append((text, (start, end), split.tokens))
        return found

    def to_encoding(self, type_id: int = 0, word_idx: int | None = None) -> Encoding:
        """The tokens of all parts, with offsets in the original text."""
        encoding = Encoding()
        for index, split in enumerate(self.splits):
            if split.tokens is None:
                raise Exception("Split has not been tokenized, call `PreTokenizedString::tokenize` first")
            text = split.normalized.normalized
            chars = None if text.isascii() else chars_of_bytes(text)
            for token in split.tokens:
                start, end = token.offsets
                if chars is not None:
                    start, end = chars[start], chars[end - 1] + 1 if end > start else chars[start]
                span = split.normalized.span(start, end)
                encoding._add(token.id, token.value, span, index if word_idx is None else word_idx, type_id)
        return encoding


def chars_of_bytes(text: str) -> list[int]:
    """For each byte of the text the character it is in, and the number of characters at the end."""
    chars = [at for at, char in enumerate(text) for _ in range(len(char.encode("utf-8", "surrogatepass")))]
    return [*chars, len(text)]
