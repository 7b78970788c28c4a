"""The command line: what it prints, what it exits with, how it complains."""

import io
import json
import sys

import pytest

from tokamask.cli import main


class Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def run(capfdbinary, *argv, stdin=b"", monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setattr(sys, "stdin", Stdin(stdin))
    code = main([str(a) for a in argv])
    out, err = capfdbinary.readouterr()
    return code, out, err.decode()


def test_encode_decode_round_trip(capfdbinary, monkeypatch):
    text = "Hello wörld\n\tπ ≈ 3.14159 😀"
    code, ids, _ = run(capfdbinary, "encode", text)
    assert code == 0
    code, out, _ = run(capfdbinary, "decode", stdin=ids, monkeypatch=monkeypatch)
    assert (code, out.decode()) == (0, text)


def test_encode_json_counts(capfdbinary, monkeypatch):
    code, out, _ = run(capfdbinary, "encode", "--json", stdin="né".encode(), monkeypatch=monkeypatch)
    report = json.loads(out)
    assert code == 0
    assert report["bytes"] == 3
    assert report["count"] == len(report["ids"]) > 0


def test_special_text_is_ordinary_unless_allowed(capfdbinary):
    _, plain, _ = run(capfdbinary, "encode", "<|endoftext|>")
    _, special, _ = run(capfdbinary, "encode", "--special", "<|endoftext|>")
    assert len(plain.split()) > 1
    assert len(special.split()) == 1


def test_count_agrees_with_encode(capfdbinary, tmp_path):
    files = []
    for name, text in (("a.txt", "one two three"), ("b.txt", "")):
        (tmp_path / name).write_text(text)
        files.append(tmp_path / name)
    code, out, _ = run(capfdbinary, "count", "--json", *files)
    report = json.loads(out)
    assert code == 0
    _, ids, _ = run(capfdbinary, "encode", "--file", files[0])
    assert [row["tokens"] for row in report["files"]] == [len(ids.split()), 0]
    assert report["tokens"] == len(ids.split())


@pytest.mark.usefixtures("smollm2_gguf")
def test_doctor_finds_nothing_broken(capfdbinary):
    code, out, _ = run(capfdbinary, "doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert code == 0
    assert findings["tokamask"]["state"] == "ok"
    assert findings["kernels"]["state"] == "ok"


def bad_input(tmp_path):
    """Every kind of bad input: the arguments, and what the one line must name."""
    latin1 = tmp_path / "latin1.txt"
    latin1.write_bytes(b"caf\xe9")
    garbage = tmp_path / "garbage.json"
    garbage.write_text('{"model": {"type": "BPE", ')
    schema = tmp_path / "broken.schema.json"
    schema.write_text('{"type": "object",')
    wrong = tmp_path / "wrong.schema.json"
    wrong.write_text('{"type": "objekt"}')
    missing = tmp_path / "missing.txt"
    generate = ("generate", "--prompt", "x")
    return [
        (("encode", "--file", missing), "missing.txt"),
        (("encode", "--file", tmp_path), str(tmp_path)),
        (("encode", "--file", latin1), "not UTF-8 at byte 3"),
        (("encode", "x", "--tokenizer", garbage), "garbage.json"),
        (("encode", "x", "--tokenizer", missing), "missing.txt"),
        (("decode", "12", "abc"), "'abc'"),
        (("decode", "99999999"), "99999999"),
        (("decode", "99999999999999999999"), "99999999999999999999"),
        (("count", missing), "missing.txt"),
        ((*generate, "--schema", missing), "missing.txt"),
        ((*generate, "--schema", schema), "broken.schema.json"),
        ((*generate, "--schema", wrong), "objekt"),
        ((*generate, "--regex", "a(b"), "a(b"),
        ((*generate, "--model", garbage), "garbage.json"),
        ((*generate, "--max-tokens", "0"), "max-tokens"),
        ((*generate, "--temperature", "-1"), "temperature"),
    ]


@pytest.mark.usefixtures("smollm2_gguf")
@pytest.mark.parametrize("case", range(16))
def test_bad_input_is_one_line_and_exit_code_2(capfdbinary, tmp_path, case):
    cases = bad_input(tmp_path)
    assert len(cases) == 16
    argv, names = cases[case]
    code, out, err = run(capfdbinary, *argv)
    assert code == 2
    assert out == b""
    assert err.startswith("tokamask: ")
    assert names in err
    assert "Traceback" not in err
    assert all(line.startswith("  ") for line in err.splitlines()[1:]), "one line, but for a caret below it"


def test_unknown_arguments_are_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["encode", "--no-such-flag"])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
