"""Counted pretokens: what training reads, and the file they are kept in."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tokamask import _core
from tokamask.errors import CorpusError

Arrays: TypeAlias = tuple[npt.NDArray[Any], ...]

MAGIC = b"tokamask counts\n"
VERSION = 1
NAMES = ("offsets", "bytes", "counts", "run_offsets", "run_words", "run_counts")
DTYPES = ("<u8", "|u1", "<u8", "<u8", "<u4", "<u8")
ALIGNMENT = 64


class PretokenCounts:
    """Distinct pretokens of a corpus with their counts, and optionally the runs they stood in.

    Immutable. Pretokens ascend by their bytes, so equal corpora have equal counts however they were
    sharded, and ``a + b`` (the counts of both corpora) is a linear walk. Made by :func:`count`.

    Attributes
    ----------
    offsets : uint64 [n + 1]
        Pretoken ``i`` is ``bytes[offsets[i]:offsets[i + 1]]``.
    bytes : uint8 [total]
        All pretokens, one after another.
    counts : uint64 [n]
        Times each pretoken occurred.
    run_offsets : uint64 [runs + 1]
        Run ``r`` is ``run_words[run_offsets[r]:run_offsets[r + 1]]``; ``[0]`` without runs.
    run_words : uint32 [total words of runs]
        Pretokens of the runs by their number.
    run_counts : uint64 [runs]
        Times each run occurred.
    rules : dict
        ``pre_tokenizer`` and ``run_pre_tokenizer`` (components of a tokenizer.json; the second is None
        without runs), ``normalizer`` and ``by_line``: how the text was cut. Only counts with equal rules add up.
    texts : int
        Texts (or lines of files) that were counted.
    text_bytes : int
        Their bytes.
    skipped : list[tuple[str, str]]
        Broken files that were skipped on request, and why.

    Examples
    --------
    >>> counts = tm.train.count(["to be"]) + tm.train.count(["or not to be"])
    >>> dict(counts.items())
    {b' be': 2, b' not': 1, b' to': 1, b'or': 1, b'to': 1}

    """

    __slots__ = (*NAMES, "rules", "skipped", "text_bytes", "texts")

    offsets: npt.NDArray[np.uint64]
    bytes: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.uint64]
    run_offsets: npt.NDArray[np.uint64]
    run_words: npt.NDArray[np.uint32]
    run_counts: npt.NDArray[np.uint64]

    def __init__(
        self,
        arrays: Arrays,
        rules: Mapping[str, Any],
        *,
        texts: int,
        text_bytes: int,
        skipped: list[tuple[str, str]],
    ) -> None:
        for name, array in zip(NAMES, arrays, strict=True):
            array.flags.writeable = False
            setattr(self, name, array)
        self.rules = dict(rules)
        self.texts, self.text_bytes, self.skipped = texts, text_bytes, skipped

    @property
    def arrays(self) -> Arrays:
        """The six arrays, in the order of the attributes."""
        return tuple(getattr(self, name) for name in NAMES)

    @property
    def has_runs(self) -> bool:
        """True if runs were counted."""
        return self.rules["run_pre_tokenizer"] is not None

    @property
    def total(self) -> int:
        """Pretokens of the corpus."""
        return int(self.counts.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays)

    def __len__(self) -> int:
        return len(self.counts)

    def items(self) -> Iterator[tuple[builtins.bytes, int]]:
        """Pretokens and counts, ascending by bytes."""
        data = self.bytes.tobytes()
        bounds = self.offsets.tolist()
        for start, end, count in zip(bounds, bounds[1:], self.counts.tolist(), strict=False):
            yield data[start:end], count

    def __add__(self, other: object) -> PretokenCounts:
        if not isinstance(other, PretokenCounts):
            return NotImplemented
        if self.rules != other.rules:
            raise CorpusError(f"counts made by different rules do not add up: {self.rules} and {other.rules}")
        return PretokenCounts(
            _core.merge_counts(self.arrays, other.arrays),
            self.rules,
            texts=self.texts + other.texts,
            text_bytes=self.text_bytes + other.text_bytes,
            skipped=sorted(self.skipped + other.skipped),
        )

    def __radd__(self, other: object) -> PretokenCounts:
        """``sum(shards)`` starts from 0."""
        return self if other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PretokenCounts)
            and self.rules == other.rules
            and all(np.array_equal(a, b) for a, b in zip(self.arrays, other.arrays, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.arrays, self.rules, self.texts, self.text_bytes, self.skipped)
        return _rebuild, state

    def __repr__(self) -> str:
        runs = f", {len(self.run_counts)} runs" if self.has_runs else ""
        return f"<PretokenCounts of {self.text_bytes} bytes: {len(self)} pretokens{runs}>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the counts to a file that :meth:`load` maps into memory; atomic."""
        write(Path(path), self, {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PretokenCounts:
        """Maps saved counts into memory. Version, lengths and checksum are verified first.

        Raises
        ------
        CorpusError
            The file is not of this format, of another version, cut off, or altered.

        """
        return read(Path(path))[0]


def _rebuild(
    arrays: Arrays, rules: Mapping[str, Any], texts: int, text_bytes: int, skipped: list[tuple[str, str]]
) -> PretokenCounts:
    return PretokenCounts(arrays, rules, texts=texts, text_bytes=text_bytes, skipped=skipped)


def write(path: Path, counts: PretokenCounts, extra: Mapping[str, Any]) -> None:
    """Writes counts and what a checkpoint adds to them.

    The file: 16 bytes of magic, the length of the header (uint64), the header (JSON), then each array
    at a multiple of 64 bytes, little-endian.
    """
    arrays = [
        np.ascontiguousarray(array).astype(dtype, copy=False)
        for array, dtype in zip(counts.arrays, DTYPES, strict=True)
    ]
    header = {
        "version": VERSION,
        "lengths": [len(array) for array in arrays],
        "checksum": _checksum(arrays),
        "rules": counts.rules,
        "texts": counts.texts,
        "text_bytes": counts.text_bytes,
        "skipped": counts.skipped,
        **extra,
    }
    head = json.dumps(header).encode()
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as out:
            out.write(MAGIC + len(head).to_bytes(8, "little") + head)
            for array in arrays:
                out.write(b"\0" * (-out.tell() % ALIGNMENT))
                out.write(array.data)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read(path: Path) -> tuple[PretokenCounts, dict[str, Any]]:
    """Counts and the header of a file."""

    def broken(why: str, position: int) -> CorpusError:
        return CorpusError(f"{path}: {why}", path=str(path), position=position)

    size = path.stat().st_size
    with path.open("rb") as file:
        magic, length = file.read(len(MAGIC)), int.from_bytes(file.read(8), "little")
        if magic != MAGIC:
            raise broken("not a file of counts", 0)
        start = len(MAGIC) + 8
        if start + length > size:
            raise broken("the file is cut off", size)
        try:
            header = json.loads(file.read(length))
            version, lengths = header["version"], [int(n) for n in header["lengths"]]
            fields = {name: header[name] for name in ("rules", "checksum", "texts", "text_bytes", "skipped")}
            fields["skipped"] = [(str(name), str(why)) for name, why in header["skipped"]]
            named = all(name in header["rules"] for name in ("pre_tokenizer", "run_pre_tokenizer", "by_line"))
        except (ValueError, KeyError, TypeError) as error:
            raise broken(f"the header is broken ({error})", start) from None
    if version != VERSION:
        raise broken(f"version {version}, this is version {VERSION}", start)
    if len(lengths) != len(NAMES) or min(lengths) < 0 or not named:
        raise broken("the header is broken", start)
    arrays: list[npt.NDArray[Any]] = []
    position = start + length
    for count, dtype in zip(lengths, DTYPES, strict=True):
        position += -position % ALIGNMENT
        end = position + count * np.dtype(dtype).itemsize
        if end > size:
            raise broken("the file is cut off", size)
        arrays.append(np.memmap(path, dtype, "r", position, (count,)) if count else np.empty(0, dtype))
        position = end
    if _checksum(arrays) != fields.pop("checksum"):
        raise broken("the checksum does not match: the file was altered", start + length)
    try:
        _core.check_counts(tuple(np.asarray(array) for array in arrays))
    except CorpusError as error:
        raise broken(str(error), start + length) from None
    counts = PretokenCounts(tuple(np.asarray(array) for array in arrays), **fields)
    return counts, header


def _checksum(arrays: list[npt.NDArray[Any]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(array.data)
    return digest.hexdigest()
