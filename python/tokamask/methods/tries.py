"""Drafting from tries of token windows."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from tokamask.draft import DraftTree
from tokamask.methods.request import Nodes, Request, Rows, Session


class Node:
    """A place in a trie of token windows."""

    __slots__ = ("below", "count", "prompt_count", "time")

    def __init__(self) -> None:
        self.below: dict[int, Node] = {}
        self.count = 0.0
        self.prompt_count = 0.0
        self.time = 0

    def child(self, token: int) -> Node:
        """The place one token further, made if need be."""
        node = self.below.get(token)
        if node is None:
            node = self.below[token] = Node()
        return node


class TrieLookahead:
    """A trie per token of what followed it, counts of prompts and outputs apart; a multi-branch draft.

    ``mode``: "hierarchical" drafts one tree of the commonest nodes, "parallel" disjoint chains, "single" one chain.
    Windows of an output become visible only once they are full, as published. Source: Y. Zhao et al., "Lookahead: an
    inference acceleration framework" (2023).
    """

    PROMPT_WEIGHT = 1 - 1e-4

    def __init__(
        self, mode: str = "hierarchical", *, branch: int = 12, query: int = 2, most_nodes: int = 2048
    ) -> None:
        self.mode, self.branch, self.query, self.most_nodes = mode, branch, query, most_nodes
        self.tries: dict[int, Node] = {}
        self.sizes: dict[int, int] = {}
        self.prompt_tokens: set[int] = set()

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request; the one before it is thereby over."""
        self.forget_prompts()
        return _TrieLookahead(self, prompt_ids)

    def put(self, window: Sequence[int], *, prompt: bool) -> None:
        """Counts one window below its first token."""
        node = self.tries.setdefault(window[0], Node())
        if prompt:
            self.prompt_tokens.add(window[0])
        for token in window[1:]:
            self.sizes[window[0]] = self.sizes.get(window[0], 0) + (token not in node.below)
            node = node.child(token)
            if prompt:
                node.prompt_count += 1
            else:
                node.count += 1

    def forget_prompts(self) -> None:
        """Between requests: prompt counts are dropped, and tries that grew too large are halved."""
        large = {token for token, size in self.sizes.items() if size > self.most_nodes}
        for token in self.prompt_tokens | large:
            self.sizes[token] = _fade(self.tries[token], halve=token in large)
        self.prompt_tokens.clear()

    def weight(self, node: Node) -> float:
        """Prompt counts rule, output counts break ties."""
        return self.PROMPT_WEIGHT * node.prompt_count + (1 - self.PROMPT_WEIGHT) * node.count


def _fade(node: Node, *, halve: bool) -> int:
    size = 0
    for token, below in list(node.below.items()):
        below.prompt_count = 0.0
        if halve:
            below.count = below.count / 2 if below.count > 1 else 0.0
        if below.count == 0.0 and halve:
            del node.below[token]
        else:
            size += 1 + _fade(below, halve=halve)
    return size


class _TrieLookahead(Request):
    def __init__(self, method: TrieLookahead, prompt_ids: Sequence[int]) -> None:
        self.method = method
        super().__init__(prompt_ids, None)
        for i in range(1, len(self.context)):
            method.put(self.context[i : i + method.branch + 2], prompt=True)

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        super().see(token, topk, prompt=prompt)
        if len(self.output) >= self.method.branch + 2:
            self.method.put(self.output[-self.method.branch - 2 :], prompt=False)

    def nodes(self, budget: int) -> Nodes:
        best: Nodes = []
        for n in range(min(self.method.query, len(self.context)), 0, -1):
            node = self.method.tries.get(self.context[-n])
            for token in self.context[len(self.context) - n + 1 :]:
                node = node.below.get(token) if node else None
            if node is None:
                continue
            found = self.select(node, budget)
            if len(found) > len(best):
                best = found
            if len(found) + 1 >= self.method.branch:
                break
        return best

    def select(self, top: Node, budget: int) -> Nodes:
        method = self.method
        if method.mode == "single":
            return self.walk(top, lambda node: True, budget, width=1)
        everything = list(_below(top, method.branch))
        least_count = least_weight = 0.0
        if len(everything) > budget:
            counts = sorted((node.count for node in everything), reverse=True)
            weights = sorted((method.weight(node) for node in everything), reverse=True)
            least_count = counts[max(budget // 2, 1) - 1] or 1e9
            least_weight = weights[budget - 1]
        nodes = self.walk(
            top, lambda node: node.count >= least_count or method.weight(node) >= least_weight, budget
        )
        return nodes if method.mode == "hierarchical" else _flatten(nodes, budget)

    def walk(self, top: Node, keep: Callable[[Node], bool], budget: int, width: int = 1 << 30) -> Nodes:
        nodes: Nodes = []

        def visit(node: Node, parent: int, depth: int) -> None:
            for token, below in sorted(node.below.items(), key=lambda item: -self.method.weight(item[1]))[
                :width
            ]:
                seen = below.count > 0 or below.prompt_count > 0
                if depth > 0 and len(nodes) < budget and seen and keep(below):
                    nodes.append((token, parent))
                    visit(below, len(nodes) - 1, depth - 1)

        visit(top, -1, self.method.branch)
        return nodes


def _below(node: Node, depth: int) -> Iterator[Node]:
    for below in node.below.values() if depth > 0 else ():
        if below.count > 0 or below.prompt_count > 0:
            yield below
            yield from _below(below, depth - 1)


def _flatten(nodes: Nodes, budget: int) -> Nodes:
    """Root-to-leaf chains side by side, for engines without tree masks; as many as fit."""
    tree = DraftTree.from_nodes(nodes)
    flat: Nodes = []
    for path in tree.paths():
        if len(flat) + len(path) <= budget:
            flat += [(token, -1 if i == 0 else len(flat) + i - 1) for i, token in enumerate(path)]
    return flat


class AnchorTrie:
    """One trie of all windows of all requests; the matches of every length, longest first, fill one tree.

    ``order``: "recency" goes breadth-first by recency, wide after short matches and thin after long ones, "frequency"
    best-first by relative counts. Written after the description of SGLang's n-gram drafter (2026); unbounded here.
    """

    def __init__(self, order: str = "recency", *, depth: int = 18, widest: int = 10) -> None:
        self.order, self.depth, self.widest = order, depth, widest
        self.root, self.clock = Node(), 0

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""
        return _AnchorTrie(self, prompt_ids)


class _AnchorTrie(Request):
    def __init__(self, method: AnchorTrie, prompt_ids: Sequence[int]) -> None:
        self.method, self.anchors = method, list[Node]()
        super().__init__(prompt_ids, None)

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        super().see(token, topk, prompt=prompt)
        self.method.clock += 1
        self.anchors = [node.child(token) for node in [*self.anchors, self.method.root][-self.method.depth :]]
        for node in self.anchors:
            node.count += 1
            node.time = self.method.clock

    def nodes(self, budget: int) -> Nodes:
        nodes: Nodes = []
        known: dict[tuple[int, int], int] = {}

        def add(parent: int, token: int) -> int:
            if (parent, token) not in known:
                known[parent, token] = len(nodes)
                nodes.append((token, parent))
            return known[parent, token]

        for i, anchor in enumerate(self.anchors):  # longest match first
            if self.method.order == "recency":
                self.by_recency(anchor, len(self.anchors) - i, nodes, add, budget)
            else:
                self.by_frequency(anchor, nodes, add, budget)
        return nodes

    def by_recency(
        self, anchor: Node, matched: int, nodes: Nodes, add: Callable[[int, int], int], budget: int
    ) -> None:
        deepest = max(1, self.method.depth - 1)
        step = (self.method.widest - 1) / deepest
        queue = [(-1, (deepest - matched) * step + 1, anchor)]
        for parent, width, node in queue:  # grows while it is walked
            recent = sorted(node.below.items(), key=lambda item: -item[1].time)
            for token, below in recent[: max(1, int(width))]:
                if len(nodes) >= budget:
                    return
                queue.append((add(parent, token), width - step, below))

    def by_frequency(self, anchor: Node, nodes: Nodes, add: Callable[[int, int], int], budget: int) -> None:
        heap: list[tuple[float, int, int, int, Node]] = []

        def push(parent: int, node: Node, p: float) -> None:
            best = heapq.nlargest(self.method.widest, node.below.items(), key=lambda item: item[1].count)
            total = sum(below.count for _, below in best)
            for token, below in best:
                heapq.heappush(heap, (-p * below.count / total, len(heap), parent, token, below))

        push(-1, anchor, 1.0)
        while heap and len(nodes) < budget:
            p, _, parent, token, below = heapq.heappop(heap)
            push(add(parent, token), below, -p)


class SuffixTree:
    """Counts of all windows, of this request and of all outputs; the one match of the best expected length drafts.

    ``tree`` drafts best-first, otherwise the likeliest path; guesses may be ``factor`` times the match length plus
    ``offset``, each at least ``least`` likely. Source: G. Oliaro et al., "SuffixDecoding" (2024).
    """

    def __init__(
        self, *, tree: bool, factor: float = 1.0, offset: float = 0.0, least: float = 0.1, depth: int = 24
    ) -> None:
        self.tree, self.factor, self.offset, self.least, self.depth = tree, factor, offset, least, depth
        self.outputs = Node()

    def session(self, prompt_ids: Sequence[int], *, prompt_topk: Rows | None = None) -> Session:
        """Starts a request."""
        return _SuffixTree(self, prompt_ids)


class _SuffixTree(Request):
    def __init__(self, method: SuffixTree, prompt_ids: Sequence[int]) -> None:
        self.method, self.own = method, Node()
        self.active: dict[bool, list[Node]] = {True: [], False: []}
        super().__init__(prompt_ids, None)

    def see(self, token: int, topk: list[int] | None, *, prompt: bool = False) -> None:
        super().see(token, topk, prompt=prompt)
        for shared in (False,) if prompt else (False, True):
            root = self.method.outputs if shared else self.own
            nodes = [node.child(token) for node in [*self.active[shared], root][-self.method.depth :]]
            for node in nodes:
                node.count += 1
            self.active[shared] = nodes

    def nodes(self, budget: int) -> Nodes:
        best, best_score = list[tuple[int, int]](), 0.0
        for root in (self.own, self.method.outputs):
            for matched in range(1, min(self.method.depth, len(self.context)) + 1):
                node: Node | None = root
                for token in self.context[len(self.context) - matched :]:
                    node = node.below.get(token) if node else None
                if node is None:
                    break
                span = min(budget, int(matched * self.method.factor + self.method.offset))
                nodes, score = self.speculate(node, span)
                if score >= best_score and nodes:
                    best, best_score = nodes, score
        return best

    def speculate(self, top: Node, span: int) -> tuple[Nodes, float]:
        nodes: Nodes = []
        score = 0.0
        heap: list[tuple[float, int, int, int, Node]] = []
        count = 0

        def push(parent: int, node: Node, p: float) -> None:
            nonlocal count
            total = max(node.count, sum(below.count for below in node.below.values()))
            likely = sorted(node.below.items(), key=lambda item: -item[1].count)
            for token, below in likely if self.method.tree else likely[:1]:
                q = p * below.count / total
                if q >= self.method.least:
                    count += 1
                    heapq.heappush(heap, (-q, count, parent, token, below))

        push(-1, top, 1.0)
        while heap and len(nodes) < span:
            p, _, parent, token, below = heapq.heappop(heap)
            nodes.append((token, parent))
            score -= p
            push(len(nodes) - 1, below, -p)
        return nodes, score
