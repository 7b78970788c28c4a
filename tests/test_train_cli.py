"""``tokamask train``: files in, tokenizer and report out, interruption, bad input in one line."""

import json
from html.parser import HTMLParser

import pytest
import tokenizers as hf

import tokamask as tm
from tokamask import train
from tokamask.cli import main

TEXT = "by the way, it is on the way\nthe way of the <script>sea</script> & 12345\n" * 20


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    for path in paths:
        path.write_text(TEXT)
    return [str(path) for path in paths]


def run(capfd, *argv):
    code = main([str(a) for a in argv])
    out, err = capfd.readouterr()
    return code, out, err


def test_trains_what_the_library_trains(capfd, files, tmp_path):
    output = tmp_path / "tokenizer.json"
    code, out, _ = run(capfd, "train", *files, "--size", 290, "--special", "<s>", "-o", output, "--json")
    assert code == 0
    assert json.loads(out)["bytes"] == 2 * len(TEXT)
    want = tm.train.bpe([TEXT, TEXT], vocab_size=290, special_tokens=["<s>"])
    assert tm.Tokenizer.from_file(output).vocabulary == want.vocabulary
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt", "tokenizer.json"]


def test_the_file_is_read_by_hf(capfd, files, tmp_path):
    output = tmp_path / "tokenizer.json"
    assert (
        run(
            capfd, "train", *files, "--size", 330, "--superwords-from", 290, "-o", output, "--special", "<s>"
        )[0]
        == 0
    )
    ours, theirs = tm.Tokenizer.from_file(output), hf.Tokenizer.from_file(str(output))
    for text in (TEXT, "on the way 1234567 \n\n é日本 \t x"):
        assert ours.encode(text) == theirs.encode(text).ids
        assert theirs.decode(ours.encode(text)) == text
    assert theirs.token_to_id("<s>") == 0
    assert any(b" " in ours.vocabulary.bytes(i).strip() for i in range(290, 330))


class Tags(HTMLParser):
    """Collects the elements, and refuses any that are not closed in order."""

    VOID = frozenset({"meta"})

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_one_safe_page(capfd, files, tmp_path):
    output, page = tmp_path / "t.json", tmp_path / "report.html"
    assert run(capfd, "train", *files, "--size", 300, "-o", tmp_path / "plain.json")[0] == 0
    code, _, _ = run(
        capfd, "train", *files, "--size", 330, "--superwords-from", 290, "-o", output,
        "--report", page, "--held-out", files[0], "--compare", tmp_path / "plain.json",
    )  # fmt: skip
    assert code == 0
    text = page.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    names = {tag for tag, _ in tags.seen}
    assert "script" not in names
    assert {"table", "svg", "code"} <= names
    assert not [value for _, attrs in tags.seen for name, value in attrs.items() if name in ("src", "href")]
    tok = tm.Tokenizer.from_file(output)
    assert f"{tm.metrics.bytes_per_token(tok, [TEXT]):.3f}" in text
    assert "plain.json" in text
    assert " the way" in text


def test_an_interrupted_run_resumes(capfd, files, tmp_path, monkeypatch):
    output = tmp_path / "t.json"
    arguments = ["train", *files, "--size", 300, "-o", output]

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "bpe", interrupt)
        code, _, err = run(capfd, *arguments)
    assert code == 130
    assert "t.json.counts" in err
    assert not output.exists()
    code, out, _ = run(capfd, *arguments, "--json")
    assert code == 0
    assert json.loads(out)["resumed"]
    assert not (tmp_path / "t.json.counts").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{bad}"], "bad.txt"),
        (["{gone}"], "gone.txt"),
        (["{good}", "--pre-tokenizer", "nonsense"], "nonsense"),
        (["{good}", "--held-out", "{gone}"], "gone.txt"),
        (["{good}", "--report", "{gone}/x.html"], "gone.txt"),
    ],
)
def test_bad_input_ends_in_one_line(capfd, files, tmp_path, arguments, named):
    bad, gone = tmp_path / "bad.txt", tmp_path / "gone.txt"
    bad.write_bytes(b"caf\xe9\n")
    arguments = [a.format(bad=bad, gone=gone, good=files[0]) for a in arguments]
    code, out, err = run(capfd, "train", *arguments, "-o", tmp_path / "t.json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err


def test_broken_files_are_skipped_on_request(capfd, files, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"caf\xe9\n")
    code, out, _ = run(
        capfd, "train", bad, *files, "--skip-broken", "--size", 280, "-o", tmp_path / "t", "--json"
    )
    assert code == 0
    assert [row["file"] for row in json.loads(out)["skipped"]] == [str(bad)]
    assert len(tm.Tokenizer.from_file(tmp_path / "t")) == 280
