"""Where text is cut: components of a tokenizer.json, which save and load with a tokenizer, here and in other libraries.

Names that ``pre_tokenizer=`` takes: ``"gpt2"``, ``"cl100k"``, ``"o200k"``, ``"superbpe"``, and ``"lines"``, which cuts
nowhere: with ``max_token_length=n + 1`` it makes a tokenizer of short character sequences, at most n bytes each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Component: TypeAlias = Mapping[str, Any]

BYTES: Component = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: str) -> Component:
    """A step that makes every match of a regular expression a pretoken of its own."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def is_byte_level(rule: Component) -> bool:
    """Whether the rule ends in the alphabet of bytes."""
    if rule["type"] == "Sequence":
        steps: list[Component] = rule["pretokenizers"]
        return bool(steps) and is_byte_level(steps[-1])
    return bool(rule["type"] == "ByteLevel")


def sequence(*steps: Component) -> Component:
    """Steps one after another, and bytes at the end."""
    return {
        "type": "Sequence",
        "pretokenizers": [*steps, *([] if steps and is_byte_level(steps[-1]) else [BYTES])],
    }


def digit_groups(size: int = 3) -> Component:
    """Cuts runs of digits into groups counted from the right, as they are read aloud, and nothing else.

    Source: Singh and Strouse, "Tokenization counts", 2024.

    >>> counts = tm.train.count(["1234567 apples"], pre_tokenizer=tm.train.digit_groups())
    >>> [word for word, _ in counts.items()]
    [b' apples', b'1', b'234', b'567']
    """
    if size < 1:
        raise ValueError(f"size: expected 1 or more, got {size}")
    return sequence(DIGIT_RUNS, split(rf"(?=(\d{{{size}}})+(?!\d))"))


def characters(*scripts: str, then: str | Component | object = "gpt2") -> Component:
    """Makes every character of some scripts a pretoken of its own, and cuts the rest by another rule.

    For scripts without spaces between words, where longer pretokens would be whole sentences.

    Parameters
    ----------
    scripts : str
        Unicode names; by default Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar.
    then : str, component or HF object
        The rule for what lies between.

    Examples
    --------
    >>> counts = tm.train.count(["go to 東京"], pre_tokenizer=tm.train.characters("Han"))
    >>> [word.decode() for word, _ in counts.items()]
    [' ', ' to', 'go', '京', '東']

    """
    names = scripts or SPACELESS
    if bad := [name for name in names if not name.isidentifier()]:
        raise ValueError(f"scripts: expected names such as Han, got {bad[0]!r}")
    return sequence(split("[" + "".join(rf"\p{{{name}}}" for name in names) + "]"), component(then))


SPACELESS = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
MAGNITUDES = ("⟨k⟩", "⟨M⟩", "⟨G⟩", "⟨T⟩", "⟨P⟩", "⟨E⟩")
FRACTIONS = ("⟨m⟩", "⟨u⟩", "⟨n⟩", "⟨p⟩", "⟨f⟩")


def triads(magnitudes: Sequence[str] = MAGNITUDES, fractions: Sequence[str] = FRACTIONS) -> Component:
    """A normalizer that says after each group of three digits how much the group stands for.

    ``1234567.12345`` becomes ``1⟨M⟩234⟨k⟩567.123⟨m⟩45``: the integer part in threes from the right, the
    fraction in threes from the left. Dropping the markers gives the text back, if it had none.

    Source: triadic suffix tokenization, 2025 (the abstract; it does not say how its markers look).

    Parameters
    ----------
    magnitudes : sequence of str
        What stands after thousands, millions, ...; digits beyond the last one have none.
    fractions : sequence of str
        What stands after the first three digits of a fraction, the second three, ...

    Examples
    --------
    >>> counts = tm.train.count(["1234567"], normalizer=tm.train.triads(), pre_tokenizer="superbpe")
    >>> [word.decode() for word, _ in counts.items()]
    ['1', '234', '567', 'M', 'k', '⟨', '⟩']

    """

    def insert(pattern: str, marker: str) -> Component:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": marker}

    # The outermost first: a marker ends the digits that the next step looks at. Fractions before integers.
    outer_first = reversed([*enumerate(fractions, 1)])
    steps = [insert(rf"(?<=\.\d{{{3 * n}}})(?=\d)", marker) for n, marker in outer_first]
    outer_first = reversed([*enumerate(magnitudes, 1)])
    steps += [insert(rf"(?<=\d)(?=(\d{{3}}){{{n}}}(?!\d))", marker) for n, marker in outer_first]
    return {"type": "Sequence", "normalizers": steps}


DIGIT_RUNS: Component = {"type": "Digits", "individual_digits": False}

#: Groups of three digits, counted from the right: the only boundaries that superwords keep by default.
DIGIT_GROUPS = digit_groups()

RULES: dict[str, Component] = {
    "gpt2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "lines": BYTES,
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


def components(rules: Mapping[str, Any], which: str = "pre_tokenizer") -> str:
    """What the core is told of rules: counting takes the bytes of pretokens, whatever alphabet the model has."""
    rule = rules[which]
    return json.dumps(
        {
            "pre_tokenizer": rule if is_byte_level(rule) else sequence(rule),
            "normalizer": rules.get("normalizer"),
        }
    )


def plain(rules: Mapping[str, Any]) -> str:
    """What counting alone is told: the rule as it stands, whether or not it ends in bytes."""
    return json.dumps({"pre_tokenizer": rules["pre_tokenizer"], "normalizer": rules.get("normalizer")})
