"""The command ``tokamask``: every subcommand reads files or standard input and writes standard output.

Exit codes: 0 done, 1 the answer is no (a check failed), 2 bad input or a missing part, always with one
line on standard error that names the thing and the place.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from tokamask.errors import TokamaskError

if TYPE_CHECKING:
    from tokamask import Tokenizer
    from tokamask.demo.generate import Generation

Run = Callable[[argparse.Namespace], int]


class UsageError(Exception):
    """Input that a command cannot work with; its text is the one line the user sees."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    run: Run = args.run
    try:
        return run(args)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _complain("interrupted", code=130)
    except FileNotFoundError as error:
        return _complain(f"no such file: {error.filename or error}")
    except IsADirectoryError as error:
        return _complain(f"a folder where a file is wanted: {error.filename or error}")
    except PermissionError as error:
        return _complain(f"not allowed to read: {error.filename or error}")
    except (TokamaskError, UsageError, OSError) as error:
        return _complain(str(error))


def _complain(message: str, code: int = 2) -> int:
    print(f"tokamask: {message}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Bad arguments end in one line, as all bad input does; ``--help`` tells the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    from tokamask import __version__

    parser = _Parser(
        prog="tokamask", description="Tokenizers, grammar masks and lookahead drafts for LLM inference."
    )
    parser.add_argument("--version", action="version", version=f"tokamask {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for add in (_add_generate, _add_encode, _add_decode, _add_count, _add_train, _add_draft):
        add(commands)
    _add_mask(commands)
    _add_show(commands)
    _add_doctor(commands)
    return parser


def command(
    commands: argparse._SubParsersAction[_Parser],
    name: str,
    run: Run,
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    """Adds a subcommand whose ``run`` gets the parsed arguments and returns the exit code."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def add_tokenizer_argument(parser: argparse.ArgumentParser) -> None:
    """``--tokenizer``, as every command has it; its value goes to :func:`open_tokenizer`."""
    parser.add_argument(
        "--tokenizer",
        "-t",
        metavar="FILE",
        help="tokenizer.json or GGUF; told by content (default: the one that is built in)",
    )


def open_tokenizer(path: str | None) -> Tokenizer:
    """The tokenizer of a file, or the one that is built in."""
    from tokamask import Tokenizer

    return Tokenizer.default() if path is None else Tokenizer.from_file(path)


def read_text(path: str | None, what: str) -> str:
    """The text of a file, or of standard input for ``-`` and None."""
    if path is None or path == "-":
        data, name = sys.stdin.buffer.read(), "standard input"
    else:
        with open(path, "rb") as file:
            data, name = file.read(), path
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: {what} is not UTF-8 at byte {error.start}") from None


def _add_encode(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = command(commands, "encode", _encode, "turn text into token ids", "tokamask encode 'Hello world'")
    parser.add_argument("text", nargs="?", help="the text (default: standard input)")
    parser.add_argument("--file", "-f", metavar="FILE", help="read the text from a file")
    parser.add_argument(
        "--special", action="store_true", help="special-token text in the input becomes special tokens"
    )
    add_tokenizer_argument(parser)


def _encode(args: argparse.Namespace) -> int:
    if args.text is not None and args.file is not None:
        raise UsageError("give the text or --file, not both")
    text = args.text if args.text is not None else read_text(args.file, "the text")
    tokenizer = open_tokenizer(args.tokenizer)
    allowed = frozenset(tokenizer.vocabulary.special) if args.special else frozenset[str]()
    ids = tokenizer.encode(text, allowed_special=allowed)
    if args.json:
        print(json.dumps({"ids": ids, "count": len(ids), "bytes": len(text.encode())}))
    else:
        print(*ids)
    return 0


def _add_decode(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = command(
        commands, "decode", _decode, "turn token ids into text", "tokamask encode 'Hello' | tokamask decode"
    )
    parser.add_argument(
        "ids", nargs="*", help="the ids (default: standard input, separated by spaces or commas)"
    )
    add_tokenizer_argument(parser)


def _decode(args: argparse.Namespace) -> int:
    words = args.ids or [read_text(None, "the list of ids")]
    ids = []
    for position, word in enumerate(" ".join(words).replace(",", " ").strip("[] \n").split()):
        if not (word.isascii() and word.isdigit()):
            raise UsageError(f"not a token id: {word[:40]!r} (number {position + 1} of the input)")
        if len(word) > 10:
            raise UsageError(
                f"token id {word[:40]} is not in the vocabulary (number {position + 1} of the input)"
            )
        ids.append(int(word))
    data = open_tokenizer(args.tokenizer).decode_bytes(ids)
    if args.json:
        print(json.dumps({"text": data.decode(errors="replace"), "count": len(ids), "bytes": len(data)}))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        if sys.stdout.isatty() and not data.endswith(b"\n"):
            print()
    return 0


def _add_count(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = command(
        commands, "count", _count, "count the tokens of files", "tokamask count README.md src/*.py"
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="text files (default: standard input)")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress bar")
    add_tokenizer_argument(parser)


def _count(args: argparse.Namespace) -> int:
    tokenizer = open_tokenizer(args.tokenizer)
    files = args.files or ["-"]
    rows = []
    with _progress(files, quiet=args.quiet or args.json, unit="file") as names:
        for name in names:
            text = read_text(name, "the file")
            rows.append({"file": name, "tokens": tokenizer.count(text), "bytes": len(text.encode())})
    tokens, size = sum(int(row["tokens"]) for row in rows), sum(int(row["bytes"]) for row in rows)
    if args.json:
        print(json.dumps({"files": rows, "tokens": tokens, "bytes": size}))
        return 0
    for row in rows:
        print(f"{row['tokens']:>10} {row['file']}")
    if len(rows) > 1:
        print(f"{tokens:>10} total, {size / max(tokens, 1):.2f} bytes per token")
    return 0


@contextlib.contextmanager
def _progress(items: Sequence[Any], *, quiet: bool, unit: str):  # type: ignore[no-untyped-def]
    """The items, behind a bar that appears once the work has taken two seconds and vanishes with it."""
    if quiet or not sys.stderr.isatty():
        yield items
        return
    try:
        from tqdm import tqdm
    except ImportError:  # the bar is a courtesy of the extra `demo`
        yield items
        return
    with tqdm(items, unit=unit, delay=2, leave=False) as bar:
        yield bar


def _add_generate(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = command(
        commands,
        "generate",
        _generate,
        "write text with a small language model, held to a schema or a regex",
        "tokamask generate --schema examples/person.schema.json --prompt 'Invent a person.'",
    )
    parser.add_argument("--prompt", "-p", required=True, help="what to write (- for standard input)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--schema", "-s", metavar="FILE", help="a JSON Schema that the text must match")
    what.add_argument(
        "--regex", "-r", metavar="PATTERN", help="a regular expression that the text must match"
    )
    parser.add_argument("--model", "-m", metavar="FILE", help="a Llama-family GGUF (default: the demo model)")
    parser.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="at most this many tokens (256)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the likeliest token (the default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampler, when the temperature is above 0")
    parser.add_argument("--no-drafts", dest="drafts", action="store_false", help="one token a step")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress bar and no summary")


def _generate(args: argparse.Namespace) -> int:
    if args.max_tokens < 1:
        raise UsageError(f"--max-tokens: expected 1 or more, got {args.max_tokens}")
    if not 0 <= args.temperature < float("inf"):
        raise UsageError(f"--temperature: expected 0 or more, got {args.temperature}")
    schema = None if args.schema is None else _read_json(args.schema)
    prompt = read_text(None, "the prompt") if args.prompt == "-" else args.prompt

    from tokamask.demo.generate import generate
    from tokamask.errors import GrammarError

    quiet = args.quiet or args.json
    live = not quiet and sys.stdout.isatty()  # people see the text grow; programs get it whole
    try:
        result = generate(
            prompt,
            schema=schema,
            regex=args.regex,
            max_tokens=args.max_tokens,
            temperature=args.temperature,
            seed=args.seed,
            drafts=args.drafts,
            model=args.model,
            progress=not quiet and sys.stderr.isatty(),
            on_text=(lambda piece: print(piece, end="", flush=True)) if live else None,
        )
    except GrammarError as error:
        raise UsageError(f"{args.schema or '--regex'}: {error}") from None
    if args.json:
        print(
            json.dumps(
                {"text": result.text, "finish": result.finish, "ids": result.ids, "stats": result.stats}
            )
        )
    else:
        print("" if live else result.text)
        if not args.quiet:
            print(_summary(result), file=sys.stderr)
    return 0 if result.complete or (schema is None and args.regex is None) else 1


def _read_json(path: str) -> Any:
    text = read_text(path, "the schema")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}: not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None


def _summary(result: Generation) -> str:
    stats = result.stats
    seconds, masks, drafts = stats["seconds"], stats["masks"], stats["drafts"]
    lines = [
        f"tokens   {stats['tokens']} in {seconds['decode']:.2f} s, {stats['tokens_per_second']:.1f} a second ({result.finish})",
        f"drafts   {drafts['accepted']} of {drafts['proposed']} guesses accepted, {drafts['tokens_per_forward']:.2f} tokens a forward pass",
        f"start    model {seconds['load']:.2f} s, prompt {seconds['prefill']:.2f} s, grammar {1e3 * seconds['compile']:.1f} ms",
    ]
    if masks["count"]:
        lines.insert(1, f"masks    {masks['count']}, {masks['mean_us']:.0f} us each")
    return "\n".join(f"  {line}" for line in lines)


def _add_train(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = command(
        commands,
        "train",
        _train,
        "train a tokenizer on text files",
        "tokamask train corpus/*.txt --size 32000 --superwords-from 24000 --output tokenizer.json --report report.html",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="text files in UTF-8, read line by line")
    parser.add_argument(
        "--output",
        "-o",
        metavar="FILE",
        required=True,
        help="tokenizer.json, or any other name for the compact form",
    )
    parser.add_argument(
        "--size", type=int, default=32_000, metavar="N", help="tokens of the vocabulary (default: 32000)"
    )
    parser.add_argument(
        "--superwords-from",
        type=int,
        metavar="N",
        help="size at which tokens may span words (default: never)",
    )
    parser.add_argument(
        "--max-words", type=int, default=4, metavar="N", help="words that a token may span (default: 4)"
    )
    parser.add_argument(
        "--pre-tokenizer",
        metavar="RULE",
        help="gpt2, cl100k, o200k or superbpe (default: gpt2, superbpe for superwords)",
    )
    parser.add_argument(
        "--special", action="append", default=[], metavar="TEXT", help="a special token; may be repeated"
    )
    parser.add_argument(
        "--min-frequency", type=int, default=0, metavar="N", help="pairs below this count are not merged"
    )
    parser.add_argument(
        "--skip-broken", action="store_true", help="leave out files that cannot be read or are not UTF-8"
    )
    parser.add_argument("--report", metavar="HTML", help="write a page with measures and plots")
    parser.add_argument(
        "--held-out",
        action="append",
        default=[],
        metavar="FILE",
        help="text for the report, one part per file (default: the training files)",
    )
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="FILE",
        help="another tokenizer for the report; may be repeated",
    )
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress bar")


def _train(args: argparse.Namespace) -> int:
    from pathlib import Path

    from tokamask import Tokenizer, train
    from tokamask.train.rules import RULES

    superwords = args.superwords_from is not None
    rule = args.pre_tokenizer or ("superbpe" if superwords else "gpt2")
    if rule not in RULES:
        raise UsageError(f"no split rule {rule!r}: one of {', '.join(RULES)}")
    for path in (args.output, args.report):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"no such folder: {Path(path).parent}")
    others = {Path(path).name: Tokenizer.from_file(path) for path in args.compare}
    parts = {Path(path).name: _sample(path) for path in args.held_out}
    checkpoint = Path(f"{args.output}.counts")
    resumed = checkpoint.exists()
    try:
        counts = train.count(
            [Path(path) for path in args.files],
            pre_tokenizer=rule,
            runs=superwords,
            skip_broken=args.skip_broken,
            checkpoint=checkpoint,
            progress=not (args.quiet or args.json),
        )
        options = {
            "special_tokens": args.special,
            "min_frequency": args.min_frequency,
            "progress": not (args.quiet or args.json),
        }
        if superwords:
            sizes = {"vocab_size": args.size, "transition": args.superwords_from, "max_words": args.max_words}
            tokenizer = train.superbpe(counts, **sizes, **options)
        else:
            tokenizer = train.bpe(counts, vocab_size=args.size, **options)
    except KeyboardInterrupt:
        return _complain(f"interrupted; the same command goes on from {checkpoint}", code=130)
    tokenizer.save(args.output)
    if args.report:
        skipped = {path for path, _ in counts.skipped}
        parts = parts or {Path(path).name: _sample(path) for path in args.files if path not in skipped}
        page = train.report({Path(args.output).name: tokenizer, **others}, parts)
        Path(args.report).write_text(page, encoding="utf-8")
    checkpoint.unlink(missing_ok=True)
    done = {
        "output": args.output,
        "vocab_size": len(tokenizer),
        "bytes": counts.text_bytes,
        "pretokens": len(counts),
        "skipped": [{"file": path, "reason": reason} for path, reason in counts.skipped],
        "resumed": resumed,
        "report": args.report,
    }
    if args.json:
        print(json.dumps(done))
        return 0
    for path, reason in counts.skipped:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    short = (
        ""
        if len(tokenizer) >= args.size
        else f" (no pair is left for the other {args.size - len(tokenizer)})"
    )
    print(
        f"{args.output}: {len(tokenizer)} tokens{short} from {counts.text_bytes:,} bytes, {len(counts):,} distinct pretokens"
    )
    return 0


def _sample(path: str, size: int = 1 << 20) -> list[str]:
    """The first megabyte of a file, by lines, for the report."""
    with open(path, "rb") as file:
        data = file.read(size)
    cut = data.rfind(b"\n") + 1 if len(data) == size else len(data)
    try:
        return data[: cut or len(data)].decode().splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the text is not UTF-8 at byte {error.start}") from None


def _add_draft(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = command(
        commands,
        "draft",
        _draft,
        "replay recorded outputs through the drafting methods",
        "tokamask draft --replay traces.jsonl --all",
    )
    parser.add_argument(
        "--replay", required=True, metavar="FILE", help="traces: a JSON object per line, in recorded order"
    )
    parser.add_argument(
        "--budget", type=int, action="append", metavar="N", help="nodes per draft (default: 32 and 64)"
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first traces")
    parser.add_argument("--limit", type=int, metavar="N", help="replay so many traces")
    parser.add_argument("--all", action="store_true", help="the published methods too, which takes minutes")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress bar")


def _draft(args: argparse.Namespace) -> int:
    import itertools

    from tokamask import Drafter
    from tokamask.methods import METHODS, Method
    from tokamask.replay import Result, read_traces, replay, table

    budgets = args.budget or [32, 64]
    if min(budgets) < 1 or args.skip < 0 or (args.limit is not None and args.limit < 1):
        raise UsageError("--budget and --limit want numbers from 1, --skip from 0")
    end = None if args.limit is None else args.skip + args.limit
    traces = list(itertools.islice(read_traces(args.replay), args.skip, end))
    if not traces:
        raise UsageError(f"{args.replay}: no traces")
    logits = all(trace.topk_ids for trace in traces)
    rows: dict[str, tuple[Callable[[], Drafter | Method], bool]] = {"tokamask": (Drafter, False)}
    if logits:
        rows["tokamask, recycled logits"] = (Drafter, True)
    for name, make in METHODS.items() if args.all else ():
        needs_logits = "recycling" in name or "next-next" in name
        if logits or not needs_logits:
            rows[name] = (make, needs_logits)
    results: dict[str, dict[int, Result]] = {name: {} for name in rows}
    runs = [(name, budget) for name in rows for budget in budgets]
    with _progress(runs, quiet=args.quiet or args.json, unit="replay") as todo:
        for name, budget in todo:
            make, recycle = rows[name]
            results[name][budget] = replay(make(), traces, budget=budget, recycle=recycle)
    if args.json:
        print(json.dumps({name: {b: r.as_dict() for b, r in row.items()} for name, row in results.items()}))
    else:
        print(table(results))
    return 0


def _add_mask(commands: argparse._SubParsersAction[_Parser]) -> None:
    from tokamask.show.cli import add_mask_arguments, show_mask

    parser = command(
        commands,
        "mask",
        show_mask,
        "list the tokens that a grammar allows after a text, or say why it refuses one",
        "tokamask mask --schema person.json --after '{' --json",
    )
    add_mask_arguments(parser)


def _add_show(commands: argparse._SubParsersAction[_Parser]) -> None:
    from tokamask.show.cli import PICTURES

    parser = commands.add_parser(
        "show",
        help="draw tokens, masks and drafts",
        description="Draw tokens, masks and drafts, in the terminal or as a page.",
    )
    pictures = parser.add_subparsers(dest="picture", required=True, metavar="PICTURE", parser_class=_Parser)
    for add in PICTURES:
        add(pictures)


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    command(commands, "doctor", _doctor, "say what this installation has and lacks", "tokamask doctor --json")


def _doctor(args: argparse.Namespace) -> int:
    from tokamask.doctor import examine

    report = examine()
    if args.json:
        print(json.dumps([finding.__dict__ for finding in report]))
    else:
        for finding in report:
            print(f"{finding.state:>8}  {finding.name:<14} {finding.text}")
    return int(any(finding.state == "broken" for finding in report))


if __name__ == "__main__":
    sys.exit(main())
