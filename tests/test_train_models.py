"""Unigram, WordPiece and WordLevel: what Hugging Face's trainers learn, where those decide anything at all."""

import json
from collections import Counter
from pydoc_data.topics import topics

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

import tokamask as tm
from tokamask.errors import CorpusError, UnsupportedComponentError
from tokamask.train.models import train_unigram, train_wordlevel, train_wordpiece

TEXT = [line + "\n" for name in sorted(topics)[:12] for line in topics[name].split("\n")]
WORDS = {"type": "Whitespace"}


@pytest.fixture(scope="module")
def counts():
    return tm.train.count(TEXT, pre_tokenizer=WORDS)


def theirs(model, trainer):
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXT, trainer)
    return json.loads(tokenizer.to_str())["model"]


@pytest.mark.parametrize(("vocab_size", "min_frequency"), [(400, 0), (100_000, 3), (3, 0)])
def test_wordlevel(counts, vocab_size, min_frequency):
    options = {"vocab_size": vocab_size, "min_frequency": min_frequency, "special_tokens": ["[UNK]", "[PAD]"]}
    other = theirs(
        models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer(**options, show_progress=False)
    )
    assert train_wordlevel(counts, **options)["vocab"] == other["vocab"]


@pytest.mark.parametrize(("vocab_size", "options"), [(180, {}), (600, {"limit_alphabet": 60}), (400, {})])
def test_wordpiece(counts, vocab_size, options):
    options = {"vocab_size": vocab_size, "special_tokens": ["[UNK]"], **options}
    ours = train_wordpiece(counts, **options)["vocab"]
    other = theirs(
        models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(**options, show_progress=False)
    )["vocab"]
    assert len(ours) == len(other) == vocab_size
    # Equal counts are decided by the order of a hash table there.
    assert len(set(ours) ^ set(other)) <= 0.05 * vocab_size
    letters = [token for token in ours if len(token) == 1]
    assert letters == sorted(letters) == list(ours)[1 : len(letters) + 1]


@pytest.mark.parametrize(
    ("vocab_size", "options"),
    [
        (200, {}),
        (900, {}),
        (900, {"max_piece_length": 4, "n_sub_iterations": 1, "shrinking_factor": 0.5}),
        (300, {"initial_alphabet": ["é", "ß"], "seed_size": 2000}),
    ],
)
def test_unigram(counts, vocab_size, options):
    options = {"vocab_size": vocab_size, "special_tokens": ["<unk>"], "unk_token": "<unk>", **options}
    ours, special = train_unigram(counts, **options)
    other = theirs(models.Unigram(), trainers.UnigramTrainer(**options, show_progress=False))
    assert special == ["<unk>"]
    assert ours["unk_id"] == other["unk_id"] == 0
    mine, yours = dict(ours["vocab"]), dict(map(tuple, other["vocab"]))
    assert mine.keys() == yours.keys()
    # Characters that were lost on the way get scores in the order of a hash table there.
    assert all(abs(mine[piece] - yours[piece]) < 0.01 for piece in mine)
    known = [piece for piece in mine if len(piece) > 1]
    assert all(abs(mine[piece] - yours[piece]) < 1e-9 for piece in known)


def test_unigram_does_not_depend_on_sharding(counts):
    shards = [tm.train.count(TEXT[nth::3], pre_tokenizer=WORDS) for nth in range(3)]
    merged = shards[2] + shards[0] + shards[1]
    assert train_unigram(merged, vocab_size=300) == train_unigram(counts, vocab_size=300)


def test_too_many_characters(counts):
    with pytest.raises(CorpusError, match="distinct characters"):
        train_unigram(counts, vocab_size=20)


@pytest.mark.parametrize(
    ("train", "options"),
    [
        (tm.train.unigram, {"unk_token": "<unk>", "special_tokens": ["<unk>"]}),
        (tm.train.wordpiece, {}),
        (tm.train.wordlevel, {}),
    ],
)
@pytest.mark.parametrize("pre_tokenizer", [WORDS, tm.train.models.METASPACE])
def test_tokenizers_agree_with_theirs_on_the_file(train, options, pre_tokenizer, tmp_path):
    tok = train(TEXT, vocab_size=500, pre_tokenizer=pre_tokenizer, progress=False, **options)
    tok.save(tmp_path / "tokenizer.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXT[:200]:
        assert tok.encode(text) == other.encode(text).ids


def test_counts_of_marked_spaces_are_theirs():
    counts = tm.train.count(TEXT, pre_tokenizer=tm.train.models.METASPACE, progress=False)
    cut = pre_tokenizers.Metaspace()
    theirs = Counter(word for text in TEXT for word, _ in cut.pre_tokenize_str(text))
    assert {word.decode(): count for word, count in counts.items()} == theirs
    with pytest.raises(UnsupportedComponentError, match="byte-level end"):
        tm.train.bpe(counts, vocab_size=300)
