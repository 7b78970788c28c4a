"""Ways to cut one pretoken into tokens without merges, and every way there is."""

from __future__ import annotations

from collections.abc import Collection


def greedy_left(piece: bytes, tokens: Collection[bytes]) -> list[bytes]:
    """The longest token from the left, again and again.

    Parameters
    ----------
    piece : bytes
        One pretoken.
    tokens : collection of bytes
        Every single byte of the piece among them.

    Returns
    -------
    list[bytes]

    Examples
    --------
    >>> greedy_left(b"abcd", {b"a", b"b", b"c", b"d", b"ab", b"bcd"})
    [b'ab', b'c', b'd']
    """
    if not piece:
        return []
    end = max(end for end in range(1, len(piece) + 1) if piece[:end] in tokens)
    return [piece[:end], *greedy_left(piece[end:], tokens)]


def greedy_right(piece: bytes, tokens: Collection[bytes]) -> list[bytes]:
    """The longest token from the right, again and again; as :func:`greedy_left`.

    Examples
    --------
    >>> greedy_right(b"abcd", {b"a", b"b", b"c", b"d", b"ab", b"bcd"})
    [b'a', b'bcd']
    """
    if not piece:
        return []
    start = min(start for start in range(len(piece)) if piece[start:] in tokens)
    return [*greedy_right(piece[:start], tokens), piece[start:]]


def fewest(piece: bytes, tokens: Collection[bytes]) -> list[bytes]:
    """As few tokens as there can be; of those covers the one with the longest last token, then the longest before it.

    Examples
    --------
    >>> fewest(b"aaaa", {b"a", b"aa", b"aaa"})
    [b'a', b'aaa']
    """
    covers = all_covers(piece, tokens)
    return min(covers, key=lambda cover: (len(cover), [-len(token) for token in reversed(cover)]))


def longest(piece: bytes, tokens: Collection[bytes]) -> list[bytes]:
    """The longest token anywhere, the leftmost of equals; then what is left of it and what is right of it.

    Examples
    --------
    >>> longest(b"abcd", {b"a", b"b", b"c", b"d", b"ab", b"bcd"})
    [b'a', b'bcd']
    """
    if not piece:
        return []
    spans = [(s, e) for s in range(len(piece)) for e in range(s + 1, len(piece) + 1) if piece[s:e] in tokens]
    start, end = min(spans, key=lambda span: (span[0] - span[1], span[0]))
    return [*longest(piece[:start], tokens), piece[start:end], *longest(piece[end:], tokens)]


def all_covers(piece: bytes, tokens: Collection[bytes]) -> list[list[bytes]]:
    """Every way to write the piece in tokens; exponentially many.

    Examples
    --------
    >>> all_covers(b"ab", {b"a", b"b", b"ab"})
    [[b'a', b'b'], [b'ab']]
    """
    if not piece:
        return [[]]
    return [
        [piece[:end], *rest]
        for end in range(1, len(piece) + 1)
        if piece[:end] in tokens
        for rest in all_covers(piece[end:], tokens)
    ]
