"""Learns the default vocabulary from gathered text and writes the file that is built into the package.

python recipes/default_vocabulary/build.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import tokamask as tm
from tokamask.train import train_superbpe

OUTPUT = Path(__file__).parents[2] / "rust/tokamask/src/formats/default.merges"
SIZE, TRANSITION = 32_768, 24_576
SPECIAL = ["<|endoftext|>"]


def main(folder: Path) -> None:
    """Counts, learns, writes the merges as pairs of little-endian 16-bit ids."""
    files = sorted((folder / "learn").glob("*.txt"))
    counts = tm.train.count(files, pre_tokenizer="superbpe", runs=True)
    tok, merges, _ = train_superbpe(counts, vocab_size=SIZE, transition=TRANSITION, special_tokens=SPECIAL)
    OUTPUT.write_bytes(np.ascontiguousarray(merges, "<u2").tobytes())
    print(f"{OUTPUT.name}: {len(tok):,} tokens from {counts.text_bytes:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
