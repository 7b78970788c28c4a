"""What was a tokenizer trained on? Recovers the mixture of a training corpus from its merges alone.

    python examples/data_mixture.py

A merge was chosen because its pair was the most frequent in the training text at that moment. Replayed on samples of
each kind of text, every merge therefore says: under the true mixture, this pair is at least as frequent as any
other. Few mixtures satisfy thousands of such inequalities; a linear program finds the one that violates them least.
Source: Hayase et al., "Data Mixture Inference" (2024). Needs scipy.
"""

from __future__ import annotations

import itertools
import sys
import sysconfig
import unicodedata
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

import tokamask as tm

BYTES = 150_000
Texts = list[str]


def kinds() -> dict[str, tuple[Texts, Texts]]:
    """Lines of three kinds of text, everyone with Python has them: to train on, and samples to compare with."""
    prose = [line + "\n" for name in sorted(topics) for line in topics[name].split("\n")]
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-h]*.py"))
    code = [line for path in modules for line in path.read_text(encoding="utf-8").splitlines(keepends=True)]
    names = [unicodedata.name(chr(point), "") + "\n" for point in range(0x100, 0x3000)]
    lines = {"documentation": prose, "code": code, "character names": names}
    return {kind: (text[::2], text[1::2]) for kind, text in lines.items()}


def taken(lines: Texts, size: float) -> Texts:
    """The first lines, about ``size`` bytes of them, again from the start where they do not suffice."""
    lengths = itertools.accumulate(len(line.encode()) for line in itertools.cycle(lines))
    return [
        line
        for line, length in zip(
            itertools.cycle(lines), itertools.takewhile(lambda n: n < size, lengths), strict=False
        )
    ]


def mixture(replays: list[tm.train.Replay], sizes: list[int], rounds: int = 6) -> npt.NDArray[np.float64]:
    """The shares, float64 [kinds], that violate the order of the merges least.

    Variables: the shares, and a slack for each merge. Only the competitors that the shares so far make the most
    frequent are constraints; rounds add more of them.
    """
    merges = len(replays[0].merges)
    pairs: dict[tuple[int, int], int] = {}
    columns = [[pairs.setdefault(tuple(pair), len(pairs)) for pair in r.pairs.tolist()] for r in replays]
    now = np.zeros((len(replays), len(pairs)))
    frequencies = []  # by merge: float32 [kinds, pairs]
    for step in range(merges):
        for kind, (replay, size) in enumerate(zip(replays, sizes, strict=True)):
            now[kind, columns[kind]] = replay.at(step) / size
        frequencies.append(now.astype(np.float32))
    merged = [pairs[tuple(pair)] for pair in replays[0].pairs[replays[0].merges].tolist()]
    shares = np.full(len(replays), 1 / len(replays))
    constraints: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
    for _ in range(rounds):
        for step, (frequency, own) in enumerate(zip(frequencies, merged, strict=True)):
            mixed = shares @ frequency
            for rival in np.argpartition(mixed, -4)[-4:].tolist():
                excess = frequency[:, rival] - frequency[:, own]
                if rival != own and mixed[rival] > mixed[own] * 0.99 and excess.any():
                    constraints[step, rival] = excess
        rows = np.array([*constraints.values()])
        steps = [step for step, _ in constraints]
        # rows @ shares <= slack of the step, all in units of the same merge's frequency
        scale = np.array([frequencies[step][:, merged[step]].max() for step in steps])[:, None]
        slack = csr_matrix((-np.ones(len(steps)), (range(len(steps)), steps)), (len(steps), merges))
        bounded = np.hstack([rows / scale, slack.toarray()])
        cost = np.r_[np.zeros(len(replays)), np.ones(merges)]
        total = np.r_[np.ones(len(replays)), np.zeros(merges)][None]
        solved = linprog(cost, bounded, np.zeros(len(rows)), total, [1.0], method="highs")
        shares = solved.x[: len(replays)]
    return shares


def recover(truth: list[float], vocab_size: int = 600) -> npt.NDArray[np.float64]:
    """Trains on a mixture with these shares, and finds them again from the tokenizer."""
    text = kinds()
    corpus = [
        line
        for share, (lines, _) in zip(truth, text.values(), strict=True)
        for line in taken(lines, BYTES * 3 * share)
    ]
    tok = tm.train.bpe(corpus, vocab_size=vocab_size, progress=False)
    counts = [tm.train.count(taken(lines, BYTES), progress=False) for _, lines in text.values()]
    replays = [tm.train.replay_merges(tok, count, progress=False) for count in counts]
    return mixture(replays, [count.text_bytes for count in counts])


if __name__ == "__main__":
    for truth in ([0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.0, 0.5, 0.5]):
        found = recover(truth)
        for kind, share, guess in zip(kinds(), truth, found, strict=True):
            sys.stdout.write(f"{kind:16} trained on {share:4.0%}, recovered {guess:6.1%}\n")
        sys.stdout.write("\n")
