"""Cover encodings, healing and the law of the next byte, by enumeration and on a real model."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import PATTERNS, small

import tokamask as tm
from tokamask.healing import next_byte_law

TINY = {b"a": 0, b"b": 1, b" ": 2, b"ab": 3, b" a": 4, b"ba": 5, b" ab": 6}
EOS = 7
LENGTH = 3


@pytest.fixture(scope="module", params=[r"(?s:.+)", r" ?[ab]+|\s+(?!\S)|\s+"], ids=["one piece", "words"])
def tiny(request):
    tok = tm.Tokenizer.from_tiktoken(TINY, pattern=request.param, special_tokens={"<e>": EOS})
    return tok, tok.vocabulary.with_(eos_ids=[EOS])


@given(prefix=st.text(alphabet="ab ", max_size=4))
@settings(max_examples=25)
def test_covers_are_all_canonical_sequences_that_need_their_last_id(tiny, prefix):
    tok, _ = tiny
    prefix = prefix.encode()
    expected = []
    for length in range(len(prefix) + 1):
        for ids in itertools.product(range(7), repeat=length):
            spelled = tok.decode_bytes(list(ids))
            needed = not ids or not tok.decode_bytes(list(ids[:-1])).startswith(prefix)
            if spelled.startswith(prefix) and needed and tok.encode(spelled.decode()) == list(ids):
                expected.append(list(ids))
    assert tok.cover_encodings(prefix) == sorted(expected)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("prompt", ["The token", "12", "a  ", "it'", "caf", "one\n", "é你", "<|end|> the"])
def test_healed_ids_stay_whatever_follows(pattern, prompt):
    tok = small(pattern)
    ids = tok.encode(prompt, allowed_special="all")
    kept, pending = tok.heal(ids)
    assert kept == ids[: len(kept)]
    assert tok.decode_bytes(kept) + pending == tok.decode_bytes(ids)
    for more in ["", "s", " ", "3", "\n", "izer is", ".", "è", "好", "é"]:
        after = tok.encode(prompt + more, allowed_special="all")
        assert after[: len(kept)] == kept


def test_healing_of_nothing_and_of_special_tokens():
    tok = small("tiktoken cl100k")
    assert tok.heal([]) == ([], b"")
    assert tok.heal([900]) == ([900], b"")
    assert tok.cover_encodings(b"") == [[]]
    # Half a character: what begins it is pending.
    crab = tok.encode("🦀")
    kept, pending = tok.heal(crab[:-1])
    assert tok.decode_bytes(kept) + pending == "🦀".encode()[: -len(tok.decode_bytes(crab[-1:]))]


class Language:
    """A random model over the tiny vocabulary that ends after LENGTH tokens at the latest."""

    def __init__(self, seed):
        self.seed = seed

    def law(self, ids):
        if len(ids) >= LENGTH:
            weights = np.zeros(8)
            weights[EOS] = 1
        else:
            weights = np.random.default_rng([self.seed, len(ids), *ids]).random(8)
        with np.errstate(divide="ignore"):
            return np.log(weights / weights.sum()).astype(np.float32)

    def texts(self):
        """Every sequence of ids and its probability."""
        for length in range(LENGTH + 1):
            for ids in itertools.product(range(7), repeat=length):
                logs = [self.law(list(ids[:n]))[token] for n, token in enumerate([*ids, EOS])]
                yield list(ids), float(np.exp(np.sum(np.array(logs, np.float64))))


@pytest.mark.parametrize("canonical", [False, True])
@given(seed=st.integers(0, 100), pending=st.text(alphabet="ab ", max_size=3))
@settings(max_examples=8)
def test_the_next_byte_is_that_of_all_texts_the_model_can_write(canonical, seed, pending):
    tok = tm.Tokenizer.from_tiktoken(TINY, pattern=r"(?s:.+)", special_tokens={"<e>": EOS})
    model, pending = Language(seed), pending.encode()
    # The end of sequence is known to vocabularies, and files name it; here a saved copy does not.
    law = next_byte_law(_Ending(tok), model.law, pending, canonical=canonical)
    masses = np.zeros(257)
    if canonical:
        masses = canonical_masses(tok, model, pending)
    else:
        for ids, p in model.texts():
            text = tok.decode_bytes(ids)
            if text.startswith(pending):
                masses[text[len(pending)] if len(text) > len(pending) else 256] += p
    np.testing.assert_allclose(np.exp(law), masses / masses.sum(), atol=1e-6)


def canonical_masses(tok, model, pending):
    """Sums over covers one byte longer, and over the canonical ways to end here."""
    masses = np.zeros(257)

    def mass(ids):
        return np.exp(sum(float(model.law(ids[:n])[token]) for n, token in enumerate(ids)))

    for byte in b"ab ":
        masses[byte] = sum(mass(cover) for cover in tok.cover_encodings(pending + bytes([byte])))
    whole = tok.encode(pending.decode())
    masses[256] = mass([*whole, EOS])
    return masses


class _Ending:
    """The tokenizer with a vocabulary that knows its end of sequence."""

    def __init__(self, tok):
        self._tok, self.vocabulary = tok, tok.vocabulary.with_(eos_ids=[EOS])

    def __getattr__(self, name):
        return getattr(self._tok, name)

    def next_byte_logprobs(self, logprobs, pending=b""):
        law = self._tok.next_byte_logprobs(logprobs, pending)
        if not pending:
            law[256] = logprobs[EOS]
        return law


def test_one_law_is_summed_by_next_byte(tiny):
    tok, _ = tiny
    logprobs = np.log(np.arange(1, 9, dtype=np.float32) / 36)
    masses = np.exp(tok.next_byte_logprobs(logprobs)) * 36
    assert masses[list(b"ab ")] == pytest.approx([1 + 4, 2 + 6, 3 + 5 + 7])
    masses = np.exp(tok.next_byte_logprobs(logprobs, b" a")) * 36
    assert masses[ord("b")] == pytest.approx(7)
    assert masses.sum() == pytest.approx(7)
    with pytest.raises(tm.errors.ShapeError, match=r"float32 \[8\]"):
        tok.next_byte_logprobs(logprobs[:5])


def test_a_real_model_ends_a_word_that_the_prompt_cut(engine, smollm2_gguf):
    tok = tm.Tokenizer.from_file(smollm2_gguf)
    prompt = tok.encode("Berlin is the capital of German")
    kept, pending = tok.heal(prompt)
    assert pending == b" German"

    def law(ids):
        logits = engine.prefill([*kept, *ids]).astype(np.float64)
        return (logits - np.logaddexp.reduce(logits)).astype(np.float32)

    found = next_byte_law(tok, law, pending, context=kept)
    assert chr(found.argmax()) == "y"
    assert np.exp(found).sum() == pytest.approx(1)
    # Without healing the model goes on from a token that no text about Germany has.
    assert np.exp(found[ord("y")]) > 0.5
