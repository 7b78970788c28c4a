"""Files to ids: whole files, documents between separators, and what is refused."""

import numpy as np
import pytest
from small_tokenizers import small

import tokamask as tm
from tokamask import files


@pytest.fixture(scope="module")
def tok():
    return small("tiktoken cl100k")


def written(folder, texts):
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    return [folder / name for name in texts]


def test_every_file_is_a_document(tok, tmp_path):
    texts = {"a.txt": "one two\r\n", "b.txt": "", "c.txt": "na\u00efve \u4f60\u597d <|end|>"}
    rows = list(tok.encode_files(written(tmp_path, texts)))
    assert [row.to_lists() for row in rows] == [[tok.encode(text)] for text in texts.values()]
    special = tok.encode_files(iter([str(tmp_path / "c.txt")]), allowed_special="all", threads=2)
    assert next(special).to_lists() == [tok.encode(texts["c.txt"], allowed_special="all")]


@pytest.mark.parametrize("stretch", [1, 2, 5, 64, 1 << 20])
@pytest.mark.parametrize("separator", ["\n", "<|end|>", "\u4f60", "aa"])
def test_documents_between_separators(tok, tmp_path, monkeypatch, separator, stretch):
    monkeypatch.setattr(files, "STRETCH", stretch)
    documents = [["one", "", "two \u597d three", "x" * 40, "a"], ["", ""], ["alone"], [""], ["end", ""]]
    texts = {f"{n}.txt": separator.join(parts) for n, parts in enumerate(documents)}
    want = []
    for parts in (text.split(separator) for text in texts.values()):
        want += [tok.encode(part) for part in (parts if parts[-1] else parts[:-1])]
    rows = list(tok.encode_files(written(tmp_path, texts), separator=separator))
    assert [ids for row in rows for ids in row.to_lists()] == want
    assert len(rows) >= len(texts) if stretch <= 64 else len(rows) == len(texts)


def test_files_are_read_when_asked_for(tok, tmp_path):
    rows = tok.encode_files([*written(tmp_path, {"a.txt": "one"}), tmp_path / "absent"])
    assert np.array_equal(next(rows)[0], tok.encode("one"))
    with pytest.raises(FileNotFoundError):
        next(rows)


def test_what_is_refused(tok, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "STRETCH", 4)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\nth\xffree\n")
    with pytest.raises(tm.errors.VocabularyError, match="not UTF-8 at byte 10") as caught:
        list(tok.encode_files([path], separator="\n"))
    assert caught.value.path == str(path)
    with pytest.raises(ValueError, match="separator"):
        tok.encode_files([path], separator="")
    with pytest.raises(TypeError, match="several paths"):
        tok.encode_files(str(path))
