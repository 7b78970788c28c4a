"""A text that is changed step by step, every character tied to those of the original that it came from."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from tokamask.compat.tokenizers import regex

Spans = list[tuple[int, int]]


class NormalizedString:
    """A text and its normal form; :class:`~tokamask.compat.tokenizers.normalizers.Normalizer` changes it in place.

    Parameters
    ----------
    sequence : str

    Examples
    --------
    >>> text = NormalizedString("  Hi")
    >>> text.lstrip()
    >>> text.normalized, text.original
    ('Hi', '  Hi')
    """

    __slots__ = ("_ends", "_open", "_root", "_spans", "_text")

    def __init__(self, sequence: str) -> None:
        self._root, self._text = sequence, sequence
        self._ends = (0, len(sequence))
        # For each character of the normal form: the characters of the root that it stands for.
        self._spans: Spans = [(at, at + 1) for at in range(len(sequence))]
        self._open = True

    def _check(self) -> None:
        if not self._open:
            raise Exception("Cannot use a NormalizedStringRefMut outside `normalize`")

    @property
    def normalized(self) -> str:
        """The text as it is now."""
        return self._text

    @property
    def original(self) -> str:
        """The text as it was."""
        return self._root[self._ends[0] : self._ends[1]]

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f'NormalizedString(original="{self.original}", normalized="{self._text}")'

    def __len__(self) -> int:
        return len(self._text)

    def __getitem__(self, key: Any) -> NormalizedString:
        if isinstance(key, int):
            if not -len(self) <= key < len(self):
                raise IndexError("NormalizedString index out of range")
            key = slice(key, key + 1 or None)
        elif isinstance(key, tuple):
            key = slice(*key)
        start, end, _ = key.indices(len(self._text))
        return self._part(start, max(start, end))

    def slice(self, range: Any) -> NormalizedString | None:
        """A part by a range of characters of the normal form."""
        return self[range]

    def _part(self, start: int, end: int) -> NormalizedString:
        part = NormalizedString.__new__(NormalizedString)
        part._root, part._text, part._spans, part._open = (
            self._root,
            self._text[start:end],
            self._spans[start:end],
            True,
        )
        part._ends = (
            (part._spans[0][0], part._spans[-1][1]) if part._spans else (self._ends[0], self._ends[0])
        )
        if start == 0 and end == len(self._text):
            part._ends = self._ends
        return part

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Characters of the root that part of the normal form stands for."""
        if not self._spans:
            return (self._ends[0], self._ends[0])
        if start >= end:
            at = self._spans[start][0] if start < len(self._spans) else self._spans[-1][1]
            return (at, at)
        return (self._spans[start][0], self._spans[min(end, len(self._spans)) - 1][1])

    def _set(self, pieces: Iterable[tuple[str, tuple[int, int]]]) -> None:
        self._check()
        text, spans = [], []
        for piece, span in pieces:
            text.append(piece)
            spans += [span] * len(piece)
        self._text, self._spans = "".join(text), spans

    # Unicode forms

    def nfd(self) -> None:
        """Canonical decomposition."""
        self._normal("NFD", "NFD")

    def nfkd(self) -> None:
        """Compatibility decomposition."""
        self._normal("NFKD", "NFKD")

    def nfc(self) -> None:
        """Canonical composition."""
        self._normal("NFC", "NFD")

    def nfkc(self) -> None:
        """Compatibility composition."""
        self._normal("NFKC", "NFKD")

    def _normal(self, form: Any, decomposed: Any) -> None:
        if unicodedata.is_normalized(form, self._text):
            return
        # Parts in canonical order, each with its source; composing takes as many as the result decomposes into.
        parts = [
            (part, span)
            for char, span in zip(self._text, self._spans, strict=True)
            for part in unicodedata.normalize(decomposed, char)
        ]
        at = 0
        while at < len(parts):
            end = at + 1
            while end < len(parts) and unicodedata.combining(parts[end][0]):
                end += 1
            first = at + (not unicodedata.combining(parts[at][0]))
            parts[first:end] = sorted(parts[first:end], key=lambda part: unicodedata.combining(part[0]))
            at = end
        if form == decomposed:
            self._set(parts)
            return
        at, composed = 0, []
        for char in unicodedata.normalize(form, "".join(part for part, _ in parts)):
            composed.append((char, parts[at][1]))
            at += len(unicodedata.normalize("NFD", char))
        self._set(composed)

    # Changes

    def lowercase(self) -> None:
        """Every character in lower case."""
        self.map(str.lower)

    def uppercase(self) -> None:
        """Every character in upper case."""
        self.map(str.upper)

    def map(self, func: Callable[[str], str]) -> None:
        """Puts what ``func`` gives for each character in its place."""
        self._set((func(char), span) for char, span in zip(self._text, self._spans, strict=True))

    def filter(self, func: Callable[[str], bool]) -> None:
        """Keeps the characters for which ``func`` is true."""
        self._set((char, span) for char, span in zip(self._text, self._spans, strict=True) if func(char))

    def for_each(self, func: Callable[[str], Any]) -> None:
        """Calls ``func`` with each character."""
        for char in self._text:
            func(char)

    def prepend(self, s: str) -> None:
        """Puts text in front; it stands for the first character."""
        if self._text:
            self._set([(s, self._spans[0]), *zip(self._text, self._spans, strict=True)])

    def append(self, s: str) -> None:
        """Puts text behind; it stands for the last character."""
        if self._text:
            self._set([*zip(self._text, self._spans, strict=True), (s, self._spans[-1])])

    def lstrip(self) -> None:
        """Removes white space in front."""
        self._cut(len(self._text) - len(self._text.lstrip()), len(self._text))

    def rstrip(self) -> None:
        """Removes white space behind."""
        self._cut(0, len(self._text.rstrip()))

    def strip(self) -> None:
        """Removes white space on both sides."""
        self.rstrip()
        self.lstrip()

    def clear(self) -> None:
        """Removes everything."""
        self._cut(0, 0)

    def _cut(self, start: int, end: int) -> None:
        self._check()
        self._text, self._spans = self._text[start:end], self._spans[start:end]

    def replace(self, pattern: Any, content: str) -> None:
        """Puts ``content`` in the place of each match of a string or :class:`Regex`; it stands for the last character."""
        self._check()
        pieces: list[tuple[str, tuple[int, int]]] = []
        last = 0
        for start, end in regex.find(pattern, self._text):
            pieces += zip(self._text[last:start], self._spans[last:start], strict=True)
            span = self._spans[end - 1] if end > 0 else (0, 0)
            pieces.append((content, span))
            last = end
        if last or pieces:
            self._set([*pieces, *zip(self._text[last:], self._spans[last:], strict=True)])

    def split(self, pattern: Any, behavior: str, invert: bool = False) -> list[NormalizedString]:
        """The parts between and at the matches of a pattern; see :class:`SplitDelimiterBehavior`."""
        pieces: list[tuple[int, int, bool]] = []
        last = 0
        for start, end in regex.find(pattern, self._text):
            if start > last:
                pieces.append((last, start, invert))
            pieces.append((start, end, not invert))
            last = end
        if last < len(self._text):
            pieces.append((last, len(self._text), invert))
        return [self._part(start, end) for start, end in joined(pieces, behavior) if end > start]


def joined(pieces: list[tuple[int, int, bool]], behavior: str) -> Spans:
    """Pieces and whether each is a delimiter, put together as the behaviour says."""
    behavior = str(getattr(behavior, "value", behavior)).lower()
    if behavior not in ("removed", "isolated", "contiguous", "merged_with_previous", "merged_with_next"):
        raise ValueError(
            "Wrong value for SplitDelimiterBehavior, expected one of: "
            "`removed, isolated, merged_with_previous, merged_with_next, contiguous`"
        )
    if behavior == "removed":
        return [(start, end) for start, end, matched in pieces if not matched]
    spans: Spans = []
    before = False
    for start, end, matched in pieces:
        joins = {
            "isolated": False,
            "contiguous": matched == before,
            "merged_with_previous": matched and not before,
            "merged_with_next": before and not matched,
        }[behavior]
        if joins and spans:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        before = matched
    return spans
