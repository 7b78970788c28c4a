"""Named split rules, as the pre-tokenizer components of a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

Component: TypeAlias = Mapping[str, Any]

BYTES: Component = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: str) -> Component:
    """A step that makes every match of a regular expression a pretoken of its own."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(*steps: Component) -> Component:
    """Steps one after another, and bytes at the end."""
    return {"type": "Sequence", "pretokenizers": [*steps, BYTES]}


DIGIT_RUNS: Component = {"type": "Digits", "individual_digits": False}

#: Groups of three digits, counted from the right: the only boundaries that superwords keep by default.
DIGIT_GROUPS = sequence(DIGIT_RUNS, split(r"(?=(\d{3})+(?!\d))"))

RULES: dict[str, Component] = {
    "gpt2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "superbpe": sequence(DIGIT_RUNS, split(r"(?=(\d{3})+(?!\d))| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")),
    "cl100k": sequence(
        split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ),
    "o200k": sequence(
        split(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ),
}


def component(rule: str | Component | object) -> Component:
    """The component that a name, a component or an object of HF ``tokenizers`` stands for."""
    if isinstance(rule, str):
        if rule not in RULES:
            raise ValueError(
                f"pre_tokenizer: expected one of {', '.join(RULES)} or a component, got {rule!r}"
            )
        return RULES[rule]
    if isinstance(rule, Mapping):
        return rule
    state = rule.__getstate__() if hasattr(rule, "__getstate__") else None
    if isinstance(state, bytes):  # what HF's components pickle to
        loaded: Component = json.loads(state)
        return loaded
    raise TypeError(f"pre_tokenizer: expected a name, a component or an HF pre-tokenizer, got {type(rule)}")


def is_byte_level(rule: Component) -> bool:
    """Whether the rule ends in the alphabet of bytes."""
    if rule["type"] == "Sequence":
        steps: list[Component] = rule["pretokenizers"]
        return bool(steps) and is_byte_level(steps[-1])
    return bool(rule["type"] == "ByteLevel")


def components(rules: Mapping[str, Any], which: str = "pre_tokenizer") -> str:
    """What the core is told of rules: counting takes the bytes of pretokens, whatever alphabet the model has."""
    rule = rules[which]
    return json.dumps(
        {
            "pre_tokenizer": rule if is_byte_level(rule) else sequence(rule),
            "normalizer": rules.get("normalizer"),
        }
    )
