"""``Encoding``: a tokenizer with tiktoken's methods."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tokamask import Tokenizer, _core

_Specials = Literal["all"] | AbstractSet[str]
_NONE: frozenset[str] = frozenset()


class Encoding:
    """A split rule, ranks and special tokens; text to ids and back, as ``tiktoken.Encoding``.

    Parameters
    ----------
    name : str
    pat_str : str
        The split rule, a regular expression.
    mergeable_ranks : dict[bytes, int]
        Tokens and their ranks, which are their ids.
    special_tokens : dict[str, int]
    explicit_n_vocab : int, optional
        How many tokens there are, checked if it is given.

    Raises
    ------
    ValueError
        The number of tokens is not ``explicit_n_vocab``, or two tokens share a rank.
    UnsupportedComponentError
        The split rule cannot be run.

    Examples
    --------
    >>> enc = get_encoding("gpt2")  # doctest: +SKIP
    >>> enc.encode("hello world")  # doctest: +SKIP
    [31373, 995]
    """

    def __init__(
        self,
        name: str,
        *,
        pat_str: str,
        mergeable_ranks: dict[bytes, int],
        special_tokens: dict[str, int],
        explicit_n_vocab: int | None = None,
    ) -> None:
        self.name = name
        self._pat_str = pat_str
        self._mergeable_ranks = mergeable_ranks
        self._special_tokens = special_tokens
        self.max_token_value = max(max(mergeable_ranks.values()), max(special_tokens.values(), default=0))
        if explicit_n_vocab is not None:
            count = len(mergeable_ranks) + len(special_tokens)
            if count != explicit_n_vocab or self.max_token_value != explicit_n_vocab - 1:
                raise ValueError(
                    f"explicit_n_vocab: expected {explicit_n_vocab}, got {count} tokens up to id {self.max_token_value}"
                )
        self._special_token_values = set(special_tokens.values())
        self._core_bpe = Tokenizer.from_tiktoken(
            mergeable_ranks, pattern=pat_str, special_tokens=special_tokens
        )

    def __repr__(self) -> str:
        return f"<Encoding {self.name!r}>"

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer inside, with all that :class:`tokamask.Tokenizer` can do."""
        return self._core_bpe

    # Text to ids

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text; text of special tokens is ordinary text."""
        try:
            return self._core_bpe.encode(text)
        except UnicodeEncodeError:
            return self._core_bpe.encode(_repaired(text))

    def encode(
        self,
        text: str,
        *,
        allowed_special: _Specials = _NONE,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """The ids of a text.

        Parameters
        ----------
        allowed_special : set[str] or "all"
            Special tokens whose text becomes their id.
        disallowed_special : collection of str or "all"
            Special tokens whose text raises ValueError; those in neither are ordinary text. "all" leaves out the allowed.
        """
        allowed = self._allowed(text, allowed_special, disallowed_special)
        try:
            return self._core_bpe.encode(text, allowed_special=allowed)
        except UnicodeEncodeError:
            return self._core_bpe.encode(_repaired(text), allowed_special=allowed)

    def encode_to_numpy(
        self,
        text: str,
        *,
        allowed_special: _Specials = _NONE,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> npt.NDArray[np.uint32]:
        """The ids of a text as uint32 [n]; see :meth:`encode`."""
        allowed = self._allowed(text, allowed_special, disallowed_special)
        return self._core_bpe.encode_array(text, allowed_special=allowed)

    def encode_ordinary_batch(self, text: Sequence[str], *, num_threads: int = 8) -> list[list[int]]:
        """The ids of many texts; ``num_threads`` is accepted, the pool of the process is used."""
        return self._batch(text, None)

    def encode_batch(
        self,
        text: Sequence[str],
        *,
        num_threads: int = 8,
        allowed_special: _Specials = _NONE,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[list[int]]:
        """The ids of many texts; see :meth:`encode`. ``num_threads`` is accepted, the pool of the process is used."""
        found = [self._allowed(each, allowed_special, disallowed_special) for each in text]
        return self._batch(text, next((allowed for allowed in found if allowed is not None), None))

    def _batch(self, texts: Sequence[str], allowed: _Specials | None) -> list[list[int]]:
        try:
            return _core.encode_lists(self._core_bpe, texts, allowed)
        except UnicodeEncodeError:
            return _core.encode_lists(self._core_bpe, [_repaired(text) for text in texts], allowed)

    def encode_with_unstable(
        self,
        text: str,
        *,
        allowed_special: _Specials = _NONE,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> tuple[list[int], list[list[int]]]:
        """The ids that more text cannot change, and sequences of ids that the rest may become, in order of ids.

        Like the original it looks at one more token and is no proof; :meth:`tokamask.Tokenizer.cover_encodings` is.
        """
        allowed = self._allowed(text, allowed_special, disallowed_special)
        return _core.encode_unstable(self._core_bpe, text, allowed)

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """The id of a text or of bytes that are one token, special tokens among them; KeyError if they are none."""
        data = text_or_bytes.encode() if isinstance(text_or_bytes, str) else text_or_bytes
        rank = self._mergeable_ranks.get(data)
        if rank is not None:
            return rank
        try:
            return self._special_tokens[data.decode()]
        except (KeyError, UnicodeDecodeError):
            raise KeyError(data) from None

    def _allowed(
        self, text: str, allowed: _Specials, disallowed: Literal["all"] | Collection[str]
    ) -> _Specials | None:
        """The special tokens to look for (None: none), once no other that is disallowed was found."""
        if allowed == "all":
            allowed = self.special_tokens_set
        every = disallowed == "all"
        # One pass finds that the text has no special token at all, as nearly always: then no set is built.
        if (every or self.special_tokens_set.issuperset(disallowed)) and not _core.may_have_special(
            self._core_bpe, text
        ):
            return None
        wanted = self.special_tokens_set - allowed if every else set(disallowed)
        if wanted and (found := _finder(frozenset(wanted)).search(text)):
            raise_disallowed_special_token(found.group())
        if not allowed:
            return None
        return "all" if allowed >= self.special_tokens_set else allowed

    # Ids to text

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes that ids spell; KeyError for an id that is no token."""
        return self._core_bpe.decode_bytes(tokens)

    def decode(self, tokens: Sequence[int], errors: str = "replace") -> str:
        """The text that ids spell; ``errors`` as ``bytes.decode`` has it."""
        if errors == "replace":
            return self._core_bpe.decode(tokens)
        return self._core_bpe.decode_bytes(tokens).decode("utf-8", errors=errors)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """The bytes of one token; KeyError if the id is none."""
        return self._core_bpe.decode_bytes([token])

    def decode_tokens_bytes(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""
        return [self._core_bpe.decode_bytes([token]) for token in tokens]

    def decode_with_offsets(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """The text, and for each token the first character that has a byte of it; the bytes must be UTF-8."""
        parts = self.decode_tokens_bytes(tokens)
        starts, chars = [], 0
        for part in parts:
            starts.append(max(0, chars - (0x80 <= part[0] < 0xC0)))
            chars += sum(not 0x80 <= byte < 0xC0 for byte in part)
        return b"".join(parts).decode("utf-8", errors="strict"), starts

    def decode_batch(
        self, batch: Sequence[Sequence[int]], *, errors: str = "replace", num_threads: int = 8
    ) -> list[str]:
        """The texts of many rows of ids; ``num_threads`` is accepted and not needed."""
        return [self.decode(tokens, errors) for tokens in batch]

    def decode_bytes_batch(self, batch: Sequence[Sequence[int]], *, num_threads: int = 8) -> list[bytes]:
        """The bytes of many rows of ids; ``num_threads`` is accepted and not needed."""
        return [self.decode_bytes(tokens) for tokens in batch]

    # What there is

    def token_byte_values(self) -> list[bytes]:
        """The bytes of every token that is not special, sorted."""
        return sorted(self._mergeable_ranks)

    @property
    def eot_token(self) -> int:
        """The id of ``<|endoftext|>``; KeyError if there is none."""
        return self._special_tokens["<|endoftext|>"]

    @functools.cached_property
    def special_tokens_set(self) -> set[str]:
        """The texts of the special tokens."""
        return set(self._special_tokens)

    def is_special_token(self, token: int) -> bool:
        """True for the id of a special token."""
        return token in self._special_token_values

    @property
    def n_vocab(self) -> int:
        """The largest id and one."""
        return self.max_token_value + 1

    # Names that others came to use

    def _encode_single_piece(self, text_or_bytes: str | bytes) -> list[int]:
        data = text_or_bytes.encode() if isinstance(text_or_bytes, str) else text_or_bytes
        return _core.encode_piece(self._core_bpe, data)

    def _encode_only_native_bpe(self, text: str) -> list[int]:
        return self.encode_ordinary(text)

    def _encode_bytes(self, text: bytes) -> list[int]:
        return _core.encode_bytes(self._core_bpe, text)

    def __getstate__(self) -> object:
        from tokamask.compat.tiktoken.registry import ENCODINGS

        if self is ENCODINGS.get(self.name):
            return self.name
        return {
            "name": self.name,
            "pat_str": self._pat_str,
            "mergeable_ranks": self._mergeable_ranks,
            "special_tokens": self._special_tokens,
        }

    def __setstate__(self, value: Any) -> None:
        from tokamask.compat.tiktoken.registry import get_encoding

        if isinstance(value, str):
            self.__dict__ = get_encoding(value).__dict__
        else:
            Encoding.__init__(self, **value)


@functools.lru_cache(maxsize=128)
def _finder(tokens: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def raise_disallowed_special_token(token: str) -> None:
    """Raises the ValueError for text of a special token that is not allowed."""
    raise ValueError(
        f"the text holds the special token {token!r}, which is not allowed here. To make it that token, pass "
        f"allowed_special={{{token!r}}}; to take it for ordinary text, pass "
        f"disallowed_special=enc.special_tokens_set - {{{token!r}}}; for all special tokens, disallowed_special=()"
    )


def _repaired(text: str) -> str:
    """Halves of surrogate pairs joined, lone ones replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
