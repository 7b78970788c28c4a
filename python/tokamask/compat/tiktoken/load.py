"""Rank files: fetched once, checked, kept in a cache folder that tiktoken shares."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tempfile
import urllib.request
import uuid
from pathlib import Path

from tokamask._core import read_ranks


def read_file(blobpath: str) -> bytes:
    """The bytes of a path or of an ``http(s)`` address."""
    if "://" not in blobpath:
        return Path(blobpath).read_bytes()
    if not blobpath.startswith(("http://", "https://")):
        raise ValueError(
            f"{blobpath}: only paths and http(s) addresses are read; fetch the file and give its path"
        )
    with urllib.request.urlopen(blobpath) as answer:
        data: bytes = answer.read()
    return data


def check_hash(data: bytes, expected_hash: str) -> bool:
    """True if the SHA-256 of ``data`` is ``expected_hash`` (hexadecimal)."""
    return hashlib.sha256(data).hexdigest() == expected_hash


def read_file_cached(blobpath: str, expected_hash: str | None = None) -> bytes:
    """The bytes of a path or address, from the cache folder if they are there.

    The folder is ``TIKTOKEN_CACHE_DIR`` or ``DATA_GYM_CACHE_DIR`` (empty: no cache), else one for temporary files.
    A cached file with another checksum is fetched again; ValueError if that does not help.
    """
    chosen = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if chosen == "":
        return _checked(read_file(blobpath), blobpath, expected_hash)
    folder = Path(chosen) if chosen else Path(tempfile.gettempdir()) / "data-gym-cache"
    path = folder / hashlib.sha1(blobpath.encode()).hexdigest()  # the name both libraries give it
    if path.exists():
        data = path.read_bytes()
        if expected_hash is None or check_hash(data, expected_hash):
            return data
        with contextlib.suppress(OSError):
            path.unlink()
    data = _checked(read_file(blobpath), blobpath, expected_hash)
    # A folder that nobody chose may well be read-only: then there is no cache.
    with contextlib.nullcontext() if chosen else contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.name}.{uuid.uuid4()}.tmp")
        scratch.write_bytes(data)
        scratch.rename(path)
    return data


def _checked(data: bytes, blobpath: str, expected_hash: str | None) -> bytes:
    if expected_hash is not None and not check_hash(data, expected_hash):
        got = hashlib.sha256(data).hexdigest()
        raise ValueError(
            f"{blobpath}: SHA-256 is {got}, expected {expected_hash}; the download may be cut short"
        )
    return data


def load_tiktoken_bpe(tiktoken_bpe_file: str, expected_hash: str | None = None) -> dict[bytes, int]:
    """The ranks in a ``.tiktoken`` file: lines of a token in base64 and its rank. VocabularyError names a bad line."""
    return read_ranks(read_file_cached(tiktoken_bpe_file, expected_hash))


def dump_tiktoken_bpe(bpe_ranks: dict[bytes, int], tiktoken_bpe_file: str) -> None:
    """Writes ranks to a ``.tiktoken`` file."""
    lines = [
        b"%s %d\n" % (base64.b64encode(token), rank)
        for token, rank in sorted(bpe_ranks.items(), key=lambda item: item[1])
    ]
    Path(tiktoken_bpe_file).write_bytes(b"".join(lines))


def data_gym_to_mergeable_bpe_ranks(
    vocab_bpe_file: str,
    encoder_json_file: str,
    vocab_bpe_hash: str | None = None,
    encoder_json_hash: str | None = None,
    clobber_one_byte_tokens: bool = False,
) -> dict[bytes, int]:
    """The ranks in GPT-2's two files: ``vocab.bpe`` (merges) and ``encoder.json`` (ids), which must agree.

    With ``clobber_one_byte_tokens`` the single bytes have the ids of ``encoder.json``, not their usual ones.
    """
    order = [byte for byte in range(256) if chr(byte).isprintable() and byte != 0x20]
    byte_of = {chr(byte): byte for byte in order}
    hidden = [byte for byte in range(256) if byte not in order]
    byte_of |= {chr(256 + nth): byte for nth, byte in enumerate(hidden)}

    def spelled(text: str) -> bytes:
        return bytes(byte_of[char] for char in text)

    ranks = {bytes([byte]): rank for rank, byte in enumerate(order + hidden)}
    merges = read_file_cached(vocab_bpe_file, vocab_bpe_hash).decode().split("\n")[1:-1]
    for rank, merge in enumerate(merges, start=len(ranks)):
        left, right = merge.split()
        ranks[spelled(left) + spelled(right)] = rank
    listed = json.loads(read_file_cached(encoder_json_file, encoder_json_hash))
    ids = {spelled(text): rank for text, rank in listed.items()}
    for special in (b"<|endoftext|>", b"<|startoftext|>"):  # not mergeable
        ids.pop(special, None)
    if clobber_one_byte_tokens:
        ranks |= {token: rank for token, rank in ids.items() if len(token) == 1}
    if ranks != ids:
        raise ValueError(f"{encoder_json_file} does not hold the ids that {vocab_bpe_file} asks for")
    return ranks
