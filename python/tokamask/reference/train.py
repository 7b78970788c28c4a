"""BPE training, readable and slow: what the fast trainer must reproduce.

Source of the rules: the behaviour of Hugging Face ``tokenizers``' ``BpeTrainer``, observed.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

Pair = tuple[int, int]


def printable(byte: int) -> int:
    """Code point of the character that stands for a byte in byte-level files."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in shown:
        return byte
    return 0x100 + sorted(set(range(256)) - set(shown)).index(byte)


def alphabet(words: Iterable[bytes], initial: Iterable[int] = range(256)) -> list[bytes]:
    """Single bytes in the order of their ids: those that occur and those asked for."""
    occurring = set(initial).union(*words)
    return [bytes([byte]) for byte in sorted(occurring, key=printable)]


class Learner:
    """Learns merges over words of symbols.

    A pair waits in the queue with the words in which it was new. The count it waits with may be out of
    date: it is corrected when the pair comes up, and the pair waits again. Counts are of adjacent
    positions, overlapping ones included, and a merged pair keeps its count; that matters only if a
    later merge spells a token that exists already, which then lends its id.
    """

    def __init__(self, tokens: Sequence[bytes], words: Iterable[tuple[Sequence[int], int]]) -> None:
        self.tokens = list(tokens)
        self.ids = {token: nth for nth, token in reversed(list(enumerate(tokens)))}
        self.words = [(list(word), count) for word, count in words]
        self.merges: list[Pair] = []
        self.frequencies: list[int] = []
        self.counts: Counter[Pair] = Counter()
        self.queue: list[tuple[int, Pair, tuple[int, ...]]] = []
        where: defaultdict[Pair, set[int]] = defaultdict(set)
        for nth, (word, count) in enumerate(self.words):
            for pair in itertools.pairwise(word):
                self.counts[pair] += count
                where[pair].add(nth)
        self.enqueue(where)

    def enqueue(self, where: Mapping[Pair, set[int]]) -> None:
        """Adds pairs with the words in which they are new: highest count first, then smallest ids."""
        for pair, words in where.items():
            if self.counts[pair] > 0:
                heapq.heappush(self.queue, (-self.counts[pair], pair, tuple(sorted(words))))

    def learn(
        self,
        vocab_size: int,
        *,
        min_frequency: int = 0,
        max_token_length: float = float("inf"),
        veto: Callable[[bytes], bool] = lambda token: False,
    ) -> None:
        """Merges until the vocabulary has its size or no pair is frequent enough."""
        while len(self.tokens) < vocab_size and self.queue:
            waiting, pair, words = heapq.heappop(self.queue)
            if -waiting != self.counts[pair]:
                heapq.heappush(self.queue, (-self.counts[pair], pair, words))
                continue
            if self.counts[pair] < max(1, min_frequency):
                break
            token = self.tokens[pair[0]] + self.tokens[pair[1]]
            if veto(token):
                continue
            new = self.ids.setdefault(token, len(self.tokens))
            if new == len(self.tokens):
                self.tokens.append(token)
            self.merges.append(pair)
            self.frequencies.append(self.counts[pair])
            self.merge(pair, new, words, max_token_length)

    def merge(self, pair: Pair, new: int, words: Iterable[int], max_token_length: float) -> None:
        """Merges a pair in the words it waited with, and counts what is adjacent to it anew."""
        where: defaultdict[Pair, set[int]] = defaultdict(set)
        for nth in words:
            word, count = self.words[nth]
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == pair:
                    before, after = word[at - 1 : at] if at else [], word[at + 2 : at + 3]
                    word[at : at + 2] = [new]
                    for old, found in [
                        *(((left, pair[0]), (left, new)) for left in before),
                        *(((pair[1], right), (new, right)) for right in after),
                    ]:
                        if old in self.counts:
                            self.counts[old] -= count
                        if sum(len(self.tokens[symbol]) for symbol in found) < max_token_length:
                            self.counts[found] += count
                            where[found].add(nth)
                at += 1
        self.enqueue(where)


def bpe(
    words: Mapping[bytes, int],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (),
    initial_alphabet: Iterable[int] = range(256),
    min_frequency: int = 0,
    max_token_length: float = float("inf"),
) -> tuple[list[bytes], list[Pair]]:
    """Tokens by id (special tokens as empty bytes) and merges, from counted pretokens."""
    letters = alphabet(words, initial_alphabet)
    tokens = [b""] * len(special_tokens) + letters
    ids = {letter: len(special_tokens) + nth for nth, letter in enumerate(letters)}
    symbols = [([ids[bytes([byte])] for byte in word], count) for word, count in sorted(words.items())]
    learner = Learner(tokens, symbols)
    learner.learn(vocab_size, min_frequency=min_frequency, max_token_length=max_token_length)
    return learner.tokens, learner.merges


def superword_veto(max_words: int) -> Callable[[bytes], bool]:
    """Refuses tokens with ``": "`` in them, and tokens of more than ``max_words`` parts between spaces."""
    return lambda token: b": " in token or len([part for part in token.split(b" ") if part]) > max_words


def replay(
    sequences: Iterable[Sequence[int]], merges: Mapping[Pair, int]
) -> tuple[list[list[int]], set[Pair]]:
    """Applies merges one after another to whole sequences; those that are adjacent nowhere are left out."""
    words = [list(sequence) for sequence in sequences]
    applied = set()
    for pair, new in merges.items():
        for word in words:
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == pair:
                    word[at : at + 2] = [new]
                    applied.add(pair)
                at += 1
    return words, applied


def superbpe(
    runs: Mapping[tuple[bytes, ...], int], vocab_size: int, *, transition: int, max_words: int = 4
) -> tuple[list[bytes], list[Pair]]:
    """SuperBPE from runs of pretokens (single ones included): tokens by id, and merges.

    Words are learnt up to the transition. Their merges are replayed on whole runs, those that never
    apply are dropped, and learning goes on over the runs.
    """
    words: Counter[bytes] = Counter()
    for run, count in runs.items():
        for word in run:
            words[word] += count
    tokens, merges = bpe(words, transition)
    letters = tokens[: len(tokens) - len(merges)]
    ids = {token: nth for nth, token in enumerate(tokens)}
    spelled = [[ids[bytes([byte])] for byte in b"".join(run)] for run in sorted(runs)]
    products = {pair: len(letters) + nth for nth, pair in enumerate(merges)}
    sequences, applied = replay(spelled, products)
    kept = [token for pair, token in products.items() if pair in applied]
    tokens = letters + [tokens[token] for token in kept]
    moved = {old: new for new, old in enumerate([*range(len(letters)), *kept])}
    learner = Learner(
        tokens,
        [
            ([moved[symbol] for symbol in word], runs[run])
            for word, run in zip(sequences, sorted(runs), strict=True)
        ],
    )
    learner.learn(vocab_size, veto=superword_veto(max_words))
    inherited = [(moved[a], moved[b]) for a, b in merges if (a, b) in applied]
    return learner.tokens, inherited + learner.merges


def frequencies(
    words: Iterable[tuple[Sequence[int], int]], merges: Sequence[Pair], products: Sequence[int]
) -> list[Counter[Pair]]:
    """How frequent each adjacent pair is before each merge and after the last; a merged pair no longer is."""
    sequences = [(list(word), count) for word, count in words]
    found = []
    for pair, new in [*zip(merges, products, strict=True), (None, None)]:
        now: Counter[Pair] = Counter()
        for word, count in sequences:
            for adjacent in itertools.pairwise(word):
                now[adjacent] += count
        found.append(now)
        sequences = [
            (replay([word], {pair: new})[0][0] if pair and new is not None else word, count)
            for word, count in sequences
        ]
    return found


def boundless(
    runs: Mapping[tuple[bytes, ...], int], vocab_size: int, *, max_words: int | None = None
) -> list[bytes]:
    """BoundlessBPE in two phases, from runs of pretokens (single ones included): tokens by id.

    The merges of words and those of superwords are learnt apart; walked together, the one with the higher count is
    taken, a word of equals.
    """
    words: Counter[bytes] = Counter()
    for run, count in runs.items():
        for word in run:
            words[word] += count
    letters = alphabet(words)
    ids = {letter: nth for nth, letter in enumerate(letters)}
    lower = Learner(letters, [([ids[bytes([b])] for b in word], n) for word, n in sorted(words.items())])
    lower.learn(vocab_size)
    spelled = {bytes([b]): nth for nth, b in enumerate(b"".join(letters))}
    whole: dict[bytes, int] = {}
    for word in words:
        (symbols,), _ = replay(
            [[spelled[bytes([b])] for b in word]],
            {pair: len(letters) + nth for nth, pair in enumerate(lower.merges)},
        )
        if len(symbols) == 1 and any(character.isalpha() for character in word.decode(errors="ignore")):
            whole[word] = symbols[0]
    sequences: Counter[tuple[int, ...]] = Counter()
    for run, count in runs.items():
        for eligible, group in itertools.groupby(run, whole.__contains__):
            if eligible and len(found := tuple(whole[word] for word in group)) > 1:
                sequences[found] += count
    upper = Learner(lower.tokens, sorted(sequences.items()))
    veto = superword_veto(max_words) if max_words is not None else lambda token: False
    upper.learn(len(lower.tokens) + vocab_size, veto=veto)
    below = [
        (learnt(lower, pair), count) for pair, count in zip(lower.merges, lower.frequencies, strict=True)
    ]
    above = [
        (learnt(upper, pair), count) for pair, count in zip(upper.merges, upper.frequencies, strict=True)
    ]
    taken, superwords = 0, 0
    chosen = set(letters)
    while len(chosen) < vocab_size and (taken < len(below) or superwords < len(above)):
        word_count = below[taken][1] if taken < len(below) else 0
        if superwords < len(above) and above[superwords][1] > word_count:
            chosen.add(above[superwords][0])
            superwords += 1
        else:
            chosen.add(below[taken][0])
            taken += 1
    in_order = [token for token, _ in below[:taken] + above[:superwords]]
    return list(dict.fromkeys(letters + in_order))


def learnt(learner: Learner, pair: Pair) -> bytes:
    """The token of a merge."""
    return learner.tokens[pair[0]] + learner.tokens[pair[1]]
