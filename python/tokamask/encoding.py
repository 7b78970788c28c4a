"""Ids of a text together with the places in the text that they come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Encoding(NamedTuple):
    """What :meth:`tokamask.Tokenizer.encode_with_offsets` returns.

    Attributes
    ----------
    ids : uint32 [n]
    offsets : uint32 [n, 2]
        Characters of the text, start and end: every character that has a byte of the token. Tokens that share a
        character overlap.
    byte_offsets : uint32 [n, 2]
        Bytes of the text in UTF-8, start and end; without overlap.
    word_ids : int32 [n]
        The pretoken, counted from 0; -1 for added and special tokens.

    Examples
    --------
    >>> tok.encode_with_offsets("naïve").offsets.tolist()  # doctest: +SKIP
    [[0, 2], [2, 5]]
    """

    ids: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.uint32]
    byte_offsets: npt.NDArray[np.uint32]
    word_ids: npt.NDArray[np.int32]
