"""The checksum of compiled files, written a second time."""

import numpy as np

START = 20
"""Where the bytes begin that the checksum is of."""


def signed(data: bytes) -> bytes:
    """A compiled file that was changed, with the checksum made right again."""
    return data[:12] + checksum(data[START:]).to_bytes(8, "little") + data[START:]


def checksum(data: bytes) -> int:
    """That of the bytes behind the head."""
    mask = (1 << 64) - 1

    def step(total, word):
        total = (total ^ word) * 0x9E37_79B9_7F4A_7C15 & mask
        return (total << 29 | total >> 35) & mask

    sums = [len(data), 1, 2, 3]
    whole = len(data) // 32 * 32
    words = np.frombuffer(data[:whole], "<u8").tolist()
    for at, word in enumerate(words):
        sums[at % 4] = step(sums[at % 4], word)
    for start in range(whole, len(data), 8):
        sums[0] = step(sums[0], int.from_bytes(data[start : start + 8], "little"))
    total = 0
    for part in sums:
        total = step(total, part)
    return total
