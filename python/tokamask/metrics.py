"""Measures of a tokenizer on text. Every formula stands in its docstring.

Symbols: a corpus of B UTF-8 bytes, C characters (Unicode scalar values) and W words (parts between white
space) becomes N tokens, token v occurring c_v times; p_v = c_v / N; |V| is the size of the vocabulary,
special tokens aside.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokamask import _core
from tokamask._core import Tokenizer

__all__ = [
    "CharsPerTokenFilter",
    "bytes_per_token",
    "canonical_rate",
    "chars_per_token",
    "continued_words",
    "fertility",
    "fit_chars_per_token",
    "gini",
    "lexicon_share",
    "premiums",
    "renyi_efficiency",
    "summary",
    "token_counts",
    "unreachable_tokens",
    "unused_share",
    "zero_order_bits_per_byte",
]

Counts = npt.NDArray[np.int64]
Texts = Sequence[str]


def token_counts(tok: Tokenizer, texts: Texts) -> Counts:
    """c_v: occurrences of each token id in the texts, int64 [vocab_size].

    Examples
    --------
    >>> tok = tm.train.bpe(["a a b"] * 9, vocab_size=257)
    >>> counts = tm.metrics.token_counts(tok, ["a a"])
    >>> counts.sum(), counts[tok.vocabulary.id(b"a")]
    (np.int64(2), np.int64(1))

    """
    counts = np.zeros(len(tok.vocabulary), np.int64)
    for batch in _batches(texts):
        counts += np.bincount(tok.encode_batch(batch).ids, minlength=len(counts))
    return counts


def bytes_per_token(tok: Tokenizer, texts: Texts) -> float:
    """B / N: compression. Higher is better; at least 1 for byte-level tokenizers.

    Examples
    --------
    >>> tm.metrics.bytes_per_token(tm.train.bpe(["aaaa"], vocab_size=256), ["aaaa"])
    1.0

    """
    return _ratio(sum(len(text.encode()) for text in texts), _tokens(tok, texts))


def chars_per_token(tok: Tokenizer, texts: Texts) -> float:
    """C / N. Comparable within a script, not across scripts.

    Examples
    --------
    >>> tm.metrics.chars_per_token(tm.train.bpe(["aaaa"], vocab_size=256), ["é"])
    0.5

    """
    return _ratio(sum(map(len, texts)), _tokens(tok, texts))


def fertility(tok: Tokenizer, texts: Texts) -> float:
    """N / W: tokens per word; words are what stands between white space.

    Below 1 for superwords; meaningless for scripts without spaces.

    Examples
    --------
    >>> tm.metrics.fertility(tm.train.bpe(["aa"], vocab_size=256), ["aa bb"])
    2.5

    """
    return _ratio(_tokens(tok, texts), sum(len(text.split()) for text in texts))


def continued_words(tok: Tokenizer, texts: Texts) -> float:
    """Share of words that a tokenizer cuts: words in whose inside a token starts, over W.

    A word that a superword covers together with its neighbours is not cut.

    Examples
    --------
    >>> tok = tm.train.bpe(["low low"] * 9, vocab_size=259)
    >>> tm.metrics.continued_words(tok, ["low high"])
    0.5

    """
    cut = words = 0
    for text in texts:
        starts = _starts(tok, text)
        data = text.encode()
        at = 0
        for word in text.split():
            spelled = word.encode()
            at = data.index(spelled, at)
            cut += bool(starts[at + 1 : at + len(spelled)].any())
            at += len(spelled)
            words += 1
    return _ratio(cut, words)


def renyi_efficiency(counts: Counts, vocab_size: int, *, alpha: float = 2.5) -> float:
    """H_a / log2 |V| with the Renyi entropy H_a = log2(sum p_v^a) / (1 - a).

    At a = 1 this is Shannon's entropy -sum p_v log2 p_v, at a = inf the min-entropy -log2 max p_v.
    1 is a uniform distribution. The default order is that of Zouhar et al., "Tokenization and the
    Noiseless Channel", 2023, who found it to predict translation quality.

    Examples
    --------
    >>> round(tm.metrics.renyi_efficiency(np.array([4, 4, 4, 4]), 4), 6)
    1.0
    >>> round(tm.metrics.renyi_efficiency(np.array([2, 1, 1]), 4, alpha=1), 6)
    0.75

    """
    if vocab_size < 2:
        raise ValueError(f"vocab_size: expected at least 2, got {vocab_size}")
    if alpha < 0:
        raise ValueError(f"alpha: expected at least 0, got {alpha}")
    if not counts.sum():
        raise ValueError("counts: no token occurs")
    p = counts[counts > 0] / counts.sum()
    if alpha == 1:
        entropy = -float(np.sum(p * np.log2(p)))
    elif math.isinf(alpha):
        entropy = -float(np.log2(p.max()))
    else:
        entropy = float(np.log2(np.sum(p**alpha))) / (1 - alpha)
    return entropy / math.log2(vocab_size)


def zero_order_bits_per_byte(counts: Counts, size: int) -> float:
    """N H / B with H = -sum p_v log2 p_v: the cost of an ideal code that knows only token frequencies.

    Examples
    --------
    >>> tm.metrics.zero_order_bits_per_byte(np.array([2, 2]), 8)
    0.5

    """
    total = int(counts.sum())
    return renyi_efficiency(counts, 2, alpha=1) * total / size


def unused_share(counts: Counts, tok: Tokenizer) -> float:
    """Share of ordinary tokens (no special ones, no holes) that do not occur.

    Examples
    --------
    >>> tok = tm.train.bpe(["ab"], vocab_size=256)
    >>> tm.metrics.unused_share(tm.metrics.token_counts(tok, ["ab"]), tok) == 254 / 256
    True

    """
    ordinary = [token_id for token_id, _ in ordinary_tokens(tok)]
    return _ratio(int((counts[ordinary] == 0).sum()), len(ordinary))


def unreachable_tokens(tok: Tokenizer) -> npt.NDArray[np.uint32]:
    """Ids of tokens that no text becomes: merging their own bytes does not end in them, ascending.

    Tokenizers that take a whole pretoken if it is a token (tiktoken's) reach every token.

    Examples
    --------
    >>> tm.metrics.unreachable_tokens(tm.train.bpe(["low lower"] * 3, vocab_size=262)).tolist()
    []

    """
    return _core.unreachable_tokens(tok)


def canonical_rate(tok: Tokenizer, rows: Iterable[Sequence[int]]) -> float:
    """Share of id sequences that are what the tokenizer makes of their own text: encode(decode(t)) = t.

    Examples
    --------
    >>> tok = tm.train.bpe(["ab ab"] * 3, vocab_size=257)
    >>> a, b = tok.vocabulary.id(b"a"), tok.vocabulary.id(b"b")
    >>> tm.metrics.canonical_rate(tok, [tok.encode("ab"), [a, b]])
    0.5

    """
    canonical = total = 0
    for row in rows:
        total += 1
        with contextlib.suppress(UnicodeDecodeError):  # encoding only makes whole characters
            canonical += tok.encode(tok.decode_bytes(list(row)).decode()) == list(row)
    return _ratio(canonical, total)


def premiums(tok: Tokenizer, parallel: Mapping[str, Texts], *, reference: str) -> dict[str, float]:
    """N_l / N_reference on parallel texts: how many times the tokens a language needs for the same content.

    Examples
    --------
    >>> tok = tm.train.bpe(["one"] * 3, vocab_size=258)
    >>> tm.metrics.premiums(tok, {"en": ["one"], "fi": ["yksi"]}, reference="en")
    {'en': 1.0, 'fi': 4.0}

    """
    lengths = {len(texts) for texts in parallel.values()}
    if len(lengths) > 1:
        raise ValueError(f"parallel: expected as many texts in every language, got {sorted(lengths)}")
    base = _tokens(tok, parallel[reference])
    return {language: _ratio(_tokens(tok, texts), base) for language, texts in parallel.items()}


def gini(values: Iterable[float]) -> float:
    """sum_ij |x_i - x_j| / (2 n^2 mean x): 0 if all are equal; of premiums, how unequal languages are.

    Examples
    --------
    >>> tm.metrics.gini([1, 1]), tm.metrics.gini([0, 1])
    (0.0, 0.5)

    """
    x = np.sort(np.asarray(list(values), np.float64))
    n = len(x)
    return _ratio(float((2 * np.arange(1, n + 1) - n - 1) @ x), n * float(x.sum()))


def lexicon_share(tok: Tokenizer, lexicon: Iterable[str]) -> float:
    """Share of ordinary tokens that are words of a lexicon, one leading space aside.

    Examples
    --------
    >>> tok = tm.train.bpe(["low low"] * 3, vocab_size=259)
    >>> tm.metrics.lexicon_share(tok, ["low"]) == 2 / 259
    True

    """
    words = {word.encode() for word in lexicon}
    tokens = [data for _, data in ordinary_tokens(tok)]
    return _ratio(sum(data.removeprefix(b" ") in words for data in tokens), len(tokens))


def summary(tok: Tokenizer, texts: Texts) -> dict[str, float]:
    """The measures of this module that need nothing but text, by name.

    Examples
    --------
    >>> tok = tm.train.bpe(["to be or not to be"] * 3, vocab_size=262)
    >>> tm.metrics.summary(tok, ["to be"])["tokens"]
    2

    """
    counts = token_counts(tok, texts)
    size = sum(len(text.encode()) for text in texts)
    tokens = int(counts.sum())
    ordinary = sum(1 for _ in ordinary_tokens(tok))
    return {
        "bytes": size,
        "tokens": tokens,
        "bytes_per_token": _ratio(size, tokens),
        "chars_per_token": _ratio(sum(map(len, texts)), tokens),
        "fertility": _ratio(tokens, sum(len(text.split()) for text in texts)),
        "renyi_efficiency": renyi_efficiency(counts, ordinary) if tokens else math.nan,
        "zero_order_bits_per_byte": zero_order_bits_per_byte(counts, size) if tokens else math.nan,
        "unused_share": unused_share(counts, tok),
        "unreachable_tokens": len(unreachable_tokens(tok)),
    }


@dataclass(frozen=True)
class CharsPerTokenFilter:
    """Flags text whose characters per token lie below a threshold: encoded, obfuscated or foreign text.

    A fixed threshold also flags languages that the tokenizer knows little of; calibrate it with
    :func:`fit_chars_per_token` on text of the kind to be let through.

    Examples
    --------
    >>> tok = tm.train.bpe(["low lower lowest"] * 3, vocab_size=262)
    >>> tm.metrics.CharsPerTokenFilter(tok, 1.5).flags("low low"), tm.metrics.CharsPerTokenFilter(tok, 1.5).flags("bG93")
    (False, True)

    """

    tok: Tokenizer
    threshold: float

    def flags(self, text: str) -> bool:
        """True if C / N is below the threshold; never for the empty text."""
        return bool(text) and len(text) < self.threshold * self.tok.count(text)


def fit_chars_per_token(
    tok: Tokenizer, ordinary: Texts, *, unwanted: Texts | None = None, seed: int = 0
) -> CharsPerTokenFilter:
    """The threshold with the best balanced accuracy, (share of unwanted flagged + share of ordinary let through) / 2.

    Without examples of unwanted text, the ordinary texts are disguised: base64, hexadecimal, a rotated
    alphabet, letters for digits, one after another. Of equally good thresholds the middle is taken.

    Examples
    --------
    >>> text = ["the cat sat on the mat and the dog sat on the cat"] * 4
    >>> tok = tm.train.bpe(text, vocab_size=290)
    >>> tm.metrics.fit_chars_per_token(tok, text).flags("dGhlIGNhdCBzYXQ=")
    True

    """
    bad = list(unwanted) if unwanted is not None else list(disguised(ordinary, seed=seed))
    good = np.sort([len(text) / max(tok.count(text), 1) for text in ordinary if text])
    poor = np.sort([len(text) / max(tok.count(text), 1) for text in bad if text])
    if not len(good) or not len(poor):
        raise ValueError("both ordinary and unwanted texts are needed")
    values = np.unique(np.concatenate([good, poor]))
    candidates = np.concatenate(
        [[values[0]], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], np.inf)]]
    )
    accuracy = np.searchsorted(poor, candidates) / len(poor) - np.searchsorted(good, candidates) / len(good)
    best = candidates[accuracy == accuracy.max()]
    return CharsPerTokenFilter(tok, float(best[(len(best) - 1) // 2]))


def disguised(texts: Iterable[str], *, seed: int = 0) -> Iterator[str]:
    """The texts in base64, hexadecimal, rotated by 13 letters, or with digits for letters, by chance."""
    draw = random.Random(seed)
    leet = str.maketrans("aeiostAEIOST", "431057431057")
    ways = (
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: text.encode().hex(),
        lambda text: codecs.encode(text, "rot13"),
        lambda text: text.translate(leet),
    )
    for text in texts:
        yield draw.choice(ways)(text)


def ordinary_tokens(tok: Tokenizer) -> Iterator[tuple[int, bytes]]:
    """Ids and bytes of the vocabulary, special tokens and holes left out."""
    vocabulary = tok.vocabulary
    for token_id in range(len(vocabulary)):
        if not vocabulary.is_special(token_id):
            try:
                yield token_id, vocabulary.bytes(token_id)
            except KeyError:
                continue  # a hole


def _batches(texts: Texts, size: int = 1024) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _tokens(tok: Tokenizer, texts: Texts) -> int:
    return sum(tok.count(text) for text in texts)


def _starts(tok: Tokenizer, text: str) -> npt.NDArray[np.bool_]:
    starts = np.zeros(len(text.encode()) + 1, np.bool_)
    lengths = [len(tok.vocabulary.bytes(token_id)) for token_id in tok.encode(text)]
    starts[np.cumsum([0, *lengths])] = True
    return starts


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
