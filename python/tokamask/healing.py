"""The exact law of the next byte of a model that speaks in tokens.

A prompt that ends inside a word is cut by its tokenizer where a text that goes on would not be. ``Tokenizer.heal`` takes
back the ids that more text could change; what is left is to write their bytes first. The probability that a text goes
on with given bytes is the sum over all ways to begin it in tokens (the cover encodings), so one byte at a time can be
drawn or scored exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tokamask._core import Tokenizer

NextTokenLaw = Callable[[list[int]], npt.NDArray[np.float32]]
END = 256
"""Entry of a law for the end of the sequence."""


def next_byte_law(
    tokenizer: Tokenizer,
    law: NextTokenLaw,
    pending: bytes = b"",
    *,
    context: Sequence[int] = (),
    canonical: bool = True,
) -> npt.NDArray[np.float64]:
    """The law of the byte after ``pending``, from the laws of tokens after a context.

    Parameters
    ----------
    tokenizer : Tokenizer
    law : callable
        ``law(ids)`` is the natural logarithm of the next-token law after the context and these ids, float32
        [vocab_size or more]; called once for each sequence of tokens that spells a beginning of ``pending``.
    pending : bytes
        What has been written after the context already.
    context : sequence of int
        Ids of the context, as ``Tokenizer.heal`` gives them; they decide which tokens are canonical after it.
    canonical : bool
        Only token sequences that the tokenizer itself would write count. False adds the others, which a model may
        write too: there are many for a long ``pending``.

    Returns
    -------
    float64 [257]
        Natural logarithms, normalised; entry 256 is the end of the sequence. All NaN if no token fits.

    Notes
    -----
    Source: the sum over covers of Vieira et al., "From Language Models over Tokens to Language Models over
    Characters" (2024), and Phan et al., "Exact Byte-Level Probabilities from Tokenized Language Models" (2024).

    Examples
    --------
    >>> kept, pending = tok.heal(tok.encode("The capital of Franc"))  # doctest: +SKIP
    >>> law = next_byte_law(tok, lambda ids: logprobs(kept + ids), pending, context=kept)  # doctest: +SKIP
    >>> chr(law.argmax())  # doctest: +SKIP
    'e'
    """
    before = _unsettled(tokenizer, context) if canonical else []
    begun = tokenizer.decode_bytes(before)
    total = np.zeros(257)
    found: list[tuple[list[int], int, float]] = [([], 0, 0.0)]
    for ids, spelled, weight in found:  # grows while it is read
        rest = pending[spelled:]
        logprobs = np.asarray(law(ids), np.float32)
        for token in _tokens_that_begin(tokenizer, rest):
            longer = [*ids, token]
            if not canonical or tokenizer.is_canonical([*before, *longer]):
                size = spelled + len(tokenizer.vocabulary.bytes(token))
                found.append((longer, size, weight + float(logprobs[token])))
        if canonical:
            followers = _followers(tokenizer, [*before, *ids], begun + pending[:spelled], rest)
            logprobs = _kept(tokenizer, logprobs, followers)
        with np.errstate(divide="ignore"):
            total += np.exp(weight + tokenizer.next_byte_logprobs(logprobs, rest))
    with np.errstate(divide="ignore", invalid="ignore"):
        law_of_bytes: npt.NDArray[np.float64] = np.log(total) - np.log(total.sum())
    return law_of_bytes


def _unsettled(tokenizer: Tokenizer, context: Sequence[int]) -> list[int]:
    """The end of the context, from where it decides what is canonical after it."""
    ids = list(context)
    for at in range(len(ids) - 1, -1, -1):
        if tokenizer.vocabulary.is_special(ids[at]):
            ids = ids[at + 1 :]
            break
    text = tokenizer.appender()
    text.append(tokenizer.decode_bytes(ids).decode(errors="replace"))
    return ids[text.settled :] if text.ids.tolist() == ids else ids


def _tokens_that_begin(tokenizer: Tokenizer, text: bytes) -> list[int]:
    """The tokens that spell a beginning of ``text``, all of it included."""
    found = []
    for end in range(1, len(text) + 1):
        try:
            found.append(tokenizer.vocabulary.id(text[:end]))
        except KeyError:
            continue
    return found


def _followers(tokenizer: Tokenizer, before: list[int], spelled: bytes, rest: bytes) -> list[int]:
    """Tokens that spell ``rest`` or more and that the tokenizer would write after ``before``."""
    starts = [rest] if rest else [bytes([byte]) for byte in range(256)]
    covers = (cover for start in starts for cover in tokenizer.cover_encodings(spelled + start))
    return [cover[-1] for cover in covers if cover[:-1] == before]


def _kept(
    tokenizer: Tokenizer, logprobs: npt.NDArray[np.float32], tokens: list[int]
) -> npt.NDArray[np.float32]:
    """The law without other tokens than these and the end of the sequence."""
    tokens = [*tokens, *tokenizer.vocabulary.eos_ids]
    kept = np.full_like(logprobs, -np.inf)
    kept[tokens] = logprobs[tokens]
    return kept
