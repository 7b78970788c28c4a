"""What a mask is: a token is allowed if its bytes, one after another, are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt


def mask(
    accepts: Callable[[bytes], bool],
    complete: bool,
    token_bytes: Sequence[bytes | None],
    special: set[int],
    eos_ids: Sequence[int],
) -> npt.NDArray[np.int32]:
    """The mask row of a vocabulary, found token by token.

    Parameters
    ----------
    accepts : callable
        Whether the text so far and these bytes together begin a match.
    complete : bool
        Whether the text so far is a match.
    token_bytes : list[bytes | None]
        Bytes of each token; None for holes.
    special : set[int]
        Tokens that text never matches.
    eos_ids : list[int]
        Allowed exactly when the text so far is a match.

    Returns
    -------
    int32 [ceil(len(token_bytes) / 32)]
        Bit ``v % 32`` of word ``v // 32`` is set for allowed tokens ``v``.

    Examples
    --------
    >>> mask(lambda text: b"aab".startswith(text), False, [b"a", b"b", b"aa", None], {3}, [3]).tolist()
    [5]

    """
    words = np.zeros((len(token_bytes) + 31) // 32, np.uint32)
    for token_id, token in enumerate(token_bytes):
        if token_id in eos_ids:
            allowed = complete
        elif token_id in special or not token:
            allowed = False
        else:
            allowed = accepts(token)
        words[token_id // 32] |= np.uint32(int(allowed) << (token_id % 32))
    return words.view(np.int32)
