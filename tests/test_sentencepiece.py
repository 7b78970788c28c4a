"""SentencePiece models against SentencePiece: small ones, trained here."""

import pickle
import random

import pytest
from exact import model_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

import tokamask as tm

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "did",
    "not",
    "run",
    "to",
    "her",
    "other",
    "hat",
    "then",
    "that",
    "rat",
    "ate",
    "what",
    "it",
    "had",
]
ODD = [
    "",
    " ",
    "   ",
    " a",
    "a ",
    "▁",
    " ▁ a",
    "a▁▁b",
    "\n\n the",
    "\t x",
    "e\u0301 \u00e9",
    "日本語テキスト",
    "\U0001f469\u200d\U0001f680",
    "<s> </s>",
    "a<0x0A>b<unk>",
    "\x00\x01x",
    "ﬁ Ａｂ",
    "\u00a0\u2003x\u00ad\u200b",
    "   leading and trailing   ",
    "<tool>the<tool> <tool>",
    "the" + " " * 60 + "cat" + "  " * 9,
    "abcdeabcabcde",
]
MODELS = {
    "unigram": {"model_type": "unigram"},
    "unigram, white space as it is": {
        "model_type": "unigram",
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
        "user_defined_symbols": ["▁▁", "▁▁▁▁", "<tool>", "abc", "abcde"],
    },
    "unigram, runs of spaces": {
        "model_type": "unigram",
        "split_by_whitespace": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "add_dummy_prefix": False,
        "unk_surface": "[?]",
    },
    "bpe": {"model_type": "bpe", "byte_fallback": True, "user_defined_symbols": ["<tool>"]},
    "bpe, white space after words": {"model_type": "bpe", "treat_whitespace_as_suffix": True},
}


def texts() -> list[str]:
    draw = random.Random(3)
    alphabet = "ab ▁é\n日<0xE3>\u0301 .,1 \t   "
    return [
        *ODD,
        *("".join(draw.choices(alphabet, k=draw.randrange(40))) for _ in range(150)),
        *(draw.choice([" ", "  ", ", ", ""]).join(draw.choices(WORDS, k=30)) for _ in range(40)),
    ]


def corpus() -> list[str]:
    draw = random.Random(1)
    lines = [draw.choice([" ", "  ", "    "]).join(draw.choices(WORDS, k=12)) for _ in range(300)]
    return [line + draw.choice([".", " é 日本", "!", " 1"]) for line in lines]


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "m"
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_prefix=str(path),
        vocab_size=360 if "byte_fallback" in MODELS[request.param] else 90,
        minloglevel=2,
        num_threads=1,
        hard_vocab_limit=False,
        **MODELS[request.param],
    )
    file = path.with_suffix(".model")
    return tm.Tokenizer.from_file(file), SentencePieceProcessor(model_file=str(file))


def test_ids(pair):
    ours, reference = pair
    copy = pickle.loads(pickle.dumps(ours))
    for text in texts():
        want = reference.encode(text)
        assert ours.encode(text) == want, text
        assert copy.encode(text) == want, text


def test_decoded_text(pair):
    """Of ids that a text has, and of any: unknown ones, bytes that are not UTF-8, spaces at the start."""
    ours, reference = pair
    visible = [i for i in range(len(reference)) if not reference.is_control(i)]
    draw = random.Random(5)
    rows = [reference.encode(text) for text in texts()]
    rows += [draw.choices(visible, k=draw.randrange(9)) for _ in range(300)]
    spaces = [i for i in visible if not reference.id_to_piece(i).strip("▁")] or visible
    rows += [draw.choices(spaces, k=2) + draw.choices(visible, k=2) for _ in range(50)]
    for ids in rows:
        assert ours.decode(ids) == reference.decode(ids), [reference.id_to_piece(i) for i in ids]


def test_sums_of_long_texts_start_again():
    """Beyond a hundred thousand the score of a text loses its last digits, and begins anew."""
    draw = random.Random(2)
    pieces = [("<unk>", 0.0, 2), ("▁", -2.0, 1), ("a", -37.123, 1), ("b", -31.0077, 1), ("ab", -68.13, 1)]
    pieces += [("ba", -68.1304, 1), ("aba", -105.25371, 1), ("bb", -62.01, 1)]
    model = model_file(pieces, unigram=True)
    ours, reference = tm.Tokenizer.from_bytes(model), SentencePieceProcessor(model_proto=model)
    text = "".join(draw.choices("ab", k=40_000))
    assert ours.encode(text) == reference.encode(text)


def test_ties_of_runs_of_spaces():
    """Equal up to rounding: the sums decide as SentencePiece's do, in single precision, from the left."""
    runs = [("▁" * n, -7.1 - 0.1 * n, 1) for n in range(1, 17)]
    runs += [("x" * n, -1.7 * n, 1) for n in range(1, 9)]
    model = model_file([("<unk>", 0.0, 2), *runs], unigram=True, normalizer=b"\x20\x00")
    ours, reference = tm.Tokenizer.from_bytes(model), SentencePieceProcessor(model_proto=model)
    for n in range(1, 400, 7):
        text = " " * n + "x" * n
        assert ours.encode(text) == reference.encode(text), n
