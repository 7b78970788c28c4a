"""Byte-pair encoding of one pretoken, read literally."""

from __future__ import annotations

import itertools
from collections.abc import Mapping


def encode(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """The token ids of a piece that no barrier cuts.

    Begin with single bytes. Of all neighbours whose bytes together are a token, join the pair of the lowest rank, the
    leftmost of equals; repeat until no neighbours make a token. Ids are ranks, as in tiktoken's files; where a merge
    list is given instead, the rank of a pair is its place in the list, and both agree if ids follow the merges.

    Parameters
    ----------
    piece : bytes
        One pretoken.
    ranks : mapping of bytes to int
        Every token; all single bytes of the piece among them.

    Returns
    -------
    list[int]

    Raises
    ------
    KeyError
        A byte of the piece is no token.

    Notes
    -----
    Quadratic. Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016),
    in the byte-level form of GPT-2.

    Examples
    --------
    >>> encode(b"abab", {b"a": 0, b"b": 1, b"ab": 2})
    [2, 2]
    """
    parts = [piece[at : at + 1] for at in range(len(piece))]
    while True:
        pairs = [
            (ranks[left + right], at)
            for at, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in ranks
        ]
        if not pairs:
            return [ranks[part] for part in parts]
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
