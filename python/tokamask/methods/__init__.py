"""Published ways of drafting without a model, as small readable classes: what :class:`tokamask.Drafter` is compared with.

Each method has the interface of a drafter: ``method.session(prompt_ids, prompt_topk=...)`` starts a request, whose
``propose(budget)`` returns a :class:`~tokamask.DraftTree` and whose ``update(accepted_ids, topk_ids=...)`` appends what was
emitted. Each is written from the description of the method, not from its code; where one is simplified, its docstring says
how. :data:`METHODS` names them all.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tokamask.draft import DraftTree
from tokamask.methods.request import Nodes, Request, Rows, Session, chain
from tokamask.methods.tries import AnchorTrie, SuffixTree, TrieLookahead
from tokamask.reference.verify import Draws

# ---------------------------------------------------------------------------------------------------- prompt lookup


class PromptLookup:
    """Copies what followed the last few tokens where they stood before in this request.

    ``longest`` down to ``shortest`` tokens are looked for; the leftmost match wins, or the most recent. Transformers'
    prompt lookup is (2, 1, leftmost), vLLM's n-gram drafter (5, 2, leftmost). Source: A. Saxena, "Prompt lookup decoding" (2023).
    """

    def __init__(self, longest: int = 2, shortest: int = 1, *, recent: bool = False) -> None:
        self.longest, self.shortest, self.recent = longest, shortest, recent

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""
        return _PromptLookup(self, prompt_ids)


class _PromptLookup(Request):
    def __init__(self, method: PromptLookup, prompt_ids: Sequence[int]) -> None:
        self.method, self.ends = method, dict[tuple[int, ...], int]()
        super().__init__(prompt_ids, None)

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        end = len(self.context)  # indexed once a continuation exists
        for n in range(self.method.shortest, min(self.method.longest, end) + 1):
            key = tuple(self.context[end - n :])
            if self.method.recent or key not in self.ends:
                self.ends[key] = end
        super().see(token, topk, prompt=prompt)

    def copy(self, context: list[int], span: int) -> list[int]:
        for n in range(min(self.method.longest, len(context)), self.method.shortest - 1, -1):
            end = self.ends.get(tuple(context[len(context) - n :]))
            if end is not None:
                return self.context[end : end + span]
        return []

    def nodes(self, budget: int) -> Nodes:
        return chain(self.copy(self.context, budget))


# -------------------------------------------------------------------------------------------------- suffix automaton


class SuffixAutomaton:
    """The suffix automaton of a growing text, with a cursor at the longest suffix that occurred before.

    Source: A. Blumer et al., "The smallest automaton recognizing the subwords of a text" (1985).
    """

    def __init__(self) -> None:
        self.text: list[int] = []
        self.edges: list[dict[int, int]] = [{}]
        self.links, self.lengths, self.first_ends = [-1], [0], [-1]
        self.last = 0
        self.state = 0
        """Cursor: the state of the longest suffix seen before."""
        self.matched = 0
        """Cursor: its length."""

    def _state(self, length: int, first_end: int, edges: dict[int, int], link: int) -> int:
        self.edges.append(edges)
        self.links.append(link)
        self.lengths.append(length)
        self.first_ends.append(first_end)
        return len(self.edges) - 1

    def append(self, token: int) -> None:
        """Moves the cursor, then extends the automaton, so that the cursor never finds the text's own end."""
        while self.state and token not in self.edges[self.state]:
            self.state = self.links[self.state]
            self.matched = self.lengths[self.state]
        if token in self.edges[self.state]:
            self.state, self.matched = self.edges[self.state][token], self.matched + 1
        current = self._state(self.lengths[self.last] + 1, len(self.text), {}, -1)
        self.text.append(token)
        at = self.last
        while at != -1 and token not in self.edges[at]:
            self.edges[at][token] = current
            at = self.links[at]
        self.links[current] = 0 if at == -1 else self._split(at, token)
        self.last = current

    def _split(self, at: int, token: int) -> int:
        target = self.edges[at][token]
        if self.lengths[at] + 1 == self.lengths[target]:
            return target
        edges, link = dict(self.edges[target]), self.links[target]
        clone = self._state(self.lengths[at] + 1, self.first_ends[target], edges, link)
        self.links[target] = clone
        if self.state == target and self.matched <= self.lengths[clone]:
            self.state = clone
        while at != -1 and self.edges[at].get(token) == target:
            self.edges[at][token] = clone
            at = self.links[at]
        return clone


class SuffixCopy:
    """Copies what followed the longest suffix seen before, from its first occurrence; below ``least`` tokens of match
    another method drafts. Source: Y. Hu et al., "SAM decoding" (2024); without its corpus.
    """

    def __init__(self, least: int = 1, otherwise: TokenRecycling | None = None) -> None:
        self.least, self.otherwise = least, otherwise

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""
        other = self.otherwise.session(prompt_ids, prompt_topk=prompt_topk) if self.otherwise else None
        return _SuffixCopy(self.least, other, prompt_ids)


class _SuffixCopy(Request):
    def __init__(self, least: int, other: Session | None, prompt_ids: Sequence[int]) -> None:
        self.least, self.other, self.automaton = least, other, SuffixAutomaton()
        super().__init__(prompt_ids, None)

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        super().see(token, topk, prompt=prompt)
        self.automaton.append(token)

    def update(self, accepted_ids: Sequence[int], *, topk_ids: Rows | None = None) -> None:
        super().update(accepted_ids, topk_ids=topk_ids)
        if self.other:
            self.other.update(accepted_ids, topk_ids=topk_ids)

    def propose(self, budget: int = 32) -> DraftTree:
        if self.other and self.automaton.matched < self.least:
            return self.other.propose(budget)
        return super().propose(budget)

    def nodes(self, budget: int) -> Nodes:
        a, state = self.automaton, self.automaton.state
        if a.matched < self.least or not state:
            return []
        end = a.first_ends[state]
        while a.links[state] > 0 and len(a.text) - 1 - end < budget:  # a shorter match, with enough after it
            state = a.links[state]
            end = a.first_ends[state]
        return chain(a.text[end + 1 : end + 1 + budget])


# ---------------------------------------------------------------------------------------------------- token recycling


class TokenRecycling:
    """A static tree of ranks over the last known likeliest successors of each token.

    ``keys`` tokens key the successors, with fall-back to fewer; ``prompt`` recycles the prompt's logits too. The static
    tree is the best one for typical hit rates of the ranks, not the published 80-node template. Source: X. Luo et al., "Turning
    trash into treasure" (2024).
    """

    RATES = (0.52, 0.16, 0.08, 0.05, 0.035, 0.025, 0.02, 0.015)

    def __init__(self, keys: int = 1, *, prompt: bool = False) -> None:
        self.keys, self.prompt = keys, prompt
        self.successors: dict[tuple[int, ...], list[int]] = {}

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""
        return _TokenRecycling(self, prompt_ids, prompt_topk if self.prompt else None)

    @staticmethod
    @functools.cache
    def template(nodes: int) -> tuple[tuple[int, ...], ...]:
        """Paths of ranks, likeliest first, eight levels deep at most."""
        heap: list[tuple[float, tuple[int, ...]]] = [
            (-r, (rank,)) for rank, r in enumerate(TokenRecycling.RATES)
        ]
        paths: list[tuple[int, ...]] = []
        while heap and len(paths) < nodes:
            p, path = heapq.heappop(heap)
            paths.append(path)
            if len(path) < 8:
                for rank, rate in enumerate(TokenRecycling.RATES):
                    heapq.heappush(heap, (p * rate, (*path, rank)))
        return tuple(paths)


class _TokenRecycling(Request):
    def __init__(self, method: TokenRecycling, prompt_ids: Sequence[int], topk: Rows | None) -> None:
        self.method = method
        super().__init__(prompt_ids, topk)

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        if topk is not None:
            self.see_prompt_topk(topk)
        super().see(token, topk, prompt=prompt)

    def see_prompt_topk(self, topk: list[int]) -> None:
        for n in range(1, min(self.method.keys, len(self.context)) + 1):
            self.method.successors[tuple(self.context[-n:])] = topk

    def after(self, newest: tuple[int, ...]) -> list[int]:
        for n in range(self.method.keys, 0, -1):
            found = self.method.successors.get(newest[-n:])
            if found:
                return found
        return []

    def nodes(self, budget: int) -> Nodes:
        reached: dict[tuple[int, ...], tuple[int, tuple[int, ...]]] = {(): (-1, tuple(self.context[-2:]))}
        nodes: Nodes = []
        for path in TokenRecycling.template(2 * budget):
            if path[:-1] not in reached or len(nodes) == budget:
                continue
            parent, newest = reached[path[:-1]]
            successors = self.after(newest)
            if path[-1] < len(successors):
                token = successors[path[-1]]
                reached[path] = (len(nodes), (*newest[-1:], token))
                nodes.append((token, parent))
        return nodes


class NextNext:
    """The runners-up of the last logits, each continued by look-up, beside a look-up of the context itself.

    Source: T. Liu et al., "LogitSpec" (2025); continuations take three tokens for every rank.
    """

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""
        return _NextNext(PromptLookup(3, 1, recent=True), prompt_ids)


class _NextNext(_PromptLookup):
    last: list[int] | None = None

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        super().see(token, topk, prompt=prompt)
        self.last = topk

    def nodes(self, budget: int) -> Nodes:
        nodes = chain(self.copy(self.context, min(20, budget)))
        first = nodes[0][0] if nodes else None
        for token in self.last or []:
            if token not in (self.context[-1], first):
                parent = -1
                for guess in [token, *self.copy([*self.context, token], 3)]:
                    nodes.append((guess, parent))
                    parent = len(nodes) - 1
        return nodes


# ------------------------------------------------------------------------------------------------------------- corpus


class Corpus:
    """The commonest continuations of the longest suffix found in a fixed text, by a suffix array.

    Source: Z. He et al., "REST: retrieval-based speculative decoding" (2023): 16 down to 2 tokens of context, at most 5000
    matches of 10 tokens each. ``save`` writes two arrays that ``load`` maps into memory.
    """

    def __init__(self, tokens: npt.ArrayLike, order: npt.NDArray[np.int64] | None = None) -> None:
        self.tokens = np.asarray(tokens, np.int64)
        self.order = suffix_array(self.tokens) if order is None else order

    def save(self, path: str) -> None:
        """Writes ``path.tokens.npy`` and ``path.order.npy``."""
        np.save(f"{path}.tokens.npy", self.tokens)
        np.save(f"{path}.order.npy", self.order)

    @classmethod
    def load(cls, path: str) -> Corpus:
        """Maps what ``save`` wrote."""
        return cls(np.load(f"{path}.tokens.npy", mmap_mode="r"), np.load(f"{path}.order.npy", mmap_mode="r"))

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""
        return _Corpus(self, prompt_ids)

    def find(self, pattern: Sequence[int]) -> npt.NDArray[np.int64]:
        """Where the pattern stands."""
        low, high = 0, len(self.order)
        bounds: list[int] = []
        for upper in (False, True):
            low, high = (bounds[0] if bounds else 0), len(self.order)
            while low < high:
                middle = (low + high) // 2
                start = int(self.order[middle])
                window = self.tokens[start : start + len(pattern)].tolist()
                if window < list(pattern) or (upper and window == list(pattern)):
                    low = middle + 1
                else:
                    high = middle
            bounds.append(low)
        return np.asarray(self.order[bounds[0] : bounds[1]])


class _Corpus(Request):
    def __init__(self, corpus: Corpus, prompt_ids: Sequence[int]) -> None:
        self.corpus = corpus
        super().__init__(prompt_ids, None)

    def nodes(self, budget: int) -> Nodes:
        for n in range(min(16, len(self.context)), 1, -1):
            starts = self.corpus.find(self.context[-n:])[:5000] + n
            counts: dict[tuple[int, ...], int] = {}
            for start in starts[starts < len(self.corpus.tokens)].tolist():
                window = tuple(self.corpus.tokens[start : start + 10].tolist())
                for end in range(1, len(window) + 1):
                    counts[window[:end]] = counts.get(window[:end], 0) + 1
            if counts:
                # A prefix is at least as common as what it starts: parents come first.
                best = sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix)))[:budget]
                place = {prefix: i for i, prefix in enumerate(best)}
                return [(prefix[-1], place.get(prefix[:-1], -1)) for prefix in best]
        return []


def suffix_array(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Starts of all suffixes in lexical order, by doubling: ranks of 1, 2, 4, ... tokens."""
    n = len(tokens)
    rank = np.unique(tokens, return_inverse=True)[1].astype(np.int64)
    order = np.argsort(rank, kind="stable")
    span = 1
    while span < n:
        second = np.full(n, -1, np.int64)
        second[: n - span] = rank[span:]
        order = np.lexsort((second, rank))
        differs = (np.diff(rank[order]) != 0) | (np.diff(second[order]) != 0)
        rank[order] = np.concatenate(([0], np.cumsum(differs)))
        if rank.max(initial=0) == n - 1:
            break
        span *= 2
    return order.astype(np.int64)


def dyspec_tree(
    law: Callable[[list[int]], npt.NDArray[np.float64]], nodes: int, *, seed: int, step: int = 0
) -> tuple[DraftTree, npt.NDArray[np.float64]]:
    """A tree sampled from a draft model, grown where acceptance is likeliest; and the draft's law at each position.

    ``law(path)`` is the draft model's law after the root and a path. Siblings are drawn without replacement, so verify with
    ``rule="sequoia"``. Source: Y. Xiong et al., "DySpec: faster speculative decoding with dynamic token tree structure" (2024).
    """
    draws = Draws(seed, 1, step)
    root = np.asarray(law([]), np.float64)
    laws, paths = [root / root.sum()], list[list[int]]([[]])
    chosen: Nodes = []
    heap = [
        (-1.0, 0, 0, laws[0])
    ]  # likelihood that the slot is reached, order, position, what is left of the law
    count = 0
    while heap and len(chosen) < nodes:
        value, _, position, left = heapq.heappop(heap)
        if not left.sum() > 0:
            continue
        token = draws.token(left)
        p = float(left[token] / left.sum())
        chosen.append((token, position - 1))
        paths.append([*paths[position], token])
        after = np.asarray(law(paths[-1]), np.float64)
        laws.append(after / after.sum())
        rest = left.copy()
        rest[token] = 0
        heapq.heappush(heap, (value * p, count + 1, len(chosen), laws[-1]))
        heapq.heappush(heap, (value * (1 - p), count + 2, position, rest))
        count += 2
    order = _breadth_first(chosen)
    return DraftTree.from_nodes(chosen), np.array([laws[0], *(laws[i + 1] for i in order)])


def _breadth_first(nodes: Nodes) -> list[int]:
    """Node numbers in the order of :meth:`DraftTree.from_nodes`: by the places of their ancestors, then as drawn."""
    above: list[tuple[int, ...]] = []
    for i, (_, parent) in enumerate(nodes):
        above.append((*(above[parent] if parent >= 0 else ()), i))
    return sorted(range(len(nodes)), key=lambda i: (len(above[i]), above[i]))


class Method(Protocol):
    """Any drafting method; a :class:`tokamask.Drafter` is one."""

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""


METHODS: dict[str, Callable[[], Method]] = {
    "prompt lookup, 2 tokens, leftmost": lambda: PromptLookup(2, 1),
    "prompt lookup, 3 tokens, recent": lambda: PromptLookup(3, 1, recent=True),
    "n-gram, 2 to 5 tokens, leftmost": lambda: PromptLookup(5, 2),
    "trie lookahead, hierarchical": lambda: TrieLookahead("hierarchical"),
    "trie lookahead, parallel": lambda: TrieLookahead("parallel"),
    "trie lookahead, single": lambda: TrieLookahead("single"),
    "anchor trie, recency": lambda: AnchorTrie("recency"),
    "anchor trie, frequency": lambda: AnchorTrie("frequency"),
    "suffix automaton": lambda: SuffixCopy(1),
    "suffix tree, path": lambda: SuffixTree(tree=False),
    "suffix tree, tree": lambda: SuffixTree(tree=True),
    "suffix tree, wide": lambda: SuffixTree(tree=True, factor=4, offset=4, least=0.01),
    "token recycling": lambda: TokenRecycling(),
    "token recycling, 2 tokens and prompt": lambda: TokenRecycling(2, prompt=True),
    "suffix automaton, else token recycling": lambda: SuffixCopy(5, TokenRecycling()),
    "next-next token": NextNext,
}
"""Fresh methods by name; :class:`Corpus` needs a text of its own."""
