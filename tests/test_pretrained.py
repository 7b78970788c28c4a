"""Tokenizers by the name of a model."""

import sys

import pytest
from small_tokenizers import small, with_added

import tokamask as tm
from tokamask.pretrained import find


def test_a_folder_gives_its_best_file(tmp_path):
    with pytest.raises(tm.errors.VocabularyError, match=r"tokenizer\.json"):
        tm.Tokenizer.from_pretrained(tmp_path)
    tok = with_added()
    (tmp_path / "tokenizer.model").write_bytes(b"")
    tok.save(tmp_path / "tokenizer.json")
    assert find(tmp_path).endswith("tokenizer.json")
    assert tm.Tokenizer.from_pretrained(str(tmp_path)).encode("ab c") == tok.encode("ab c")


def test_without_the_hub_client_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(tm.errors.VocabularyError, match="install huggingface_hub"):
        tm.Tokenizer.from_pretrained("someone/some-model")
    assert len(small("tiktoken r50k")) == 901


def test_the_hub_is_asked_for_one_file_after_another(monkeypatch):
    asked = []

    class Hub:
        @staticmethod
        def hf_hub_download(name, file, revision, token):
            asked.append((name, file, revision))
            raise OSError("no connection")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    with pytest.raises(tm.errors.VocabularyError, match="offline, pass the folder"):
        tm.Tokenizer.from_pretrained("someone/some-model", revision="main")
    assert asked[0] == ("someone/some-model", "tokenizer.json", "main")
    with pytest.raises(tm.errors.VocabularyError, match="no such folder"):
        tm.Tokenizer.from_pretrained("./not/here")
