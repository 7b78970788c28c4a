"""Vocabularies of other projects' tokenizer objects, recognised by what they offer."""

from __future__ import annotations

import json
from typing import Any

from tokamask._core import Tokenizer, Vocabulary
from tokamask.errors import UnsupportedComponentError


def read(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer object.

    Parameters
    ----------
    tokenizer : object
        A ``tokamask.Tokenizer``, ``tokenizers.Tokenizer``, fast transformers tokenizer,
        ``tiktoken.Encoding`` or ``llama_cpp.Llama``.

    Raises
    ------
    UnsupportedComponentError
        An object of another kind, or one whose tokens cannot be told as bytes.

    """
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.vocabulary
    if hasattr(tokenizer, "backend_tokenizer"):
        return _from_transformers(tokenizer)
    if hasattr(tokenizer, "to_str") and hasattr(tokenizer, "get_vocab_size"):
        return _from_tokenizers(tokenizer)
    if hasattr(tokenizer, "_mergeable_ranks") and hasattr(tokenizer, "_special_tokens"):
        return _from_tiktoken(tokenizer)
    if hasattr(tokenizer, "detokenize") and hasattr(tokenizer, "token_eos"):
        return _from_llama_cpp(tokenizer)
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    raise UnsupportedComponentError(
        f"cannot read a vocabulary from {kind}: expected a tokenizer of tokamask, tokenizers, transformers "
        "(fast), tiktoken or llama_cpp",
        component=kind,
    )


def _from_tokenizers(tokenizer: Any) -> Vocabulary:
    definition = json.loads(tokenizer.to_str())
    spell = _token_bytes(definition)
    size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    tokens: list[bytes | None] = [None] * size
    for token, token_id in tokenizer.get_vocab(with_added_tokens=False).items():
        tokens[token_id] = spell(token)
    special = {}
    for added in definition["added_tokens"]:
        tokens[added["id"]] = added["content"].encode()
        if added["special"]:
            special[added["content"]] = added["id"]
    return Vocabulary(tokens, special=special)


def _token_bytes(definition: dict[str, Any]) -> Any:
    """How the decoder of a tokenizer.json spells a token: byte alphabet, or text with markers."""
    decoder = definition.get("decoder") or {}
    steps = decoder.get("decoders", [decoder])
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        alphabet = byte_of_char()

        def byte_level(token: str) -> bytes:
            try:
                return bytes(alphabet[c] for c in token)
            except KeyError:
                return token.encode()

        return byte_level
    space = next((s["replacement"] for s in steps if s.get("type") == "Metaspace"), None)
    replaced = [
        (s["pattern"]["String"], s["content"])
        for s in steps
        if s.get("type") == "Replace" and "String" in s["pattern"]
    ]
    fallback = "ByteFallback" in kinds
    if space is None and not replaced and not fallback:
        kind = str(decoder.get("type"))
        raise UnsupportedComponentError(
            f"cannot tell the bytes of tokens under decoder {kind}", component=kind, path="/decoder"
        )

    def with_markers(token: str) -> bytes:
        if fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        if space is not None:
            token = token.replace(space, " ")
        for old, new in replaced:
            token = token.replace(old, new)
        return token.encode()

    return with_markers


def byte_of_char() -> dict[str, int]:
    """The printable alphabet of byte-level files: character to byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def _from_transformers(tokenizer: Any) -> Vocabulary:
    vocabulary = _from_tokenizers(tokenizer.backend_tokenizer)
    eos = tokenizer.eos_token_id
    return vocabulary if eos is None else vocabulary.with_(eos_ids=[eos])


def _from_tiktoken(encoding: Any) -> Vocabulary:
    tokens: list[bytes | None] = [None] * (encoding.max_token_value + 1)
    for token, rank in encoding._mergeable_ranks.items():
        tokens[rank] = token
    for name, token_id in encoding._special_tokens.items():
        tokens[token_id] = name.encode()
    end = encoding._special_tokens.get("<|endoftext|>")
    return Vocabulary(tokens, special=encoding._special_tokens, eos_ids=[] if end is None else [end])


def _from_llama_cpp(model: Any) -> Vocabulary:
    import llama_cpp

    vocab = llama_cpp.llama_model_get_vocab(model.model)
    tokens: list[bytes | None] = []
    special: dict[str, int] = {}
    for token_id in range(model.n_vocab()):
        data = _piece(llama_cpp, vocab, token_id)
        tokens.append(data)
        if llama_cpp.llama_vocab_is_control(vocab, token_id):
            special[data.decode(errors="replace") or f"<control {token_id}>"] = token_id
    ends = [i for i in range(model.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, i)]
    return Vocabulary(tokens, special=special, eos_ids=ends)


def _piece(llama_cpp: Any, vocab: Any, token_id: int) -> bytes:
    """The bytes of a token, as they stand in the middle of a text."""
    import ctypes

    for size in (64, 4096):
        buffer = ctypes.create_string_buffer(size)
        length = llama_cpp.llama_token_to_piece(vocab, token_id, buffer, size, 0, True)
        if length >= 0:
            return buffer.raw[:length]
    return b""
