"""The definition of draft verification: which guessed tokens a target model confirms.

Every sampled rule here but the one named lossy is exact: whatever was drafted, the emitted tokens are distributed as if the target had been
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


def verify_siblings(
    token_ids: Sequence[int],
    parents: Sequence[int],
    target_probs: Law,
    draft_probs: Law,
    draws: Draws,
    *,
    replacement: bool = True,
) -> Verdict:
    """For siblings drawn from a draft law one after another, in their order: accept ``x`` with probability ``r(x) / p(x)``.

    ``r`` is what remains to be written: the target's law, less the draft's after each refusal. Without replacement a
    refused token leaves the draft's law too. With one child per node this is token-wise speculative sampling.
    Sources: Leviathan et al. and Chen et al. (2023); X. Miao et al., "SpecInfer" (2023); Z. Chen et al., "Sequoia" (2024).
    """
    path: list[int] = []
    node = -1
    while True:
        remaining, draft = _normal(target_probs[node + 1]), _normal(draft_probs[node + 1])
        for child in _children(parents, node):
            token = token_ids[child]
            if draws.uniform() * draft[token] < remaining[token]:
                break
            remaining = _normal(np.maximum(remaining - draft, 0), otherwise=remaining)
            if not replacement:
                draft = draft.copy()
                draft[token] = 0
                draft = _normal(draft, otherwise=draft)
        else:
            return [token_ids[i] for i in path], draws.token(remaining), path
        path.append(child)
        node = child


def verify_tokenwise(
    token_ids: Sequence[int], parents: Sequence[int], target_probs: Law, draft_probs: Law, draws: Draws
) -> Verdict:
    """A chain, token by token."""
    return verify_siblings(token_ids, parents, target_probs, draft_probs, draws)


def verify_sequoia(
    token_ids: Sequence[int], parents: Sequence[int], target_probs: Law, draft_probs: Law, draws: Draws
) -> Verdict:
    """Siblings drawn without replacement, as in Sequoia and DySpec."""
    return verify_siblings(token_ids, parents, target_probs, draft_probs, draws, replacement=False)


def verify_spectr(
    token_ids: Sequence[int], parents: Sequence[int], target_probs: Law, draft_probs: Law, draws: Draws
) -> Verdict:
    """For ``k`` siblings drawn independently: each is accepted with probability ``q / (rho p)``, the first wins.

    The least ``rho`` whose remainder is still a law is found by bisection. Source: Z. Sun et al., "SpecTr" (2023).
    """
    path: list[int] = []
    node = -1
    while True:
        target, draft = _normal(target_probs[node + 1]), _normal(draft_probs[node + 1])
        children = _children(parents, node)
        if not children:
            return [token_ids[i] for i in path], draws.token(target), path
        rho = _least_rho(target, draft, len(children))
        accepted = [i for i in children if draws.uniform() * rho * draft[token_ids[i]] < target[token_ids[i]]]
        if not accepted:
            share = np.minimum(draft, target / rho)
            hit = share.sum()
            some = 1 - (1 - hit) ** len(children)
            rest = np.maximum(target - share * (some / hit if hit > 0 else 0.0), 0)
            return [token_ids[i] for i in path], draws.token(_normal(rest, otherwise=target)), path
        node = accepted[0]
        path.append(node)


def _least_rho(target: Law, draft: Law, k: int) -> float:
    low, high = 1.0, float(k)
    for _ in range(60):
        rho = (low + high) / 2
        hit = float(np.minimum(draft, target / rho).sum())
        if 1 - (1 - hit) ** k > rho * hit:
            low = rho
        else:
            high = rho
    return high


def verify_block(
    token_ids: Sequence[int], parents: Sequence[int], target_probs: Law, draft_probs: Law, draws: Draws
) -> Verdict:
    """A chain judged as a whole: on average longer than token by token, and no exact rule for a chain accepts more.

    Source: Z. Sun et al., "Block verification accelerates speculative decoding" (2024).
    """
    keep, accepted = 1.0, 0
    kept = [1.0]
    for i, token in enumerate(token_ids):
        target, draft = _normal(target_probs[i]), _normal(draft_probs[i])
        keep = min(1.0, keep * target[token] / draft[token]) if draft[token] > 0 else 0.0
        kept.append(keep)
        threshold = keep
        if i + 1 < len(token_ids):
            rest = np.maximum(keep * _normal(target_probs[i + 1]) - _normal(draft_probs[i + 1]), 0)
            left = np.cumsum(rest)[-1]
            threshold = left / (left + 1 - keep) if left > 0 else 0.0
        if draws.uniform() < threshold:
            accepted = i + 1
    law = _normal(target_probs[accepted])
    if accepted < len(token_ids):
        law = _normal(np.maximum(kept[accepted] * law - _normal(draft_probs[accepted]), 0), otherwise=law)
    return list(token_ids[:accepted]), draws.token(law), list(range(accepted))


def verify_typical_lossy(
    token_ids: Sequence[int], parents: Sequence[int], target_probs: Law, epsilon: float, delta: float
) -> Verdict:
    """NOT exact: keeps the longest path whose tokens the target finds typical, and continues with its favourite.

    A token is typical if its probability exceeds ``min(epsilon, delta exp(-entropy))``. Source: T. Cai et al., "Medusa" (2024).
    """
    best: list[int] = []
    paths: dict[int, list[int]] = {-1: []}
    for node, (token, parent) in enumerate(zip(token_ids, parents, strict=True)):
        if parent not in paths:
            continue
        law = _normal(target_probs[parent + 1])
        entropy = -float((law[law > 0] * np.log(law[law > 0])).sum())
        if law[token] > min(epsilon, delta * np.exp(-entropy)):
            paths[node] = [*paths[parent], node]
            if len(paths[node]) > len(best):
                best = paths[node]
    last = best[-1] if best else -1
    return [token_ids[i] for i in best], int(np.argmax(target_probs[last + 1])), best


def _normal(law: Law, otherwise: Law | None = None) -> Law:
    """The law scaled to a sum of 1; ``otherwise`` where rounding left nothing of it."""
    total = np.cumsum(law)[-1]  # in order, so that every device adds alike
    if total > 0:
        return np.asarray(law / total)
    return law if otherwise is None else otherwise


def _children(parents: Sequence[int], node: int) -> list[int]:
    return [i for i, parent in enumerate(parents) if parent == node]
