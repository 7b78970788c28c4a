"""Tokens that stand beside the model."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class AddedToken:
    """A token that is found in the text before the model sees it.

    Parameters
    ----------
    content : str
    single_word : bool
        Only between characters that are not of words.
    lstrip, rstrip : bool
        Takes the white space before or after it.
    normalized : bool, optional
        Found in the normal form of the text; the default is True for tokens that are not special.
    special : bool
        Left out by decoders that skip special tokens.

    Examples
    --------
    >>> AddedToken("<s>", special=True).normalized
    False
    """

    def __init__(
        self,
        content: str = "",
        *,
        single_word: bool = False,
        lstrip: bool = False,
        rstrip: bool = False,
        normalized: bool | None = None,
        special: bool = False,
    ) -> None:
        self.content = content
        self.single_word, self.lstrip, self.rstrip, self.special = single_word, lstrip, rstrip, special
        self._normalized = normalized

    @classmethod
    def of(cls, token: Any, special: bool | None = None) -> AddedToken:
        """A token from a string or from an object with the same attributes."""
        if isinstance(token, str):
            return cls(token, special=bool(special))
        if special is not None:
            token.special = special
        if isinstance(token, cls):
            return cls(token.content, **{**token._given(), "normalized": token.normalized})
        try:
            return cls(token.content, **{flag: getattr(token, flag) for flag in _FLAGS})
        except AttributeError:
            raise TypeError("Input must be a List[Union[str, AddedToken]]") from None

    @property
    def normalized(self) -> bool:
        """Found in the normal form of the text."""
        return not self.special if self._normalized is None else self._normalized

    @normalized.setter
    def normalized(self, value: bool) -> None:
        self._normalized = value

    def _given(self) -> dict[str, Any]:
        return {flag: getattr(self, flag) for flag in _FLAGS if flag != "normalized"}

    def to_json(self) -> dict[str, Any]:
        """The flags and the content, as a tokenizer.json has them."""
        return {"content": self.content, **{flag: getattr(self, flag) for flag in _FLAGS}}

    def __getstate__(self) -> dict[str, Any]:
        return self.to_json()

    def __setstate__(self, state: dict[str, Any]) -> None:
        AddedToken.__init__(self, **state)

    def __str__(self) -> str:
        return self.content

    def __repr__(self) -> str:
        return (
            f'AddedToken("{self.content}", rstrip={self.rstrip}, lstrip={self.lstrip}, '
            f"single_word={self.single_word}, normalized={self.normalized}, special={self.special})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddedToken) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.content)


def is_word(char: str) -> bool:
    """A character of words, as regular expressions have it."""
    category = unicodedata.category(char)
    return category[0] in "LM" or category in ("Nd", "Nl", "Pc") or char in "\u200c\u200d"


def find(text: str, tokens: dict[str, tuple[int, AddedToken]]) -> list[tuple[int, int, int]]:
    """Start, end and id of the tokens in a text: leftmost first, the longest of those, with what their flags take."""
    found: list[tuple[int, int, int]] = []
    last = 0
    for hit in _finder(tuple(tokens)).finditer(text) if tokens else ():
        token_id, token = tokens[hit.group()]
        start, end = hit.span()
        if start < last:
            continue
        if token.single_word and (
            (start > 0 and is_word(text[start - 1])) or (end < len(text) and is_word(text[end]))
        ):
            continue
        if token.lstrip:
            start = last + len(text[last:start].rstrip())
        if token.rstrip:
            end = len(text) - len(text[end:].lstrip())
        found.append((start, end, token_id))
        last = end
    return found


@functools.lru_cache(maxsize=64)
def _finder(contents: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(content) for content in sorted(contents, key=len, reverse=True)))
