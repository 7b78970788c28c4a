"""Byte-level BPE training: equal to HF's trainer, to the readable one, and to itself however sharded."""

import json
import os

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask import train
from tokamask.reference import train as reference
from tokamask.train import train_bpe

ALPHABET = sorted(hf.pre_tokenizers.ByteLevel.alphabet())


def hf_bpe(texts_or_files, vocab_size, *, initial_alphabet=ALPHABET, **options):
    """Vocabulary and merges (pairs of ids) of HF's trainer."""
    tok = hf.Tokenizer(hf.models.BPE())
    tok.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, initial_alphabet=initial_alphabet, **options
    )
    if isinstance(texts_or_files[0], os.PathLike):
        tok.train([str(path) for path in texts_or_files], trainer)
    else:
        tok.train_from_iterator(texts_or_files, trainer)
    model = json.loads(tok.to_str())["model"]
    return model["vocab"], [(model["vocab"][a], model["vocab"][b]) for a, b in model["merges"]]


def spelled(token: bytes) -> str:
    return "".join(chr(reference.printable(byte)) for byte in token)


def ours(source, vocab_size, **options):
    counts = source if isinstance(source, train.PretokenCounts) else train.count(source)
    special = options.get("special_tokens", ())
    _, merges, tokens = train_bpe(counts, vocab_size=vocab_size, **options)
    names = [t.decode() if nth < len(special) else spelled(t) for nth, t in enumerate(tokens)]
    return {name: nth for nth, name in enumerate(names)}, [tuple(pair) for pair in merges.tolist()]


# Few letters and long repetitions: ties, overlaps, and products that spell an existing token.
letters = st.text(st.sampled_from("aaabc -=é日\n1'"), max_size=40)
corpora = st.lists(
    letters | st.builds(lambda s, n: s * n, st.text("ab =", min_size=1, max_size=3), st.integers(1, 30)),
    min_size=1,
    max_size=12,
)


@given(
    corpora,
    st.integers(256, 330),
    st.integers(0, 3),
    st.sampled_from([None, 1, 2, 3, 4, 5, 8]),
    st.lists(st.sampled_from(["<s>", "aa", "a", "Ġ", "ab", "日"]), unique=True, max_size=3),
    st.booleans(),
)
def test_equals_hf(texts, vocab_size, min_frequency, max_token_length, special_tokens, whole_alphabet):
    options = {"min_frequency": min_frequency, "special_tokens": special_tokens}
    if max_token_length is not None:
        options["max_token_length"] = max_token_length
    want = hf_bpe(texts, vocab_size, initial_alphabet=ALPHABET if whole_alphabet else [], **options)
    assert ours(texts, vocab_size, initial_alphabet=range(256) if whole_alphabet else [], **options) == want


@given(corpora, st.integers(256, 330), st.integers(0, 3), st.sampled_from([None, 2, 4]))
def test_equals_the_reference(texts, vocab_size, min_frequency, max_token_length):
    counts = train.count(texts)
    _, merges, tokens = train_bpe(
        counts, vocab_size=vocab_size, min_frequency=min_frequency, max_token_length=max_token_length
    )
    want = reference.bpe(
        dict(counts.items()),
        vocab_size,
        min_frequency=min_frequency,
        max_token_length=max_token_length or float("inf"),
    )
    assert (tokens, [tuple(pair) for pair in merges.tolist()]) == want


@given(corpora, st.lists(st.integers(0, 3), min_size=12, max_size=12), st.integers(256, 330))
def test_sharding_changes_not_a_single_merge(texts, shard_of, vocab_size):
    shards = [[t for t, s in zip(texts, shard_of, strict=False) if s == shard] for shard in range(4)]
    merged = sum(train.count(shard) for shard in reversed(shards))
    assert merged == train.count(texts)
    assert ours(merged, vocab_size) == ours(texts, vocab_size)


def test_a_merge_that_spells_a_special_token_takes_its_id():
    texts = ["ab" * n + " aab" for n in (1, 2, 3, 5, 8)] * 3
    special = ["ab", "abab", "aab", "<s>"]
    vocabulary, merges = hf_bpe(texts, 300, special_tokens=special)
    assert len(merges) > len(vocabulary) - 256 - len(special), "the case does not occur"
    assert ours(texts, 300, special_tokens=special) == (vocabulary, merges)


def documents(folder, part, number):
    with (folder / f"open/{part}.jsonl").open() as lines:
        return [json.loads(line) for line, _ in zip(lines, range(number), strict=False)]


def test_equals_hf_on_a_file_with_special_tokens(unpacked, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(documents(unpacked("corpus_open.tar.xz"), "english", 50)), newline="")
    options = {"special_tokens": ["<|endoftext|>", "<pad>"], "min_frequency": 2}
    assert ours([path], 6000, **options) == hf_bpe([path], 6000, **options)


def test_equals_hf_at_32k(unpacked, tmp_path):
    paths = []
    for part in ("english", "multilingual", "code"):
        paths.append(tmp_path / part)
        texts = documents(unpacked("corpus_open.tar.xz"), part, 120)
        paths[-1].write_text("".join(texts), newline="")
    vocabulary, merges = ours(paths, 32000)
    assert (vocabulary, merges) == hf_bpe(paths, 32000)
    assert len(merges) == 32000 - 256


def test_the_tokenizer_encodes_as_hf_does(tmp_path):
    texts = ["the cat sat on the mat, the cat sat", "a dog's dog is a 2024 dog\n\n  indented"] * 3
    tok = tm.train.bpe(texts, vocab_size=330, special_tokens=["<s>"])
    vocabulary, merges = hf_bpe(texts, 330, special_tokens=["<s>"])
    names = {nth: name for name, nth in vocabulary.items()}
    other = hf.Tokenizer(hf.models.BPE(vocabulary, [(names[a], names[b]) for a, b in merges]))
    other.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in [*texts, "unseen zebra\r\n", "\x00é日本"]:
        assert tok.encode(text) == other.encode(text).ids
        assert tok.decode(tok.encode(text)) == text
    assert tok.encode("<s>the", allowed_special={"<s>"})[0] == 0
    assert tok.vocabulary.special == {"<s>": 0}


def test_long_words_are_linear():
    """One pretoken of 300,000 letters: quadratic work would take minutes."""
    rng = np.random.default_rng(1)
    text = "".join(rng.choice(list("abcdefgh"), 300_000))
    _, merges = ours([text], 2000)
    assert len(merges) == 2000 - 256


def test_small_vocabularies_hold_the_alphabet():
    assert len(tm.train.bpe(["abc"], vocab_size=10)) == 256
    assert len(tm.train.bpe([], vocab_size=1000)) == 256


def test_progress_is_told_and_can_stop():
    seen = []
    tm.train.bpe(["some text here"] * 10, vocab_size=270, progress=lambda *row: seen.append(row))
    assert [row[0] for row in seen[:1] + seen[-1:]] == ["counting", "learning"]
    assert seen[-1] == ("learning", 270, 270)

    def stop(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tm.train.bpe(["some text here"] * 10, vocab_size=270, progress=stop)
