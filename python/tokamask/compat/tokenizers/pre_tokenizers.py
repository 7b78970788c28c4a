"""Pre-tokenizers: where a text is cut before the model sees it."""

from __future__ import annotations

import unicodedata
from typing import Any

from tokamask import _core
from tokamask.compat.tokenizers import regex
from tokamask.compat.tokenizers.added import is_word
from tokamask.compat.tokenizers.alphabet import CHARS
from tokamask.compat.tokenizers.component import Component
from tokamask.compat.tokenizers.normalized import NormalizedString, joined
from tokamask.compat.tokenizers.pretokenized import PreTokenizedString

_GPT2 = regex.Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


class PreTokenizer(Component, kind=True):
    """Base of all pre-tokenizers."""

    def pre_tokenize(self, pretok: PreTokenizedString) -> None:
        """Cuts the parts of a text that are no tokens yet."""
        pretok.split(lambda _, part: self._cut(part))

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        raise NotImplementedError

    def pre_tokenize_str(self, sequence: str) -> list[tuple[str, tuple[int, int]]]:
        """The parts of a text and where they come from."""
        text = PreTokenizedString(sequence)
        self.pre_tokenize(text)
        return [(part, offsets) for part, offsets, _ in text.get_splits()]

    @staticmethod
    def custom(pretok: Any) -> PreTokenizer:
        """A pre-tokenizer from an object with a method ``pre_tokenize(pretok)``."""
        return _Custom(pretok)


class _Custom(PreTokenizer):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def pre_tokenize(self, pretok: PreTokenizedString) -> None:
        try:
            self.inner.pre_tokenize(pretok)
        except TypeError as error:
            raise Exception(f"TypeError: {error}") from None

    def to_json(self) -> dict[str, Any]:
        raise Exception("Custom PreTokenizer cannot be serialized")


class Sequence(PreTokenizer):
    """Pre-tokenizers one after another."""

    FIELDS = ("pretokenizers",)

    def __init__(self, pretokenizers: Any) -> None:
        self.pretokenizers = [PreTokenizer.from_json(p) if isinstance(p, dict) else p for p in pretokenizers]

    def pre_tokenize(self, pretok: PreTokenizedString) -> None:
        for pretokenizer in self.pretokenizers:
            pretokenizer.pre_tokenize(pretok)

    def __getitem__(self, index: int) -> Any:
        return self.pretokenizers[index]

    def __setitem__(self, index: int, value: PreTokenizer) -> None:
        self.pretokenizers = [*self.pretokenizers[:index], value, *self.pretokenizers[index + 1 :]]

    def __len__(self) -> int:
        return len(self.pretokenizers)


class ByteLevel(PreTokenizer):
    """GPT-2's rule, then every byte as a visible character."""

    FIELDS = ("add_prefix_space", "trim_offsets", "use_regex")

    def __init__(
        self, add_prefix_space: bool = True, trim_offsets: bool = True, use_regex: bool = True, **_: Any
    ) -> None:
        self.add_prefix_space, self.trim_offsets, self.use_regex = add_prefix_space, trim_offsets, use_regex

    @staticmethod
    def alphabet() -> list[str]:
        """The 256 characters that stand for bytes."""
        return list(CHARS)

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        if self.add_prefix_space and not part.normalized.startswith(" "):
            part.prepend(" ")
        parts = part.split(_GPT2, "isolated") if self.use_regex else [part]
        for each in parts:
            each.map(lambda c: "".join(CHARS[byte] for byte in c.encode("utf-8", "surrogatepass")))
        return parts


class Whitespace(PreTokenizer):
    """Words, and runs of what is neither a word nor white space."""

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        kinds = [0 if c.isspace() and not is_word(c) else 1 if is_word(c) else 2 for c in part.normalized]
        spans, start = [], 0
        for at in range(1, len(kinds) + 1):
            if at == len(kinds) or kinds[at] != kinds[start]:
                if kinds[start]:
                    spans.append((start, at))
                start = at
        return [part._part(start, end) for start, end in spans]


class WhitespaceSplit(PreTokenizer):
    """What white space separates."""

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        return part.split(_is_space, "removed")


def _is_space(char: str) -> bool:
    # The separators of files, which Python alone takes for white space, are none in Unicode.
    return char.isspace() and char not in "\x1c\x1d\x1e\x1f"


def _is_punctuation(char: str) -> bool:
    ascii_signs = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    return char in ascii_signs or unicodedata.category(char)[0] == "P"


class BertPreTokenizer(PreTokenizer):
    """BERT's: white space separates, every punctuation mark is a part."""

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        words = part.split(_is_space, "removed")
        return [piece for word in words for piece in word.split(_is_punctuation, "isolated")]


class Punctuation(PreTokenizer):
    """Punctuation marks, put with their neighbours as the behaviour says."""

    FIELDS = ("behavior",)

    def __init__(self, behavior: str = "isolated") -> None:
        self.behavior = _behavior(behavior)

    def to_json(self) -> dict[str, Any]:
        return {"type": "Punctuation", "behavior": _spelled(self.behavior)}

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        return part.split(_is_punctuation, self.behavior)


class Digits(PreTokenizer):
    """Numbers, or each digit."""

    FIELDS = ("individual_digits",)

    def __init__(self, individual_digits: bool = False) -> None:
        self.individual_digits = individual_digits

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        numeric = lambda c: unicodedata.category(c)[0] == "N"  # noqa: E731
        return part.split(numeric, "isolated" if self.individual_digits else "contiguous")


class CharDelimiterSplit(PreTokenizer):
    """What one character separates."""

    FIELDS = ("delimiter",)

    def __init__(self, delimiter: str) -> None:
        self.delimiter = _character(delimiter)

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        return part.split(self.delimiter, "removed")


class FixedLength(PreTokenizer):
    """Parts of so many characters."""

    FIELDS = ("length",)

    def __init__(self, length: int = 5) -> None:
        self.length = length

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        size = len(part)
        return [part._part(at, min(at + self.length, size)) for at in range(0, size, self.length)]


class Split(PreTokenizer):
    """What a string or :class:`Regex` cuts."""

    _pattern: Any

    def __init__(self, pattern: Any, behavior: str, invert: bool = False) -> None:
        object.__setattr__(self, "_pattern", regex.from_json(pattern))
        self.behavior, self.invert = _behavior(behavior), invert

    @property
    def pattern(self) -> Any:
        """Cannot be read, as in the original."""
        raise Exception("Cannot get pattern")

    def to_json(self) -> dict[str, Any]:
        pattern = regex.to_json(self._pattern)
        return {
            "type": "Split",
            "pattern": pattern,
            "behavior": _spelled(self.behavior),
            "invert": self.invert,
        }

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        return part.split(self._pattern, self.behavior, self.invert)


class Metaspace(PreTokenizer):
    """Spaces as a visible character, which begins every word."""

    FIELDS = ("replacement", "prepend_scheme", "split")

    def __init__(
        self, replacement: str = "▁", prepend_scheme: str = "always", split: bool = True, **old: Any
    ) -> None:
        if old.get("add_prefix_space") is False:
            prepend_scheme = "never"
        if prepend_scheme not in ("always", "never", "first"):
            raise ValueError(
                f"{prepend_scheme} is an unknown variant, should be one of ['first', 'never', 'always']"
            )
        self.replacement, self.prepend_scheme, self.split = _character(replacement), prepend_scheme, split

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        part.replace(" ", self.replacement)
        first = part.span(0, len(part))[0] == 0
        wanted = self.prepend_scheme == "always" or (self.prepend_scheme == "first" and first)
        if wanted and not part.normalized.startswith(self.replacement):
            part.prepend(self.replacement)
        return part.split(self.replacement, "merged_with_next") if self.split else [part]


class UnicodeScripts(PreTokenizer):
    """Cuts where the script changes; kana count as Han, spaces go with what comes before them."""

    def _cut(self, part: NormalizedString) -> list[NormalizedString]:
        return [part._part(start, end) for start, end in _core.cut_scripts(part.normalized)]


_NAMES = {
    "Removed": "removed",
    "Isolated": "isolated",
    "Contiguous": "contiguous",
    "MergedWithPrevious": "merged_with_previous",
    "MergedWithNext": "merged_with_next",
}


def _behavior(behavior: Any) -> str:
    name = str(getattr(behavior, "value", behavior))
    name = _NAMES.get(name, name)
    joined([], name)  # raises for an unknown one
    return name


def _spelled(behavior: str) -> str:
    return next(name for name, value in _NAMES.items() if value == behavior)


def _character(text: str) -> str:
    if len(text) != 1:
        raise ValueError("expected a string of length 1")
    return text
