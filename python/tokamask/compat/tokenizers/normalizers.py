"""Normalizers: what becomes of a text before it is cut."""

from __future__ import annotations

import base64
import struct
import unicodedata
from typing import Any

from tokamask.compat.tokenizers import regex
from tokamask.compat.tokenizers.alphabet import CHARS
from tokamask.compat.tokenizers.component import Component
from tokamask.compat.tokenizers.normalized import NormalizedString


class Normalizer(Component, kind=True):
    """Base of all normalizers."""

    def normalize(self, normalized: NormalizedString) -> None:
        """Changes a text in place."""
        raise NotImplementedError

    def normalize_str(self, sequence: str) -> str:
        """The normal form of a text."""
        text = NormalizedString(sequence)
        self.normalize(text)
        return text.normalized

    @staticmethod
    def custom(normalizer: Any) -> Normalizer:
        """A normalizer from an object with a method ``normalize(normalized)``."""
        return _Custom(normalizer)


class _Custom(Normalizer):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def normalize(self, normalized: NormalizedString) -> None:
        try:
            # What the object keeps stops working once it has returned, as in the original.
            lent = normalized._part(0, len(normalized))
            self.inner.normalize(lent)
            normalized._text, normalized._spans = lent._text, lent._spans
            lent._open = False
        except TypeError as error:
            raise Exception(f"TypeError: {error}") from None

    def to_json(self) -> dict[str, Any]:
        raise Exception("Custom Normalizer cannot be serialized")


class Sequence(Normalizer):
    """Normalizers one after another."""

    FIELDS = ("normalizers",)

    def __init__(self, normalizers: Any) -> None:
        self.normalizers = [Normalizer.from_json(n) if isinstance(n, dict) else n for n in normalizers]

    def normalize(self, normalized: NormalizedString) -> None:
        for normalizer in self.normalizers:
            normalizer.normalize(normalized)

    def __getitem__(self, index: int) -> Any:
        return self.normalizers[index]

    def __setitem__(self, index: int, value: Normalizer) -> None:
        self.normalizers = [*self.normalizers[:index], value, *self.normalizers[index + 1 :]]

    def __len__(self) -> int:
        return len(self.normalizers)


def _is_control(char: str) -> bool:
    return char not in "\t\n\r" and unicodedata.category(char)[0] == "C"


_CJK: tuple[tuple[int, int], ...] = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
)
_CJK += ((0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


class BertNormalizer(Normalizer):
    """BERT's: cleaned, spaces round Chinese characters, accents off, lower case, each if asked for."""

    FIELDS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")

    def __init__(
        self,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        lowercase: bool = True,
    ) -> None:
        self.clean_text, self.handle_chinese_chars = clean_text, handle_chinese_chars
        self.strip_accents, self.lowercase = strip_accents, lowercase

    def normalize(self, normalized: NormalizedString) -> None:
        if self.clean_text:
            normalized.filter(lambda c: c not in "\0\ufffd" and not _is_control(c))
            normalized.map(lambda c: " " if c in "\t\n\r" or c.isspace() else c)
        if self.handle_chinese_chars:
            normalized.map(lambda c: f" {c} " if any(low <= ord(c) <= high for low, high in _CJK) else c)
        if self.lowercase if self.strip_accents is None else self.strip_accents:
            normalized.nfd()
            normalized.filter(lambda c: unicodedata.category(c) != "Mn")
        if self.lowercase:
            normalized.lowercase()


def _form(name: str) -> type[Normalizer]:
    def normalize(self: Normalizer, normalized: NormalizedString) -> None:
        getattr(normalized, name.lower())()

    return type(
        name,
        (Normalizer,),
        {"normalize": normalize, "__doc__": f"The Unicode form {name}.", "__module__": __name__},
    )


NFC, NFD, NFKC, NFKD = _form("NFC"), _form("NFD"), _form("NFKC"), _form("NFKD")


class Lowercase(Normalizer):
    """Every character in lower case."""

    def normalize(self, normalized: NormalizedString) -> None:
        normalized.lowercase()


class Strip(Normalizer):
    """White space off, left, right or both."""

    FIELDS = ("strip_left", "strip_right")

    def __init__(self, left: bool = True, right: bool = True) -> None:
        self.left, self.right = left, right

    @classmethod
    def _load(cls, state: dict[str, Any]) -> Strip:
        return cls(state["strip_left"], state["strip_right"])

    @property
    def strip_left(self) -> bool:
        """``left``, as files call it."""
        return self.left

    @property
    def strip_right(self) -> bool:
        """``right``, as files call it."""
        return self.right

    def normalize(self, normalized: NormalizedString) -> None:
        if self.right:
            normalized.rstrip()
        if self.left:
            normalized.lstrip()


class StripAccents(Normalizer):
    """Combining marks off; use a decomposing form before."""

    def normalize(self, normalized: NormalizedString) -> None:
        normalized.filter(lambda c: unicodedata.category(c)[0] != "M")


class Prepend(Normalizer):
    """Text in front of any text that is not empty."""

    FIELDS = ("prepend",)

    def __init__(self, prepend: str = "▁") -> None:
        self.prepend = prepend

    def normalize(self, normalized: NormalizedString) -> None:
        normalized.prepend(self.prepend)


class Replace(Normalizer):
    """One text for every match of a string or :class:`Regex`."""

    _pattern: Any

    def __init__(self, pattern: Any, content: str) -> None:
        object.__setattr__(self, "_pattern", regex.from_json(pattern))
        self.content = content

    @property
    def pattern(self) -> Any:
        """Cannot be read, as in the original."""
        raise Exception("Cannot get pattern")

    def to_json(self) -> dict[str, Any]:
        return {"type": "Replace", "pattern": regex.to_json(self._pattern), "content": self.content}

    def normalize(self, normalized: NormalizedString) -> None:
        normalized.replace(self._pattern, self.content)


class ByteLevel(Normalizer):
    """Every byte as a visible character."""

    def normalize(self, normalized: NormalizedString) -> None:
        normalized.map(lambda c: "".join(CHARS[byte] for byte in c.encode("utf-8", "surrogatepass")))


class Nmt(Normalizer):
    """Control characters off or made spaces, as one translation system does."""

    _GONE = frozenset([*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F])
    _SPACE = frozenset(
        [9, 10, 12, 13, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD]
    )

    def normalize(self, normalized: NormalizedString) -> None:
        normalized.filter(lambda c: ord(c) not in self._GONE)
        normalized.map(lambda c: " " if ord(c) in self._SPACE else c)


class Precompiled(Normalizer):
    """SentencePiece's table of characters and what becomes of them."""

    _data: bytes
    _units: tuple[int, ...]
    _texts: bytes

    def __init__(self, precompiled_charsmap: bytes | str) -> None:
        data = (
            base64.b64decode(precompiled_charsmap)
            if isinstance(precompiled_charsmap, str)
            else precompiled_charsmap
        )
        object.__setattr__(self, "_data", bytes(data))
        size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
        if size % 4 or 4 + size > len(data):
            raise Exception("Cannot read the precompiled charsmap")
        object.__setattr__(self, "_units", struct.unpack_from(f"<{size // 4}I", data, 4))
        object.__setattr__(self, "_texts", bytes(data[4 + size :]))

    def to_json(self) -> dict[str, Any]:
        return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(self._data).decode()}

    def _replacement(self, key: str) -> str | None:
        """What the first entry of the table that begins ``key`` becomes."""
        units, at = self._units, 0
        if not units:
            return None

        def offset(unit: int) -> int:
            return int(unit >> 10) << int((unit & (1 << 9)) >> 6)

        at ^= offset(units[0])
        for byte in key.encode("utf-8", "surrogatepass"):
            if byte == 0:
                return None
            at ^= byte
            if at >= len(units) or units[at] & 0x800000FF != byte:
                return None
            unit = units[at]
            at ^= offset(unit)
            if unit >> 8 & 1:
                start = units[at] & 0x7FFFFFFF
                return self._texts[start : self._texts.index(b"\0", start)].decode()
        return None

    def normalize(self, normalized: NormalizedString) -> None:
        pieces: list[tuple[str, tuple[int, int]]] = []
        text, at = normalized.normalized, 0
        while at < len(text):
            end = at + 1
            while end < len(text) and (unicodedata.category(text[end])[0] == "M" or text[end] == "\u200d"):
                end += 1
            whole = (
                self._replacement(text[at:end])
                if len(text[at:end].encode("utf-8", "surrogatepass")) < 6
                else None
            )
            if whole is not None:
                pieces.append((whole, normalized._spans[at]))
            else:
                for place in range(at, end):
                    found = self._replacement(text[place])
                    pieces.append((text[place] if found is None else found, normalized._spans[place]))
            at = end
        normalized._set(pieces)


def unicode_normalizer_from_str(normalizer: str) -> Normalizer:
    """The Unicode form of a name: nfc, nfd, nfkc or nfkd."""
    forms = {"nfc": NFC, "nfd": NFD, "nfkc": NFKC, "nfkd": NFKD}
    if normalizer not in forms:
        raise ValueError(f"{normalizer} is not a known unicode normalizer. Available are {list(forms)}")
    return forms[normalizer]()
