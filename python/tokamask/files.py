"""Files of text to token ids, a bounded stretch at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO, Literal

import numpy as np

from tokamask import _core
from tokamask.errors import VocabularyError
from tokamask.ragged import Ragged

STRETCH = 64 << 20
"""Bytes of a file with a separator that are encoded together."""


def encode_files(
    tokenizer: _core.Tokenizer,
    paths: Iterable[str | os.PathLike[str]],
    separator: str | None = None,
    add_special_tokens: bool = False,
    allowed_special: Collection[str] | Literal["all"] | None = None,
    threads: int | None = None,
) -> Iterator[Ragged]:
    """What :meth:`tokamask.Tokenizer.encode_files` gives.

    Raises
    ------
    ValueError
        The separator is empty.
    VocabularyError
        A file is not UTF-8.

    Examples
    --------
    >>> [rows.to_lists() for rows in encode_files(tok, ["a.txt"])]  # doctest: +SKIP
    [[[537, 827]]]
    """
    if separator == "":
        raise ValueError("separator: expected at least one character, got ''")
    if isinstance(paths, (str, os.PathLike)):
        raise TypeError(f"paths: expected several paths, got one, {paths!r}")
    return _encoded(tokenizer, paths, separator, add_special_tokens, allowed_special, threads)


def _encoded(
    tokenizer: _core.Tokenizer,
    paths: Iterable[str | os.PathLike[str]],
    separator: str | None,
    add_special_tokens: bool,
    allowed_special: Collection[str] | Literal["all"] | None,
    threads: int | None,
) -> Iterator[Ragged]:
    mark = separator.encode() if separator else b""
    for path in paths:
        at = 0
        with open(path, "rb") as file:
            for documents in _stretches(file, mark) if mark else [[file.read()]]:
                data = np.frombuffer(b"".join(documents), np.uint8)
                bounds = np.cumsum([0, *map(len, documents)], dtype=np.int64)
                try:
                    found = _core.encode_utf8(
                        tokenizer, data, bounds, add_special_tokens, allowed_special, threads
                    )
                except ValueError as refused:
                    raise _at_fault(documents, len(mark), at, path) or refused from None
                yield Ragged(*found)
                at += len(data) + len(mark) * len(documents)


def _stretches(file: BinaryIO, mark: bytes) -> Iterator[list[bytes]]:
    """The documents of a file, of about :data:`STRETCH` bytes together; the last list ends with the file."""
    parts: list[bytes] = []
    documents: list[bytes] = []
    while part := file.read(STRETCH):
        if documents:
            yield documents
            documents = []
        # A separator may begin in what was read before.
        seam = b"".join(parts[-len(mark) :])[-len(mark) + 1 :] if len(mark) > 1 else b""
        parts.append(part)
        if mark in seam + part:
            *documents, rest = b"".join(parts).split(mark)
            parts = [rest]
    rest = b"".join(parts)
    yield [*documents, rest] if rest else documents


def _at_fault(
    documents: list[bytes], mark: int, at: int, path: str | os.PathLike[str]
) -> VocabularyError | None:
    """What to raise for documents, separated by ``mark`` bytes, from byte ``at`` of a file on; None: they are UTF-8."""
    for document in documents:
        try:
            document.decode()
        except UnicodeDecodeError as error:
            return VocabularyError(f"not UTF-8 at byte {at + error.start}", path=os.fspath(path))
        at += len(document) + mark
    return None
