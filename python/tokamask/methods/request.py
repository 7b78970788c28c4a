"""What every drafting method shares: a request and its context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tokamask.draft import DraftTree

Rows = Sequence[Sequence[int]]
Nodes = list[tuple[int, int]]
"""(token, parent) pairs, parents before children, -1 for the root."""


class Session(Protocol):
    """One request of any drafting method."""

    def propose(self, budget: int = 32) -> DraftTree:
        """At most ``budget`` guesses."""

    def update(self, accepted_ids: Sequence[int], *, topk_ids: Rows | None = None) -> None:
        """Appends tokens; ``topk_ids`` has a row for each, the one that it was chosen from."""


class Request:
    """Keeps the context of a request; methods override what they need."""

    def __init__(self, prompt_ids: Sequence[int], prompt_topk: Rows | None) -> None:
        self.context: list[int] = []
        self.output: list[int] = []
        for i, token in enumerate(prompt_ids):
            self.see(int(token), None, prompt=True)
            if prompt_topk is not None:
                self.see_prompt_topk([int(t) for t in prompt_topk[i]])

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        """Appends one token."""
        self.context.append(token)
        if not prompt:
            self.output.append(token)

    def see_prompt_topk(self, topk: list[int]) -> None:
        """The likeliest tokens after the prompt so far."""

    def nodes(self, budget: int) -> Nodes:
        """The draft."""
        raise NotImplementedError

    def propose(self, budget: int = 32) -> DraftTree:
        """At most ``budget`` guesses."""
        return DraftTree.from_nodes(self.nodes(budget)[:budget] if self.context and budget else [])

    def update(self, accepted_ids: Sequence[int], *, topk_ids: Rows | None = None) -> None:
        """Appends tokens."""
        for i, token in enumerate(accepted_ids):
            self.see(int(token), None if topk_ids is None else [int(t) for t in topk_ids[i]])


def chain(tokens: Sequence[int]) -> Nodes:
    """Tokens one after another."""
    return [(token, i - 1) for i, token in enumerate(tokens)]
