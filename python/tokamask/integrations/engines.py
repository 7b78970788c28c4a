"""What serving engines have in common: one tokenizer, many requests that name a grammar by its kind and text."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from typing import Any, Literal

import tokamask as tm
from tokamask.compat.xgrammar import close_objects
from tokamask.integrations import vocabularies

Kind = Literal["json", "json_object", "regex", "grammar", "choice", "structural_tag"]


def read_grammar(kind: Kind, text: str, *, compact: bool = False, closed: bool = False) -> tm.Grammar:
    """The grammar that a request asks for.

    Parameters
    ----------
    kind : str
        ``"grammar"`` is EBNF or Lark's notation, told by ``::=``; ``"choice"`` is a JSON list of texts; ``"json_object"`` is any
        object, whatever the text.
    text : str
        The schema, pattern, rules, texts or structural tag.
    compact : bool
        No white space between the parts of JSON.
    closed : bool
        An object that declares properties has no others, unless its schema says so.

    Raises
    ------
    GrammarError
        It cannot be read.

    Examples
    --------
    >>> read_grammar("choice", '["yes", "no"]')
    <Grammar from choice>

    """
    if kind in ("json", "json_object"):
        schema = text if kind == "json" else '{"type": "object"}'
        if closed and kind == "json":
            schema = json.dumps(close_objects(_parsed(schema)), ensure_ascii=False)
        # Properties as declared: what engines do, and what prompts that let a model reason first count on.
        return tm.Grammar.json_schema(
            schema, whitespace="compact" if compact else "any", property_order="schema"
        )
    if kind == "regex":
        return tm.Grammar.regex(text)
    if kind == "grammar":
        return tm.Grammar.ebnf(text) if "::=" in text else tm.Grammar.lark(text)
    if kind == "choice":
        return tm.Grammar.choice(_parsed(text))
    if kind == "structural_tag":
        return tm.Grammar.structural_tag(text)
    raise tm.errors.GrammarError(f"unknown kind of grammar {kind!r}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise tm.errors.GrammarError(
            f"this is not JSON: {error.msg}", source=text, line=error.lineno, column=error.colno
        ) from error


class RequestCompiler:
    """Compiles the grammars of an engine's requests for its tokenizer; equal requests share one and its mask rows.

    Parameters
    ----------
    tokenizer : object
        As for ``Vocabulary.from_tokenizer``.
    vocab_size : int
        Width of the model's logits.
    stop_ids : collection of int, optional
        Tokens that end a sequence; the tokenizer's own if not given.
    compact, closed : bool
        As for :func:`read_grammar`.

    Raises
    ------
    UnsupportedComponentError
        The bytes of the tokenizer's tokens cannot be told.

    Examples
    --------
    >>> compiler = RequestCompiler(tokenizer, model_config.vocab_size)
    >>> compiler.compile("regex", "[0-9]+", stop_ids={2})

    """

    def __init__(
        self,
        tokenizer: Any,
        vocab_size: int,
        *,
        stop_ids: Collection[int] | None = None,
        compact: bool = False,
        closed: bool = False,
    ) -> None:
        vocabulary = _fitted(vocabularies.read(tokenizer), vocab_size)
        self._vocabulary = vocabulary if not stop_ids else vocabulary.with_(eos_ids=sorted(stop_ids))
        self._options = {"compact": compact, "closed": closed}
        # Per object, so that an engine that is closed leaves nothing behind.
        self._stopping = functools.lru_cache(maxsize=8)(self._vocabulary_with)
        self._compiled = functools.lru_cache(maxsize=256)(self._compile)

    @property
    def vocabulary(self) -> tm.Vocabulary:
        """The tokens, as wide as the model's logits."""
        return self._vocabulary

    def compile(
        self, kind: Kind, text: str, *, stop_ids: Collection[int] | None = None
    ) -> tm.CompiledGrammar:
        """The grammar of a request; ``stop_ids`` are its own ends of sequence, never text of the grammar.

        Raises
        ------
        GrammarError
            It cannot be read.
        LimitError
            It is too large.

        """
        return self._compiled(kind, text, frozenset(stop_ids or self._vocabulary.eos_ids))

    def _compile(self, kind: Kind, text: str, stops: frozenset[int]) -> tm.CompiledGrammar:
        compiled = tm.compile(read_grammar(kind, text, **self._options), self._stopping(stops))
        compiled.fill_ahead()  # while the model reads the prompt
        return compiled

    def _vocabulary_with(self, stops: frozenset[int]) -> tm.Vocabulary:
        if stops == frozenset(self._vocabulary.eos_ids):
            return self._vocabulary
        return self._vocabulary.with_(eos_ids=sorted(stops))

    def clear(self) -> None:
        """Forgets all compiled grammars."""
        self._compiled.cache_clear()


def _fitted(vocabulary: tm.Vocabulary, vocab_size: int) -> tm.Vocabulary:
    """As wide as the logits: padded, or without the tokens that a model has no logits for."""
    if vocab_size >= len(vocabulary):
        return vocabulary.with_(vocab_size=vocab_size)
    special = {name: i for name, i in vocabulary.special.items() if i < vocab_size}
    tokens: list[bytes | None] = [vocabulary.bytes(i) for i in range(vocab_size)]
    return tm.Vocabulary(tokens, special=special, eos_ids=[i for i in vocabulary.eos_ids if i < vocab_size])


def as_array(mask: Any) -> Any:
    """A bitmask of the engine, torch or numpy, as the numpy array that shares its memory."""
    return mask.numpy() if hasattr(mask, "numpy") else mask
