"""The built-in tokenizer: lossless, equal to Hugging Face's reading of its saved file, a SuperBPE vocabulary."""

import numpy as np
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import tokamask as tm

TEXTS = [
    "There is no such thing as a free lunch: as well as some of the most important, 1234567 of them.\n",
    "def main(self) -> None:\n    for name in range(10):\n        return name\n\n\n",
    "Ä日本語 \t x\r\n\u00a0<|endoftext|> 12²345",
    "",
]


@given(st.text())
def test_every_text_comes_back(text):
    tok = tm.Tokenizer.default()
    assert tok.decode(tok.encode(text)) == text


def test_saved_file_is_read_alike_elsewhere(tmp_path):
    tok = tm.Tokenizer.default()
    tok.save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    @settings(max_examples=30, deadline=None)
    @given(st.sampled_from(TEXTS) | st.text(st.sampled_from("theaofin .,12\n日é"), max_size=60))
    def same(text):
        assert tok.encode(text, allowed_special="all") == theirs.encode(text).ids

    same()


def test_vocabulary_is_superbpe():
    vocabulary = tm.Tokenizer.default().vocabulary
    tokens = [vocabulary.bytes(token_id) for token_id in range(len(vocabulary))]
    assert len(tokens) == len(set(tokens)) == 32_768
    assert tokens[0] == b"<|endoftext|>"
    assert vocabulary.eos_ids == [0]
    assert {token for token in tokens if len(token) == 1} == {bytes([byte]) for byte in range(256)}
    learnt = tokens[257:]
    assert not any(b"\n" in token[:-1] for token in learnt)
    words = [len([part for part in token.split(b" ") if part]) for token in learnt[24_576 - 257 :]]
    assert max(words) == 4
    assert np.mean(np.array(words) > 1) > 0.3
    assert not any(b": " in token for token in learnt[24_576 - 257 :])


def test_it_is_one_object():
    assert tm.Tokenizer.default() is tm.Tokenizer.default()
