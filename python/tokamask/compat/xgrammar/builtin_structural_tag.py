"""How models write tool calls, as structural tags: a table of their dialects, and what a request makes of it.

The dialects are those whose names vLLM and SGLang ask for. Texts are the models' own, from their chat templates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tokamask.compat.xgrammar.openai_tool_call_schema import BuiltinToolParam, FunctionToolParam
from tokamask.compat.xgrammar.structural_tag import (
    AnyTextFormat,
    ConstStringFormat,
    JSONSchemaFormat,
    RegexFormat,
    SequenceFormat,
    StructuralTag,
    TagFormat,
    TagsWithSeparatorFormat,
    TriggeredTagsFormat,
)

__all__ = ["get_model_structural_tag", "normalize_tool_choice", "register_model_structural_tag"]

THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Dialect:
    """How a family of models writes calls. ``NAME`` in a text stands for the function's name."""

    begin: str
    end: str
    style: str = "json"
    number: str = ""
    """After ``begin`` comes a number and then this text, where it is not empty."""
    trigger: str = ""
    """What begins a call in free text; calls inside an ``outer`` pair are triggered by that."""
    outer: tuple[str, str] | None = None
    """What stands around all calls."""
    outer_lead: str = ""
    """What comes before ``outer`` where a call is demanded."""
    separator: str = ""
    excludes: tuple[str, ...] = THINK
    reasoning: tuple[str, str, str] | None = ("", "</think>", "")
    """Around the reasoning that comes first, and what follows it; None: models of the family write none."""


DEEPSEEK = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
DEEPSEEK_ALL = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
QWEN_REASONING = ("", "</think>", "\n\n")


def _dsml(word: str, gap: str, style: str) -> Dialect:
    mark = f"｜DSML｜{gap}"
    return Dialect(
        f'<{mark}invoke name="NAME">\n', f"</{mark}invoke>\n", style=style,
        outer=(f"<{mark}{word}>\n", f"</{mark}{word}>"), outer_lead="\n\n",
    )  # fmt: skip


DIALECTS: dict[str, Dialect] = {
    "llama": Dialect('{"name": "NAME", "parameters": ', "}", trigger='{"name": ', reasoning=None),
    "qwen_3": Dialect(
        '<tool_call>\n{"name": "NAME", "arguments": ', "}\n</tool_call>", trigger="<tool_call>", reasoning=QWEN_REASONING
    ),
    "exaone": Dialect(
        '<tool_call>{"name": "NAME", "arguments": ', "}</tool_call>", trigger="<tool_call>", reasoning=QWEN_REASONING
    ),
    "qwen_3_5": Dialect(
        "<tool_call>\n<function=NAME>\n", "\n</function>\n</tool_call>", style="qwen_xml",
        trigger="<tool_call>\n<function=", reasoning=QWEN_REASONING,
    ),
    "mimo": Dialect(
        "<tool_call><function=NAME>", "</function></tool_call>", style="qwen_xml", trigger="<tool_call>",
        excludes=(*THINK, "</tool_call>", "<function="), reasoning=("<think>", "</think>", ""),
    ),
    "glm_4_7": Dialect(
        "<tool_call>NAME", "</tool_call>", style="glm_xml", trigger="<tool_call>",
        excludes=(*THINK, "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    "kimi": Dialect(
        "<|tool_call_begin|>functions.NAME:", "<|tool_call_end|>", number="<|tool_call_argument_begin|>",
        outer=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"), excludes=(*THINK, "<|tool_call_begin|>"),
    ),
    "deepseek_r1": Dialect(
        f"{DEEPSEEK[0]}function<｜tool▁sep｜>NAME\n```json\n", f"\n```{DEEPSEEK[1]}", outer=DEEPSEEK_ALL, separator="\n"
    ),
    "deepseek_v3_1": Dialect(f"{DEEPSEEK[0]}NAME<｜tool▁sep｜>", DEEPSEEK[1], outer=DEEPSEEK_ALL),
    "deepseek_v3_2": _dsml("function_calls", "", "deepseek_xml"),
    "deepseek_v4": _dsml("tool_calls", "", "deepseek_xml"),
    "deepseek_v4_1": _dsml("calls", " ", "deepseek_v4_1_xml"),
    "minimax": Dialect(
        '<invoke name="NAME">\n', "</invoke>\n", style="minimax_xml",
        outer=("<minimax:tool_call>\n", "</minimax:tool_call>"), outer_lead="\n", reasoning=QWEN_REASONING,
    ),
}  # fmt: skip
DIALECTS["qwen_3_coder"] = DIALECTS["qwen_3_5"]

Simplified = Literal["auto", "required", "forced"]
Builder = Callable[[list[FunctionToolParam], list[BuiltinToolParam], Simplified, bool], StructuralTag]
_BUILDERS: dict[str, Builder] = {}


def register_model_structural_tag(name: str) -> Callable[[Builder], Builder]:
    """Decorates a function that writes the structural tag of a further model.

    It is called with the functions, the tools of the server, "auto", "required" or "forced", and whether
    reasoning comes first.
    """

    def register(builder: Builder) -> Builder:
        _BUILDERS[name] = builder
        return builder

    return register


def normalize_tool_choice(
    tools: list[Any] | None = None, tool_choice: Any = "auto"
) -> tuple[list[FunctionToolParam], list[BuiltinToolParam], Simplified]:
    """What a request's tools and its choice of tools come to.

    Parameters
    ----------
    tools : list
        Functions and tools of the server, as models or as dicts of the chat protocol.
    tool_choice : str, dict or model
        "none", "auto" or None, "required", one tool by name, or a list of allowed tools.

    Returns
    -------
    tuple
        The functions and the tools of the server that may be called, and "auto", "required" or "forced".

    Raises
    ------
    ValueError
        A tool that is named is not there, or a call is demanded and there is nothing to call.

    """
    if tools is not None and not isinstance(tools, list):
        raise ValueError(f"tools: expected a list, got {type(tools).__name__}")
    functions: list[FunctionToolParam] = []
    builtin: list[BuiltinToolParam] = []
    for tool in tools or []:
        given = _plain(tool)
        if given.get("type") == "function":
            functions.append(FunctionToolParam.model_validate(given))
        else:
            builtin.append(BuiltinToolParam.model_validate(given))
    choice = _plain(tool_choice)
    if choice == "none":
        return [], [], "auto"
    if choice in (None, "auto"):
        return functions, builtin, "auto"
    if choice == "required":
        return _present(functions, builtin), builtin, "required"
    if not isinstance(choice, dict):
        raise ValueError(f"tool_choice: {choice!r} is not known")
    if choice.get("type") == "allowed_tools":
        allowed = choice["allowed_tools"]
        functions, builtin = _allowed(functions, builtin, allowed["tools"])
        if allowed["mode"] == "required":
            _present(functions, builtin)
        return functions, builtin, allowed["mode"]
    functions, builtin = _allowed(functions, builtin, [choice])
    if len(functions) + len(builtin) != 1:
        raise ValueError(f"tool_choice: {choice!r} is not exactly one of the tools")
    return functions, builtin, "forced"


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value


def _present(functions: list[FunctionToolParam], builtin: list[BuiltinToolParam]) -> list[FunctionToolParam]:
    if not functions and not builtin:
        raise ValueError("a call is demanded and there is no tool")
    return functions


def _allowed(
    functions: list[FunctionToolParam], builtin: list[BuiltinToolParam], references: list[dict[str, Any]]
) -> tuple[list[FunctionToolParam], list[BuiltinToolParam]]:
    names, kinds = [], []
    for reference in references:
        if reference.get("type") == "function":
            name = (reference.get("function") or reference).get("name")
            if name not in [tool.function.name for tool in functions]:
                raise ValueError(f"the function {name!r} is not among the tools")
            names.append(name)
        else:
            wanted = (reference.get("type"), reference.get("name"))
            if not any(tool.type == wanted[0] and wanted[1] in (None, tool.name) for tool in builtin):
                raise ValueError(f"the tool {wanted[0]!r} is not among the tools")
            kinds.append(wanted)
    return (
        [tool for tool in functions if tool.function.name in names],
        [tool for tool in builtin if any(tool.type == k and n in (None, tool.name) for k, n in kinds)],
    )


def get_model_structural_tag(
    model: str,
    *,
    tools: list[Any] | None = None,
    tool_choice: Any = "auto",
    reasoning: bool = True,
    parallel_tool_calls: bool = True,
    **_unknown: Any,
) -> StructuralTag:
    """The structural tag of what a model may write in answer to a request.

    Parameters
    ----------
    model : str
        The dialect: one of ``DIALECTS`` or a registered one.
    tools, tool_choice
        As for :func:`normalize_tool_choice`.
    reasoning : bool
        Whether the model's reasoning comes first.
    parallel_tool_calls : bool
        False allows one call at most.

    Raises
    ------
    ValueError
        The dialect is not known, or the tools and the choice do not fit.

    """
    functions, builtin, choice = normalize_tool_choice(tools, tool_choice)
    if model in _BUILDERS:
        return _BUILDERS[model](functions, builtin, choice, reasoning)
    dialect = DIALECTS.get(model)
    if dialect is None:
        raise ValueError(f"unknown format type: {model}, supported types: {sorted([*DIALECTS, *_BUILDERS])}")
    if builtin:
        raise ValueError(f"{model} has no way to write calls of the server's own tools")
    body = _body(dialect, functions, choice, single=not parallel_tool_calls)
    if reasoning and dialect.reasoning is not None:
        begin, end, after = dialect.reasoning
        thought: Any = TagFormat(begin=begin, content=AnyTextFormat(excludes=list(THINK)), end=end)
        gap = [ConstStringFormat(value=after)] if after else []
        body = SequenceFormat(elements=[thought, *gap, body])
    return StructuralTag(format=body)


def _body(dialect: Dialect, functions: list[FunctionToolParam], choice: Simplified, *, single: bool) -> Any:
    excludes = list(dialect.excludes)
    if not functions:
        return AnyTextFormat(excludes=excludes)
    calls = [_call(dialect, tool) for tool in functions]
    if dialect.outer is None:
        if choice == "forced":
            return calls[0]
        return TriggeredTagsFormat(
            triggers=[dialect.trigger], tags=calls, at_least_one=choice == "required", stop_after_first=single,
            excludes=excludes,
        )  # fmt: skip
    begin, end = dialect.outer
    listed: Any = TagsWithSeparatorFormat(
        tags=calls, separator=dialect.separator, at_least_one=True, stop_after_first=single
    )
    if choice == "auto":
        section = TagFormat(begin=begin, content=listed, end=end)
        return TriggeredTagsFormat(triggers=[begin.rstrip("\n")], tags=[section], excludes=excludes)
    inner = calls[0] if choice == "forced" else listed
    lead = ConstStringFormat(value=dialect.outer_lead + begin)
    return SequenceFormat(elements=[lead, inner, ConstStringFormat(value=end)])


def _call(dialect: Dialect, tool: FunctionToolParam) -> TagFormat:
    free = tool.function.strict is False or tool.function.parameters is None
    schema: Any = True if free else tool.function.parameters
    if free and dialect.style != "json":
        schema = {"type": "object"}
    content: Any = JSONSchemaFormat(json_schema=schema, style=dialect.style)
    if dialect.number:
        number = [RegexFormat(pattern="[0-9]+"), ConstStringFormat(value=dialect.number)]
        content = SequenceFormat(elements=[*number, content])
    name = tool.function.name
    return TagFormat(begin=dialect.begin.replace("NAME", name), content=content, end=dialect.end)
