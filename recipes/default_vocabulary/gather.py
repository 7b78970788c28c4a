"""Gathers the text that the default vocabulary is learnt from: packages in, documents out.

    python recipes/default_vocabulary/gather.py FOLDER

``FOLDER/packages`` keeps what was downloaded; ``FOLDER/learn`` and ``FOLDER/held_out`` get one file per part. A
document is held out if the hash of its name says so (one in twenty), so the split does not depend on the order or on
what else is gathered. Needs ``pip``, ``apt-get`` and ``dpkg-deb``, Python 3.11.
"""

from __future__ import annotations

import hashlib
import html.parser
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).parent
HELD_OUT = 20
#: Characters of a document where a file has no documents of its own.
DOCUMENT = 6000


def main(folder: Path) -> None:
    """Downloads, unpacks, extracts and splits."""
    sources = tomllib.loads((HERE / "sources.toml").read_text())["source"]
    parts: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        tree = unpacked(source["package"], source["from"], folder / "packages")
        room = source.get("most", sys.maxsize)
        taken = 0
        for name, text in documents(tree, source):
            taken += len(text.encode())
            if taken > room:
                break
            digest = hashlib.blake2b(f"{source['package']}/{name}".encode(), digest_size=8).digest()
            split = "held_out" if int.from_bytes(digest, "big") % HELD_OUT == 0 else "learn"
            parts.setdefault((split, source["part"]), []).append(text)
        print(f"{source['what']}: {min(taken, room):,} bytes", flush=True)
    for (split, part), texts in sorted(parts.items()):
        (folder / split).mkdir(exist_ok=True)
        path = folder / split / f"{part}.txt"
        path.write_text("".join(text if text.endswith("\n") else text + "\n" for text in texts), newline="")
        print(f"{path}: {path.stat().st_size:,} bytes")


def unpacked(package: str, registry: str, folder: Path) -> Path:
    """The files of a package of exactly this version."""
    tree = folder / re.sub(r"[^\w.]+", "-", package)
    if tree.exists():
        return tree
    download = folder / "download" / tree.name
    download.mkdir(parents=True, exist_ok=True)
    if registry == "pypi":
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", package], cwd=download, check=True
        )
        with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
            wheel.extractall(tree)
    else:
        subprocess.run(["apt-get", "download", "-q", package], cwd=download, check=True)
        subprocess.run(["dpkg-deb", "-x", next(download.glob("*.deb")), tree], check=True)
    return tree


def documents(tree: Path, source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each document of a source. Translations that only repeat the English are left out."""
    read = READERS[source["as"]]
    if "{language}" not in source["take"]:
        for path in sorted(path for path in tree.glob(source["take"]) if path.is_file()):
            for nth, text in enumerate(cut("\n".join(read(path).values()))):
                yield f"{path.relative_to(tree)}#{nth}", text
        return
    english: set[str] = set()
    for path in tree.glob(source["take"].format(language="en")):
        english.update(read(path).values())
    said: dict[str, set[str]] = {}
    for path in sorted(tree.glob(source["take"].format(language="*"))):
        language = language_of(path, source["take"])
        if language.startswith("en"):
            continue
        heard = said.setdefault(language, set(english))
        lines = [text for text in read(path).values() if text not in heard]
        heard.update(lines)
        for nth, text in enumerate(cut("\n".join(lines))):
            yield f"{path.relative_to(tree)}#{nth}", text


def language_of(path: Path, take: str) -> str:
    """What stands in place of ``{language}``."""
    before, after = take.split("{language}")
    pattern = re.escape(before).replace(r"\*\*/", ".*") + r"([\w-]+?)" + re.escape(after[:1]) + ".*"
    found = re.search(pattern, path.as_posix())
    return found[1] if found else ""


def cut(text: str) -> Iterator[str]:
    """Pieces of about :data:`DOCUMENT` characters that end after a line."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + DOCUMENT) + 1 or len(text)
        if text[start:end].strip():
            yield text[start:end]
        start = end


def read_text(path: Path) -> dict[str, str]:
    """A file as it is."""
    return {"": path.read_text(encoding="utf-8", errors="ignore")}


class _Words(html.parser.HTMLParser):
    """The text of a page, a line per block."""

    BLOCKS = frozenset(
        [
            "p",
            "div",
            "li",
            "tr",
            "dt",
            "dd",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "pre",
            "br",
            "table",
            "ul",
            "ol",
            "dl",
            "section",
            "title",
        ]
    )
    SILENT = frozenset(["script", "style", "nav", "head"])

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.silent = self.literal = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.silent += tag in self.SILENT
        self.literal += tag == "pre"
        if tag in self.BLOCKS:
            self.out.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in self.SILENT and self.silent > 0
        self.literal -= tag == "pre" and self.literal > 0
        if tag in self.BLOCKS:
            self.out.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.out.append(data if self.literal else re.sub(r"\s+", " ", data))


def read_html(path: Path) -> dict[str, str]:
    """The lines of a page."""
    page = _Words()
    page.feed(path.read_text(encoding="utf-8", errors="ignore"))
    text = re.sub(r"\s*\n\s*\n\s*\n", "\n\n", "".join(page.out))
    return {str(nth): line.rstrip() for nth, line in enumerate(text.split("\n"))}


def read_po(path: Path) -> dict[str, str]:
    """Translations of a gettext catalogue by the text that they translate."""
    found: dict[str, str] = {}
    fields: dict[str, str] = {}
    field = ""
    for line in [*path.read_text(encoding="utf-8", errors="ignore").splitlines(), ""]:
        said = re.match(r'(msgid|msgid_plural|msgctxt|msgstr(?:\[\d\])?)?\s*"(.*)"$', line)
        if not said:
            if fields.get("msgid"):
                for name, text in fields.items():
                    if name.startswith("msgstr") and text and text != fields["msgid"]:
                        found[f"{fields['msgid']}/{name}"] = text
            if not line or line.startswith("#"):
                fields = {}
            continue
        field = said[1] or field
        text = said[2].replace('\\"', '"').replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")
        fields[field] = fields.get(field, "") + text
    return found


def read_json(path: Path) -> dict[str, str]:
    """The strings of a catalogue in JSON by their keys."""
    found: dict[str, str] = {}

    def walk(value: object, key: str) -> None:
        if isinstance(value, str) and value:
            found[key] = value
        elif isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}/{name}")

    walk(json.loads(path.read_text(encoding="utf-8")), "")
    return found


def read_r_strings(path: Path) -> dict[str, str]:
    """The strings of R data saved for lazy loading: length and zlib stream of each block, in it those of each string."""
    rest, lines = path.read_bytes(), []
    while rest:
        stream = zlib.decompressobj()
        block = stream.decompress(rest[4:])
        rest = stream.unused_data
        place = 0
        for mark in re.finditer(rb"\0[\x04\x00][\x00\x80]\x09", block):
            if mark.start() < place:
                continue
            (size,) = struct.unpack_from(">i", block, mark.end())
            if 0 <= size < 10_000:
                place = mark.end() + 4 + size
                lines.append(block[mark.end() + 4 : place].decode("utf-8", "ignore"))
    return {"": "\n".join(lines)}


READERS: dict[str, Callable[[Path], dict[str, str]]] = {
    "text": read_text,
    "html": read_html,
    "po": read_po,
    "json": read_json,
    "r_strings": read_r_strings,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
