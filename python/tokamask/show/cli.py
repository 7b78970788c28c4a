"""The pictures of ``tokamask show``: each adds its own subcommand.

A picture is a function that takes the group of subcommands and adds one with :func:`tokamask.cli.command`;
to add one, write it in a file beside its drawing code and name it in ``PICTURES``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from tokamask import Drafter, Grammar, Tokenizer, verify_greedy
from tokamask.cli import UsageError, add_tokenizer_argument, command, open_tokenizer, read_text
from tokamask.draft import SOURCES
from tokamask.show.draft import draft
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
        names = [Path(path).name if path else "built in" for path in (args.tokenizer, args.against)]
        if names[0] == names[1]:
            names = [str(args.tokenizer), args.against]
        if names[0] == names[1]:
            raise UsageError(f"--against: {args.against} is the first tokenizer itself")
        both = dict(zip(names, (first, open_tokenizer(args.against)), strict=True))
    if args.json:
        shown = both or {args.tokenizer or "built in": first}
        print(json.dumps({name: _listed(tokenizer, text) for name, tokenizer in shown.items()}))
    elif args.output is not None:
        page = compare_tokens_html(both, text) if both else tokens_html(first, text)
        Path(args.output).write_text(page, encoding="utf-8")
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        print(compare_tokens(both, text, width=width) if both else tokens(first, text))
    return 0


def _add_draft(pictures: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    parser = command(
        pictures,
        "draft",
        _draft,
        "what would be guessed to follow a text, as a tree in SVG",
        "tokamask show draft 'one, two, three, one, two,' --next ' three' --output tree.svg",
    )
    parser.add_argument("text", nargs="?", help="the text so far (default: standard input)")
    parser.add_argument("--file", "-f", metavar="FILE", help="read the text from a file")
    add_tokenizer_argument(parser)
    parser.add_argument("--next", metavar="TEXT", default="", help="what was then written: its path is bold")
    parser.add_argument("--seen", action="append", default=[], metavar="FILE", help="a text served earlier")
    parser.add_argument("--budget", type=int, default=16, metavar="N", help="most guesses (default: 16)")
    parser.add_argument("--output", "-o", metavar="SVG", help="where to draw it (default: standard output)")


def _draft(args: argparse.Namespace) -> int:
    if args.text is not None and args.file is not None:
        raise UsageError("give the text or --file, not both")
    if not 1 <= args.budget <= 512:
        raise UsageError("--budget wants 1 to 512 guesses")
    tokenizer = open_tokenizer(args.tokenizer)
    drafter = Drafter()
    for path in args.seen:
        drafter.session([]).update(tokenizer.encode(read_text(path, "an earlier text")))
    text = args.text if args.text is not None else read_text(args.file, "the text")
    ids = tokenizer.encode(text)
    if not ids:
        raise UsageError("the text has no tokens")
    tree = drafter.session(ids).propose(args.budget)
    following = tokenizer.encode(args.next)
    targets = [following[d] if d < len(following) else -1 for d in [0, *tree.depths.tolist()]]
    path = verify_greedy(tree, targets)[2]
    if args.json:
        print(
            json.dumps(
                {
                    "token_ids": tree.token_ids.tolist(),
                    "parents": tree.parents.tolist(),
                    "probs": [round(p, 4) for p in tree.probs.tolist()],
                    "sources": [SOURCES[source] for source in tree.sources.tolist()],
                    "accepted": path.tolist(),
                }
            )
        )
        return 0
    picture = draft(tree, tokenizer, path=path.tolist(), root=tokenizer.decode_bytes(ids[-1:]))
    if args.output is None:
        print(picture, end="")
    else:
        Path(args.output).write_text(picture, encoding="utf-8")
    return 0


def _add_mask(pictures: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # as above
    parser = command(
        pictures,
        "mask",
        show_mask,
        "the tokens that a grammar allows after a text, or why it refuses one",
        "tokamask show mask --schema person.json --after '{\"name\": ' --token 42",
    )
    add_mask_arguments(parser)
    parser.add_argument("--output", "-o", metavar="HTML", help="write a page instead")


def add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a grammar and a place in a text."""
    grammar = parser.add_mutually_exclusive_group(required=True)
    grammar.add_argument("--schema", metavar="FILE", help="a JSON Schema")
    grammar.add_argument("--regex", metavar="PATTERN", help="a regular expression for the whole text")
    parser.add_argument(
        "--after", default="", metavar="TEXT", help="what has been written (default: nothing)"
    )
    parser.add_argument("--token", type=int, metavar="ID", help="say why this token is refused")
    add_tokenizer_argument(parser)


def show_mask(args: argparse.Namespace) -> int:
    """Prints the tokens that are allowed, or why one is not."""
    from tokamask.show import mask as masks

    if args.schema is not None:
        grammar = Grammar.json_schema(Path(args.schema).read_text(encoding="utf-8"))
    else:
        grammar = Grammar.regex(args.regex)
    vocabulary = open_tokenizer(args.tokenizer).vocabulary
    after = args.after.encode()
    if args.token is not None:
        if not 0 <= args.token < len(vocabulary):
            raise UsageError(f"--token: {args.token} is not in a vocabulary of {len(vocabulary)}")
        refusal = masks.why_not(grammar, vocabulary, after, args.token)
        if args.json:
            print(json.dumps(None if refusal is None else refusal.__dict__))
        elif refusal is None:
            print(f"token {args.token} is allowed")
        else:
            at = "" if refusal.json_pointer is None else f", at {refusal.json_pointer or 'the root'}"
            print(
                f"token {args.token} is refused at its byte {refusal.byte}{at}: expected {refusal.expected}"
            )
    elif args.json:
        found = masks.place(grammar, vocabulary, after)
        print(
            json.dumps(
                {
                    "token_ids": found.token_ids.tolist(),
                    "expected": found.expected,
                    "json_pointer": found.json_pointer,
                    "ends": found.ends,
                }
            )
        )
    elif getattr(args, "output", None) is not None:
        Path(args.output).write_text(masks.mask_html(grammar, vocabulary, after), encoding="utf-8")
    else:
        print(masks.mask(grammar, vocabulary, after))
    return 0


PICTURES = (_add_tokens, _add_mask, _add_draft)
