"""The public encodings: where their ranks are published, their checksums, split rules and special tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokamask.compat.tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe

_PLACE = "https://openaipublic.blob.core.windows.net"
_RANKS = {  # file: its SHA-256
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_VOCAB_BPE = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
_ENCODER_JSON = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"

# The contractions, and the words of the newest rule: any case, then optionally a contraction.
_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_RULES = {
    "r50k": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

_END, _END_OF_PROMPT = "<|endoftext|>", "<|endofprompt|>"
_MIDDLE = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
_HARMONY = {
    199998: "startoftext",
    199999: "endoftext",
    200002: "return",
    200003: "constrain",
    200005: "channel",
    200006: "start",
    200007: "end",
    200008: "message",
    200012: "call",
}


def _published(
    name: str, ranks: str, rule: str, special: dict[str, int], size: int | None = None
) -> Callable[[], dict[str, Any]]:
    def construct() -> dict[str, Any]:
        url = f"{_PLACE}/encodings/{ranks}.tiktoken"
        parts: dict[str, Any] = {
            "name": name,
            "pat_str": _RULES[rule],
            "mergeable_ranks": load_tiktoken_bpe(url, expected_hash=_RANKS[ranks]),
            "special_tokens": dict(special),
        }
        return parts if size is None else {**parts, "explicit_n_vocab": size}

    return construct


def _gpt2() -> dict[str, Any]:
    main = f"{_PLACE}/gpt-2/encodings/main"
    ranks = data_gym_to_mergeable_bpe_ranks(
        f"{main}/vocab.bpe",
        f"{main}/encoder.json",
        vocab_bpe_hash=_VOCAB_BPE,
        encoder_json_hash=_ENCODER_JSON,
    )
    special = {_END: 50256}
    return {
        "name": "gpt2",
        "explicit_n_vocab": 50257,
        "pat_str": _RULES["r50k"],
        "mergeable_ranks": ranks,
        "special_tokens": special,
    }


def _harmony() -> dict[str, int]:
    reserved = {
        f"<|reserved_{i}|>": i for i in (200000, 200001, 200004, *range(200009, 201088)) if i not in _HARMONY
    }
    named = {f"<|{text}|>": i for i, text in _HARMONY.items()}
    return {_END: 199999, _END_OF_PROMPT: 200018, **named, **reserved}


_fim = dict(zip(_MIDDLE, range(50281, 50284), strict=True))
_fim_new = dict(zip(_MIDDLE, range(100258, 100261), strict=True))
ENCODING_CONSTRUCTORS: dict[str, Callable[[], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "r50k_base": _published("r50k_base", "r50k_base", "r50k", {_END: 50256}, 50257),
    "p50k_base": _published("p50k_base", "p50k_base", "r50k", {_END: 50256}, 50281),
    "p50k_edit": _published("p50k_edit", "p50k_base", "r50k", {_END: 50256, **_fim}),
    "cl100k_base": _published(
        "cl100k_base", "cl100k_base", "cl100k", {_END: 100257, **_fim_new, _END_OF_PROMPT: 100276}
    ),
    "o200k_base": _published("o200k_base", "o200k_base", "o200k", {_END: 199999, _END_OF_PROMPT: 200018}),
    "o200k_harmony": _published("o200k_harmony", "o200k_base", "o200k", _harmony()),
}
