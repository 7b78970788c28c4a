"""The pictures of ``tokamask show``: each adds its own subcommand.

A picture is a function that takes the group of subcommands and adds one with :func:`tokamask.cli.command`;
to add one, write it in a file beside its drawing code and name it in ``PICTURES``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from tokamask import Tokenizer
from tokamask.cli import UsageError, add_tokenizer_argument, command, open_tokenizer, read_text
from tokamask.show.tokens import compare_tokens, compare_tokens_html, tokens, tokens_html


def _add_tokens(pictures: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # argparse keeps the parser class to itself
    parser = command(
        pictures,
        "tokens",
        _tokens,
        "how a text is cut into tokens, by one tokenizer or by two side by side",
        "tokamask show tokens 'Hello world' -t a.json --against b.json --output tokens.html",
    )
    parser.add_argument("text", nargs="?", help="the text (default: standard input)")
    parser.add_argument("--file", "-f", metavar="FILE", help="read the text from a file")
    add_tokenizer_argument(parser)
    parser.add_argument("--against", metavar="FILE", help="a second tokenizer, shown beside the first")
    parser.add_argument("--output", "-o", metavar="HTML", help="write a page instead")


def _listed(tokenizer: Tokenizer, text: str) -> list[dict[str, int | str]]:
    """Ids, and bytes in hexadecimal because they need not be text."""
    ids = tokenizer.encode(text)
    return [{"id": i, "bytes": tokenizer.decode_bytes([i]).hex()} for i in ids]


def _tokens(args: argparse.Namespace) -> int:
    if args.text is not None and args.file is not None:
        raise UsageError("give the text or --file, not both")
    text = args.text if args.text is not None else read_text(args.file, "the text")
    first = open_tokenizer(args.tokenizer)
    both = None
    if args.against is not None:
        names = [Path(path).name if path else "demo model" for path in (args.tokenizer, args.against)]
        if names[0] == names[1]:
            names = [str(args.tokenizer), args.against]
        if names[0] == names[1]:
            raise UsageError(f"--against: {args.against} is the first tokenizer itself")
        both = dict(zip(names, (first, open_tokenizer(args.against)), strict=True))
    if args.json:
        shown = both or {args.tokenizer or "demo model": first}
        print(json.dumps({name: _listed(tokenizer, text) for name, tokenizer in shown.items()}))
    elif args.output is not None:
        page = compare_tokens_html(both, text) if both else tokens_html(first, text)
        Path(args.output).write_text(page, encoding="utf-8")
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        print(compare_tokens(both, text, width=width) if both else tokens(first, text))
    return 0


PICTURES = (_add_tokens,)
