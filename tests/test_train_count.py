"""Counting pretokens: what is counted, saved files, shards, checkpoints, broken input."""

import itertools
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import regex
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st

from tokamask import train
from tokamask.errors import CorpusError
from tokamask.train import corpus, rules

GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
texts = st.lists(st.text(st.sampled_from("ab  \n\t'sé日12,:"), max_size=30), max_size=8)


def runs_of(counts):
    words = [word for word, _ in counts.items()]
    bounds = counts.run_offsets.tolist()
    rows = [counts.run_words[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    return {
        tuple(words[w].decode() for w in row): n
        for row, n in zip(rows, counts.run_counts.tolist(), strict=True)
    }


@given(texts)
def test_texts_are_counted_whole_and_files_line_by_line(tmp_path_factory, documents):
    whole = Counter(word.encode() for text in documents for word in GPT2.findall(text))
    assert dict(train.count(documents).items()) == whole
    path = tmp_path_factory.mktemp("count") / "text.txt"
    path.write_bytes("".join(documents).encode())
    lines = "".join(documents).split("\n")
    lines = [line + "\n" for line in lines[:-1]] + lines[-1:]
    by_line = Counter(word.encode() for line in lines for word in GPT2.findall(line))
    counts = train.count(path)
    assert dict(counts.items()) == by_line
    assert counts.total == sum(by_line.values())
    assert counts.text_bytes == path.stat().st_size
    assert train.count(["".join(documents)], by_line=True) == counts
    assert [word for word, _ in counts.items()] == sorted(by_line)


@given(texts, texts)
def test_counts_add_up(a, b):
    for options in ({}, {"runs": True}):
        together = train.count(a + b, **options)
        merged = train.count(b, **options) + train.count(a, **options)
        assert merged == together
        assert (merged.texts, merged.text_bytes) == (together.texts, together.text_bytes)


def test_runs_end_at_newlines_and_digits():
    counts = train.count(["so it is, in 12345\nso it is, in it"] * 3, pre_tokenizer="superbpe", runs=True)
    assert runs_of(counts) == {
        ("so", " it", " is", ",", " in", " "): 3,
        ("so", " it", " is", ",", " in", " it"): 3,
    }
    assert dict(counts.items())[b"12"] == 3
    assert dict(counts.items())[b"345"] == 3
    assert dict(counts.items())[b"\n"] == 3


def test_rules_by_name_component_and_object():
    text = ["It's 1234 o'clock,  they're OK\r\n"]
    named = train.count(text, pre_tokenizer="gpt2")
    assert named == train.count(text, pre_tokenizer=hf.pre_tokenizers.ByteLevel(add_prefix_space=False))
    assert named == train.count(text, pre_tokenizer=rules.RULES["gpt2"])
    assert named != train.count(text, pre_tokenizer="cl100k")
    with pytest.raises(ValueError, match="gpt2"):
        train.count(text, pre_tokenizer="nonsense")
    with pytest.raises(TypeError):
        train.count(text, pre_tokenizer=7)
    with pytest.raises(TypeError, match="neither"):
        train.count("text.txt")


def test_counts_of_other_rules_do_not_add_up():
    with pytest.raises(CorpusError):
        train.count(["a"]) + train.count(["a"], pre_tokenizer="cl100k")


def test_saved_counts_are_the_same(tmp_path):
    for runs in (False, True):
        counts = train.count(["so it is and so it was"] * 2, runs=runs)
        counts.save(tmp_path / "counts")
        loaded = train.PretokenCounts.load(tmp_path / "counts")
        assert loaded == counts == pickle.loads(pickle.dumps(counts))
        assert isinstance(loaded.bytes.base, np.memmap)
        assert (loaded + counts).total == 2 * counts.total
    train.count([]).save(tmp_path / "empty")
    assert len(train.PretokenCounts.load(tmp_path / "empty")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counts", "empty"]


def test_forged_files_are_refused(tmp_path):
    path = tmp_path / "counts"
    train.count(["so it is and so it was"] * 2, runs=True).save(path)
    data = path.read_bytes()
    for at in range(0, len(data) - 1, 7):
        path.write_bytes(data[:at])
        with pytest.raises(CorpusError) as error:
            train.PretokenCounts.load(path)
        assert error.value.path == str(path)
    for at in [0, 30, len(data) - 1]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CorpusError):
            train.PretokenCounts.load(path)


def test_forged_arrays_are_refused():
    good = train.count(["so it is"], runs=True)
    for name, change in [
        ("offsets", lambda a: a[::-1].copy()),
        ("offsets", lambda a: a[:-1].copy()),
        ("run_words", lambda a: a + 7),
        ("bytes", lambda a: a[::-1].copy()),
    ]:
        arrays = dict(
            zip(
                ("offsets", "bytes", "counts", "run_offsets", "run_words", "run_counts"),
                good.arrays,
                strict=True,
            )
        )
        arrays[name] = change(arrays[name])
        forged = train.PretokenCounts(tuple(arrays.values()), good.rules, texts=1, text_bytes=8, skipped=[])
        with pytest.raises(CorpusError):
            train.bpe(forged, vocab_size=300)


def test_broken_files_are_named_or_skipped_and_counted(tmp_path):
    good, bad, gone = (tmp_path / name for name in ("good.txt", "bad.txt", "gone.txt"))
    good.write_text("fine\n")
    bad.write_bytes(b"fine\n" * 5 + b"\xff\n")
    with pytest.raises(CorpusError) as error:
        train.count([good, bad])
    assert (error.value.path, error.value.position) == (str(bad), 25)
    with pytest.raises(CorpusError) as error:
        train.count([gone])
    assert error.value.path == str(gone)
    counts = train.count([gone, good, bad, good], skip_broken=True)
    assert dict(counts.items()) == {b"fine": 2, b"\n": 2}
    assert [path for path, _ in counts.skipped] == [str(gone), str(bad)]


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_an_interrupted_count_resumes_to_the_identical_result(tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(corpus, "BATCH", 64)
    paths = [tmp_path / f"{nth}.txt" for nth in range(4)]
    for nth, path in enumerate(paths):
        path.write_text("".join(f"line {n} of {nth}, and so on\n" for n in range(12)))
    whole = train.count(paths, runs=True)
    calls = []

    def interrupt(stage, done, total):
        calls.append(done)
        if len(calls) == stop_after:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train.count(paths, runs=True, checkpoint=checkpoint, progress=interrupt)
    assert 0 < train.PretokenCounts.load(checkpoint).text_bytes < whole.text_bytes
    after = []
    resumed = train.count(paths, runs=True, checkpoint=checkpoint, progress=lambda *row: after.append(row))
    assert resumed == whole
    assert (resumed.texts, resumed.text_bytes) == (whole.texts, whole.text_bytes)
    assert after[0][1] > calls[-1]
    with pytest.raises(CorpusError):
        train.count(paths[:1], runs=True, checkpoint=checkpoint)


def test_lines_longer_than_a_block_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "BATCH", 16)
    path = tmp_path / "long.txt"
    path.write_text("a" * 100 + "\nbb\n" + "c" * 50)
    assert dict(train.count(path).items()) == {b"a" * 100: 1, b"bb": 1, b"c" * 50: 1, b"\n": 2}


def test_arrow_columns():
    pa = pytest.importorskip("pyarrow")
    column = pa.chunked_array([["to be", None], ["or not to be"]])
    assert train.count(column) == train.count(["to be", "or not to be"])


def test_large_counts_do_not_wrap():
    counts = train.count(["ab ab"] * 2)
    for _ in range(40):
        counts = counts + counts
    assert counts.total == 4 * 2**40
    _, merges, tokens = train.train_bpe(counts, vocab_size=259)
    assert tokens[256:] == [b"ab", b" ab"]
    assert len(merges) == 2


def test_a_path_is_enough(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("a b\n")
    assert train.count(path) == train.count([path])
