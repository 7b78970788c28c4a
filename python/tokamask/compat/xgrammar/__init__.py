"""xgrammar's names over tokamask: for engines that speak xgrammar.

The classes and functions that serving engines call, with xgrammar's arguments and results. What differs:
a keyword of a schema that cannot be enforced is an error and not a warning; where whitespace is restricted, runs of
at most one character stand for the separators of ``json.dumps``; captures and temperatures are not kept. Compiled
grammars are saved as their source text, since compiling takes a millisecond.
"""

from __future__ import annotations

import enum
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tokamask as tm
from tokamask.integrations import vocabularies

__all__ = [
    "BatchGrammarMatcher",
    "CompiledGrammar",
    "DeserializeFormatError",
    "DeserializeVersionError",
    "Grammar",
    "GrammarCompiler",
    "GrammarMatcher",
    "InvalidJSONError",
    "InvalidStructuralTagError",
    "StructuralTagItem",
    "TokenizerInfo",
    "VocabType",
    "allocate_token_bitmask",
    "apply_token_bitmask_inplace",
    "get_bitmask_shape",
    "get_serialization_version",
    "reset_token_bitmask",
]

SERIALIZATION_VERSION = "tokamask-1"


class DeserializeFormatError(RuntimeError):
    """A saved object is not what it should be."""


class DeserializeVersionError(RuntimeError):
    """A saved object is of another version."""


class InvalidJSONError(RuntimeError):
    """A text is not JSON."""


class InvalidStructuralTagError(RuntimeError):
    """A structural tag is malformed."""


class VocabType(enum.Enum):
    """How the tokens of a vocabulary are spelled."""

    RAW = 0
    BYTE_FALLBACK = 1
    BYTE_LEVEL = 2


def get_serialization_version() -> str:
    """The version that saved objects carry."""
    return SERIALIZATION_VERSION


def _byte_level() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_LEVEL = _byte_level()


def _decoded(token: bytes | str, kind: VocabType) -> bytes:
    if kind is VocabType.RAW:
        return token if isinstance(token, bytes) else token.encode()
    text = token.decode(errors="surrogateescape") if isinstance(token, bytes) else token
    if kind is VocabType.BYTE_LEVEL:
        known = all(c in BYTE_LEVEL for c in text)
        return bytes(BYTE_LEVEL[c] for c in text) if known else text.encode(errors="surrogateescape")
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("\u2581", " ").encode(errors="surrogateescape")


class TokenizerInfo:
    """A vocabulary and the ids that end a sequence."""

    def __init__(
        self,
        encoded_vocab: list[bytes] | list[str],
        vocab_type: VocabType = VocabType.RAW,
        *,
        vocab_size: int | None = None,
        stop_token_ids: list[int] | int | None = None,
        add_prefix_space: bool = False,
    ) -> None:
        tokens: list[bytes | None] = [_decoded(token, vocab_type) or None for token in encoded_vocab]
        size = len(tokens) if vocab_size is None else vocab_size
        tokens = tokens[:size] + [None] * (size - len(tokens))
        stops = [stop_token_ids] if isinstance(stop_token_ids, int) else list(stop_token_ids or [])
        self._set(tm.Vocabulary(tokens, eos_ids=stops), vocab_type, add_prefix_space)

    def _set(self, vocabulary: tm.Vocabulary, vocab_type: VocabType, add_prefix_space: bool) -> None:
        self._vocabulary = vocabulary
        self._vocab_type = vocab_type
        self._add_prefix_space = add_prefix_space

    @staticmethod
    def from_huggingface(
        tokenizer: Any, *, vocab_size: int | None = None, stop_token_ids: list[int] | int | None = None
    ) -> TokenizerInfo:
        """The vocabulary of a transformers tokenizer."""
        vocabulary = vocabularies.read(tokenizer)
        if stop_token_ids is None:
            stop_token_ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        stops = [stop_token_ids] if isinstance(stop_token_ids, int) else list(stop_token_ids)
        info = TokenizerInfo.__new__(TokenizerInfo)
        size = None if vocab_size is None else max(vocab_size, len(vocabulary))
        info._set(vocabulary.with_(eos_ids=stops, vocab_size=size), VocabType.RAW, False)
        return info

    @property
    def vocab_type(self) -> VocabType:
        """How tokens were spelled."""
        return self._vocab_type

    @property
    def vocab_size(self) -> int:
        """Number of ids, as the logits see them."""
        return len(self._vocabulary)

    @property
    def add_prefix_space(self) -> bool:
        """As given."""
        return self._add_prefix_space

    @property
    def decoded_vocab(self) -> list[bytes]:
        """The bytes of each token."""
        return [self._vocabulary.bytes(i) or b"" for i in range(len(self._vocabulary))]

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a sequence."""
        return list(self._vocabulary.eos_ids)

    @property
    def special_token_ids(self) -> list[int]:
        """Ids that no text matches."""
        return [i for i, token in enumerate(self.decoded_vocab) if not token]

    def dump_metadata(self) -> str:
        """Everything but the tokens, as JSON."""
        return json.dumps(
            {
                "vocab_type": self._vocab_type.value,
                "vocab_size": self.vocab_size,
                "add_prefix_space": self._add_prefix_space,
                "stop_token_ids": self.stop_token_ids,
            }
        )

    @staticmethod
    def from_vocab_and_metadata(encoded_vocab: list[bytes | str], metadata: str) -> TokenizerInfo:
        """The inverse of :meth:`dump_metadata`, given the tokens."""
        known = json.loads(metadata)
        return TokenizerInfo(
            encoded_vocab,  # type: ignore[arg-type]
            VocabType(known["vocab_type"]),
            vocab_size=known["vocab_size"],
            stop_token_ids=known["stop_token_ids"],
            add_prefix_space=known["add_prefix_space"],
        )


def _plain_schema(schema: Any) -> Any:
    if isinstance(schema, str):
        try:
            return json.loads(schema)
        except json.JSONDecodeError as error:
            raise InvalidJSONError(str(error)) from error
    if hasattr(schema, "model_json_schema"):
        return schema.model_json_schema()
    return schema


def close_objects(schema: Any) -> Any:
    """As xgrammar's strict mode: what an object or array does not declare is not allowed.

    >>> close_objects({"properties": {"a": {}}})
    {'properties': {'a': {}}, 'additionalProperties': False}
    """
    if isinstance(schema, list):
        return [close_objects(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    skipped = ("const", "enum", "default", "examples")
    out = {key: value if key in skipped else close_objects(value) for key, value in schema.items()}
    composed = {"$ref", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties", "unevaluatedProperties"}
    if isinstance(out.get("properties"), dict) and not composed & out.keys():
        out.setdefault("additionalProperties", False)
    if "prefixItems" in out and not {"items", "unevaluatedItems"} & out.keys():
        out["items"] = False
    return out


class Grammar:
    """What a text must match, with the text that it was read from."""

    def __init__(self, kind: str, arguments: Mapping[str, Any]) -> None:
        self._kind = kind
        self._arguments = dict(arguments)
        try:
            self._grammar = getattr(tm.Grammar, kind)(**arguments)
        except tm.errors.GrammarError as error:
            if kind == "structural_tag":
                raise InvalidStructuralTagError(str(error)) from error
            raise RuntimeError(str(error)) from error
        except tm.errors.LimitError as error:
            raise RuntimeError(str(error)) from error

    @staticmethod
    def from_ebnf(ebnf_string: str, *, root_rule_name: str = "root") -> Grammar:
        """A grammar in EBNF."""
        return Grammar("ebnf", {"text": ebnf_string, "root": root_rule_name})

    @staticmethod
    def from_json_schema(
        schema: Any,
        *,
        any_whitespace: bool = True,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        strict_mode: bool = True,
        max_whitespace_cnt: int | None = None,
        any_order: bool = False,
    ) -> Grammar:
        """JSON that a schema allows."""
        value = _plain_schema(schema)
        whitespace: Any = "any" if any_whitespace else 1 if indent is None else 16
        if max_whitespace_cnt is not None:
            whitespace = max_whitespace_cnt
        if not any_whitespace and separators == (",", ":") and indent is None:
            whitespace = "compact"
        order = "any" if any_order else "schema"
        text = json.dumps(close_objects(value) if strict_mode else value, ensure_ascii=False)
        return Grammar("json_schema", {"schema": text, "whitespace": whitespace, "property_order": order})

    @staticmethod
    def from_regex(regex_string: str) -> Grammar:
        """Texts that match a pattern as a whole."""
        return Grammar("regex", {"pattern": regex_string})

    @staticmethod
    def from_lark(lark_string: str, *, start: str = "start") -> Grammar:
        """A grammar in Lark's notation."""
        return Grammar("lark", {"text": lark_string, "start": start})

    @staticmethod
    def from_structural_tag(*args: Any, **kwargs: Any) -> Grammar:
        """A structural tag, or tags and triggers."""
        given = list(args) + [kwargs[k] for k in ("structural_tag", "tags", "triggers") if k in kwargs]
        if len(given) == 2:
            tags, triggers = given
            tags = [tag if isinstance(tag, Mapping) else tag.model_dump(by_alias=True) for tag in tags]
            whole: Any = {"structures": tags, "triggers": list(triggers)}
            for tag in whole["structures"]:
                tag["schema"] = _plain_schema(tag["schema"])
        else:
            whole = given[0] if isinstance(given[0], str | Mapping) else given[0].model_dump(by_alias=True)
        text = whole if isinstance(whole, str) else json.dumps(whole)
        return Grammar("structural_tag", {"tags": text})

    @staticmethod
    def builtin_json_grammar() -> Grammar:
        """Any JSON."""
        return Grammar("json_schema", {"schema": "true"})

    def __str__(self) -> str:
        return self.serialize_json()

    def serialize_json(self) -> str:
        """The source, as JSON."""
        saved = {"version": SERIALIZATION_VERSION, "kind": self._kind, "arguments": self._arguments}
        return json.dumps(saved)

    @staticmethod
    def deserialize_json(json_string: str) -> Grammar:
        """The inverse of :meth:`serialize_json`."""
        try:
            saved = json.loads(json_string)
        except json.JSONDecodeError as error:
            raise InvalidJSONError(str(error)) from error
        if not isinstance(saved, dict) or not {"version", "kind", "arguments"} <= saved.keys():
            raise DeserializeFormatError("this is not a saved grammar")
        if saved["version"] != SERIALIZATION_VERSION:
            raise DeserializeVersionError(f"version {saved['version']}, expected {SERIALIZATION_VERSION}")
        if saved["kind"] not in ("ebnf", "json_schema", "regex", "lark", "structural_tag"):
            raise DeserializeFormatError(f"unknown kind {saved['kind']!r}")
        return Grammar(saved["kind"], saved["arguments"])


@dataclass
class StructuralTagItem:
    """A tag of a structural tag: its beginning, the schema of what follows, its end."""

    begin: str
    schema: Any
    end: str

    def model_dump(self, *, by_alias: bool = True) -> dict[str, Any]:
        """The fields as a dict."""
        return {"begin": self.begin, "schema": self.schema, "end": self.end}


# What needs pydantic is read when it is asked for.
_LATER = {
    "StructuralTag": "structural_tag",
    "get_model_structural_tag": "builtin_structural_tag",
    "normalize_tool_choice": "builtin_structural_tag",
    "register_model_structural_tag": "builtin_structural_tag",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    if name in ("structural_tag", "openai_tool_call_schema", "builtin_structural_tag"):
        return importlib.import_module(f"{__name__}.{name}")
    if name == "bitmask_dtype":
        import torch

        return torch.int32
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class CompiledGrammar:
    """A grammar made ready for a vocabulary."""

    def __init__(self, grammar: Grammar, tokenizer_info: TokenizerInfo) -> None:
        self._grammar = grammar
        self._info = tokenizer_info
        self._compiled = tm.compile(grammar._grammar, tokenizer_info._vocabulary)
        self._compiled.fill_ahead()  # while the model reads the prompt

    @property
    def grammar(self) -> Grammar:
        """The grammar."""
        return self._grammar

    @property
    def tokenizer_info(self) -> TokenizerInfo:
        """The vocabulary."""
        return self._info

    @property
    def memory_size_bytes(self) -> int:
        """Bytes that it takes now."""
        return self._compiled.memory_bytes

    def serialize_json(self) -> str:
        """The grammar's source and what the vocabulary must be, as JSON."""
        saved = {"grammar": json.loads(self._grammar.serialize_json()), "info": self._info.dump_metadata()}
        return json.dumps(saved)

    @staticmethod
    def deserialize_json(json_str: str, tokenizer_info: TokenizerInfo) -> CompiledGrammar:
        """The inverse of :meth:`serialize_json`, for the same vocabulary."""
        try:
            saved = json.loads(json_str)
        except json.JSONDecodeError as error:
            raise InvalidJSONError(str(error)) from error
        if not isinstance(saved, dict) or not {"grammar", "info"} <= saved.keys():
            raise DeserializeFormatError("this is not a saved compiled grammar")
        if saved["info"] != tokenizer_info.dump_metadata():
            raise DeserializeFormatError("it was compiled for another vocabulary")
        return CompiledGrammar(Grammar.deserialize_json(json.dumps(saved["grammar"])), tokenizer_info)


class GrammarCompiler:
    """Compiles grammars for one vocabulary and keeps them."""

    def __init__(
        self,
        tokenizer_info: TokenizerInfo,
        *,
        max_threads: int = 8,
        cache_enabled: bool = True,
        cache_limit_bytes: int = -1,
    ) -> None:
        self._info = tokenizer_info
        self._enabled = cache_enabled
        self._limit = cache_limit_bytes
        self._cache: dict[str, CompiledGrammar] = {}

    def _compile(self, grammar: Grammar) -> CompiledGrammar:
        key = grammar.serialize_json()
        found = self._cache.pop(key, None) or CompiledGrammar(grammar, self._info)
        if self._enabled:
            self._cache[key] = found  # the last used comes last
            while self._limit >= 0 and len(self._cache) > 1 and self.get_cache_size_bytes() > self._limit:
                del self._cache[next(iter(self._cache))]
        return found

    def compile_json_schema(
        self,
        schema: Any,
        *,
        any_whitespace: bool = True,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        strict_mode: bool = True,
        max_whitespace_cnt: int | None = None,
        any_order: bool = False,
    ) -> CompiledGrammar:
        """Compiles a JSON Schema."""
        return self._compile(
            Grammar.from_json_schema(
                schema,
                any_whitespace=any_whitespace,
                indent=indent,
                separators=separators,
                strict_mode=strict_mode,
                max_whitespace_cnt=max_whitespace_cnt,
                any_order=any_order,
            )
        )

    def compile_builtin_json_grammar(self) -> CompiledGrammar:
        """Compiles the grammar of any JSON."""
        return self._compile(Grammar.builtin_json_grammar())

    def compile_regex(self, regex: str) -> CompiledGrammar:
        """Compiles a pattern."""
        return self._compile(Grammar.from_regex(regex))

    def compile_lark(self, text: str) -> CompiledGrammar:
        """Compiles a grammar in Lark's notation."""
        return self._compile(Grammar.from_lark(text))

    def compile_structural_tag(self, *args: Any, **kwargs: Any) -> CompiledGrammar:
        """Compiles a structural tag, or tags and triggers."""
        return self._compile(Grammar.from_structural_tag(*args, **kwargs))

    def compile_grammar(self, grammar: str | Grammar, *, root_rule_name: str = "root") -> CompiledGrammar:
        """Compiles EBNF or a grammar."""
        if isinstance(grammar, str):
            grammar = Grammar.from_ebnf(grammar, root_rule_name=root_rule_name)
        return self._compile(grammar)

    def clear_cache(self) -> None:
        """Forgets all compiled grammars."""
        self._cache.clear()

    def get_cache_size_bytes(self) -> int:
        """Bytes that the compiled grammars take."""
        return sum(found.memory_size_bytes for found in self._cache.values())

    @property
    def cache_limit_bytes(self) -> int:
        """As given."""
        return self._limit


def get_bitmask_shape(batch_size: int, vocab_size: int) -> tuple[int, int]:
    """Rows, and 32-bit words of a row."""
    return batch_size, (vocab_size + 31) // 32


def allocate_token_bitmask(batch_size: int, vocab_size: int) -> Any:
    """A torch tensor, int32 [batch_size, ceil(vocab_size / 32)], that allows everything."""
    import torch

    return torch.full(get_bitmask_shape(batch_size, vocab_size), -1, dtype=torch.int32)


def reset_token_bitmask(bitmask: Any) -> None:
    """Allows everything."""
    _rows(bitmask)[:] = -1


def _rows(bitmask: Any) -> Any:
    array = bitmask.numpy() if hasattr(bitmask, "numpy") else np.asarray(bitmask)
    return array[None] if array.ndim == 1 else array


def apply_token_bitmask_inplace(
    logits: Any,
    bitmask: Any,
    *,
    vocab_size: int | None = None,
    indices: Sequence[int] | None = None,
    backend: str = "auto",
) -> None:
    """Writes -inf over the logits that the bitmask forbids; ``backend`` is given by the arrays."""
    rows = logits if logits.ndim == 2 else logits[None]
    masks = bitmask if bitmask.ndim == 2 else bitmask[None]
    if vocab_size is not None:
        rows = rows[:, :vocab_size]
        masks = masks[:, : (vocab_size + 31) // 32]
    for i in range(len(rows)) if indices is None else indices:
        width = min(rows.shape[1], 32 * masks.shape[1])
        tm.apply_bitmask(rows[i : i + 1, :width], masks[i : i + 1, : (width + 31) // 32])


class GrammarMatcher:
    """The state of one request."""

    def __init__(
        self,
        compiled_grammar: CompiledGrammar,
        *,
        override_stop_tokens: int | list[int] | None = None,
        terminate_without_stop_token: bool = False,
        max_rollback_tokens: int = -1,
        default_temperature: float | None = None,
    ) -> None:
        compiled = compiled_grammar._compiled
        vocabulary = compiled_grammar.tokenizer_info._vocabulary
        if override_stop_tokens is not None:
            stops = [override_stop_tokens] if isinstance(override_stop_tokens, int) else override_stop_tokens
            vocabulary = vocabulary.with_(eos_ids=list(stops))
            compiled = tm.compile(compiled_grammar.grammar._grammar, vocabulary)
        self._stops = list(vocabulary.eos_ids)
        self._vocabulary = vocabulary
        self._matcher = compiled.matcher()
        self._early = terminate_without_stop_token
        self._temperature = default_temperature

    def accept_token(self, token_id: int, *, debug_print: bool = False) -> bool:
        """Advances by a token; False if the grammar forbids it."""
        return not self.is_terminated() and self._matcher.accept_prefix([token_id]) == 1

    def accept_string(self, input_str: str | bytes, *, debug_print: bool = False) -> bool:
        """Advances by a text, cut into the longest tokens; False, and unchanged, if the grammar forbids it."""
        data = input_str.encode() if isinstance(input_str, str) else input_str
        ids = []
        while data:
            lengths = range(len(data), 0, -1)
            found = next(((n, i) for n in lengths if (i := self._id(data[:n])) is not None), None)
            if found is None:
                return False
            ids.append(found[1])
            data = data[found[0] :]
        done = self._matcher.accept_prefix(ids)
        if done < len(ids):
            self._matcher.rollback(done)
        return done == len(ids)

    def _id(self, data: bytes) -> int | None:
        try:
            return self._vocabulary.id(data)
        except tm.errors.UnknownTokenError:
            return None

    def fill_next_token_bitmask(self, bitmask: Any, index: int = 0, *, debug_print: bool = False) -> bool:
        """Writes the mask of the next token; False if everything is allowed."""
        return self._matcher.fill_bitmask(_rows(bitmask), index)

    def traverse_draft_tree(
        self,
        retrieve_next_token: Any,
        retrieve_next_sibling: Any,
        draft_tokens: Any,
        token_bitmask: Any,
        time_threshold: float = -1.0,
        temperatures: Any = None,
    ) -> bool:
        """Writes the masks of a draft tree; node 0 is the token accepted last."""
        child, sibling = np.asarray(retrieve_next_token), np.asarray(retrieve_next_sibling)
        tokens, rows = np.asarray(draft_tokens), _rows(token_bitmask)
        todo = [(0, self._matcher)] if len(tokens) else []
        while todo:
            node, matcher = todo.pop()
            matcher.fill_bitmask(rows, node)
            inner = int(child[node])
            while inner != -1:
                after = matcher.fork()
                if after.accept_prefix([int(tokens[inner])]) == 1 and not after.is_terminated():
                    todo.append((inner, after))
                else:
                    rows[inner] = 0
                inner = int(sibling[inner])
        return True

    def find_jump_forward_string(self) -> str:
        """The text that the grammar leaves no choice about."""
        data = b"".join(self._vocabulary.bytes(i) or b"" for i in self._matcher.forced_tokens())
        return data.decode(errors="ignore")

    def rollback(self, num_tokens: int = 1) -> None:
        """Takes back the last tokens."""
        self._matcher.rollback(num_tokens)

    def is_terminated(self) -> bool:
        """A stop token was accepted, or the text is complete where that is enough."""
        return self._matcher.is_terminated() or (self._early and self.is_completed())

    def is_completed(self) -> bool:
        """The text is a complete match."""
        return self._matcher.is_terminated() or self._matcher.is_accepting()

    def reset(self) -> None:
        """Back to the beginning."""
        self._matcher.reset()

    def fork(self) -> GrammarMatcher:
        """A copy of the state."""
        copy = GrammarMatcher.__new__(GrammarMatcher)
        copy.__dict__.update(self.__dict__)
        copy._matcher = self._matcher.fork()
        return copy

    def get_captures(self, *, deduplicate: bool = True) -> list[tuple[str, bytes]]:
        """Nothing is captured."""
        return []

    @property
    def temperature(self) -> float | None:
        """As given."""
        return self._temperature

    @property
    def max_rollback_tokens(self) -> int:
        """-1: every token can be taken back."""
        return -1

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a sequence."""
        return self._stops


class BatchGrammarMatcher:
    """Several requests in one call."""

    def __init__(self, max_threads: int | str = "auto") -> None:
        self._threads = max_threads if isinstance(max_threads, int) else None

    def batch_fill_next_token_bitmask(
        self,
        matchers: list[GrammarMatcher],
        bitmask: Any,
        indices: list[int] | None = None,
        debug_print: bool = False,
    ) -> None:
        """Writes the mask of each matcher into its row."""
        inner = [matcher._matcher for matcher in matchers]
        tm.fill_bitmasks(inner, _rows(bitmask), indices, threads=self._threads)

    @staticmethod
    def batch_accept_token(
        matchers: list[GrammarMatcher], tokens: list[int], debug_print: bool = False
    ) -> list[bool]:
        """Advances each matcher by a token."""
        return [matcher.accept_token(token) for matcher, token in zip(matchers, tokens, strict=True)]

    @staticmethod
    def batch_accept_string(
        matchers: list[GrammarMatcher], strings: Sequence[str | bytes], debug_print: bool = False
    ) -> list[bool]:
        """Advances each matcher by a text."""
        return [matcher.accept_string(text) for matcher, text in zip(matchers, strings, strict=True)]

    @staticmethod
    def batch_rollback(matchers: list[GrammarMatcher], num_tokens: list[int]) -> None:
        """Takes back tokens of each matcher."""
        for matcher, n in zip(matchers, num_tokens, strict=True):
            matcher.rollback(n)
