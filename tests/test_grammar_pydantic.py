"""pydantic types as grammars: what a grammar lets through, pydantic's own validation of JSON text takes."""

import datetime
import enum
import json
import uuid
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import tokamask as tm

pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
Field = pydantic.Field

WORDS = [
    b'": ',
    b'", "',
    b'"}',
    b"true",
    b"2024-",
    b"-01",
    b"T00:00:00Z",
    b"null",
    b"1",
    b"0",
    b"e",
    b'\\"',
    b"ab",
]
TOKENS = [*(bytes([b]) for b in range(256)), *WORDS]
VOCABULARY = tm.Vocabulary([*TOKENS, b""], special={"<end>": len(TOKENS)}, eos_ids=[len(TOKENS)])
CLOSING = [*b'"]}', len(TOKENS)]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue \u00e9"


class Model(pydantic.BaseModel):
    """Without other properties, or random walks write little else."""

    model_config = pydantic.ConfigDict(extra="forbid")


class Inner(Model):
    x: int
    y: float | None = None


class Closed(Model):
    name: Annotated[str, Field(min_length=1, max_length=8)]
    age: Annotated[int, Field(ge=0, le=130)]
    ok: bool


class Constrained(Model):
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{3}$")]
    half: Annotated[float, Field(multiple_of=0.5, gt=-2, lt=2)]
    even: Annotated[int, Field(multiple_of=2, ge=-10, lt=10)]
    few: Annotated[list[Annotated[int, Field(gt=3)]], Field(min_length=1, max_length=3)]


class Choices(Model):
    kind: Literal["a", "b", 3]
    colour: Colour
    either: int | bool | Inner | None
    pair: tuple[int, Literal["x"]]


class Containers(Model):
    by_name: dict[str, int]
    unique: set[Literal["a", "b", "c"]]
    nested: list[list[Inner]]
    anything: Any = None


class Moments(Model):
    at: datetime.datetime
    day: datetime.date
    id: uuid.UUID


class Renamed(Model):
    first_name: str = Field(alias="firstName", max_length=4)
    n: Annotated[int, Field(default=3, ge=1, le=5)]


class Tree(Model):
    value: Literal[0, 1]
    children: list["Tree"] = Field(default_factory=list)


class Cat(Model):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)]


class Dog(Model):
    kind: Literal["dog"]
    good: bool


class Owner(Model):
    pet: Cat | Dog = Field(discriminator="kind")


# Not here: Decimal, whose schema by pydantic takes any string, and strict integers, which JSON Schema may write as 7.0.
MODELS = [Inner, Closed, Constrained, Choices, Containers, Moments, Renamed, Tree, Owner]
ADAPTERS = [
    list[Inner],
    dict[Literal["a", "b"], int],
    int | None,
    Annotated[str, Field(pattern="^a+$")],
    tuple[bool, ...],
]


def walks(compiled, n, seed):
    """Texts of random walks that came to an end."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        matcher, ids = compiled.matcher(), []
        for step in range(300):
            bits = np.unpackbits(matcher.mask_row().view(np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits[: len(VOCABULARY)])
            assert len(allowed), f"dead end after {ids}"
            closing = np.intersect1d(allowed, CLOSING)
            chosen = closing if len(closing) and rng.random() < min(0.4 + step / 60, 0.95) else allowed
            token = int(rng.choice(chosen))
            matcher.accept(token)
            if matcher.is_terminated():
                yield b"".join(TOKENS[i] for i in ids)
                break
            ids.append(token)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_is_let_through_is_valid(model):
    compiled = tm.compile(tm.Grammar.json_schema(model, whitespace=1), VOCABULARY)
    done = 0
    for text in walks(compiled, 12, 1):
        json.loads(text)
        model.model_validate_json(text)
        done += 1
    assert done >= 6


def test_what_cannot_be_enforced_is_refused_by_name():
    with pytest.raises(tm.errors.UnsupportedKeywordError) as caught:
        tm.Grammar.json_schema(pydantic.TypeAdapter(set[int]))
    assert caught.value.keyword == "uniqueItems"


@pytest.mark.parametrize("kind", ADAPTERS, ids=str)
def test_type_adapters(kind):
    adapter = pydantic.TypeAdapter(kind)
    compiled = tm.compile(tm.Grammar.json_schema(adapter), VOCABULARY)
    texts = list(walks(compiled, 8, 2))
    assert texts
    for text in texts:
        adapter.validate_json(text)


VALUES = [
    Inner(x=-3, y=2.5),
    Closed(name="Zo\u00eb", age=7, ok=True),
    Constrained(code="AB-123", half=-0.5, even=4, few=[4, 5]),
    Choices(kind=3, colour=Colour.BLUE, either=None, pair=(1, "x")),
    Containers(by_name={"a b": 1}, unique={"a", "c"}, nested=[[Inner(x=1)], []], anything=[{"q": None}]),
    Moments(at=datetime.datetime(2024, 2, 29, 23, 59, 59, tzinfo=datetime.timezone.utc), day=datetime.date(2000, 2, 29), id=uuid.uuid5(uuid.NAMESPACE_DNS, "x")),
    Renamed(firstName="Al", n=5),
    Tree(value=0, children=[Tree(value=1), Tree(value=0, children=[Tree(value=1)])]),
    Owner(pet=Dog(kind="dog", good=True)),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_pydantic_writes_is_taken(value):
    matcher = tm.compile(tm.Grammar.json_schema(type(value)), VOCABULARY).matcher()
    text = value.model_dump_json(by_alias=True).encode()
    assert matcher.accept_prefix(list(text)) == len(text), text
    assert matcher.is_accepting()
