"""Runs the examples of the documentation: as a hook of every build, as a test, and as a command.

The ``python`` blocks of a page run in order in one namespace. A ``text`` block straight after one is what it
prints. In ``console`` blocks the lines after ``$ `` are commands, the others what they print; ``...`` in a
printed line stands for anything. A page that says otherwise than it does fails the build.

``python docs/execute.py [page.md ...]`` runs them without building.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
import traceback
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```[ ]*$", re.DOTALL | re.MULTILINE)
COMMAND_SECONDS = 240


@dataclass
class Block:
    """A fenced block: its language, its text, its first line in the page, and whether it follows the one before."""

    language: str
    text: str
    line: int
    adjoins: bool


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a page that start at the margin."""
    found, end = [], -1
    for match in FENCE.finditer(markdown):
        adjoins = end >= 0 and not markdown[end : match.start()].strip()
        found.append(Block(match[1], match[2], markdown.count("\n", 0, match.start()) + 2, adjoins))
        end = match.end()
    return found


def run(markdown: str, name: str) -> list[str]:
    """Runs a page; returns what is wrong with it, a line per problem."""
    problems = []
    names: dict[str, object] = {"__name__": f"page {name}"}
    printed: str | None = None
    for block in blocks(markdown):
        where = f"{name}:{block.line}"
        if block.language == "python":
            printed, error = _execute(block, names, where)
            if error:
                problems.append(f"{where}: {error}")
                return problems  # what follows would only fail because of this
        elif block.language == "text" and block.adjoins and printed is not None:
            problems += _compare(block.text, printed, where)
            printed = None
        elif block.language == "console":
            problems += _commands(block, where)
    return problems


def _execute(block: Block, names: dict[str, object], where: str) -> tuple[str, str]:
    out = io.StringIO()
    source = "\n" * (block.line - 1) + block.text
    try:
        with contextlib.redirect_stdout(out), contextlib.chdir(ROOT):
            exec(compile(source, where.split(":")[0], "exec"), names)
    except Exception:
        return out.getvalue(), traceback.format_exc(limit=-2).strip()
    return out.getvalue(), ""


def _commands(block: Block, where: str) -> list[str]:
    problems = []
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        answer = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=os.environ | {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if answer.returncode:
            problems.append(f"{where}: `{command}` ended with {answer.returncode}: {answer.stderr.strip()}")
        elif expected.strip():
            problems += _compare(expected, answer.stdout, where)
    return problems


def _compare(expected: str, got: str, where: str) -> list[str]:
    pattern = re.escape(expected.strip()).replace(r"\.\.\.", ".*?")
    if re.fullmatch(pattern, got.strip(), re.DOTALL):
        return []
    return [f"{where}: the page says\n{expected.strip()}\nbut this is printed\n{got.strip()}"]


def on_page_markdown(markdown: str, *, page, config, files) -> str:
    """MkDocs calls this for every page."""
    from mkdocs.exceptions import PluginError

    problems = run(markdown, page.file.src_uri)
    if problems:
        raise PluginError("\n".join(["an example of the documentation is not true", *problems]))
    return markdown


def main(arguments: list[str]) -> int:
    """The command."""
    pages = [pathlib.Path(a) for a in arguments] or [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    failed = 0
    for page in pages:
        problems = run(page.read_text(), str(page))
        failed += bool(problems)
        print(f"{page}: {'; '.join(problems) or 'ok'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
