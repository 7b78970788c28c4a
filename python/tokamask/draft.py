"""Draft trees: guesses of the next tokens, verified in one forward pass of the target model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from tokamask import verify
from tokamask.draft_corpus import DraftCorpus as DraftCorpus
from tokamask.errors import ShapeError
from tokamask.reference import verify as reference

if TYPE_CHECKING:
    from typing import Any

SOURCES = ("given", "request", "shared", "recycled", "corpus", "forced")
"""What proposed a node, by the number in ``DraftTree.sources``: the caller, this request's own tokens, the
tokens of all requests, runners-up of earlier logits, a corpus, or a grammar that leaves no choice."""


class DraftTree:
    """A tree of guessed tokens, breadth-first and without its root, the last accepted token.

    Whatever a forward pass sees per position has ``n + 1`` rows: row 0 is the root, row ``i + 1`` is node ``i``.

    Parameters
    ----------
    token_ids : int32 [n]
        The guessed token of each node.
    parents : int32 [n]
        Node number of the parent, -1 for children of the root. Breadth-first: ascending, each below its own node.
    probs : float32 [n], optional
        Estimated probability that the whole path down to the node is accepted, in [0, 1]; ones if not given.
    sources : uint8 [n], optional
        Numbers into :data:`SOURCES`; 0, "given", if not given.

    Raises
    ------
    ShapeError
        An array of another shape or kind, or nodes that are not breadth-first.

    Examples
    --------
    >>> tree = DraftTree([5, 6, 7], [-1, -1, 0])
    >>> tree.depths.tolist(), tree.mask().ravel().tolist()
    ([1, 1, 2], [1, 3, 5, 11])

    """

    __slots__ = ("depths", "parents", "probs", "sources", "token_ids")

    token_ids: npt.NDArray[np.int32]
    parents: npt.NDArray[np.int32]
    probs: npt.NDArray[np.float32]
    sources: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.int32]

    def __init__(
        self,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        probs: npt.ArrayLike | None = None,
        sources: npt.ArrayLike | None = None,
    ) -> None:
        self.token_ids = _integers("token_ids", token_ids)
        n = len(self.token_ids)
        self.parents = _integers("parents", parents, n)
        _check_order(self.parents)
        if n and int(self.token_ids.min()) < 0:
            raise _shape_error("token_ids", "int32 [n], none negative", f"{self.token_ids.min()}")
        self.probs = np.ones(n, np.float32) if probs is None else np.asarray(probs, np.float32)
        if self.probs.shape != (n,) or not bool(np.all((self.probs >= 0) & (self.probs <= 1))):
            raise _shape_error("probs", f"float32 [n={n}] in [0, 1]", _describe(self.probs))
        self.sources = np.zeros(n, np.uint8) if sources is None else np.asarray(sources, np.uint8)
        if self.sources.shape != (n,) or (n and int(self.sources.max()) >= len(SOURCES)):
            raise _shape_error("sources", f"uint8 [n={n}] below {len(SOURCES)}", _describe(self.sources))
        self.depths = np.ones(n, np.int32)
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                self.depths[node] = self.depths[parent] + 1
        self._freeze()

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[int]]) -> DraftTree:
        """Merges guessed continuations into one tree; earlier paths come first among siblings.

        >>> DraftTree.from_paths([[5, 7], [6], [5, 8]]).parents.tolist()
        [-1, -1, 0, 0]
        """
        level: dict[int, list[Sequence[int]]] = {-1: [path for path in paths if len(path)]}
        token_ids: list[int] = []
        parents: list[int] = []
        while level:
            below: dict[int, list[Sequence[int]]] = {}
            for parent, tails in level.items():
                nodes: dict[int, int] = {}
                for tail in tails:
                    node = nodes.setdefault(int(tail[0]), len(token_ids))
                    if node == len(token_ids):
                        token_ids.append(int(tail[0]))
                        parents.append(parent)
                        below[node] = []
                    if len(tail) > 1:
                        below[node].append(tail[1:])
            level = {node: tails for node, tails in below.items() if tails}
        return cls(np.array(token_ids, np.int32), np.array(parents, np.int32))

    @classmethod
    def from_nodes(cls, nodes: Sequence[tuple[int, int]]) -> DraftTree:
        """From (token, parent) pairs in any order with parents before children, -1 for the root.

        >>> DraftTree.from_nodes([(5, -1), (7, 0), (6, -1)]).token_ids.tolist()
        [5, 6, 7]
        """
        depths: list[int] = []
        for node, (_, parent) in enumerate(nodes):
            if not -1 <= parent < node:
                raise _shape_error(
                    "nodes", "parents before children, -1 for the root", f"{parent} of node {node}"
                )
            depths.append(depths[parent] + 1 if parent >= 0 else 1)
        place = [-1] * len(nodes)
        order: list[int] = []
        for depth in range(1, max(depths, default=0) + 1):
            level = [i for i in range(len(nodes)) if depths[i] == depth]
            for i in sorted(level, key=lambda i: place[nodes[i][1]] if nodes[i][1] >= 0 else -1):
                place[i] = len(order)
                order.append(i)
        parents = [place[nodes[i][1]] if nodes[i][1] >= 0 else -1 for i in order]
        return cls(np.array([nodes[i][0] for i in order], np.int32), np.array(parents, np.int32))

    @classmethod
    def _trusted(
        cls,
        token_ids: npt.NDArray[np.int32],
        parents: npt.NDArray[np.int32],
        probs: npt.NDArray[np.float32],
        sources: npt.NDArray[np.uint8],
        depths: npt.NDArray[np.int32],
    ) -> DraftTree:
        """Wraps the read-only arrays of a proposer, which keeps the rules by construction."""
        tree = cls.__new__(cls)
        tree.token_ids, tree.parents, tree.probs, tree.sources, tree.depths = (
            token_ids,
            parents,
            probs,
            sources,
            depths,
        )
        return tree

    def _freeze(self) -> None:
        for name in self.__slots__:
            getattr(self, name).flags.writeable = False

    def __len__(self) -> int:
        return len(self.token_ids)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DraftTree)
            and np.array_equal(self.token_ids, other.token_ids)
            and np.array_equal(self.parents, other.parents)
        )

    def __hash__(self) -> int:
        return hash((self.token_ids.tobytes(), self.parents.tobytes()))

    def __repr__(self) -> str:
        deepest = int(self.depths[-1]) if len(self) else 0
        return f"<DraftTree of {len(self)} nodes, depth {deepest}, expecting {self.probs.sum():.2f} accepted>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.token_ids, self.parents, self.probs, self.sources)

    def mask(self) -> npt.NDArray[np.uint64]:
        """Who sees whom: uint64 [n + 1, ceil((n + 1) / 64)], bit ``j % 64`` of word ``j // 64`` of row ``i`` set
        where position ``j`` is position ``i`` or one of its ancestors. Row 0 and bit 0 are the root.
        """
        rows = len(self) + 1
        mask = np.zeros((rows, (rows + 63) // 64), np.uint64)
        mask[0, 0] = 1
        for node, parent in enumerate(self.parents.tolist()):
            row = node + 1
            mask[row] = mask[parent + 1]
            mask[row, row // 64] |= np.uint64(1 << row % 64)
        return mask

    def to_siblings(
        self, root_id: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tree as serving engines pass it: first child, next sibling and token, each int64 [n + 1].

        Row 0 is the root; -1 means none. These are ``retrieve_next_token``, ``retrieve_next_sibling`` and
        ``draft_tokens`` of xgrammar and SGLang. ``root_id`` is the root's own token, which they carry too.
        """
        rows = len(self) + 1
        child = np.full(rows, -1, np.int64)
        sibling = np.full(rows, -1, np.int64)
        for row in range(rows - 1, 0, -1):
            parent = int(self.parents[row - 1]) + 1
            sibling[row] = child[parent]
            child[parent] = row
        return child, sibling, np.concatenate(([root_id], self.token_ids)).astype(np.int64)

    def paths(self) -> list[list[int]]:
        """The token ids from the root to each leaf, leaves in node order."""
        inner = set(self.parents.tolist())
        return [self.path_ids(node) for node in range(len(self)) if node not in inner]

    def path_ids(self, node: int) -> list[int]:
        """The token ids from the root's child down to ``node``."""
        ids: list[int] = []
        while node >= 0:
            ids.append(int(self.token_ids[node]))
            node = int(self.parents[node])
        return ids[::-1]

    def best_path(self, most: int | None = None) -> npt.NDArray[np.int32]:
        """The nodes of the path with most expected accepted tokens, of at most ``most`` nodes: int32 [k].

        For engines that verify one path and no tree.

        >>> DraftTree([5, 6, 7], [-1, -1, 1], [0.5, 0.4, 0.3]).best_path().tolist()
        [1, 2]
        """
        expected = self.probs.astype(np.float64)
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                expected[node] += expected[parent]
        if most is not None:
            expected[self.depths > most] = -1.0
        path: list[int] = []
        node = int(expected.argmax()) if len(self) and expected.max() >= 0 else -1
        while node >= 0:
            path.append(node)
            node = int(self.parents[node])
        return np.array(path[::-1], np.int32)


def _describe(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _shape_error(name: str, expected: str, got: str) -> ShapeError:
    return ShapeError(f"{name}: expected {expected}, got {got}", name=name, expected=expected, got=got)


def _integers(name: str, values: npt.ArrayLike, n: int | None = None) -> npt.NDArray[np.int32]:
    """A private int32 copy, refused unless integer, one-dimensional, in range and ``n`` long."""
    array = np.asarray(values)
    expected = "int32 [n]" if n is None else f"int32 [n={n}]"
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int32)  # an empty list is float64 to numpy
    if array.ndim != 1 or array.dtype.kind not in "iu" or (n is not None and len(array) != n):
        raise _shape_error(name, expected, _describe(array))
    copy = array.astype(np.int32)
    if not np.array_equal(copy, array):
        raise _shape_error(name, expected, f"{array.dtype} values beyond int32")
    return copy


def _check_order(parents: npt.NDArray[np.int32]) -> None:
    """Breadth-first is the same as: parents ascend, start at -1, and stand before their children."""
    n = len(parents)
    breadth_first = bool(
        np.all(parents[1:] >= parents[:-1]) and np.all(parents < np.arange(n)) and np.all(parents >= -1)
    )
    if not breadth_first:
        expected = "breadth-first parents: ascending, -1 for the root, each below its own node"
        raise _shape_error("parents", expected, str(parents.tolist()))


@overload
def verify_greedy(
    tree: DraftTree, target_ids: npt.ArrayLike, *, out: None = None
) -> tuple[npt.NDArray[np.int32], int, npt.NDArray[np.int32]]: ...
@overload
def verify_greedy(
    tree: tuple[Any, Any], target_ids: Any, *, out: tuple[Any, Any, Any] | None = None
) -> tuple[Any, Any, Any]: ...
def verify_greedy(tree: Any, target_ids: Any, *, out: Any = None) -> tuple[Any, Any, Any]:
    """Keeps the longest path of the tree that the target would have written itself.

    Parameters
    ----------
    tree : DraftTree, or a batch as (token_ids, parents) int32 [batch, n]
        What was drafted, ``n`` nodes. Arrays (numpy, torch, CuPy) hold parents before children; token -1 is padding.
    target_ids : int [n + 1], or int32 [batch, n + 1]
        The target's greedy choice at each position of the forward pass: row 0 after the root, row ``i + 1``
        after node ``i``; -1 where nothing can follow.
    out : (int32 [batch, n], int32 [batch], int32 [batch]), optional
        For arrays, where to put the results.

    Returns
    -------
    accepted_ids : int32 [k]
        Tokens of the accepted path.
    bonus_id : int
        The target's choice after the accepted path: ``k + 1`` new tokens in all.
    path : int32 [k]
        The accepted nodes; their KV entries (rows ``path + 1``) are kept.

    For arrays instead: ``path`` int32 [batch, n], -1 padded; ``accepted`` int32 [batch], the length of each path; ``bonus`` int32
    [batch].

    Raises
    ------
    ShapeError
        ``target_ids`` is not one integer per row.

    Examples
    --------
    >>> tree = DraftTree([5, 6, 7], [-1, -1, 0])
    >>> ids, bonus, path = verify_greedy(tree, [5, 7, 0, 9])
    >>> ids.tolist(), bonus, path.tolist()
    ([5, 7], 9, [0, 2])
    >>> batch = tree.token_ids[None], tree.parents[None]
    >>> path, accepted, bonus = verify_greedy(batch, np.array([[5, 7, 0, 9]], np.int32))
    >>> path.tolist(), accepted.tolist(), bonus.tolist()
    ([[0, 2, -1]], [2], [9])

    """
    if isinstance(tree, tuple):
        return verify.verify_greedy(tree, target_ids, out)
    targets = _integers("target_ids", target_ids, len(tree) + 1).tolist()
    token_ids, parents = tree.token_ids.tolist(), tree.parents.tolist()
    path: list[int] = []
    reached = -1
    # Breadth-first order lets one sweep do: the children of a node stand together, after it.
    for node, parent in enumerate(parents):
        if parent == reached and token_ids[node] == targets[reached + 1]:
            path.append(node)
            reached = node
    accepted = np.array(path, np.int32)
    return tree.token_ids[accepted], targets[reached + 1], accepted


Rule: TypeAlias = Literal["point", "tokenwise", "specinfer", "sequoia", "spectr", "block"]


@overload
def verify_sampled(
    tree: DraftTree,
    target_probs: npt.ArrayLike,
    *,
    rule: Rule = "point",
    draft_probs: npt.ArrayLike | None = None,
    seed: int,
    row: int | None = None,
    step: int = 0,
    out: None = None,
) -> tuple[npt.NDArray[np.int32], int, npt.NDArray[np.int32]]: ...
@overload
def verify_sampled(
    tree: tuple[Any, Any],
    target_probs: Any,
    *,
    rule: Rule = "point",
    draft_probs: Any = None,
    seed: Any,
    row: Any = None,
    step: Any = 0,
    out: tuple[Any, Any, Any] | None = None,
) -> tuple[Any, Any, Any]: ...
def verify_sampled(
    tree: Any,
    target_probs: Any,
    *,
    rule: Rule = "point",
    draft_probs: Any = None,
    seed: Any,
    row: Any = None,
    step: Any = 0,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """Keeps drafted tokens such that the output is distributed as if the target had been sampled token by token.

    Parameters
    ----------
    tree : DraftTree, or a batch as (token_ids, parents) int32 [batch, n]
        What was drafted, ``n`` nodes. Arrays (numpy, torch on the CPU) hold parents before children; token -1 is padding.
    target_probs : float [n + 1, vocab_size], or float32 or float64 [batch, n + 1, vocab_size]
        The target's law at each position of the forward pass, after temperature, filters and masks: row 0 after
        the root, row ``i + 1`` after node ``i``. Rows need not be normalised.
    rule : str
        How the guesses came about. ``"point"``: not by chance, as those of a :class:`Drafter`. By sampling a draft
        model: ``"tokenwise"`` or ``"block"`` for a chain, ``"specinfer"`` or ``"spectr"`` for siblings drawn
        independently, ``"sequoia"`` for siblings drawn without replacement; each kind in the order of drawing.
    draft_probs : float, the shape of ``target_probs``
        The draft's law at each position, which its children were drawn from; not for "point".
    seed, row, step : int, or int [batch]
        What the random numbers are a function of: a step of a stream must not be used twice. Row 0 unless given, for arrays
        their row.
    out : (int32 [batch, n], int32 [batch], int32 [batch]), optional
        For arrays, where to put the results.

    Returns
    -------
    accepted_ids : int32 [k]
        Tokens of the accepted path.
    bonus_id : int
        The token after them, drawn from the target.
    path : int32 [k]
        The accepted nodes; their KV entries (rows ``path + 1``) are kept.

    For arrays instead: ``path`` int32 [batch, n], -1 padded; ``accepted`` int32 [batch], the length of each path; ``bonus`` int32
    [batch]. Their laws are not checked, and "spectr" is not for arrays.

    Raises
    ------
    ShapeError
        Rows that do not fit the tree, a row that is not a law, or a tree that does not fit the rule.

    Examples
    --------
    >>> tree = DraftTree([5, 6], [-1, 0])
    >>> ids, bonus, path = verify_sampled(tree, np.eye(8)[[5, 6, 7]], seed=1)
    >>> ids.tolist(), bonus
    ([5, 6], 7)

    """
    if isinstance(tree, tuple):
        return verify.verify_sampled(tree, target_probs, rule, draft_probs, seed, row, step, out)
    if rule != "point" and rule not in _SAMPLED:
        raise _shape_error("rule", f"one of point, {', '.join(_SAMPLED)}", repr(rule))
    laws = _laws("target_probs", target_probs, len(tree) + 1)
    _check_tokens(tree, laws)
    parents = tree.parents.tolist()
    drafts = None
    if rule == "point":
        if draft_probs is not None:
            raise _shape_error("draft_probs", 'None for "point"', "laws")
    else:
        if draft_probs is None:
            raise _shape_error("draft_probs", f"float [{len(tree) + 1}, vocab_size] for {rule!r}", "None")
        drafts = _laws("draft_probs", draft_probs, len(tree) + 1)
        if drafts.shape != laws.shape:
            raise _shape_error("draft_probs", f"float {list(laws.shape)}", _describe(drafts))
        if rule in ("tokenwise", "block") and parents != list(range(-1, len(tree) - 1)):
            raise _shape_error("tree", f"a chain for {rule!r}", str(parents))
    if rule == "spectr" and drafts is not None:
        draws = reference.Draws(seed, row or 0, step)
        ids, bonus, nodes = reference.verify_spectr(tree.token_ids.tolist(), parents, laws, drafts, draws)
        return np.array(ids, np.int32), bonus, np.array(nodes, np.int32)
    trees = tree.token_ids[None], tree.parents[None]
    drafted = None if drafts is None else drafts[None]
    found = verify.verify_sampled(trees, laws[None], rule, drafted, seed, row or 0, step)
    path = found[0][0, : found[1][0]]
    return tree.token_ids[path], int(found[2][0]), path


def verify_typical_lossy(
    tree: DraftTree, target_probs: npt.ArrayLike, *, epsilon: float = 0.09, delta: float = 0.3
) -> tuple[npt.NDArray[np.int32], int, npt.NDArray[np.int32]]:
    """NOT exact: keeps the longest path of tokens that the target finds typical. The output's law is not the target's.

    A token is typical if its probability exceeds ``min(epsilon, delta * exp(-entropy))``. Arguments and results are those
    of :func:`verify_sampled`.
    """
    laws = _laws("target_probs", target_probs, len(tree) + 1)
    _check_tokens(tree, laws)
    ids, bonus, path = reference.verify_typical_lossy(
        tree.token_ids.tolist(), tree.parents.tolist(), laws, epsilon, delta
    )
    return np.array(ids, np.int32), bonus, np.array(path, np.int32)


_SAMPLED = ("tokenwise", "specinfer", "sequoia", "spectr", "block")


def _check_tokens(tree: DraftTree, laws: npt.NDArray[np.float64]) -> None:
    if len(tree) and int(tree.token_ids.max()) >= laws.shape[1]:
        raise _shape_error("tree", f"token ids below vocab_size {laws.shape[1]}", f"{tree.token_ids.max()}")


def _laws(name: str, values: npt.ArrayLike, rows: int) -> npt.NDArray[np.float64]:
    """Probabilities in double precision, refused unless finite, not negative, and with some mass in each row."""
    laws = np.asarray(values)
    expected = f"float [{rows}, vocab_size], finite, not negative, not all zero"
    if laws.ndim != 2 or len(laws) != rows or laws.dtype.kind != "f" or laws.shape[1] == 0:
        raise _shape_error(name, expected, _describe(laws))
    laws = laws.astype(np.float64)
    if not (np.all(laws >= 0) and np.all(np.isfinite(laws)) and np.all(laws.sum(axis=1) > 0)):
        raise _shape_error(name, expected, "a row that is not a law")
    return laws
