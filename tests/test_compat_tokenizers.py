"""compat.tokenizers: the same components give what the original gives, field by field."""

import asyncio
import copy
import pickle

import pytest
import tokenizers as theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import SIGNS

import tokamask.compat.tokenizers as ours

TEXTS = [
    "",
    " ",
    "Hello there, my friend!  How are you?",
    "  two  spaces\n\tand\r\n lines  ",
    "naïve café e\u0301a\u0300 Åﬁ ½",
    "你好 world 日本語 ㍿",
    "it's 12345 o'clock, don't <mask> [SEP]x",
    "👍🏽 a\u200db \u00ad \x00 \ufeff",
    "don<mask>e   <mask>  x <b><b> bb",
]
PROSE = [
    "the quick brown fox jumps over the lazy dog",
    "How are you, my friend? I am well.",
    "naïve café 你好",
    "aa bb <b>",
] * 3


def byte_level(lib, **options):
    tok = lib.Tokenizer(lib.models.BPE())
    tok.pre_tokenizer = lib.pre_tokenizers.ByteLevel(**options)
    tok.decoder = lib.decoders.ByteLevel()
    tok.post_processor = lib.processors.ByteLevel(trim_offsets=True)
    alphabet = lib.pre_tokenizers.ByteLevel.alphabet()
    trainer = lib.trainers.BpeTrainer(vocab_size=320, show_progress=False, initial_alphabet=alphabet)
    tok.train_from_iterator(PROSE, trainer)
    return tok


def bert(lib):
    tok = lib.Tokenizer(lib.models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = lib.normalizers.BertNormalizer()
    tok.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    tok.decoder = lib.decoders.WordPiece()
    words = [
        *"abcdefghijklmnopqrstuvwxyz?!,.'",
        "the",
        "fox",
        "quick",
        "hello",
        "friend",
        "##s",
        "##e",
        "##o",
        "##re",
    ]
    words += [f"##{c}" for c in "abcdfghijklmnpqrstuvwxyz"]
    vocab = {word: i for i, word in enumerate(dict.fromkeys(["[UNK]", "[CLS]", "[SEP]", "[PAD]", *words]))}
    tok.model = lib.models.WordPiece(vocab, unk_token="[UNK]")
    tok.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
    tok.post_processor = lib.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tok


def unigram(lib):
    pieces = [
        ("<unk>", 0.0),
        ("▁", -2.0),
        ("▁the", -3.0),
        ("he", -3.5),
        ("▁qu", -4.0),
        ("ick", -4.2),
        ("▁fox", -5.0),
    ]
    pieces += [(c, -6.0 - i / 10) for i, c in enumerate("abcdefghijklmnopqrstuvwxyz!?,.HI")]
    tok = lib.Tokenizer(lib.models.Unigram(pieces, 0))
    spaces = lib.normalizers.Replace(lib.Regex(" {2,}"), " ")
    tok.normalizer = lib.normalizers.Sequence([lib.normalizers.Nmt(), lib.normalizers.NFKC(), spaces])
    tok.pre_tokenizer = lib.pre_tokenizers.Metaspace()
    tok.decoder = lib.decoders.Metaspace()
    tok.post_processor = lib.processors.TemplateProcessing(
        single="$A <unk>", pair="$A <unk> $B:1 <unk>:1", special_tokens=[("<unk>", 0)]
    )
    return tok


def words(lib):
    tok = lib.Tokenizer(lib.models.WordLevel(unk_token="[UNK]"))
    lower = [
        lib.normalizers.NFD(),
        lib.normalizers.StripAccents(),
        lib.normalizers.Lowercase(),
        lib.normalizers.Strip(),
    ]
    tok.normalizer = lib.normalizers.Sequence(lower)
    tok.pre_tokenizer = lib.pre_tokenizers.Sequence(
        [lib.pre_tokenizers.Whitespace(), lib.pre_tokenizers.Digits(individual_digits=True)]
    )
    tok.train_from_iterator(
        PROSE, lib.trainers.WordLevelTrainer(vocab_size=40, special_tokens=["[UNK]"], show_progress=False)
    )
    return tok


def fallback(lib):
    vocab = {"<unk>": 0, **{f"<0x{b:02X}>": b + 1 for b in range(256)}}
    for token in ["▁", "t", "h", "e", "th", "the", "▁the", "a"]:
        vocab.setdefault(token, len(vocab))
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    tok = lib.Tokenizer(lib.models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    prepend = [lib.normalizers.Prepend("▁"), lib.normalizers.Replace(" ", "▁")]
    tok.normalizer = lib.normalizers.Sequence(prepend)
    chain = [
        lib.decoders.Replace("▁", " "),
        lib.decoders.ByteFallback(),
        lib.decoders.Fuse(),
        lib.decoders.Strip(" ", 1, 0),
    ]
    tok.decoder = lib.decoders.Sequence(chain)
    return tok


def roberta(lib):
    tok = byte_level(lib, add_prefix_space=True)
    tok.add_special_tokens(["<s>", "</s>", lib.AddedToken("<mask>", lstrip=True, special=True)])
    ids = [tok.token_to_id(token) for token in ("</s>", "<s>")]
    tok.post_processor = lib.processors.RobertaProcessing(("</s>", ids[0]), ("<s>", ids[1]))
    return tok


def added(lib):
    tok = byte_level(lib, add_prefix_space=False)
    tok.normalizer = lib.normalizers.Lowercase()
    tokens = [
        lib.AddedToken("<b>", rstrip=True),
        lib.AddedToken("my", single_word=True),
        lib.AddedToken("Hello", normalized=False),
    ]
    tok.add_tokens([*tokens, "FRIEND"])
    return tok


KINDS = [byte_level, bert, unigram, words, fallback, roberta, added]
FIELDS = (
    "ids",
    "tokens",
    "offsets",
    "word_ids",
    "type_ids",
    "special_tokens_mask",
    "attention_mask",
    "sequence_ids",
)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def pair(request):
    return request.param(ours), request.param(theirs)


def assert_same(mine, other):
    for field in FIELDS:
        assert getattr(mine, field) == getattr(other, field), field
    assert len(mine.overflowing) == len(other.overflowing)
    for a, b in zip(mine.overflowing, other.overflowing, strict=True):
        assert_same(a, b)


def test_the_same_file(pair):
    mine, other = pair
    import json

    assert json.loads(mine.to_str()) == json.loads(other.to_str())
    again = ours.Tokenizer.from_str(other.to_str())
    assert again.to_str() == mine.to_str()
    for text in TEXTS:
        assert_same(again.encode(text), other.encode(text))
    assert pickle.loads(pickle.dumps(mine)).to_str() == mine.to_str()
    assert copy.deepcopy(mine).get_vocab() == other.get_vocab()


@pytest.mark.parametrize("text", TEXTS)
def test_every_field(pair, text):
    mine, other = pair
    assert_same(mine.encode(text), other.encode(text))
    assert_same(mine.encode(text, add_special_tokens=False), other.encode(text, add_special_tokens=False))
    assert_same(mine.encode(text, "the fox"), other.encode(text, "the fox"))
    parts = text.split(" ")
    assert_same(mine.encode(parts, is_pretokenized=True), other.encode(parts, is_pretokenized=True))
    ids = other.encode(text).ids
    for skip in (True, False):
        assert mine.decode(ids, skip_special_tokens=skip) == other.decode(ids, skip_special_tokens=skip)
    assert mine.encode_batch_fast([text])[0].ids == other.encode_batch_fast([text])[0].ids


@given(text=st.text(alphabet=st.sampled_from(SIGNS), max_size=20))
@settings(max_examples=30)
def test_any_text(pair, text):
    mine, other = pair
    assert_same(mine.encode(text), other.encode(text))


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("direction", ["left", "right"])
def test_truncation_and_padding(pair, strategy, direction):
    for tok in pair:
        tok.enable_truncation(24, stride=2, strategy=strategy, direction=direction)
        tok.enable_padding(direction=direction, pad_to_multiple_of=5)
    mine, other = pair
    long = "the quick brown fox jumps over the lazy dog, the fox, the dog and the fox"
    try:
        assert mine.truncation == other.truncation
        assert mine.padding == other.padding
        batch = [("a b", long)] if strategy == "only_second" else [(long, "a b"), ("the", "b")]
        batch += [(long, long)] if strategy == "longest_first" else []
        for a, b in zip(mine.encode_batch(batch), other.encode_batch(batch), strict=True):
            assert_same(a, b)
        if strategy == "longest_first":
            assert_same(mine.encode(long), other.encode(long))
        assert ours.Tokenizer.from_str(mine.to_str()).to_str() == mine.to_str()
    finally:
        for tok in pair:
            tok.no_truncation()
            tok.no_padding()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("strategy", [None, "longest_first", "only_first"])
def test_batches_without_offsets(pair, strategy, padded):
    """Pairs, truncation and padding as there, which leaves out offsets, words and the text of tokens."""
    inputs = ["Hello my friend, how are you?", ("the quick brown fox <b>jumps over", "my"), "", ("a", "b")]
    found = []
    for tok in pair:
        tok = copy.deepcopy(tok)
        if strategy:
            tok.enable_truncation(12, stride=2, strategy=strategy)
        if padded:
            tok.enable_padding(pad_id=1, pad_token="x", pad_to_multiple_of=4)
        found.append(tok.encode_batch_fast(inputs))
    fields = [name for name in FIELDS if name not in ("offsets", "word_ids", "tokens")]
    for mine, other in zip(*found, strict=True):
        assert [getattr(mine, name) for name in fields] == [getattr(other, name) for name in fields]
        assert [part.ids for part in mine.overflowing] == [part.ids for part in other.overflowing]


def test_places_by_the_core_are_those_of_the_components():
    tok = byte_level(ours, add_prefix_space=False)
    tok.add_tokens(["<b>", ours.AddedToken("my", single_word=True)])
    for text in [*TEXTS, "a<b>my  my,mymy<b><b> \U0001f469\u200d\U0001f680\u0301"]:
        native = tok._native(text, 0)
        assert native is not None
        assert_same(native, tok._text(text, 0, None))
        tok._knows_places = False
        assert tok._native(text, 0) is None
        tok._knows_places = True


def test_questions_to_an_encoding(pair):
    mine, other = (tok.encode("the quick fox, naïve", "how are you") for tok in pair)
    for at in range(len(other) + 1):
        for name in ("token_to_chars", "token_to_word", "token_to_sequence"):
            assert getattr(mine, name)(at) == getattr(other, name)(at)
        for sequence in (0, 1):
            for name in ("char_to_token", "char_to_word", "word_to_tokens", "word_to_chars"):
                assert getattr(mine, name)(at, sequence) == getattr(other, name)(at, sequence)
    assert mine.n_sequences == other.n_sequences


def test_vocabulary_and_added_tokens(pair):
    mine, other = (copy.deepcopy(tok) for tok in pair)
    for tok in (mine, other):
        tok.add_tokens(["the", "new one", "new one", ""])
        tok.add_special_tokens(["<new>"])
    assert mine.get_vocab() == other.get_vocab()
    assert mine.get_vocab_size() == other.get_vocab_size()
    assert mine.num_special_tokens_to_add(True) == other.num_special_tokens_to_add(True)
    assert {i: str(t) for i, t in mine.get_added_tokens_decoder().items()} == {
        i: str(t) for i, t in other.get_added_tokens_decoder().items()
    }
    text = "a the new one<new> the"
    assert_same(mine.encode(text), other.encode(text))
    assert mine.id_to_token(3) == other.id_to_token(3)
    assert mine.token_to_id("no token") is None


def test_printed_as_there(pair):
    mine, other = pair
    for show in (repr, str):
        for name in ("normalizer", "pre_tokenizer", "decoder", "model"):
            # Tables of tokens are printed in an order that the original does not keep.
            if name != "model" or "Unigram" in show(other.model):
                assert show(getattr(mine, name)) == show(getattr(other, name))


def test_unigram_models_are_learnt():
    trained = []
    for lib in (ours, theirs):
        tok = lib.SentencePieceUnigramTokenizer()
        texts = ["A first sentence", "Another sentence", "And a last one"]
        tok.train_from_iterator(
            texts, vocab_size=100, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>"
        )
        trained.append(tok)
    mine, other = trained
    assert mine.get_vocab().keys() == other.get_vocab().keys()  # ids of equal scores are in any order there
    assert mine.encode("A sentence 🤗").tokens == other.encode("A sentence 🤗").tokens


def test_a_trainer_knows_its_model():
    tok = ours.Tokenizer(ours.models.BPE())
    with pytest.raises(Exception, match="WordLevelTrainer can only train a WordLevel"):
        tok.train([], ours.trainers.WordLevelTrainer())


def test_streams_and_their_copies(pair):
    mine, other = pair
    ids = other.encode("the fox, naïve 你好 how", add_special_tokens=False).ids
    streams = [(ours.decoders.DecodeStream(), mine), (theirs.decoders.DecodeStream(), other)]
    for at, token_id in enumerate(ids):
        found = [stream.step(tok, token_id) for stream, tok in streams]
        assert found[0] == found[1]
        if at == 2:
            twin = copy.copy(streams[0][0])
            assert twin.step(mine, ids[3]) == copy.copy(streams[0][0]).step(mine, ids[3])


def test_lone_surrogates_are_refused_as_there(pair):
    for tok in pair:
        with pytest.raises(TypeError):
            tok.encode("a\ud83d")


NORMALIZERS = {
    "NFC": lambda n: n.NFC(),
    "NFKD": lambda n: n.NFKD(),
    "Bert": lambda n: n.BertNormalizer(strip_accents=True, lowercase=False),
    "Strip": lambda n: n.Strip(left=True, right=False),
    "Prepend": lambda n: n.Prepend("_x"),
    "Replace": lambda n: n.Replace("a", "bcd"),
    "ByteLevel": lambda n: n.ByteLevel(),
    "Nmt": lambda n: n.Nmt(),
}
PRE_TOKENIZERS = {
    "ByteLevel": lambda p, lib: p.ByteLevel(),
    "Whitespace": lambda p, lib: p.Whitespace(),
    "WhitespaceSplit": lambda p, lib: p.WhitespaceSplit(),
    "Bert": lambda p, lib: p.BertPreTokenizer(),
    "Metaspace": lambda p, lib: p.Metaspace(prepend_scheme="first"),
    "Char": lambda p, lib: p.CharDelimiterSplit("a"),
    "Digits": lambda p, lib: p.Digits(),
    "Fixed": lambda p, lib: p.FixedLength(length=3),
    "Scripts": lambda p, lib: p.UnicodeScripts(),
    "Edges of words": lambda p, lib: p.Split(lib.Regex(r"\b\w|^\s|\W$|\h{2}"), "isolated"),
    **{
        f"Split {how}": lambda p, lib, how=how: p.Split(lib.Regex(r"\s+|\p{N}"), how)
        for how in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
    },
    **{
        f"Punctuation {how}": lambda p, lib, how=how: p.Punctuation(how)
        for how in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
    },
}


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_normalizers_alone(name, text):
    make = NORMALIZERS[name]
    assert make(ours.normalizers).normalize_str(text) == make(theirs.normalizers).normalize_str(text)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_pre_tokenizers_alone(name, text):
    make = PRE_TOKENIZERS[name]
    mine, other = make(ours.pre_tokenizers, ours), make(theirs.pre_tokenizers, theirs)
    assert mine.pre_tokenize_str(text) == other.pre_tokenize_str(text)


def test_custom_components_see_the_text_and_cannot_be_saved():
    class Vowels:
        def pre_tokenize(self, pretok):
            pretok.split(lambda i, part: part.split(ours.Regex("[aeiou]"), "isolated"))

    class Shout:
        def normalize(self, normalized):
            normalized.uppercase()
            normalized.replace("!", "?")

    tok = ours.Tokenizer(ours.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tok.pre_tokenizer = ours.pre_tokenizers.PreTokenizer.custom(Vowels())
    assert tok.encode("tata").tokens == ["[UNK]", "a", "[UNK]", "a"]
    assert tok.encode("tata").offsets == [(0, 1), (1, 2), (2, 3), (3, 4)]
    tok.normalizer = ours.normalizers.Normalizer.custom(Shout())
    assert tok.encode_batch_fast(["tata!"])[0].tokens == ["[UNK]"]
    with pytest.raises(Exception, match="cannot be serialized"):
        tok.to_str()


def test_async_calls_give_the_same():
    tok = bert(ours)

    async def run():
        one = await tok.async_encode("the fox")
        many = await tok.async_encode_batch(["the fox", "hello"])
        fast = await tok.async_encode_batch_fast(["the fox"])
        texts = await tok.async_decode_batch([one.ids])
        return one, many, fast, texts

    one, many, fast, texts = asyncio.run(run())
    assert one == tok.encode("the fox") == many[0]
    assert fast[0].ids == one.ids
    assert texts == ["the fox"]


def test_merges_are_learnt_in_the_same_order():
    mine, other = (byte_level(lib, add_prefix_space=False) for lib in (ours, theirs))
    assert mine.get_vocab() == other.get_vocab()
    for lib_pair in [(ours, theirs)]:
        trained = []
        for lib in lib_pair:
            tok = (
                lib.implementations.CharBPETokenizer()
                if hasattr(lib, "implementations")
                else lib.CharBPETokenizer()
            )
            tok.train_from_iterator(
                ["ab ab abc abcd", "bcd bcd"], vocab_size=30, show_progress=False, min_frequency=1
            )
            trained.append(sorted(tok.get_vocab()))
        assert trained[0] == trained[1]


def test_transformers_takes_it():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bert(theirs), pad_token="[PAD]", cls_token="[CLS]"
    )
    mine = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bert(ours), pad_token="[PAD]", cls_token="[CLS]"
    )
    batch = ["the quick fox", "hello"]
    expected = fast(batch, padding=True, truncation=True, max_length=8, return_offsets_mapping=True)
    found = mine(batch, padding=True, truncation=True, max_length=8, return_offsets_mapping=True)
    assert dict(found) == dict(expected)
    assert mine.batch_decode(found["input_ids"]) == fast.batch_decode(expected["input_ids"])
    assert mine.convert_ids_to_tokens(found["input_ids"][0]) == fast.convert_ids_to_tokens(
        expected["input_ids"][0]
    )
    assert mine.all_special_ids == fast.all_special_ids
    assert mine.tokenize("the fox") == fast.tokenize("the fox")


def test_special_tokens_in_normal_form_and_what_truncation_cut_off():
    """A special token with another normal form stays in the text; cut-off parts keep their numbers."""
    both = []
    for lib in (theirs, ours):
        tok = lib.Tokenizer(lib.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "[S]": 3}, unk_token="[UNK]"))
        tok.normalizer = lib.normalizers.Lowercase()
        tok.pre_tokenizer = lib.pre_tokenizers.WhitespaceSplit()
        tok.post_processor = lib.processors.TemplateProcessing("[S]:2 $A:1", "$B:3 [S]:4 $A:2", [("[S]", 3)])
        tok.add_special_tokens([lib.AddedToken("X y", normalized=True), lib.AddedToken("z", normalized=True)])
        tok.enable_truncation(5, direction="left")
        seen = [tok.decode(ids) for ids in ([4, 1, 5, 2], [5], [4])]
        for text in ("a b a b a b a", ("a b a", "b a b a"), "x Y a"):
            encoding = tok.encode(*text) if isinstance(text, tuple) else tok.encode(text)
            seen.extend(
                (each.ids, each.tokens, each.type_ids, each.sequence_ids, each.offsets)
                for each in (encoding, *encoding.overflowing)
            )
        both.append(seen)
    assert both[0] == both[1]
