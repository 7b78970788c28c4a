"""Legal texts that are hard on tokenizers: about a megabyte each."""

import base64
import random
import re


def texts(english: str = "", scale: float = 1.0) -> dict[str, str]:
    """The texts by name; what is random is drawn from a seed. ``english`` loses its spaces."""
    draw = random.Random(7)
    million, third = int(scale * 1_000_000), int(scale * 300_000)

    def some(characters: str, count: int) -> str:
        return "".join(draw.choices(characters, k=count))

    return {
        "a": "a" * million,
        "upper": "A" * million,
        "ab": "ab" * (million // 2),
        "mixed case": "aB" * (million // 2),
        "spaces": " " * million,
        "newlines": "\n" * million,
        "exclamations": "!" * million,
        "apostrophes": "'s't're've" * (million // 10),
        "white space": "".join(draw.choices(["\r\n", "\t", " ", "  ", "\n\n", "x"], k=million * 6 // 10)),
        "digits": some("0123456789", million),
        "random letters": some("abcdefghijklmnopqrstuvwxyz", million),
        "latin-1": draw.randbytes(million).decode("latin-1"),
        "base64": base64.b64encode(draw.randbytes(million * 3 // 4)).decode(),
        "Chinese": some("".join(map(chr, range(0x4E00, 0x9FA5))), third),
        "Thai": some("".join(map(chr, range(0xE01, 0xE3A))), third),
        "emoji": some("\U0001f600\U0001f44d\U0001f3fd\u200d\u2764\ufe0f\U0001f1eb\U0001f1f7\u2728", third),
        "combining": "e" + "\u0301" * (third - 1),
        "any character": "".join(
            chr(c) for c in (draw.randrange(1, 0x2FFFF) for _ in range(third)) if not 0xD800 <= c < 0xE000
        ),
        "English without spaces": re.sub("[^A-Za-z]", "", english)[:million].lower(),
    }
