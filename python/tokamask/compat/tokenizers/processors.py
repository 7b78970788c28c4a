"""Post-processors: what is put round the tokens of one text or two."""

from __future__ import annotations

import re
from typing import Any

from tokamask.compat.tokenizers.component import Component
from tokamask.compat.tokenizers.encoding import Encoding


class PostProcessor(Component, kind=True):
    """Base of all post-processors."""

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        """How many tokens are put round one text or two."""
        return 0

    def process(
        self, encoding: Encoding, pair: Encoding | None = None, add_special_tokens: bool = True
    ) -> Encoding:
        """One encoding of one or two texts."""
        encodings = [encoding] if pair is None else [encoding, pair]
        return Encoding.merge(self._process([e._copy() for e in encodings], add_special_tokens), False)

    def _process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        return default(encodings)


def default(encodings: list[Encoding]) -> list[Encoding]:
    """Sequence numbers, and nothing put round."""
    for nth, encoding in enumerate(encodings):
        if len(encodings) > 1:
            encoding.set_sequence_id(nth)
    return encodings


def _special(tokens: list[str], ids: list[int], type_id: int) -> Encoding:
    encoding = Encoding()
    for token, token_id in zip(tokens, ids, strict=True):
        encoding._add(token_id, token, (0, 0), None, type_id, special=1)
    return encoding


def _sequence(encoding: Encoding, nth: int, type_id: int) -> Encoding:
    for each in (encoding, *encoding.overflowing):
        each.set_sequence_id(nth)
        each.type_ids = [type_id] * len(each)
    return encoding


def _blank(char: str) -> bool:
    return char == "Ġ" or char.isspace()


def _trimmed(encoding: Encoding, add_prefix_space: bool) -> None:
    """White space at the ends of tokens out of their offsets."""
    for each in (encoding, *encoding.overflowing):
        for at, (token, (start, end)) in enumerate(zip(each.tokens, each.offsets, strict=True)):
            leading = next((n for n, c in enumerate(token) if not _blank(c)), len(token))
            trailing = next((n for n, c in enumerate(reversed(token)) if not _blank(c)), len(token))
            if leading:
                if (at == 0 or start == 0) and add_prefix_space:
                    leading -= 1
                start = min(start + leading, end)
            if trailing and end >= trailing:
                end = max(end - trailing, start)
            each.offsets[at] = (start, end)


class BertProcessing(PostProcessor):
    """``[CLS] A [SEP]`` and ``[CLS] A [SEP] B [SEP]``."""

    FIELDS = ("sep", "cls")

    def __init__(self, sep: tuple[str, int], cls: tuple[str, int]) -> None:
        self.sep: tuple[str, int] = (sep[0], sep[1])
        self.cls: tuple[str, int] = (cls[0], cls[1])

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        return 3 if is_pair else 2

    def _process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        if not add_special_tokens:
            return default(encodings)
        parts = [_special([self.cls[0]], [self.cls[1]], 0)]
        for nth, encoding in enumerate(encodings):
            parts += [_sequence(encoding, nth, nth), _special([self.sep[0]], [self.sep[1]], nth)]
        return parts


class RobertaProcessing(PostProcessor):
    """``<s> A </s>`` and ``<s> A </s></s> B </s>``, offsets trimmed if asked for."""

    FIELDS = ("sep", "cls", "trim_offsets", "add_prefix_space")

    def __init__(
        self,
        sep: tuple[str, int],
        cls: tuple[str, int],
        trim_offsets: bool = True,
        add_prefix_space: bool = True,
    ) -> None:
        self.sep: tuple[str, int] = (sep[0], sep[1])
        self.cls: tuple[str, int] = (cls[0], cls[1])
        self.trim_offsets, self.add_prefix_space = trim_offsets, add_prefix_space

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        return 4 if is_pair else 2

    def _process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        parts = []
        for nth, encoding in enumerate(encodings):
            if self.trim_offsets:
                _trimmed(encoding, self.add_prefix_space)
            _sequence(encoding, nth, 0)
            first = self.cls if nth == 0 else self.sep
            around = [
                _special([first[0]], [first[1]], 0),
                encoding,
                _special([self.sep[0]], [self.sep[1]], 0),
            ]
            parts += around if add_special_tokens else [encoding]
        return parts


class ByteLevel(PostProcessor):
    """Offsets without the white space of tokens, if asked for."""

    FIELDS = ("add_prefix_space", "trim_offsets", "use_regex")

    def __init__(
        self,
        add_prefix_space: bool | None = None,
        trim_offsets: bool | None = None,
        use_regex: bool | None = None,
        **_: Any,
    ) -> None:
        self.add_prefix_space = True if add_prefix_space is None else add_prefix_space
        self.trim_offsets = True if trim_offsets is None else trim_offsets
        self.use_regex = True if use_regex is None else use_regex

    def _process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        if self.trim_offsets:
            for encoding in encodings:
                _trimmed(encoding, self.add_prefix_space)
        for nth, encoding in enumerate(encodings):
            for each in (encoding, *encoding.overflowing):
                each.set_sequence_id(nth)
        return encodings


class Sequence(PostProcessor):
    """Post-processors one after another."""

    FIELDS = ("processors",)

    def __init__(self, processors: Any) -> None:
        self.processors = [PostProcessor.from_json(p) if isinstance(p, dict) else p for p in processors]

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        return sum(processor.num_special_tokens_to_add(is_pair) for processor in self.processors)

    def _process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        for processor in self.processors:
            encodings = processor._process(encodings, add_special_tokens)
        return encodings

    def __getitem__(self, index: int) -> Any:
        return self.processors[index]

    def __setitem__(self, index: int, value: PostProcessor) -> None:
        self.processors = [*self.processors[:index], value, *self.processors[index + 1 :]]

    def __len__(self) -> int:
        return len(self.processors)


def _piece(text: Any) -> dict[str, Any]:
    """``$A:1``, ``$0`` or ``[CLS]:0`` as it stands in files."""
    if isinstance(text, dict):
        return text
    name, colon, number = text.rpartition(":")
    if not colon or not (number.isdigit() or text.startswith("$")):
        name, number = text, ""
    if colon and name != text and not number.isdigit():
        raise ValueError(f'Cannot build Piece from string "{text}"')
    if not text.startswith("$"):
        return {"SpecialToken": {"id": name, "type_id": int(number or 0)}}
    what = name[1:]
    if what in ("", "A", "a", "B", "b"):
        return {"Sequence": {"id": what.upper() or "A", "type_id": int(number or 0)}}
    if what.isdigit() and not number:
        return {"Sequence": {"id": "A", "type_id": int(what)}}
    raise ValueError(f'Cannot build Piece from string "{text}"')


class TemplateProcessing(PostProcessor):
    """What a template puts round the texts: ``"[CLS] $A [SEP]"``."""

    FIELDS = ("single", "pair", "special_tokens")

    special_tokens: dict[str, dict[str, Any]]

    def __init__(self, single: Any = None, pair: Any = None, special_tokens: Any = None) -> None:
        self.single = self._template(single if single is not None else "$0")
        self.pair = self._template(pair if pair is not None else "$A:0 $B:1")
        listed = special_tokens.values() if isinstance(special_tokens, dict) else special_tokens or []
        tokens: dict[str, dict[str, Any]] = {}
        for token in listed:
            if not isinstance(token, dict):
                name, token_id = sorted(token, key=lambda part: isinstance(part, int))
                token = {"id": name, "ids": [token_id], "tokens": [name]}
            tokens[token["id"]] = {
                "id": token["id"],
                "ids": list(token["ids"]),
                "tokens": list(token["tokens"]),
            }
        object.__setattr__(self, "special_tokens", dict(sorted(tokens.items())))
        used = {p["SpecialToken"]["id"] for p in (*self.single, *self.pair) if "SpecialToken" in p}
        if missing := sorted(used - tokens.keys()):
            raise ValueError(f"Missing SpecialToken(s) with id(s) `{', '.join(missing)}`")

    @staticmethod
    def _template(template: Any) -> list[dict[str, Any]]:
        return [_piece(p) for p in (re.split(" +", template) if isinstance(template, str) else template)]

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        template = self.pair if is_pair else self.single
        names = [piece["SpecialToken"]["id"] for piece in template if "SpecialToken" in piece]
        return sum(len(self.special_tokens[name]["ids"]) for name in names)

    def _process(self, encodings: list[Encoding], add_special_tokens: bool) -> list[Encoding]:
        parts = []
        for piece in self.single if len(encodings) == 1 else self.pair:
            if "Sequence" in piece:
                nth = 0 if piece["Sequence"]["id"] == "A" else 1
                encoding = encodings[nth]._copy()
                kept = [list(each.type_ids) for each in encoding.overflowing]
                parts.append(_sequence(encoding, nth, piece["Sequence"]["type_id"]))
                # What a truncation cut off keeps the numbers it had, there as here.
                for each, type_ids in zip(encoding.overflowing, kept, strict=True):
                    each.type_ids = type_ids
            elif add_special_tokens:
                token = self.special_tokens[piece["SpecialToken"]["id"]]
                parts.append(_special(token["tokens"], token["ids"], piece["SpecialToken"]["type_id"]))
        return parts
