"""Bytes per token of the default vocabulary and of others, on text that it was not learnt from, as a Markdown table.

    python recipes/default_vocabulary/compare.py FOLDER [UDHR_FOLDER]

``FOLDER`` is what ``gather.py`` filled; needs ``tiktoken`` and its files of ranks. ``UDHR_FOLDER`` may hold the Universal
Declaration of Human Rights, a text file per language.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tiktoken

import tokamask as tm

RIVALS = ("gpt2", "cl100k_base", "o200k_base")


def tokenizers() -> dict[str, tm.Tokenizer]:
    """All that are compared, by name."""
    compared = {"default": tm.Tokenizer.default()}
    for name in RIVALS:
        rival = tiktoken.get_encoding(name)
        compared[name] = tm.Tokenizer.from_tiktoken(dict(rival._mergeable_ranks), pattern=rival._pat_str)
    return compared


def texts(folder: Path, declarations: Path | None) -> dict[str, str]:
    """Held-out text by name of its part."""
    found = {path.stem: path.read_text() for path in sorted((folder / "held_out").glob("*.txt"))}
    if declarations is not None:
        found |= {f"UDHR: {path.stem}": path.read_text() for path in sorted(declarations.glob("*.txt"))}
    return found


def main(folder: Path, declarations: Path | None) -> None:
    """Prints the table."""
    compared = tokenizers()
    sizes = " | ".join(f"{name} ({len(tok):,})" for name, tok in compared.items())
    print(f"| text | bytes | {sizes} |\n|---|--:|{'--:|' * len(compared)}")
    for name, text in texts(folder, declarations).items():
        size = len(text.encode())
        rates = {rival: size / tok.count(text) for rival, tok in compared.items()}
        best = max(rates.values())
        cells = (f"**{rate:.2f}**" if rate == best else f"{rate:.2f}" for rate in rates.values())
        print(f"| {name} | {size:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
