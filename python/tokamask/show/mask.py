"""Which tokens a grammar allows after a text, and why it refuses others."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

import tokamask as tm
from tokamask.show.palette import FAINT, FONT, INK, PAPER, TOKEN_COLOURS, visible_text

#: Tokens that a picture lists.
MOST = 200


@dataclass(frozen=True)
class Refusal:
    """Why bytes cannot follow a text.

    Parameters
    ----------
    byte : int
        The first byte that does not fit, counted from the start of the bytes; their number if all fit and only
        the end of the text does not.
    expected : str
        What fits there.
    json_pointer : str or None
        Where in the JSON document that is; None for texts that are no JSON.

    Examples
    --------
    >>> Refusal(0, "a", "/name").byte
    0

    """

    byte: int
    expected: str
    json_pointer: str | None


@dataclass(frozen=True)
class Place:
    """The tokens that may follow a text.

    Parameters
    ----------
    after : bytes
        The text.
    token_ids : int64 [n]
        The tokens, ascending.
    expected : str
        What may come next, in words.
    json_pointer : str or None
        Where in the JSON document that is; None for texts that are no JSON.
    ends : bool
        Whether the text may end here.

    Examples
    --------
    >>> Place(b"", np.arange(2), "a to b", None, False).token_ids.tolist()
    [0, 1]

    """

    after: bytes
    token_ids: np.ndarray
    expected: str
    json_pointer: str | None
    ends: bool


def place(grammar: tm.Grammar, vocabulary: tm.Vocabulary, after: bytes = b"") -> Place:
    """The tokens that may follow a text, and what is expected there.

    Raises
    ------
    RejectedTokenError
        The text itself does not fit; ``position`` is its first byte that does not.

    Examples
    --------
    >>> vocabulary = tm.Vocabulary([b"a", b"b", b"ab", b"</s>"], special={"</s>": 3}, eos_ids=[3])
    >>> place(tm.Grammar.regex("ab+"), vocabulary, b"a").token_ids.tolist()
    [1]

    """
    probe, matcher = _bytewise(grammar, after)
    # The tokens that may follow depend on the state only, not on how the text was cut: each byte is a token here.
    wide = _with_bytes(vocabulary)
    walker = tm.compile(grammar, wide).matcher()
    walker.accept_prefix([len(vocabulary) + byte for byte in after])
    bits = np.unpackbits(walker.mask_row().view(np.uint8), bitorder="little")[: len(vocabulary)]
    pointer = json_pointer(after) if probe else None
    return Place(after, np.flatnonzero(bits), matcher.expected(), pointer, matcher.is_accepting())


def why_not(grammar: tm.Grammar, vocabulary: tm.Vocabulary, after: bytes, token_id: int) -> Refusal | None:
    """Why a token cannot follow a text; None if it can.

    Examples
    --------
    >>> vocabulary = tm.Vocabulary([b"a", b"bc", b"</s>"], special={"</s>": 2}, eos_ids=[2])
    >>> why_not(tm.Grammar.regex("ab+"), vocabulary, b"a", 1)
    Refusal(byte=1, expected='b, the end', json_pointer=None)

    """
    is_json, matcher = _bytewise(grammar, after)
    token = vocabulary.bytes(token_id) or b""
    if token_id in vocabulary.eos_ids:
        if matcher.is_accepting():
            return None
        return Refusal(0, matcher.expected(), json_pointer(after) if is_json else None)
    fits = matcher.accept_prefix(list(token))
    if fits == len(token):
        return None
    pointer = json_pointer(after + token[:fits]) if is_json else None
    return Refusal(fits, matcher.expected(), pointer)


def mask(grammar: tm.Grammar, vocabulary: tm.Vocabulary, after: bytes = b"", *, most: int = MOST) -> str:
    """The tokens that may follow a text, for a terminal.

    Examples
    --------
    >>> vocabulary = tm.Vocabulary([b"a", b"b", b"ab", b"</s>"], special={"</s>": 3}, eos_ids=[3])
    >>> print(mask(tm.Grammar.regex("ab+"), vocabulary, b"ab"))
    after    ab
    expected b, the end
    allowed  2 of 4 tokens
    b  </s>

    """
    found = place(grammar, vocabulary, after)
    lines = [f"after    {visible_text(after)}"]
    if found.json_pointer is not None:
        lines.append(f"at       {found.json_pointer or 'the root'}")
    lines.append(f"expected {found.expected}")
    lines.append(f"allowed  {len(found.token_ids):,} of {len(vocabulary):,} tokens")
    shown = [visible_text(data) for _, data in _spelled(vocabulary, found.token_ids[:most])]
    if len(found.token_ids) > most:
        shown.append(f"... and {len(found.token_ids) - most:,} more")
    return "\n".join([*lines, "  ".join(shown)])


def mask_html(grammar: tm.Grammar, vocabulary: tm.Vocabulary, after: bytes = b"", *, most: int = MOST) -> str:
    """As :func:`mask`, as a page of HTML; pointing at a token shows its id.

    Examples
    --------
    >>> vocabulary = tm.Vocabulary([b"a", b"</s>"], special={"</s>": 1}, eos_ids=[1])
    >>> mask_html(tm.Grammar.regex("a+"), vocabulary).startswith("<!doctype html>")
    True

    """
    found = place(grammar, vocabulary, after)
    facts = {"after": visible_text(after), "expected": found.expected}
    if found.json_pointer is not None:
        facts["at"] = found.json_pointer or "the root"
    facts["allowed"] = f"{len(found.token_ids):,} of {len(vocabulary):,} tokens"
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    tokens = "".join(
        f'<span title="id {token_id}">{escape(visible_text(data))}</span> '
        for token_id, data in _spelled(vocabulary, found.token_ids[:most])
    )
    rest = len(found.token_ids) - most
    more = f"<p>and {rest:,} more</p>" if rest > 0 else ""
    style = (
        f"body{{background:{PAPER};color:{INK};font:16px/1.9 {FONT};margin:24px;max-width:100ch;overflow-wrap:anywhere}}"
        f"span{{background:{TOKEN_COLOURS[0]};border-radius:3px;padding:3px;white-space:pre-wrap}}"
        f"dt{{color:{FAINT};float:left;clear:left;width:10ch}}dd{{margin:0 0 0 10ch}}p{{color:{FAINT}}}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>allowed tokens</title><style>{style}</style>'
        f"<body><dl>{rows}</dl>{tokens}{more}</body></html>\n"
    )


def json_pointer(text: bytes) -> str:
    """The JSON pointer of the place at which a JSON text breaks off: the value, or the name's object.

    Examples
    --------
    >>> json_pointer(b'{"a": [1, {"b/c": 2')
    '/a/1/b~1c'
    >>> json_pointer(b'{"a": 1, "b')
    ''

    """
    path: list[str | int | None] = []
    name, in_string, escaped, is_name = bytearray(), False, False, False
    for byte in text:
        char = chr(byte)
        if in_string:
            if not escaped and char == '"':
                in_string = False
                if is_name:
                    path[-1] = _text(bytes(name))
            else:
                escaped = char == "\\" and not escaped
                name.append(byte)
        elif char == '"':
            in_string, is_name = True, bool(path) and path[-1] is None
            name.clear()
        elif char == "{":
            path.append(None)
        elif char == "[":
            path.append(0)
        elif char in "}]" and path:
            path.pop()
        elif char == "," and path:
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else None
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in path if part is not None]
    return "".join(f"/{part}" for part in parts)


def _text(name: bytes) -> str:
    import json

    try:
        return str(json.loads(b'"' + name + b'"'))
    except ValueError:
        return name.decode("utf-8", "replace")


def _bytewise(grammar: tm.Grammar, after: bytes) -> tuple[bool, tm.Matcher]:
    """Whether the grammar is of JSON, and a matcher over single bytes after the text."""
    tokens = [bytes([byte]) for byte in range(256)]
    single = tm.Vocabulary([*tokens, b""], special={"<end>": 256}, eos_ids=[256])
    matcher = tm.compile(grammar, single).matcher()
    fits = matcher.accept_prefix(list(after))
    if fits < len(after):
        matcher.accept(after[fits])  # raises the error that says what was expected
    return grammar.description == "json_schema", matcher


def _with_bytes(vocabulary: tm.Vocabulary) -> tm.Vocabulary:
    """The vocabulary and behind it a token for each byte."""
    special = set(vocabulary.special.values())
    tokens = [vocabulary.bytes(i) if i not in special else b"" for i in range(len(vocabulary))]
    return tm.Vocabulary(
        [*tokens, *(bytes([byte]) for byte in range(256))],
        special=dict(vocabulary.special),
        eos_ids=list(vocabulary.eos_ids),
    )


def _spelled(vocabulary: tm.Vocabulary, token_ids: np.ndarray) -> list[tuple[int, bytes]]:
    names = {token_id: name.encode() for name, token_id in vocabulary.special.items()}
    return [(int(i), names.get(int(i)) or vocabulary.bytes(int(i)) or b"") for i in token_ids]
