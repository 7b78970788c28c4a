"""The one random law: Philox4x32-10, a counter-based generator.

Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
A draw is a pure function of (seed, row, step, index): nothing is carried from call to call, so any draw can be
recomputed alone, on any device, in any order.
"""

from __future__ import annotations

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds over four 32-bit words of counter with two of key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & _LOW, (a >> 32) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + WEYL[0]) & _LOW, (k1 + WEYL[1]) & _LOW
    return c0, c1, c2, c3


def bits64(seed: int, row: int, step: int, index: int = 0) -> int:
    """64 uniform bits of a draw.

    Parameters
    ----------
    seed : uint64
        The key: low word first.
    row : uint32
        Which independent stream under that seed.
    step : uint64
        Which position of the stream (the decoding step).
    index : uint32
        Which draw within that step.

    The counter is ``(index, row, step low, step high)``; of the four words that come out, word 0 is the low half of the
    result and word 1 the high half.

    """
    words = philox4x32((index, row, step & _LOW, step >> 32), (seed & _LOW, seed >> 32))
    return words[1] << 32 | words[0]
