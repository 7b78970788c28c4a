"""Where text comes from: files in blocks of whole lines, iterables in batches."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from tokamask.errors import CorpusError

Source: TypeAlias = "PathLike[str] | Iterable[str] | Iterable[PathLike[str]]"

#: Bytes read, or characters gathered, before they are counted.
BATCH = 1 << 21


def open_source(source: Any) -> tuple[list[Path] | None, Iterator[str]]:
    """Files, or texts: paths are files, strings are texts, an Arrow column is its strings."""
    if isinstance(source, (str, bytes)):
        raise TypeError("expected a Path, or an iterable of texts or of Paths; a single string is neither")
    if isinstance(source, PathLike):
        return [Path(source)], iter(())
    if hasattr(source, "to_pylist") and hasattr(source, "slice"):
        return None, _arrow(source)
    texts = iter(source)
    first = next(texts, None)
    if isinstance(first, PathLike):
        return [Path(path) for path in (first, *texts)], iter(())
    return None, itertools.chain([] if first is None else [first], texts)


def _arrow(column: Any, rows: int = 4096) -> Iterator[str]:
    for start in range(0, len(column), rows):
        yield from (text for text in column.slice(start, rows).to_pylist() if text is not None)


def texts_in_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of about :data:`BATCH` characters."""
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= BATCH:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def blocks(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines and where in the file each starts; a line is never cut."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            held: list[bytes] = []
            while data := file.read(BATCH):
                cut = data.rfind(b"\n") + 1
                if not cut:
                    held.append(data)
                    continue
                block = b"".join((*held, data[:cut])) if held else data[:cut]
                yield start, block
                start += len(block)
                held = [data[cut:]] if cut < len(data) else []
            if held:
                yield start, b"".join(held)
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}", path=str(path)) from error


def check(path: Path) -> None:
    """Reads a file once to know that all of it can be counted."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start, block in blocks(path):
        try:
            decoder.decode(block)
            decoder.reset()
        except UnicodeDecodeError as error:
            position = start + error.start
            message = f"not UTF-8 (file {path}) (byte {position})"
            raise CorpusError(message, path=str(path), position=position) from None
