"""The formats of structural tags as pydantic models, with xgrammar's names and fields; needs pydantic.

What each format matches is said at :meth:`tokamask.Grammar.structural_tag`, which reads what ``model_dump`` writes.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokamask.compat import xgrammar

__all__ = [
    "AnyTextFormat",
    "AnyTokensFormat",
    "ConstStringFormat",
    "DispatchFormat",
    "ExcludeTokenFormat",
    "Format",
    "GrammarFormat",
    "JSONSchemaFormat",
    "OptionalFormat",
    "OrFormat",
    "PlusFormat",
    "QwenXMLParameterFormat",
    "RegexFormat",
    "RepeatFormat",
    "SequenceFormat",
    "StarFormat",
    "StructuralTag",
    "StructuralTagItem",
    "TagFormat",
    "TagsWithSeparatorFormat",
    "TokenDispatchFormat",
    "TokenFormat",
    "TokenTriggeredTagsFormat",
    "TriggeredTagsFormat",
]

Token = int | str
Count = Annotated[int, Field(ge=0, lt=1 << 31)]


class ConstStringFormat(BaseModel):
    """One text."""

    type: Literal["const_string"] = "const_string"
    value: str


class JSONSchemaFormat(BaseModel):
    """A JSON value, or the arguments of a call as one of the XML dialects of models writes them."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: bool | dict[str, Any]
    style: Literal[
        "json",
        "qwen_xml",
        "minimax_xml",
        "minimax_m3_xml",
        "deepseek_xml",
        "glm_xml",
        "cohere_xml",
        "kimi_k3_xml",
        "deepseek_v4_1_xml",
    ] = "json"
    any_order: bool = False
    max_whitespace_cnt: int | None = None
    excludes: list[str] = []


class QwenXMLParameterFormat(BaseModel):
    """As a JSONSchemaFormat of the style "qwen_xml"."""

    type: Literal["qwen_xml_parameter"] = "qwen_xml_parameter"
    json_schema: bool | dict[str, Any]


class AnyTextFormat(BaseModel):
    """Free text without some texts."""

    type: Literal["any_text"] = "any_text"
    excludes: list[str] = []
    max_tokens: Count | None = None
    max_chars: Count | None = None


class TokenFormat(BaseModel):
    """One token, by its id or name."""

    type: Literal["token"] = "token"
    token: Token


class ExcludeTokenFormat(BaseModel):
    """Any token but some."""

    type: Literal["exclude_token"] = "exclude_token"
    exclude_tokens: list[Token] = []


class AnyTokensFormat(BaseModel):
    """Any number of tokens but some."""

    type: Literal["any_tokens"] = "any_tokens"
    exclude_tokens: list[Token] = []
    max_tokens: Count | None = None


class GrammarFormat(BaseModel):
    """Text that a grammar in EBNF matches."""

    type: Literal["grammar"] = "grammar"
    grammar: str


class RegexFormat(BaseModel):
    """Text that a regular expression matches."""

    type: Literal["regex"] = "regex"
    pattern: str


class SequenceFormat(BaseModel):
    """One after another."""

    type: Literal["sequence"] = "sequence"
    elements: list[Format]


class OrFormat(BaseModel):
    """One of several."""

    type: Literal["or"] = "or"
    elements: list[Format]


class TagFormat(BaseModel):
    """A beginning, a content and an end."""

    type: Literal["tag"] = "tag"
    begin: str | TokenFormat
    content: Format
    end: str | list[str] | TokenFormat


class TriggeredTagsFormat(BaseModel):
    """Free text in which a trigger must be followed by the rest of a tag."""

    type: Literal["triggered_tags"] = "triggered_tags"
    triggers: list[str]
    tags: list[TagFormat]
    at_least_one: bool = False
    stop_after_first: bool = False
    excludes: list[str] = []


class TokenTriggeredTagsFormat(BaseModel):
    """As :class:`TriggeredTagsFormat`, with tokens for triggers."""

    type: Literal["token_triggered_tags"] = "token_triggered_tags"
    trigger_tokens: list[Token]
    tags: list[TagFormat]
    exclude_tokens: list[Token] = []
    at_least_one: bool = False
    stop_after_first: bool = False


class TagsWithSeparatorFormat(BaseModel):
    """Tags with a text between them."""

    type: Literal["tags_with_separator"] = "tags_with_separator"
    tags: list[TagFormat]
    separator: str
    at_least_one: bool = False
    stop_after_first: bool = False


class OptionalFormat(BaseModel):
    """Once or not at all."""

    type: Literal["optional"] = "optional"
    content: Format


class PlusFormat(BaseModel):
    """Once or more often."""

    type: Literal["plus"] = "plus"
    content: Format


class StarFormat(BaseModel):
    """Any number of times."""

    type: Literal["star"] = "star"
    content: Format


class RepeatFormat(BaseModel):
    """So many times; a ``max`` of -1 is no bound."""

    type: Literal["repeat"] = "repeat"
    min: int
    max: int
    content: Format


class DispatchFormat(BaseModel):
    """Free text in which some texts are followed by a format each."""

    type: Literal["dispatch"] = "dispatch"
    rules: list[tuple[str, Format]]
    loop: bool = True
    excludes: list[str] = []


class TokenDispatchFormat(BaseModel):
    """As :class:`DispatchFormat`, with tokens."""

    type: Literal["token_dispatch"] = "token_dispatch"
    rules: list[tuple[Token, Format]]
    loop: bool = True
    exclude_tokens: list[Token] = []


Format = Annotated[
    Union[  # noqa: UP007 - a union that pydantic resolves by the field "type"
        AnyTextFormat, ConstStringFormat, JSONSchemaFormat, GrammarFormat, RegexFormat, QwenXMLParameterFormat, OrFormat,
        SequenceFormat, TagFormat, TriggeredTagsFormat, TokenTriggeredTagsFormat, TagsWithSeparatorFormat,
        OptionalFormat, PlusFormat, StarFormat, TokenFormat, ExcludeTokenFormat, AnyTokensFormat, RepeatFormat,
        DispatchFormat, TokenDispatchFormat,
    ],
    Field(discriminator="type"),
]  # fmt: skip


class StructuralTagItem(BaseModel):
    """A tag as engines passed it before formats had a type."""

    model_config = ConfigDict(populate_by_name=True)
    begin: str
    schema_: str | type[BaseModel] | dict[str, Any] = Field(alias="schema")
    end: str


class StructuralTag(BaseModel):
    """A whole structural tag."""

    type: Literal["structural_tag"] = "structural_tag"
    format: Format

    @staticmethod
    def from_legacy_structural_tag(tags: list[Any], triggers: list[str]) -> StructuralTag:
        """Tags that begin with triggers, in free text."""
        read = [
            TagFormat(
                begin=tag.begin,
                content=JSONSchemaFormat(
                    json_schema=xgrammar._plain_schema(getattr(tag, "schema_", None) or tag.schema)
                ),
                end=tag.end,
            )
            for tag in tags
        ]
        return StructuralTag(format=TriggeredTagsFormat(triggers=triggers, tags=read))

    @staticmethod
    def from_json(json_str: str | dict[str, Any]) -> StructuralTag:
        """A structural tag given as JSON text or a dict.

        Raises
        ------
        InvalidJSONError
            The text is not JSON.
        InvalidStructuralTagError
            The JSON is no structural tag.

        """
        try:
            value = json.loads(json_str) if isinstance(json_str, str) else json_str
        except json.JSONDecodeError as error:
            raise xgrammar.InvalidJSONError(str(error)) from error
        try:
            read: StructuralTag = StructuralTag.model_validate(value)
        except ValidationError as error:
            raise xgrammar.InvalidStructuralTagError(str(error)) from error
        return read


for _model in (SequenceFormat, OrFormat, TagFormat, TriggeredTagsFormat, TokenTriggeredTagsFormat,
               TagsWithSeparatorFormat, OptionalFormat, PlusFormat, StarFormat, RepeatFormat, DispatchFormat,
               TokenDispatchFormat, StructuralTag):  # fmt: skip
    _model.model_rebuild()
