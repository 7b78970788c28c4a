"""The definition of draft verification: which guessed tokens a target model confirms.

Every sampled rule here is exact: whatever was drafted, the emitted tokens are distributed as if the target had been
sampled one token at a time. ``target_probs [n + 1, vocab]`` holds the target's law after the root (row 0) and after each
node (row ``i + 1``). Uniform numbers come from :class:`Draws`, one per decision, in the order of the walk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tokamask.reference.random import bits64

Law = npt.NDArray[np.float64]
Verdict = tuple[list[int], int, list[int]]
"""Accepted ids, the token that follows them, and the accepted nodes."""


class Draws:
    """Uniform numbers of one verification step: the first 53 bits of draw 0, 1, 2, ... of (seed, row, step)."""

    def __init__(self, seed: int, row: int = 0, step: int = 0) -> None:
        self.at, self.index = (seed, row, step), 0

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        bits = bits64(*self.at, self.index)
        self.index += 1
        return (bits >> 11) * 2.0**-53

    def token(self, law: Law) -> int:
        """A token of a law that need not be normalised; tokens without mass are never drawn."""
        running = np.cumsum(law)
        token = int(np.searchsorted(running, self.uniform() * running[-1], side="right"))
        return min(token, int(np.flatnonzero(law)[-1]))  # the product may round up to the total


def verify_greedy(token_ids: Sequence[int], parents: Sequence[int], target_ids: Sequence[int]) -> Verdict:
    """Walks down from the root while some child is what the target would have written.

    ``target_ids [n + 1]`` holds the target's choice after the root (row 0) and after each node (row ``i + 1``).
    Among equal siblings the first wins.
    """
    path: list[int] = []
    node = -1
    while True:
        wanted = target_ids[node + 1]
        matching = [i for i in _children(parents, node) if token_ids[i] == wanted]
        if not matching:
            return [token_ids[i] for i in path], wanted, path
        node = matching[0]
        path.append(node)


def verify_point(
    token_ids: Sequence[int], parents: Sequence[int], target_probs: Law, draws: Draws
) -> Verdict:
    """For guesses that were not drawn at random: sample the target, descend if the sample was guessed.

    Exact whatever the tree, and no exact rule accepts more of a tree that does not depend on chance: the walk follows a
    path exactly as often as the target writes it.
    """
    path: list[int] = []
    node = -1
    while True:
        token = draws.token(target_probs[node + 1])
        matching = [i for i in _children(parents, node) if token_ids[i] == token]
        if not matching:
            return [token_ids[i] for i in path], token, path
        node = matching[0]
        path.append(node)


def _children(parents: Sequence[int], node: int) -> list[int]:
    return [i for i, parent in enumerate(parents) if parent == node]
