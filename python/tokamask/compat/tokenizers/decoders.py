"""Decoders: from the spellings of tokens to text."""

from __future__ import annotations

import re
from collections.abc import Sequence as Seq
from typing import Any

from tokamask.compat.tokenizers import regex
from tokamask.compat.tokenizers.alphabet import BYTES
from tokamask.compat.tokenizers.component import Component
from tokamask.compat.tokenizers.pre_tokenizers import _character


class Decoder(Component, kind=True):
    """Base of all decoders."""

    def decode(self, tokens: Seq[str]) -> str:
        """The text of tokens."""
        return "".join(self._chain(list(tokens)))

    def _chain(self, tokens: list[str]) -> list[str]:
        raise NotImplementedError

    @staticmethod
    def custom(decoder: Any) -> Decoder:
        """A decoder from an object with ``decode(tokens) -> str`` or ``decode_chain(tokens) -> list[str]``."""
        return _Custom(decoder)


class _Custom(Decoder):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def _chain(self, tokens: list[str]) -> list[str]:
        if hasattr(self.inner, "decode_chain"):
            return list(self.inner.decode_chain(tokens))
        return [self.inner.decode(tokens)]

    def to_json(self) -> dict[str, Any]:
        raise Exception("Custom Decoder cannot be serialized")


class Sequence(Decoder):
    """Decoders one after another."""

    FIELDS = ("decoders",)

    def __init__(self, decoders: Any) -> None:
        self.decoders = [Decoder.from_json(d) if isinstance(d, dict) else d for d in decoders]

    def _chain(self, tokens: list[str]) -> list[str]:
        for decoder in self.decoders:
            tokens = decoder._chain(tokens)
        return tokens


class ByteLevel(Decoder):
    """Visible characters back to bytes."""

    FIELDS = ("add_prefix_space", "trim_offsets", "use_regex")

    def __init__(
        self, add_prefix_space: bool = True, trim_offsets: bool = True, use_regex: bool = True, **_: Any
    ) -> None:
        self.add_prefix_space, self.trim_offsets, self.use_regex = add_prefix_space, trim_offsets, use_regex

    def _chain(self, tokens: list[str]) -> list[str]:
        data = bytearray()
        for token in tokens:
            try:
                data += bytes([BYTES[char] for char in token])
            except KeyError:
                data += token.encode("utf-8", "surrogatepass")
        return [data.decode(errors="replace")]


class Replace(Decoder):
    """One text for every match."""

    _pattern: Any

    def __init__(self, pattern: Any, content: str) -> None:
        object.__setattr__(self, "_pattern", regex.from_json(pattern))
        self.content = content

    def to_json(self) -> dict[str, Any]:
        return {"type": "Replace", "pattern": regex.to_json(self._pattern), "content": self.content}

    def _chain(self, tokens: list[str]) -> list[str]:
        return [self._replaced(token) for token in tokens]

    def _replaced(self, token: str) -> str:
        parts, last = [], 0
        for start, end in regex.find(self._pattern, token):
            parts += [token[last:start], self.content]
            last = end
        return "".join([*parts, token[last:]])


class WordPiece(Decoder):
    """Pieces joined to words, words by spaces."""

    FIELDS = ("prefix", "cleanup")

    def __init__(self, prefix: str = "##", cleanup: bool = True) -> None:
        self.prefix, self.cleanup = prefix, cleanup

    def _chain(self, tokens: list[str]) -> list[str]:
        done = []
        for at, token in enumerate(tokens):
            if at:
                token = token[len(self.prefix) :] if token.startswith(self.prefix) else " " + token
            done.append(_cleaned(token) if self.cleanup else token)
        return done


def _cleaned(text: str) -> str:
    for old, new in (
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ):  # fmt: skip
        text = text.replace(old, new)
    return text


class ByteFallback(Decoder):
    """Tokens such as ``<0x61>`` back to bytes; bytes that are no text become U+FFFD each."""

    def _chain(self, tokens: list[str]) -> list[str]:
        done: list[str] = []
        data = bytearray()

        def flush() -> None:
            if data:
                try:
                    done.append(data.decode())
                except UnicodeDecodeError:
                    done.extend("\ufffd" * len(data))
                data.clear()

        for token in tokens:
            if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
                data.append(int(token[3:5], 16))
            else:
                flush()
                done.append(token)
        flush()
        return done


class Fuse(Decoder):
    """All tokens as one."""

    def _chain(self, tokens: list[str]) -> list[str]:
        return ["".join(tokens)]


class Strip(Decoder):
    """Up to so many of a character off each token."""

    FIELDS = ("content", "start", "stop")

    def __init__(self, content: str = " ", left: int = 0, right: int = 0) -> None:
        self.content, self.start, self.stop = _character(content), left, right

    @classmethod
    def _load(cls, state: dict[str, Any]) -> Strip:
        return cls(state["content"], state["start"], state["stop"])

    def _chain(self, tokens: list[str]) -> list[str]:
        done = []
        for token in tokens:
            start, end = 0, len(token)
            while start < min(self.start, end) and token[start] == self.content:
                start += 1
            while len(token) - end < self.stop and end > start and token[end - 1] == self.content:
                end -= 1
            done.append(token[start:end])
        return done


class Metaspace(Decoder):
    """The visible character back to spaces; that of the first token falls away."""

    FIELDS = ("replacement", "prepend_scheme", "split")

    def __init__(
        self, replacement: str = "▁", prepend_scheme: str = "always", split: bool = True, **old: Any
    ) -> None:
        if prepend_scheme not in ("always", "never", "first"):
            raise ValueError(
                f"{prepend_scheme} is an unknown variant, should be one of ['first', 'never', 'always']"
            )
        self.replacement, self.prepend_scheme, self.split = _character(replacement), prepend_scheme, split

    def _chain(self, tokens: list[str]) -> list[str]:
        done = []
        for at, token in enumerate(tokens):
            drop = at == 0 and self.prepend_scheme != "never"
            first = token[:1].replace(self.replacement, "") if drop else token[:1]
            done.append((first + token[1:]).replace(self.replacement, " "))
        return done


class BPEDecoder(Decoder):
    """A suffix that ends words back to spaces."""

    FIELDS = ("suffix",)

    def __init__(self, suffix: str = "</w>") -> None:
        self.suffix = suffix

    def _chain(self, tokens: list[str]) -> list[str]:
        last = len(tokens) - 1
        return [token.replace(self.suffix, "" if at == last else " ") for at, token in enumerate(tokens)]


class CTC(Decoder):
    """Repeats and padding off, as speech models write."""

    FIELDS = ("pad_token", "word_delimiter_token", "cleanup")

    def __init__(
        self, pad_token: str = "<pad>", word_delimiter_token: str = "|", cleanup: bool = True
    ) -> None:
        self.pad_token, self.word_delimiter_token, self.cleanup = pad_token, word_delimiter_token, cleanup

    def _chain(self, tokens: list[str]) -> list[str]:
        done = []
        for at, token in enumerate(tokens):
            if at and token == tokens[at - 1]:
                continue
            text = token.replace(self.pad_token, "")
            if self.cleanup:
                text = _cleaned(text).replace(self.word_delimiter_token, " ")
            if text:
                done.append(text)
        return done


class DecodeStream:
    """Text from ids that come one by one; nothing is given out that a later id could change.

    Parameters
    ----------
    ids : list[int], optional
        What came before.
    skip_special_tokens : bool

    Examples
    --------
    >>> DecodeStream().step(tokenizer, 5)  # doctest: +SKIP
    ' name'
    """

    def __init__(self, ids: Seq[int] | None = None, skip_special_tokens: bool = False) -> None:
        self.skip_special_tokens = skip_special_tokens
        self.ids = list(ids or [])
        self._prefix: str | None = None
        self._index = 0

    def __copy__(self) -> DecodeStream:
        copied = DecodeStream(self.ids, self.skip_special_tokens)
        copied._prefix, copied._index = self._prefix, self._index
        return copied

    def step(self, tokenizer: Any, id: int | Seq[int]) -> str | None:
        """Adds ids; the text that became complete, or None."""
        if self._prefix is None:
            self._prefix = ""
            if self.ids:
                text = tokenizer.decode(self.ids, skip_special_tokens=self.skip_special_tokens)
                if text and not text.endswith("\ufffd"):
                    self._prefix, self._index = text, len(self.ids)
        self.ids += [id] if isinstance(id, int) else list(id)
        text = str(tokenizer.decode(self.ids, skip_special_tokens=self.skip_special_tokens))
        if len(text.encode()) <= len(self._prefix.encode()) or text.endswith("\ufffd"):
            return None
        if not text.startswith(self._prefix):
            raise Exception("Invalid prefix encountered")
        new: str = text[len(self._prefix) :]
        before = len(self.ids) - self._index
        self.ids = self.ids[self._index :]
        self._prefix = tokenizer.decode(self.ids, skip_special_tokens=self.skip_special_tokens)
        self._index = before if before <= len(self.ids) else len(self.ids)
        return new
