"""Merges learnt from several corpora at once, so that none of their languages comes off badly.

Each step asks which language is worst off, and merges the pair that is most frequent in it, everywhere (Foroutan et
al., "Parity-Aware Byte-Pair Encoding", 2025, arXiv 2508.04796).
"""

from __future__ import annotations

import collections
import heapq
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tokamask.compat.tokenizers import models
from tokamask.compat.tokenizers.added import AddedToken
from tokamask.compat.tokenizers.alphabet import characters

if TYPE_CHECKING:
    from tokamask.compat.tokenizers.tokenizer import Tokenizer

Pair = tuple[int, int]
VARIANTS = ("base", "window")


class ParityBpeTrainer:
    """Learns one list of merges for several languages, the same merges in the same order as the original.

    The language that is worst off has the longest development text (in symbols, so far), or the lowest compression by
    its ``ratio``; with neither, the longest training text. ``variant="window"`` passes over a language that was chosen
    more than ``alpha`` times its share of the last ``window_size`` steps. The first ``global_merges`` take the pair that
    is most frequent in all languages together.
    """

    FIELDS = (
        *("num_merges", "variant", "min_frequency", "ratio", "global_merges", "window_size", "alpha"),
        *("total_symbols", "special_tokens", "show_progress", "limit_alphabet", "initial_alphabet"),
        *("continuing_subword_prefix", "end_of_word_suffix", "max_token_length"),
    )

    def __init__(
        self,
        num_merges: int = 32000,
        variant: str = "base",
        min_frequency: int = 0,
        ratio: Sequence[float] | None = None,
        global_merges: int = 0,
        window_size: int = 100,
        alpha: float = 2.0,
        total_symbols: bool = False,
        special_tokens: Iterable[Any] | None = None,
        show_progress: bool = True,
        limit_alphabet: int | None = None,
        initial_alphabet: Sequence[str] | None = None,
        continuing_subword_prefix: str | None = None,
        end_of_word_suffix: str | None = None,
        max_token_length: int | None = None,
    ) -> None:
        self.num_merges, self.min_frequency, self.total_symbols = num_merges, min_frequency, total_symbols
        self.variant, self.window_size, self.alpha = variant, window_size, alpha
        self.ratio = None if ratio is None else list(ratio)
        self.global_merges, self.show_progress = global_merges, show_progress
        self.special_tokens = [AddedToken.of(token, special=True) for token in special_tokens or ()]
        self.limit_alphabet, self.initial_alphabet = limit_alphabet, list(initial_alphabet or ())
        self.continuing_subword_prefix, self.end_of_word_suffix = (
            continuing_subword_prefix,
            end_of_word_suffix,
        )
        self.max_token_length = max_token_length

    @property
    def variant(self) -> str:
        """How the language is chosen: ``"base"`` or ``"window"``."""
        return self._variant

    @variant.setter
    def variant(self, variant: str) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"Unknown variant '{variant}'. Use 'base' or 'window'.")
        self._variant = variant

    def train_from_iterator(
        self,
        tokenizer: Tokenizer,
        train_iterators: Sequence[Iterable[Any]],
        dev_iterators: Sequence[Iterable[Any]] | None = None,
        ratio: Sequence[float] | None = None,
    ) -> None:
        """Gives ``tokenizer`` the model that was learnt from one iterator of texts, or of lists of texts, a language."""
        if not train_iterators:
            raise ValueError("train_iterators must not be empty")
        if dev_iterators is not None and len(dev_iterators) != len(train_iterators):
            raise ValueError(
                f"dev_iterators length ({len(dev_iterators)}) must match train_iterators length ({len(train_iterators)})"
            )
        wanted = None if dev_iterators else ratio if ratio is not None else self.ratio
        self._check(len(train_iterators), wanted)
        counts = [tokenizer._count(texts) for texts in train_iterators]
        development = [tokenizer._count(texts) for texts in dev_iterators or ()]
        vocab, merges = self._learn(counts, development, wanted)
        tokenizer.model = models.BPE(
            vocab,
            merges,
            continuing_subword_prefix=self.continuing_subword_prefix,
            end_of_word_suffix=self.end_of_word_suffix,
        )
        tokenizer.add_special_tokens(self.special_tokens)

    def _check(self, languages: int, ratio: Sequence[float] | None) -> None:
        if ratio is not None and len(ratio) != languages:
            raise RuntimeError(
                f"Training error: ratio length ({len(ratio)}) does not match number of languages ({languages})"
            )
        for nth, rate in enumerate(ratio or ()):
            if not (math.isfinite(rate) and rate > 0):
                raise RuntimeError(
                    f"Training error: ratio[{nth}] must be a positive finite number (got {rate})"
                )
        if self.variant == "window":
            if self.window_size == 0:
                raise RuntimeError("Training error: window_size must be > 0 when variant is Window")
            if not (math.isfinite(self.alpha) and self.alpha > 0):
                raise RuntimeError(
                    f"Training error: alpha must be a positive finite number when variant is Window (got {self.alpha})"
                )

    def _learn(
        self, counts: list[dict[str, int]], development: list[dict[str, int]], ratio: Sequence[float] | None
    ) -> tuple[dict[str, int], list[tuple[str, str]]]:
        together: collections.Counter[str] = collections.Counter()
        for words in [*counts, *development]:
            together.update(words)
        alphabet = characters(together, self.initial_alphabet, self.limit_alphabet)
        symbols = _Symbols(self.special_tokens, alphabet, self)
        languages = [_Corpus.of(words, symbols, new=True) for words in counts]
        everywhere = _Everywhere(languages if self.global_merges else [], symbols)
        measured = _Measured(languages, development, symbols, ratio)
        steps = max(0, self.num_merges - len(symbols.text)) if self.total_symbols else self.num_merges
        merges: list[Pair] = []
        finished: set[int] = set()
        chosen: collections.deque[int] = collections.deque(maxlen=max(1, self.window_size))
        idle: set[tuple[int, ...]] = set()  # windows since something changed: one that returns would for ever
        while len(merges) < steps and len(finished) < len(languages):
            worst = (
                None if len(merges) < self.global_merges else self._worst(measured.needs(), finished, chosen)
            )
            pair, count = (everywhere if worst is None else languages[worst]).best()
            if pair is None or count < self.min_frequency:
                if worst is None:
                    break
                if worst not in finished:
                    finished.add(worst)
                    idle.clear()
                elif tuple(chosen) in idle:  # here the original goes on without end
                    warnings.warn(
                        f"{len(merges)} of {steps} merges: no language with pairs left may be chosen",
                        stacklevel=3,
                    )
                    break
                idle.add(tuple(chosen))
                continue
            idle.clear()
            new = symbols.joined(pair)
            merges.append(pair)
            changed = {pair}
            for nth, language in enumerate(languages):
                shorter, pairs = language.merge(pair, new, self.max_token_length)
                changed |= pairs
                measured.trained(nth, shorter)
            everywhere.update(changed)
            measured.merged(pair, new)
        text = symbols.text
        return symbols.ids, [(text[left], text[right]) for left, right in merges]

    def _worst(self, needs: list[float], finished: set[int], chosen: collections.deque[int]) -> int:
        """The language with the greatest need; those that are finished come last."""
        needs = [-math.inf if nth in finished else need for nth, need in enumerate(needs)]
        if self.variant == "base":
            return _greatest(needs, range(len(needs)))
        left = set(range(len(needs)))
        while True:
            nth = _greatest(needs, sorted(left))
            last = nth not in left or len(left) == 1
            left.discard(nth)
            if last or chosen.count(nth) / self.window_size <= self.alpha / len(needs):
                chosen.append(nth)
                return nth

    def __getstate__(self) -> dict[str, Any]:
        state = {field: getattr(self, field) for field in self.FIELDS}
        state["special_tokens"] = [token.content for token in self.special_tokens]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return (
            f'ParityBpeTrainer(num_merges={self.num_merges}, variant="{self.variant}", '
            f"min_frequency={self.min_frequency}, global_merges={self.global_merges}, "
            f"window_size={self.window_size}, alpha={self.alpha:g}, total_symbols={str(self.total_symbols).lower()})"
        )


def _greatest(needs: list[float], among: Iterable[int]) -> int:
    """The first of the greatest; 0 if all are minus infinity or no number."""
    best, most = 0, -math.inf
    for nth in among:
        if needs[nth] > most:
            best, most = nth, needs[nth]
    return best


class _Symbols:
    """Symbols by number and by text; a character inside or at the end of a word may have an affix."""

    def __init__(self, special: list[AddedToken], alphabet: list[str], trainer: ParityBpeTrainer) -> None:
        self.text: list[str] = []
        self.ids: dict[str, int] = {}
        self.lengths: list[int] = []
        self._prefix = trainer.continuing_subword_prefix or ""
        self._suffix = trainer.end_of_word_suffix or ""
        for text in [*(token.content for token in special), *alphabet]:
            self._add(text, 1)

    def _add(self, text: str, length: int) -> int:
        if text not in self.ids:
            self.ids[text] = len(self.text)
            self.text.append(text)
            self.lengths.append(length)
        return self.ids[text]

    def of(self, word: str, new: bool) -> list[int] | None:
        """The characters of a word. Characters out of the alphabet are left out; unless ``new``, they leave none."""
        found = []
        for at, char in enumerate(word):
            text = (self._prefix if at else "") + char + (self._suffix if at == len(word) - 1 else "")
            known = char in self.ids and (new or text in self.ids)
            if known:
                found.append(self._add(text, 1))
            elif not new:
                return None
        return found

    def joined(self, pair: Pair) -> int:
        left, right = pair
        text = self.text[left] + self.text[right].removeprefix(self._prefix)
        return self._add(text, self.lengths[left] + self.lengths[right])


class _Corpus:
    """Words with their weights, and how often each pair of symbols stands in them."""

    def __init__(self, symbols: _Symbols) -> None:
        self._symbols = symbols
        self._words: list[list[int]] = []
        self._weights: list[int] = []
        self._where: dict[Pair, set[int]] = collections.defaultdict(set)
        self.counts: collections.Counter[Pair] = collections.Counter()
        self._heap: list[tuple[int, _Late, Pair]] = []

    @classmethod
    def of(cls, words: dict[str, int], symbols: _Symbols, *, new: bool) -> _Corpus:
        """A corpus; ``new``: its characters become symbols."""
        corpus = cls(symbols)
        for word, weight in words.items():
            found = symbols.of(word, new)
            if found:
                for pair in itertools.pairwise(found):
                    corpus.counts[pair] += weight
                    corpus._where[pair].add(len(corpus._words))
                corpus._words.append(found)
                corpus._weights.append(weight)
        for pair in corpus.counts:
            corpus._queue(pair)
        return corpus

    def size(self) -> int:
        """Symbols of the whole corpus."""
        return sum(len(word) * weight for word, weight in zip(self._words, self._weights, strict=True))

    def _queue(self, pair: Pair) -> None:
        if self.counts[pair] > 0:
            left, right = pair
            heapq.heappush(
                self._heap,
                (-self.counts[pair], _Late((self._symbols.text[left], self._symbols.text[right])), pair),
            )

    def best(self) -> tuple[Pair | None, int]:
        """The most frequent pair, of equals the last in order of text, and its count."""
        while self._heap:
            count, _, pair = heapq.heappop(self._heap)
            if self.counts[pair] == -count:
                return pair, -count
        return None, 0

    def merge(self, pair: Pair, new: int, longest: int | None) -> tuple[int, set[Pair]]:
        """Merges a pair; by how many symbols the corpus became shorter, and the pairs whose counts changed."""
        lengths = self._symbols.lengths

        def fits(other: int) -> bool:
            return longest is None or lengths[other] + lengths[new] < longest

        shorter, changed = 0, set()
        for nth in self._where.pop(pair, ()):
            before, weight = self._words[nth], self._weights[nth]
            self._words[nth], changes = _merged(before, pair, new, fits)
            shorter += (len(before) - len(self._words[nth])) * weight
            for other, change in changes:
                self.counts[other] += change * weight
                changed.add(other)
                if change > 0:
                    self._where[other].add(nth)
        self.counts[pair] = 0
        for other in changed:
            self._queue(other)
        return shorter, changed


class _Late(tuple[str, str]):
    """Texts of which the later ones come first."""

    __slots__ = ()

    def __lt__(self, other: tuple[str, ...]) -> bool:
        return tuple.__lt__(other, self)


def _merged(
    word: list[int], pair: Pair, new: int, fits: Callable[[int], bool]
) -> tuple[list[int], list[tuple[Pair, int]]]:
    """The word with the pair merged from the left, and what each merge does to the counts. A pair that would become too
    long is not counted.
    """
    left, right = pair
    merged: list[int] = []
    changes: list[tuple[Pair, int]] = []
    at = 0
    while at < len(word):
        if word[at] != left or word[at + 1 : at + 2] != [right]:
            merged.append(word[at])
            at += 1
            continue
        if merged:
            changes.append(((merged[-1], left), -1))
            if fits(merged[-1]):
                changes.append(((merged[-1], new), 1))
        for after in word[at + 2 : at + 3]:
            changes.append(((right, after), -1))
            if fits(after):
                changes.append(((new, after), 1))
        merged.append(new)
        at += 2
    return merged, changes


class _Everywhere(_Corpus):
    """The counts of all languages together."""

    def __init__(self, languages: list[_Corpus], symbols: _Symbols) -> None:
        super().__init__(symbols)
        self._languages = languages
        self.update(set().union(*(language.counts for language in languages)))

    def update(self, pairs: set[Pair]) -> None:
        """Counts pairs anew."""
        for pair in pairs:
            self.counts[pair] = sum(language.counts[pair] for language in self._languages)
            self._queue(pair)


class _Measured:
    """How badly off each language is."""

    def __init__(
        self,
        languages: list[_Corpus],
        development: list[dict[str, int]],
        symbols: _Symbols,
        ratio: Sequence[float] | None,
    ) -> None:
        self._ratio = ratio
        self._development = [_Corpus.of(words, symbols, new=False) for words in development]
        self._sizes = [corpus.size() for corpus in self._development or languages]
        self._first = list(self._sizes)

    def needs(self) -> list[float]:
        """By language: greater is worse."""
        if self._ratio is None:
            return [float(size) for size in self._sizes]
        rates = zip(self._first, self._sizes, self._ratio, strict=True)
        return [
            -(first / size / ratio if size else math.inf if first else math.nan)
            for first, size, ratio in rates
        ]

    def trained(self, nth: int, shorter: int) -> None:
        """The training text of a language became shorter."""
        if not self._development:
            self._sizes[nth] -= shorter

    def merged(self, pair: Pair, new: int) -> None:
        """A pair was merged everywhere."""
        for nth, corpus in enumerate(self._development):
            self._sizes[nth] -= corpus.merge(pair, new, None)[0]
