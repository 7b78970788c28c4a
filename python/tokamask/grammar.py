"""Grammars: what generated text must match, and how to make it ready for a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tokamask import _core
from tokamask.errors import GrammarError

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Grammar", "Limits", "compile"]

#: Longest run of white space between the parts of a JSON value where any is allowed. Models wander
#: in unlimited white space.
WHITESPACE_RUN = 16


@dataclass(frozen=True)
class Limits:
    """What a compiled grammar may cost.

    Parameters
    ----------
    row_bytes : int
        Bytes that its remembered mask rows may take; beyond that they are computed again.
    threads : int
        Ways to read a text that may be alive at the same time.
    seconds : float
        Seconds that reading a grammar may take; beyond that there is a LimitError. An interrupt ends it sooner.
    cancelled : callable
        Asked some fifty times a second while a grammar is read, from the thread that reads it; once it returns
        true, there is a LimitError named "cancelled". ``threading.Event().is_set`` is such a function.

    Examples
    --------
    >>> Limits(row_bytes=1 << 20).row_bytes
    1048576

    """

    row_bytes: int = 64 << 20
    threads: int = 10_000
    seconds: float = 10.0
    cancelled: Callable[[], bool] | None = None


class Grammar:
    """What a text must match. Make one with a class method; it knows no vocabulary yet.

    Examples
    --------
    >>> tm.Grammar.json_schema({"type": "array", "items": {"enum": ["a", "b"]}})
    <Grammar from json_schema>

    """

    __slots__ = ("_source", "description")

    def __init__(self, source: _core.GrammarSource, description: str) -> None:
        self._source = source
        self.description = description

    @classmethod
    def json_schema(
        cls,
        schema: Mapping[str, Any] | bool | str | type,
        *,
        whitespace: Literal["any", "compact"] | int = "any",
        property_order: Literal["any", "schema"] = "any",
        format: Literal["assert", "annotate"] = "assert",
        resources: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> Grammar:
        """JSON texts that a JSON Schema allows.

        Every keyword is enforced or refused by its JSON pointer. Property names are unique. Printable
        ASCII characters in strings are written plainly, everything else plainly or as an escape.

        Parameters
        ----------
        schema : dict, bool, str or pydantic type
            The schema; a string is JSON text.
        whitespace : "any", "compact" or int
            White space between the parts of a value: runs of at most 16, none, or runs of at most so many.
        property_order : "any" or "schema"
            Whether properties must come in the order in which the schema declares them.
        format : "assert" or "annotate"
            Whether the standard formats are conditions. Others are annotations, named in ``warnings``.
        resources : dict
            Other documents that ``$ref`` may name, by URI. Nothing is ever fetched.
        limits : Limits
            Bounds on the work.

        Raises
        ------
        GrammarError
            The schema is malformed; its subclasses name a keyword that is not supported
            (UnsupportedKeywordError) or a schema that nothing satisfies (UnsatisfiableError).

        """
        text = _schema_text(schema)
        if whitespace == "any":
            space = WHITESPACE_RUN
        elif whitespace == "compact":
            space = 0
        elif isinstance(whitespace, int) and 0 <= whitespace < 1 << 16:
            space = whitespace
        else:
            raise ValueError(f"whitespace: expected 'any', 'compact' or a count, got {whitespace!r}")
        for name, value, known in (
            ("property_order", property_order, ("any", "schema")),
            ("format", format, ("assert", "annotate")),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {known}, got {value!r}")
        others = [(uri, _schema_text(value)) for uri, value in (resources or {}).items()]
        ordered, asserted = property_order == "schema", format == "assert"
        source = _core.read_json_schema(text, space, ordered, asserted, others, _patience(limits))
        return cls(source, "json_schema")

    @classmethod
    def regex(cls, pattern: str, *, limits: Limits | None = None) -> Grammar:
        """Texts that match a regular expression as a whole.

        The dialect is that of JSON Schema (ECMA 262 without what is not regular); ``a&b`` is what both
        match and ``~a`` everything that ``a`` does not match.
        """
        return cls(_core.read_regex(pattern, _patience(limits)), "regex")

    @classmethod
    def ebnf(cls, text: str, *, root: str = "root", limits: Limits | None = None) -> Grammar:
        """Texts that a context-free grammar in EBNF matches, in the GBNF dialect of llama.cpp.

        A rule is ``name ::= alternatives``. Rules may be recursive in any way, left-recursive and
        ambiguous ones included.

        Parameters
        ----------
        text : str
            The rules.
        root : str
            The rule that whole texts match.
        limits : Limits
            Bounds on the work.

        Raises
        ------
        GrammarError
            The text is malformed, at a line and column.
        UnsatisfiableError
            No text matches.

        Examples
        --------
        >>> tm.Grammar.ebnf('root ::= "(" root ")" | [0-9]+')
        <Grammar from ebnf>

        """
        return cls(_core.read_ebnf(text, root, _patience(limits)), "ebnf")

    @classmethod
    def lark(cls, text: str, *, start: str = "start", limits: Limits | None = None) -> Grammar:
        r"""Texts that a context-free grammar in Lark's notation matches.

        With ``%ignore`` there is a lexer: what is ignored may stand around every terminal, a terminal
        goes on as long as it can, a word such as ``"if"`` is not followed by what would make it a longer
        one, and a terminal of higher priority takes its texts from the others. Without ``%ignore`` texts
        are matched character by character.

        Parameters
        ----------
        text : str
            The definitions. ``%import common.NAME``, templates, ``~n..m``, ``<|special|>`` tokens and
            ``%json {...}`` are understood.
        start : str
            The rule that whole texts match.
        limits : Limits
            Bounds on the work.

        Raises
        ------
        GrammarError
            The text is malformed, or says what is not supported, at a line and column.
        UnsatisfiableError
            No text matches.

        Examples
        --------
        >>> tm.Grammar.lark('start: start "+" NUM | NUM\nNUM: /[0-9]+/\n%ignore " "')
        <Grammar from lark>

        """
        return cls(_core.read_lark(text, start, _patience(limits)), "lark")

    @classmethod
    def structural_tag(
        cls,
        tags: Mapping[str, Any] | str | Iterable[Mapping[str, Any]],
        triggers: Iterable[str] | None = None,
        *,
        at_least_one: bool = False,
        stop_after_first: bool = False,
        limits: Limits | None = None,
    ) -> Grammar:
        """Free text in which a trigger must be followed by the rest of a tag: how tool calls are written.

        Parameters
        ----------
        tags : list[dict], dict or str
            Each tag is ``{"begin": text, "schema": JSON Schema, "end": text}``, or has a ``content`` in the
            place of the schema: a format with a ``type``, one of ``json_schema``, ``regex``, ``grammar``
            (EBNF), ``lark``, ``const_string``, ``any_text``, ``token``, ``exclude_token``, ``any_tokens``,
            ``sequence``, ``or``, ``optional``, ``star``, ``plus``, ``repeat``, ``tag``, ``triggered_tags``,
            ``token_triggered_tags``, ``tags_with_separator``, ``dispatch`` and ``token_dispatch``. A dict or
            JSON text is a whole structural tag as serving engines pass it on, and no triggers are given then.
            Where a tag spells the name of a special token of the vocabulary, that token is allowed too.
        triggers : list[str]
            Texts that begin tags and do not occur in the free text.
        at_least_one : bool
            The text must have a tag.
        stop_after_first : bool
            The text ends with the first tag.
        limits : Limits
            Bounds on the work.

        Raises
        ------
        GrammarError
            A tag is malformed, at a JSON pointer.

        Examples
        --------
        >>> tag = {"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}
        >>> tm.Grammar.structural_tag([tag], ["<f>"])
        <Grammar from structural_tag>

        """
        whole: Any = tags
        if not isinstance(tags, str | Mapping):
            whole = {
                "structures": list(tags),
                "triggers": list(triggers or ()),
                "at_least_one": at_least_one,
                "stop_after_first": stop_after_first,
            }
        elif triggers is not None or at_least_one or stop_after_first:
            raise ValueError("triggers and flags stand inside a structural tag that is given as a whole")
        return cls(
            _core.read_structural_tag(_schema_text(whole), WHITESPACE_RUN, _patience(limits)),
            "structural_tag",
        )

    @classmethod
    def choice(cls, texts: Iterable[str]) -> Grammar:
        """One of the texts given.

        Raises
        ------
        UnsatisfiableError
            There is none.

        """
        return cls(_core.choice(list(texts)), "choice")

    @property
    def warnings(self) -> list[str]:
        """What was read as an annotation though it might have been meant as a condition."""
        return self._source.warnings

    def __repr__(self) -> str:
        return f"<Grammar from {self.description}>"


def _patience(limits: Limits | None) -> tuple[float, Callable[[], bool] | None]:
    limits = limits or Limits()
    return limits.seconds, limits.cancelled


def _schema_text(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    if isinstance(schema, bool | Mapping):
        try:
            return json.dumps(schema, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(f"the schema is not JSON: {error}") from error
    if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
        return json.dumps(schema.model_json_schema(), ensure_ascii=False)
    if hasattr(schema, "json_schema"):  # a pydantic TypeAdapter
        return json.dumps(schema.json_schema(), ensure_ascii=False)
    raise GrammarError(
        f"expected a schema as a dict, JSON text or pydantic type, got {type(schema).__name__}"
    )


def compile(
    grammar: Grammar, vocabulary: _core.Vocabulary, *, limits: Limits | None = None, cache: bool = True
) -> _core.CompiledGrammar:
    """Makes a grammar ready for a vocabulary.

    What was compiled lately from equal input for the same vocabulary is found again, with the mask rows that
    it has learned since: at most 32 grammars are kept, and 256 MB.

    Parameters
    ----------
    grammar : Grammar
        What to match.
    vocabulary : Vocabulary
        The tokens; it must know its end-of-sequence ids.
    limits : Limits
        Bounds on memory and work.
    cache : bool
        False compiles anew and keeps nothing.

    Raises
    ------
    VocabularyError
        The vocabulary names no end of sequence.

    Examples
    --------
    >>> vocabulary = tm.Vocabulary([b"a", b"ab", b"</s>"], special={"</s>": 2}, eos_ids=[2])
    >>> matcher = tm.compile(tm.Grammar.regex("(ab)+"), vocabulary).matcher()
    >>> matcher.is_allowed(1), matcher.is_allowed(2)
    (True, False)

    """
    return _core.compile_grammar(grammar._source, vocabulary, limits or Limits(), cache)
