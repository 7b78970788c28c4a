"""What a tokenizer gives for a text: ids, and where they come from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

_FIELDS = (
    "ids",
    "type_ids",
    "tokens",
    "word_ids",
    "offsets",
    "special_tokens_mask",
    "attention_mask",
)


class Encoding:
    """The tokens of one text or of two, field by field, one entry a token.

    Attributes
    ----------
    ids, type_ids, special_tokens_mask, attention_mask : list[int]
    tokens : list[str]
    offsets : list[tuple[int, int]]
        Characters of the original text, start and end.
    word_ids, sequence_ids : list[int | None]
        None for special tokens and padding.
    overflowing : list[Encoding]
        What truncation cut off.

    Examples
    --------
    >>> tokenizer.encode("my name").tokens  # doctest: +SKIP
    ['my', 'name']
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.type_ids: list[int] = []
        self.tokens: list[str] = []
        self.word_ids: list[int | None] = []
        self.offsets: list[tuple[int, int]] = []
        self.special_tokens_mask: list[int] = []
        self.attention_mask: list[int] = []
        self.overflowing: list[Encoding] = []
        # First token of each sequence and the one after its last, where something was said.
        self._ranges: dict[int, tuple[int, int]] = {}

    def _add(
        self,
        token_id: int,
        token: str,
        offsets: tuple[int, int],
        word: int | None,
        type_id: int,
        special: int = 0,
    ) -> None:
        self.ids.append(token_id)
        self.tokens.append(token)
        self.offsets.append(offsets)
        self.word_ids.append(word)
        self.type_ids.append(type_id)
        self.special_tokens_mask.append(special)
        self.attention_mask.append(1)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return (
            f"Encoding(num_tokens={len(self.ids)}, attributes=[ids, type_ids, tokens, offsets, "
            "attention_mask, special_tokens_mask, overflowing])"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # its lists change

    @property
    def words(self) -> list[int | None]:
        """The old name of ``word_ids``."""
        warnings.warn(
            "Encoding.words is deprecated, please use Encoding.word_ids instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.word_ids

    @property
    def sequence_ids(self) -> list[int | None]:
        """The sequence of each token, None for special tokens; all are the first where nothing was said."""
        found: list[int | None] = [None] * len(self)
        for sequence in range(self.n_sequences):
            for at in self._of(sequence):
                found[at] = sequence
        return found

    @property
    def n_sequences(self) -> int:
        """How many sequences were put together."""
        return len(self._ranges) or 1

    def set_sequence_id(self, sequence_id: int) -> None:
        """Says which sequence all tokens belong to."""
        self._ranges = {sequence_id: (0, len(self))}

    def _of(self, sequence: int) -> range:
        return range(*self._ranges.get(sequence, (0, len(self))))

    def token_to_sequence(self, token_index: int) -> int | None:
        """The sequence of a token."""
        return self.sequence_ids[token_index] if 0 <= token_index < len(self) else None

    def token_to_chars(self, token_index: int) -> tuple[int, int] | None:
        """The characters of a token."""
        return None if self.token_to_sequence(token_index) is None else self.offsets[token_index]

    def token_to_word(self, token_index: int) -> int | None:
        """The word of a token."""
        return None if self.token_to_sequence(token_index) is None else self.word_ids[token_index]

    def word_to_tokens(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """First token of a word and the one after its last."""
        places = [at for at in self._of(sequence_index) if self.word_ids[at] == word_index]
        return (places[0], places[-1] + 1) if places else None

    def word_to_chars(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """The characters of a word."""
        tokens = self.word_to_tokens(word_index, sequence_index)
        return None if tokens is None else (self.offsets[tokens[0]][0], self.offsets[tokens[1] - 1][1])

    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """The token that has a character."""
        inside = (
            at for at in self._of(sequence_index) if self.offsets[at][0] <= char_pos < self.offsets[at][1]
        )
        return next(inside, None)

    def char_to_word(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """The word that has a character."""
        token = self.char_to_token(char_pos, sequence_index)
        return None if token is None else self.token_to_word(token)

    def pad(
        self,
        length: int,
        *,
        direction: str = "right",
        pad_id: int = 0,
        pad_type_id: int = 0,
        pad_token: str = "[PAD]",
    ) -> None:
        """Fills up to ``length`` tokens on the right or on the left."""
        for other in self.overflowing:
            other.pad(
                length, direction=direction, pad_id=pad_id, pad_type_id=pad_type_id, pad_token=pad_token
            )
        count = length - len(self)
        if count <= 0:
            return
        if direction not in ("left", "right"):
            raise ValueError(f"Unknown `direction`: `{direction}`. Use one of `left` or `right`")
        values = (pad_id, pad_type_id, pad_token, None, (0, 0), 1, 0)
        for field, value in zip(_FIELDS, values, strict=True):
            have = getattr(self, field)
            setattr(self, field, have + [value] * count if direction == "right" else [value] * count + have)
        if direction == "left":
            self._ranges = {n: (start + count, end + count) for n, (start, end) in self._ranges.items()}

    def truncate(self, max_length: int, stride: int = 0, direction: str = "right") -> None:
        """Keeps ``max_length`` tokens; the others go to ``overflowing`` in pieces that share ``stride`` tokens."""
        if direction not in ("left", "right"):
            raise ValueError(f"Invalid truncation direction value : {direction}")
        size = len(self)
        if max_length >= size:
            return
        if max_length == 0:
            whole = self._part(0, size)
            for field in _FIELDS:
                setattr(self, field, [])
            self.overflowing.append(whole)
            self._ranges = {}
            return
        if stride >= max_length:
            raise ValueError(
                f"tried to truncate to {max_length} tokens with a stride of {stride}; it must be less"
            )
        step = max_length - stride
        parts = []
        if direction == "right":
            for start in range(0, size, step):
                parts.append(self._part(start, min(start + max_length, size)))
                if start + max_length >= size:
                    break
        else:
            for end in range(size, 0, -step):
                parts.append(self._part(max(0, end - max_length), end))
                if end <= max_length:
                    break
        for field in _FIELDS:
            setattr(self, field, getattr(parts[0], field))
        self.overflowing, self._ranges = parts[1:], {}

    def _part(self, start: int, end: int) -> Encoding:
        part = Encoding()
        for field in _FIELDS:
            setattr(part, field, getattr(self, field)[start:end])
        return part

    def _copy(self) -> Encoding:
        copied = self._part(0, len(self))
        copied._ranges = dict(self._ranges)
        copied.overflowing = [other._copy() for other in self.overflowing]
        return copied

    @staticmethod
    def merge(encodings: Sequence[Encoding], growing_offsets: bool = True) -> Encoding:
        """One encoding after another; with ``growing_offsets`` the texts count as one."""
        merged = Encoding()
        for encoding in encodings:
            merged._extend(encoding, growing_offsets)
        return merged

    def _extend(self, other: Encoding, growing_offsets: bool) -> None:
        overflowing = []
        for mine in self.overflowing:
            for theirs in (other, *other.overflowing):
                both = mine._copy()
                both._extend(theirs._copy(), growing_offsets)
                overflowing.append(both)
        for theirs in other.overflowing:
            both = self._copy()
            both._extend(theirs._copy(), growing_offsets)
            overflowing.append(both)
        size = len(self)
        self._ranges.update({n: (start + size, end + size) for n, (start, end) in other._ranges.items()})
        shift = self.offsets[-1][1] if growing_offsets and self.offsets else 0
        for field in _FIELDS:
            added = getattr(other, field)
            if field == "offsets" and shift:
                added = [(start + shift, end + shift) for start, end in added]
            setattr(self, field, getattr(self, field) + added)
        self.overflowing = overflowing

    def __copy__(self) -> Encoding:
        return self._copy()

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
