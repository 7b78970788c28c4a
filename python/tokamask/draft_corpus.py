"""A fixed text as a source of drafts: counted once, kept in a file, mapped into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokamask import _core
from tokamask.errors import CorpusError

MAGIC = b"tokamask drafts\n"
VERSION = 1
HEADER = 64
"""Bytes before the table: magic, version and length (uint64 each), checksum (16 bytes), zeros."""
BYTES_PER_TOKEN = 64


class DraftCorpus:
    """What follows the last 1, 2, 3 and 5 tokens anywhere in a fixed text, for :class:`Drafter`.

    Documentation, code or earlier answers that the outputs are likely to quote. The counts lie in one table that is
    never written again: it can be mapped from a file and shared by drafters and processes.

    Parameters
    ----------
    entries : uint64 [8 * buckets]
        The table, as :meth:`build` makes it; read-only.

    Examples
    --------
    >>> corpus = tm.draft.DraftCorpus.build([[1, 2, 3, 4, 5], [3, 4, 6]])
    >>> tree = tm.Drafter(corpus=corpus).session([9, 3, 4]).propose(budget=2)
    >>> sorted(tree.token_ids.tolist())
    [5, 6]

    """

    __slots__ = ("entries",)

    entries: npt.NDArray[np.uint64]

    def __init__(self, entries: npt.NDArray[np.uint64]) -> None:
        self.entries = entries.view()
        self.entries.flags.writeable = False

    @classmethod
    def build(cls, texts: Iterable[npt.ArrayLike], *, most_bytes: int | None = None) -> DraftCorpus:
        """Counts texts, each a sequence of token ids; nothing is counted across two of them.

        ``most_bytes`` bounds the table, by default to 64 a token; where it is too small the oldest and rarest give way.

        Raises
        ------
        ShapeError
            A text that is not a sequence of token ids.

        """
        arrays = [_token_ids(text) for text in texts]
        if most_bytes is None:
            most_bytes = BYTES_PER_TOKEN * max(sum(map(len, arrays)), 1 << 10)
        return cls(_core.count_continuations(arrays, most_bytes))

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self.entries.nbytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table to a file that :meth:`load` maps into memory; atomic."""
        target = Path(path)
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        head = MAGIC + VERSION.to_bytes(8, "little") + len(self.entries).to_bytes(8, "little")
        try:
            with scratch.open("wb") as out:
                out.write((head + _checksum(self.entries)).ljust(HEADER, b"\0"))
                out.write(self.entries.astype("<u8", copy=False).data)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DraftCorpus:
        """Maps a saved table into memory. Version, length and checksum are verified first.

        Raises
        ------
        CorpusError
            The file is not of this format, of another version, cut off, or altered.

        """

        def broken(why: str) -> CorpusError:
            return CorpusError(f"{path}: {why}", path=str(path), position=0)

        file = Path(path)
        with file.open("rb") as opened:
            head = opened.read(HEADER)
        if not head.startswith(MAGIC) or len(head) < HEADER:
            raise broken("not a corpus of drafts")
        version, length = (int.from_bytes(head[at : at + 8], "little") for at in (16, 24))
        if version != VERSION:
            raise broken(f"version {version}, this is version {VERSION}")
        if length == 0 or file.stat().st_size != HEADER + 8 * length:
            raise broken("the file is cut off, or longer than it says")
        entries = np.asarray(np.memmap(file, "<u8", "r", HEADER, (length,)))
        if _checksum(entries) != head[32:48]:
            raise broken("the checksum does not match: the file was altered")
        return cls(entries)

    def __repr__(self) -> str:
        return f"<DraftCorpus of {self.nbytes} bytes>"


def _token_ids(text: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(text)
    return array.astype(np.int64) if array.size == 0 or array.dtype.kind in "iu" else array


def _checksum(entries: npt.NDArray[np.uint64]) -> bytes:
    return hashlib.blake2b(entries.data, digest_size=16).digest()
