"""Pictures: everything shown is there, in order, and nothing in it acts on a terminal or a page."""

import base64
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask import show
from tokamask.cli import main
from tokamask.errors import ShapeError
from tokamask.show.attention import GONE, KEPT
from tokamask.show.palette import visible, visible_text

HOSTILE = '\x1b[2J\x07</span><script>alert("1")</script>&\u202e\u200b\r\n\t \U0001f980'
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def tok(smollm2_gguf):
    return tm.Tokenizer.from_file(smollm2_gguf)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.spans, self.inside = [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "span":
            self.spans.append(["", dict(attrs)["title"]])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "span"

    def handle_data(self, data):
        if self.inside:
            self.spans[-1][0] += data


def without_colours(text):
    return re.sub(r"\x1b\[(0|[34]8;2;\d+;\d+;\d+)m", "", text)


@given(st.binary(max_size=40))
def test_visible_text_is_printable_and_every_byte_can_be_read_off_it(data):
    text = visible_text(data)
    assert text.isprintable()
    back = b""
    for piece, literal in visible(data):
        for found in [piece] if literal else re.findall(r"·|⏎|\\x..|\\u.{4}|\\U.{8}", piece):
            if literal:
                back += found.encode()
            elif len(found) == 1:
                back += {"·": b" ", "⏎": b"\n"}[found]
            elif found[1] == "x":
                back += bytes.fromhex(found[2:])
            else:
                back += chr(int(found[2:], 16)).encode()
    assert back == data


def test_a_terminal_gets_only_colours(tok):
    shown = show.tokens(tok, HOSTILE)
    plain = without_colours(shown)
    assert "\x1b" not in plain
    assert plain.replace("\n", "").isprintable()
    assert "\\x1b[2J\\x07" in plain.replace("\x1b", "")
    assert shown.endswith("\x1b[0m")


def test_part_of_a_character_shows_as_bytes(tok):
    ids = tok.encode("\U0001f980")
    assert len(ids) > 1
    plain = without_colours(show.tokens(tok, ids))
    assert plain == "".join(f"\\x{byte:02x}" for byte in "\U0001f980".encode())
    assert "café·" in without_colours(show.tokens(tok, "café "))


def test_neighbours_differ_in_colour(tok):
    grounds = re.findall(r"\x1b\[48;2;[\d;]+m", show.tokens(tok, "one two three four five six seven"))
    assert all(a != b for a, b in itertools.pairwise(grounds))
    assert len(grounds) == len(tok.encode("one two three four five six seven"))


def test_a_page_shows_each_token_with_its_id_and_escapes_it(tok):
    html = show.tokens_html(tok, HOSTILE)
    page = Page()
    page.feed(html)
    assert "script" not in page.tags
    ids = tok.encode(HOSTILE)
    assert [title.split(",")[0] for _, title in page.spans] == [f"id {i}" for i in ids]
    assert [text for text, _ in page.spans] == [visible_text(tok.decode_bytes([i])) for i in ids]
    assert "no tokens" in show.tokens_html(tok, "")


@pytest.fixture(scope="module")
def letters():
    """A tokenizer that knows single bytes and nothing else."""
    return tm.Tokenizer.from_tiktoken({bytes([i]): i for i in range(256)}, pattern=r"\w+|\W")


@pytest.mark.parametrize("width", [20, 41, 80])
def test_columns_hold_every_token_of_both_and_line_up(tok, letters, width):
    text = "The quick brown fox\nnaïve 日本語 \x1b[2J\n\nend of it"
    shown = show.compare_tokens({"one": tok, "two": letters}, text, width=width)
    rows = [without_colours(row) for row in shown.split("\n")]
    assert all(row.replace(" │ ", "").isprintable() for row in rows)
    column = max(8, (width - 3) // 2)
    cells = [sum(2 if "\u3000" < c < "\uff00" else 1 for c in row.partition(" │")[0]) for row in rows]
    assert set(cells) <= {column}
    for side, tokenizer in enumerate((tok, letters)):
        joined = "".join(row.split(" │ ")[side].rstrip() if " │ " in row else "" for row in rows[1:-1])
        expected = "".join(visible_text(tokenizer.decode_bytes([i])) for i in tokenizer.encode(text))
        assert joined == expected if side or width > 40 else len(joined) > 0
    assert rows[-1].startswith(f"{len(tok.encode(text))} tokens"[:column])


def test_a_page_of_two_underlines_what_only_one_cuts(tok, letters):
    html = show.compare_tokens_html({"<b>": tok, "letters": letters}, "ab fox")
    assert "&lt;b&gt;" in html
    assert "<b>&lt;b&gt;</b>" in html
    page = Page()
    page.feed(html)
    ids = [*tok.encode("ab fox"), *letters.encode("ab fox")]
    assert [title.split(",")[0] for _, title in page.spans] == [f"id {i}" for i in ids]
    first, second = html.split("<td>")[1:]
    assert "<u>" not in first  # letters has all its edges
    assert second.count("<u>") == len("ab fox") - (0 if len(tok.encode("ab")) == 1 else 2)
    same = show.compare_tokens_html({"a": letters, "b": letters}, "ab fox")
    assert "<u>" not in same


def test_the_command_shows_tokens_of_one_and_of_two(letters, tmp_path, capsys):
    letters.save(tmp_path / "letters.tkm")
    assert main(["show", "tokens", "a fox"]) == 0
    assert capsys.readouterr().out == show.tokens(tm.Tokenizer.default(), "a fox") + "\n"
    beside = ["--against", str(tmp_path / "letters.tkm")]
    assert main(["show", "tokens", "a fox", *beside]) == 0
    assert "letters.tkm" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["show", "tokens", "a fox", *beside, "--output", str(page)]) == 0
    names = {"built in": tm.Tokenizer.default(), "letters.tkm": letters}
    assert page.read_text() == show.compare_tokens_html(names, "a fox")
    assert main(["show", "tokens", "a fox", *beside, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [token["id"] for token in listed["letters.tkm"]] == list(b"a fox")
    assert main(["show", "tokens", "x", "-t", str(tmp_path / "letters.tkm"), *beside]) == 2


def test_a_draft_tree_shows_every_node_and_the_kept_path(tok):
    ids = [tok.encode(text)[0] for text in (" return", " if", "<script>", " g", " h")]
    tree = tm.DraftTree(ids, [-1, -1, -1, 0, 0], [0.9, 0.05, 0.01, 0.5, 0.25], [1, 2, 3, 1, 5])
    svg = show.draft(tree, tok, path=np.array([0, 4], np.int32), root=b"\n\x1b")
    root = ElementTree.fromstring(svg)
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    for token in ids:
        assert visible_text(tok.decode_bytes([token])) in texts
    assert {"0.90", "0.05", "0.01", "0.50", "0.25", "request", "recycled", "forced", "⏎\\x1b"} <= set(texts)
    bold = [text.text for text in root.iter(f"{SVG}text") if text.get("font-weight") == "bold"]
    assert bold == ["⏎\\x1b", "·return", "·h"]
    thick = [path for path in root.iter(f"{SVG}path") if path.get("stroke-width") == "3"]
    assert len(thick) == 2
    boxes = [(float(r.get("x")), float(r.get("y"))) for r in root.iter(f"{SVG}rect") if r.get("rx") == "5"]
    assert len(set(boxes)) == len(tree) + 1


def test_an_empty_tree_and_a_deep_one_can_be_drawn(tok):
    assert ElementTree.fromstring(show.draft(tm.DraftTree([], []), tok)) is not None
    deep = tm.DraftTree([5] * 3000, range(-1, 2999))
    assert show.draft(deep, tok).count("<path") == 3000


def test_the_command_draws_a_draft(tmp_path, capsys, smollm2_gguf):
    seen = tmp_path / "seen.txt"
    seen.write_text("red, green and blue paint")
    arguments = [
        "show",
        "draft",
        "one, two, three, one, two,",
        "-t",
        str(smollm2_gguf),
        "--next",
        " three, four",
    ]
    arguments += ["--seen", str(seen)]
    assert main([*arguments, "--output", str(tmp_path / "tree.svg")]) == 0
    picture = ElementTree.fromstring((tmp_path / "tree.svg").read_text())
    bold = [text.text for text in picture.iter(f"{SVG}text") if text.get("font-weight") == "bold"]
    assert bold[1:] == ["·three", ","]
    assert main([*arguments, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["accepted"]) == 2
    assert len(listed["token_ids"]) == len(listed["sources"]) == 16
    assert main(["show", "draft", "", "-t", str(smollm2_gguf)]) == 2


def rectangles(svg, colour):
    found = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [r for r in found if r.get("fill") == colour]


def test_attention_shows_what_each_head_keeps():
    steps = [np.array([[0, 2, -1], [0, 1, 3]], np.int32), np.array([[0, 4, 4], [9, -1, 1]], np.int32)]
    svg = show.attention(steps, [4, 5])
    kept, there = rectangles(svg, KEPT), rectangles(svg, GONE)
    cells = lambda found: sum(float(r.get("width")) for r in found) / 16  # noqa: E731
    assert cells(kept) == 2 + 3 + 2 + 1  # 9 does not exist yet; 4 counts once
    assert cells(there) == 2 * (4 + 5)  # grey lies below
    assert "head 1" in svg
    assert "head 2" not in svg


def test_many_positions_are_drawn_together():
    svg = show.attention([np.arange(0, 1000, 2)[None]], [1000], columns=100)
    assert {r.get("fill-opacity") for r in rectangles(svg, KEPT)} == {"0.50"}
    assert len(rectangles(svg, KEPT)) == 1


def test_selection_shows_kept_patches_over_the_picture():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    svg = show.selection(np.array([1, 5, -1]), (2, 3), image=image, patch=10)
    kept = rectangles(svg, "none")
    assert [(r.get("x"), r.get("y")) for r in kept] == [("26", "16"), ("36", "26")]
    assert "2 of 6 patches kept" in svg
    (picture,) = ElementTree.fromstring(svg).iter(f"{SVG}image")
    data = base64.b64decode(picture.get("href").partition(",")[2])
    assert data.startswith(b"\x89PNG")
    length = int.from_bytes(data[33:37], "big")
    assert data[37:41] == b"IDAT"
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(4, 1 + 18)
    np.testing.assert_array_equal(lines[:, 1:].reshape(4, 6, 3), image)
    assert len(rectangles(show.selection(np.array([0]), (1, 2)), KEPT)) == 1


def test_pictures_of_attention_are_escaped_and_checked():
    svg = show.attention([np.array([[0]])], [2], tokens=[HOSTILE.encode(), b"&<"])
    ElementTree.fromstring(svg)
    assert "<script" not in svg
    with pytest.raises(ShapeError, match="steps"):
        show.attention([np.zeros((1, 2))], [1, 2])
    with pytest.raises(ShapeError, match="below 6"):
        show.selection(np.array([6]), (2, 3))
    with pytest.raises(ShapeError, match="uint8"):
        show.selection(np.array([0]), (2, 3), image=np.zeros((2, 2)))
