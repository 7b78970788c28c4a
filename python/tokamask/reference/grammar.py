"""What a context-free grammar matches: Earley's recognizer in its plainest form.

Source: J. Earley, "An efficient context-free parsing algorithm", Communications of the ACM 13 (1970).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["productive", "recognize"]

Rules = Mapping[str, Sequence[Sequence[str]]]


def productive(rules: Rules) -> dict[str, list[Sequence[str]]]:
    """The rules without alternatives that no finite text matches.

    Parameters
    ----------
    rules : dict[str, list[list[str]]]
        Alternatives of each rule. A symbol that names a rule stands for it, any other for itself: one character.

    Returns
    -------
    dict[str, list[list[str]]]
        Rules that match nothing have no alternative left.

    Examples
    --------
    >>> productive({"a": [["x", "b"], ["y"]], "b": [["b"]]})
    {'a': [['y']], 'b': []}

    """
    live: set[str] = set()
    while True:
        more = {
            name
            for name, alternatives in rules.items()
            if any(all(s in live or s not in rules for s in symbols) for symbols in alternatives)
        }
        if more == live:
            break
        live = more
    return {
        name: [symbols for symbols in alternatives if all(s in live or s not in rules for s in symbols)]
        for name, alternatives in rules.items()
    }


def recognize(rules: Rules, root: str, text: str) -> tuple[bool, bool]:
    """Whether a text begins a match of a rule, and whether it is one.

    Parameters
    ----------
    rules : dict[str, list[list[str]]]
        As for :func:`productive`.
    root : str
        The rule.
    text : str
        The text so far.

    Returns
    -------
    (bool, bool)
        Some match begins with the text; the text itself is a match.

    Examples
    --------
    >>> nested = {"s": [["(", "s", ")"], []]}
    >>> recognize(nested, "s", "(("), recognize(nested, "s", "()"), recognize(nested, "s", ")")
    ((True, False), (True, True), (False, False))

    """
    rules = productive(rules)
    # An item: rule, alternative, symbols read, place where it began.
    items = {(root, i, 0, 0) for i in range(len(rules[root]))}
    sets: list[set[tuple[str, int, int, int]]] = []
    for place in range(len(text) + 1):
        sets.append(items)
        while True:  # predict and complete until nothing is added
            found: set[tuple[str, int, int, int]] = set()
            for name, i, read, start in items:
                symbols = rules[name][i]
                if read == len(symbols):
                    found |= {
                        (outer, k, at + 1, origin)
                        for outer, k, at, origin in sets[start]
                        if at < len(rules[outer][k]) and rules[outer][k][at] == name
                    }
                elif symbols[read] in rules:
                    found |= {(symbols[read], k, 0, place) for k in range(len(rules[symbols[read]]))}
            if found <= items:
                break
            items |= found
        if place == len(text):
            break
        items = {
            (name, i, read + 1, start)
            for name, i, read, start in items
            if read < len(rules[name][i]) and rules[name][i][read] == text[place]
        }
    complete = any(
        name == root and start == 0 and read == len(rules[name][i]) for name, i, read, start in items
    )
    return bool(items), complete
