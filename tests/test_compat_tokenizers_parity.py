"""compat.tokenizers: merges learnt from several languages are the original's, whatever chooses the language."""

import pickle
import warnings

import pytest
import tokenizers as theirs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tokamask.compat.tokenizers as ours

LANGUAGES = [
    ["hello there world", "the other one", "there and then another", "aaaa aaa aa"],
    ["hola mundo", "el rápido zorro salta sobre el perro", "hola amigo cómo estás ahora"],
    ["你好 世界 你好 你好 世界", "你好吗 abab abab ababab"],
]


def learnt(lib, languages, development=None, ratio=None, **options):
    tok = lib.Tokenizer(lib.models.BPE())
    tok.pre_tokenizer = lib.pre_tokenizers.Whitespace()
    trainer = lib.trainers.ParityBpeTrainer(show_progress=False, **options)
    trainer.train_from_iterator(tok, languages, dev_iterators=development, ratio=ratio)
    return tok


def merges(tok):
    import json

    return [tuple(pair) for pair in json.loads(tok.to_str())["model"]["merges"]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.text("abcé ", max_size=30), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from(["none", "ratio", "development"]),
    st.fixed_dictionaries(
        {"num_merges": st.integers(0, 40)},
        optional={
            "variant": st.sampled_from(["base", "window"]),
            "window_size": st.integers(1, 6),
            "alpha": st.sampled_from([0.5, 1.0, 1.5, 2.0]),
            "min_frequency": st.integers(0, 4),
            "global_merges": st.integers(0, 10),
            "total_symbols": st.booleans(),
            "max_token_length": st.integers(2, 6),
            "special_tokens": st.just(["<s>", "a"]),
            "initial_alphabet": st.just(["z"]),
        },
    ),
    st.data(),
)
def test_the_same_merges_in_the_same_order(languages, chosen_by, options, data):
    if options.get("variant") == "window":
        # Where languages run out of pairs, a narrow window can keep the original from ever ending.
        options = {**options, "alpha": max(options.get("alpha", 2.0), float(len(languages)))}
    development = ratio = None
    if chosen_by == "ratio":
        ratio = data.draw(
            st.lists(st.sampled_from([0.5, 1.0, 2.5]), min_size=len(languages), max_size=len(languages))
        )
    if chosen_by == "development":
        texts = st.lists(st.text("abcé ", max_size=30), max_size=3)
        development = data.draw(st.lists(texts, min_size=len(languages), max_size=len(languages)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mine = learnt(ours, languages, development, ratio, **options)
    assume(not said)  # the original would never end
    other = learnt(theirs, languages, development, ratio, **options)
    assert merges(mine) == merges(other)
    assert mine.get_vocab() == other.get_vocab()


@pytest.mark.parametrize("languages", [[["a"], [""]], [["", ""], [""], [""]]])
def test_training_ends_where_no_language_is_left_to_choose(languages):
    """The original never does: a language without text has no need, so one that is finished is chosen again and again."""
    with pytest.warns(UserWarning, match="0 of 3 merges: no language with pairs left"):
        tok = learnt(ours, languages, None, [1.0] * len(languages), num_merges=3)
    assert merges(tok) == []


@pytest.mark.parametrize(
    "options",
    [
        {"num_merges": 60},
        {"num_merges": 14, "variant": "window", "window_size": 5, "alpha": 1.2},
        {"num_merges": 14, "variant": "window", "window_size": 2, "alpha": 1.0},
        {"num_merges": 40, "global_merges": 10},
        {"num_merges": 30, "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"},
    ],
    ids=str,
)
def test_several_scripts(options):
    development = LANGUAGES[1:] + LANGUAGES[:1]
    mine, other = (learnt(lib, LANGUAGES, development, **options) for lib in (ours, theirs))
    assert merges(mine) == merges(other)
    assert mine.get_vocab().keys() == other.get_vocab().keys()  # affixes are numbered in any order there
    assert mine.encode("hello mundo 你好").tokens == other.encode("hello mundo 你好").tokens


def test_a_trainer_is_printed_and_copied_as_there():
    for lib in (ours, theirs):
        trainer = lib.trainers.ParityBpeTrainer(
            num_merges=12, variant="window", alpha=1.5, ratio=[1.0], special_tokens=["x"]
        )
        assert repr(trainer) == str(trainer) == repr(pickle.loads(pickle.dumps(trainer)))
        assert repr(trainer) == (
            'ParityBpeTrainer(num_merges=12, variant="window", min_frequency=0, global_merges=0, '
            "window_size=100, alpha=1.5, total_symbols=false)"
        )


@pytest.mark.parametrize("lib", [ours, theirs], ids=["ours", "theirs"])
def test_bad_settings_are_refused_as_there(lib):
    with pytest.raises(ValueError, match="Unknown variant"):
        lib.trainers.ParityBpeTrainer(variant="other")
    with pytest.raises(ValueError, match="must not be empty"):
        learnt(lib, [])
    with pytest.raises(ValueError, match="must match"):
        learnt(lib, LANGUAGES, LANGUAGES[:1])
    for options, message in [
        ({"ratio": [1.0]}, "does not match number of languages"),
        ({"ratio": [1.0, 0.0, 1.0]}, r"ratio\[1\]"),
        ({"variant": "window", "window_size": 0}, "window_size"),
        ({"variant": "window", "alpha": -1.0}, "alpha"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            learnt(lib, LANGUAGES, num_merges=3, **options)
