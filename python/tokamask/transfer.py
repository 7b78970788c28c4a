"""Between tokenizers: what transplanting a vocabulary, distilling across tokenizers and dynamic tokenization need.

Functions of ids and bytes; no model is involved.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokamask._core import Tokenizer, Vocabulary
from tokamask.errors import ShapeError, UnknownTokenError
from tokamask.ragged import Ragged

__all__ = [
    "Merged",
    "VocabularyAlignment",
    "align_spans",
    "align_vocabularies",
    "decompose_vocabulary",
    "matching_pursuit",
    "merge_batch",
]

Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class VocabularyAlignment:
    """Which tokens two vocabularies share. Made by :func:`align_vocabularies`.

    Attributes
    ----------
    shared : uint32 [k, 2]
        Ids in ``a`` and ``b`` of equal tokens, ascending in ``a``.
    only_a, only_b : uint32 [n]
        Ids of tokens that the other does not have.
    special : uint32 [s, 2]
        Special tokens of equal text; the end of text of one and of the other are a pair whatever their text.

    Examples
    --------
    >>> a = tm.Vocabulary([b"a", b"b"])
    >>> tm.transfer.align_vocabularies(a, tm.Vocabulary([b"b", b"c"])).shared.tolist()
    [[1, 0]]

    """

    shared: Ids
    only_a: Ids
    only_b: Ids
    special: Ids


def align_vocabularies(a: Vocabulary | Tokenizer, b: Vocabulary | Tokenizer) -> VocabularyAlignment:
    """Pairs the tokens of two vocabularies by their bytes; special tokens only with special ones.

    Parameters
    ----------
    a, b : Vocabulary or Tokenizer
        Tokens are compared as the bytes of text that they stand for, so it does not matter how the files spell them.

    Examples
    --------
    >>> a = tm.Vocabulary([b"a", b"b", b"<s>"], special={"<s>": 2}, eos_ids=[2])
    >>> b = tm.Vocabulary([b"b", b"c", b"</s>"], special={"</s>": 2}, eos_ids=[2])
    >>> aligned = tm.transfer.align_vocabularies(a, b)
    >>> aligned.shared.tolist(), aligned.only_a.tolist(), aligned.special.tolist()
    ([[1, 0]], [0], [[2, 2]])

    """
    a, b = _vocabulary(a), _vocabulary(b)
    tokens_a, tokens_b = dict(_ordinary(a)), dict(_ordinary(b))
    ids_b: dict[bytes, int] = {}
    for token_id, token in tokens_b.items():
        ids_b.setdefault(token, token_id)
    shared = [(token_id, ids_b[token]) for token_id, token in tokens_a.items() if token in ids_b]
    texts_a = set(tokens_a.values())
    special = [(token_id, b.special[text]) for text, token_id in a.special.items() if text in b.special]
    if a.eos_ids and b.eos_ids and not {a.eos_ids[0]} & {left for left, _ in special}:
        special.append((a.eos_ids[0], b.eos_ids[0]))
    return VocabularyAlignment(
        np.array(shared, np.uint32).reshape(-1, 2),
        np.array([token_id for token_id, token in tokens_a.items() if token not in ids_b], np.uint32),
        np.array([token_id for token_id, token in tokens_b.items() if token not in texts_a], np.uint32),
        np.array(sorted(special), np.uint32).reshape(-1, 2),
    )


def decompose_vocabulary(vocabulary: Vocabulary | Tokenizer, tok: Tokenizer) -> Ragged:
    """Spells every token of a vocabulary in the tokens of another tokenizer.

    Row ``i`` holds ids of ``tok`` whose bytes together are those of token ``i``: the longest token that fits, from the
    left, over the bytes as they are (no split rule, no added space). Special tokens, and tokens that cannot be
    spelled, have empty rows.

    Parameters
    ----------
    vocabulary : Vocabulary or Tokenizer
        Whose tokens are spelled.
    tok : Tokenizer
        In whose tokens.

    Returns
    -------
    Ragged
        As many rows as the vocabulary has ids. Lengths are ``np.diff(r.offsets)``.

    Examples
    --------
    >>> tok = tm.train.bpe(["low lower"], vocab_size=258)
    >>> rows = tm.transfer.decompose_vocabulary(tm.Vocabulary([b"lowest", b"w"]), tok)
    >>> [tok.decode_bytes(row) for row in rows], np.diff(rows.offsets).tolist()
    ([b'lowest', b'w'], [4, 1])

    """
    vocabulary = _vocabulary(vocabulary)
    tokens = {token: token_id for token_id, token in _ordinary(tok.vocabulary)}
    longest = max(map(len, tokens), default=0)
    ids: list[int] = []
    offsets = np.zeros(len(vocabulary) + 1, np.int64)
    ordinary = dict(_ordinary(vocabulary))
    for nth in range(len(vocabulary)):
        ids += _spelled(ordinary.get(nth, b""), tokens, longest)
        offsets[nth + 1] = len(ids)
    return Ragged(np.array(ids, np.uint32), offsets)


def _spelled(token: bytes, tokens: dict[bytes, int], longest: int) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(token):
        for end in range(min(len(token), at + longest), at, -1):
            if token[at:end] in tokens:
                found.append(tokens[token[at:end]])
                at = end
                break
        else:
            return []
    return found


def align_spans(
    ids_a: Sequence[int] | Ids,
    a: Vocabulary | Tokenizer,
    ids_b: Sequence[int] | Ids,
    b: Vocabulary | Tokenizer,
) -> npt.NDArray[np.int32]:
    """The shortest chunks of two tokenizations of one text that stand for the same bytes.

    Source: approximate likelihood matching, Minixhofer et al., "Universal Cross-Tokenizer Distillation", 2025 (its
    unconstrained chunks: every boundary that both have).

    Parameters
    ----------
    ids_a, ids_b : uint32 [n], [m]
        Two tokenizations.
    a, b : Vocabulary or Tokenizer
        Whose ids they are. Special tokens have the bytes of their text.

    Returns
    -------
    int32 [k, 4]
        Rows ``start_a, end_a, start_b, end_b``: ``ids_a[start_a:end_a]`` and ``ids_b[start_b:end_b]`` have the same
        bytes. Where one text ends before the other, the rest is in no chunk.

    Raises
    ------
    ShapeError
        The texts differ.
    UnknownTokenError
        An id is of no token.

    Examples
    --------
    >>> a, b = tm.Vocabulary([b"ab", b"c"]), tm.Vocabulary([b"a", b"b", b"c"])
    >>> tm.transfer.align_spans([0, 1], a, [0, 1, 2], b).tolist()
    [[0, 1, 0, 2], [1, 2, 2, 3]]

    """
    bytes_a, ends_a = _ends(ids_a, _vocabulary(a))
    bytes_b, ends_b = _ends(ids_b, _vocabulary(b))
    size = min(len(bytes_a), len(bytes_b))
    if bytes_a[:size] != bytes_b[:size]:
        first = next(at for at in range(size) if bytes_a[at] != bytes_b[at])
        raise ShapeError(
            f"align_spans: the texts differ from byte {first} on",
            name="ids_b",
            expected="the same text",
            got="another",
        )
    common = np.intersect1d(ends_a, ends_b)
    if not len(common):
        return np.zeros((0, 4), np.int32)
    # Tokens without bytes end where the one before them does; they belong to the chunk that ends there.
    stops_a = np.searchsorted(ends_a, common, side="right")
    stops_b = np.searchsorted(ends_b, common, side="right")
    rows = np.stack([np.r_[0, stops_a[:-1]], stops_a, np.r_[0, stops_b[:-1]], stops_b], axis=1)
    return rows.astype(np.int32)


def _ends(ids: Sequence[int] | Ids, vocabulary: Vocabulary) -> tuple[bytes, npt.NDArray[np.int64]]:
    tokens = [vocabulary.bytes(int(token_id)) for token_id in ids]
    return b"".join(tokens), np.cumsum([len(token) for token in tokens], dtype=np.int64)


@dataclass(frozen=True)
class Merged:
    """A batch with its most frequent pairs merged. Made by :func:`merge_batch`.

    Attributes
    ----------
    ids : Ragged
        The shorter rows. Ids from ``first`` on are new: ``first + i`` is what merge ``i`` made.
    spans : int32 [n, 2]
        By place in ``ids.ids``: where its token starts and ends in the row as it was. All that the embedding of a
        new token is predicted from.
    merges : uint32 [m, 2]
        The halves of each new token; a half may be new itself.
    first : int
        The first new id.

    Examples
    --------
    >>> merged = tm.transfer.merge_batch(Ragged.from_lists([[7, 8, 9], [7, 8]]), 1, first=10)
    >>> merged.merges.tolist(), merged.spans.tolist()
    ([[7, 8]], [[0, 2], [2, 3], [0, 2]])

    """

    ids: Ragged
    spans: npt.NDArray[np.int32]
    merges: Ids
    first: int

    def original(self, token_id: int) -> list[int]:
        """The ids that a new one stands for, merges undone."""
        if token_id < self.first:
            return [token_id]
        if token_id >= self.first + len(self.merges):
            raise UnknownTokenError(f"no merge made id {token_id}", token_id=token_id)
        left, right = self.merges[token_id - self.first].tolist()
        return self.original(left) + self.original(right)


def merge_batch(
    ids: Ragged,
    max_merges: int,
    *,
    first: int,
    allowed: Callable[[int, int], bool] = lambda left, right: True,
    min_count: int = 2,
) -> Merged:
    """Merges the most frequent pairs of a batch, as BPE does, into tokens that exist for this batch alone.

    The most frequent pair of the whole batch is merged in all rows, from left to right, again and again; of equals the
    pair that is met first. Counts are of places that could merge: in ``a a a`` the pair ``a a`` counts once.

    Source: Feher et al., "Retrofitting Large Language Models with Dynamic Tokenization", 2024.

    Parameters
    ----------
    ids : Ragged
        The rows of the batch.
    max_merges : int
        Merges at most.
    first : int
        Id of the first new token: above all others.
    allowed : function of two ids
        Whether a pair may merge: a boundary between words is a pair that may not. Called once per pair; the ids may
        be new ones.
    min_count : int
        A pair below this count is not merged.

    Examples
    --------
    >>> merged = tm.transfer.merge_batch(Ragged.from_lists([[1, 2, 3, 1, 2, 3], [1, 2]]), 2, first=100)
    >>> merged.ids.to_lists(), merged.original(101)
    ([[101, 101], [100]], [1, 2, 3])

    """
    rows = [row.tolist() for row in ids]
    widths = [[1] * len(row) for row in rows]
    merges: list[tuple[int, int]] = []
    verdicts: dict[tuple[int, int], bool] = {}

    def may(pair: tuple[int, int]) -> bool:
        if pair not in verdicts:
            verdicts[pair] = bool(allowed(*pair))
        return verdicts[pair]

    by_row = [Counter(_places(row)) for row in rows]
    counts: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for nth, pairs in enumerate(by_row):
        counts.update(pairs)
        for pair in pairs:
            where[pair].add(nth)
    while len(merges) < max_merges:
        best = max((pair for pair in counts if may(pair)), key=counts.__getitem__, default=None)
        if best is None or counts[best] < max(min_count, 1):
            break
        pair = best
        new = first + len(merges)
        merges.append(pair)
        for nth in sorted(where.pop(pair)):
            rows[nth], widths[nth] = _merged(rows[nth], widths[nth], pair, new)
            counts.subtract(by_row[nth])
            by_row[nth] = Counter(_places(rows[nth]))
            counts.update(by_row[nth])
            for found in by_row[nth]:
                where[found].add(nth)
        counts = +counts
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ends = [np.cumsum(width, dtype=np.int32) for width in widths]
    starts = [np.r_[0, end[:-1]].astype(np.int32) if len(end) else end for end in ends]
    spans = np.stack([np.concatenate([*starts, []]), np.concatenate([*ends, []])], axis=1).astype(np.int32)
    flat = np.array(list(itertools.chain.from_iterable(rows)), np.uint32)
    return Merged(Ragged(flat, offsets), spans, np.array(merges, np.uint32).reshape(-1, 2), first)


def _places(row: list[int]) -> Iterator[tuple[int, int]]:
    """Adjacent pairs; of pairs of equal ids that overlap, those that can merge together."""
    skip = False
    for left, right in itertools.pairwise(row):
        skip = not skip if left == right else False
        if left != right or skip:
            yield left, right


def _merged(
    row: list[int], widths: list[int], pair: tuple[int, int], new: int
) -> tuple[list[int], list[int]]:
    out: list[int] = []
    out_widths: list[int] = []
    at = 0
    while at < len(row):
        if at + 1 < len(row) and (row[at], row[at + 1]) == pair:
            out.append(new)
            out_widths.append(widths[at] + widths[at + 1])
            at += 2
        else:
            out.append(row[at])
            out_widths.append(widths[at])
            at += 1
    return out, out_widths


def matching_pursuit(
    atoms: npt.NDArray[np.floating], targets: npt.NDArray[np.floating], k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Writes vectors as sums of few others: orthogonal matching pursuit.

    A token that a model does not have gets an embedding so: write its embedding in another model as a sum of those
    of shared tokens there, and take the same sum here. At each step the atom that is the most parallel to what
    remains joins, and the coefficients are solved anew by least squares; what remains is orthogonal to all atoms taken.

    Source: Pati, Rezaiifar and Krishnaprasad, "Orthogonal Matching Pursuit", 1993.

    Parameters
    ----------
    atoms : float [n, d]
        The vectors to sum; scaled to unit length for the choice, not for the coefficients.
    targets : float [m, d]
        The vectors to write.
    k : int
        Atoms per target at most; fewer where the target is written exactly before. ``1 <= k <= min(n, d)``.

    Returns
    -------
    indices : int32 [m, k]
        Atoms in the order taken, -1 for none.
    coefficients : float64 [m, k]
        Their coefficients, 0 for none: ``targets[i] ~ coefficients[i] @ atoms[indices[i]]``.

    Raises
    ------
    ShapeError
        The arrays do not fit, or ``k`` is out of range.

    Examples
    --------
    >>> atoms = np.eye(3)
    >>> tm.transfer.matching_pursuit(atoms, np.array([[0.0, 2.0, -3.0]]), 2)[0].tolist()
    [[2, 1]]

    """
    atoms, targets = np.asarray(atoms, np.float64), np.asarray(targets, np.float64)
    if atoms.ndim != 2 or targets.ndim != 2 or atoms.shape[1] != targets.shape[1]:
        raise ShapeError(
            f"matching_pursuit: expected atoms [n, d] and targets [m, d], got {atoms.shape} and {targets.shape}",
            name="targets",
            expected="[m, d]",
            got=str(targets.shape),
        )
    if not 1 <= k <= min(atoms.shape):
        raise ShapeError(
            f"matching_pursuit: k must be in 1..{min(atoms.shape)}, got {k}",
            name="k",
            expected=f"1..{min(atoms.shape)}",
            got=str(k),
        )
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    units = np.divide(atoms, norms, out=np.zeros_like(atoms), where=norms > 0)
    indices = np.full((len(targets), k), -1, np.int32)
    coefficients = np.zeros((len(targets), k))
    for target, row, solved in zip(targets, indices, coefficients, strict=True):
        rest = target
        enough = 1e-12 * float(np.linalg.norm(target))
        for step in range(k):
            match = np.abs(units @ rest)
            match[row[:step]] = -1.0
            best = int(match.argmax())
            if np.linalg.norm(rest) <= enough or match[best] <= enough:
                break
            row[step] = best
            taken = atoms[row[: step + 1]].T
            solved[: step + 1] = np.linalg.lstsq(taken, target, rcond=None)[0]
            rest = target - taken @ solved[: step + 1]
    return indices, coefficients


def _vocabulary(x: Vocabulary | Tokenizer) -> Vocabulary:
    return x.vocabulary if isinstance(x, Tokenizer) else x


def _ordinary(vocabulary: Vocabulary) -> Iterator[tuple[int, bytes]]:
    """Ids and bytes of the tokens that are text."""
    for token_id in range(len(vocabulary)):
        if vocabulary.is_special(token_id):
            continue
        try:
            token = vocabulary.bytes(token_id)
        except UnknownTokenError:
            continue
        if token:
            yield token_id, token
