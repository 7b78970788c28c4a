"""JSON Schemas and documents that satisfy them: a dozen of the project's own, and real ones where the large data is present."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass

from bench.data import unpacked

REAL = 30
"""How many real schemas are drawn, by hash of the file name."""


@dataclass(frozen=True)
class Case:
    """A schema and one document that it allows, both as JSON text."""

    name: str
    schema: str
    document: str

    def renamed(self, turn: int) -> str:
        """The schema as text that no cache has seen: the same rules under another title."""
        schema = json.loads(self.schema)
        return json.dumps({**schema, "title": f"{self.name} {turn}"} if isinstance(schema, dict) else schema)


def _object(properties: dict, required: list[str] | None = None, **more) -> dict:
    required = list(properties) if required is None else required
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        **more,
    }


STRING, INTEGER, NUMBER, BOOLEAN = ({"type": t} for t in ("string", "integer", "number", "boolean"))
PROSE = "The committee met on Tuesday; nobody could say why the old bridge had been painted blue. " * 3
LEAF = _object({"id": INTEGER, "label": STRING, "done": BOOLEAN})
STATES = ["open", "in progress", "blocked", "waiting for review", "closed", "rejected", "duplicate"]

OWN = {
    "person": (
        _object({"name": STRING, "age": INTEGER, "email": STRING}),
        {"name": "Ada Lovelace", "age": 36, "email": "ada@example.org"},
    ),
    "order": (
        _object(
            {
                "customer": _object({"name": STRING, "vip": BOOLEAN}),
                "items": {
                    "type": "array",
                    "items": _object({"sku": STRING, "count": INTEGER, "price": NUMBER}),
                },
                "note": STRING,
            },
            ["customer", "items"],
        ),
        {
            "customer": {"name": "Zoë", "vip": True},
            "items": [{"sku": f"A-{i:03d}", "count": i, "price": i * 1.25} for i in range(1, 12)],
            "note": "leave at the door",
        },
    ),
    "tool call": (
        _object(
            {
                "tool": {"enum": ["search", "open_file", "run_tests", "write_file"]},
                "arguments": {"type": "object", "additionalProperties": STRING},
            }
        ),
        {
            "tool": "write_file",
            "arguments": {"path": "src/main.rs", "content": 'fn main() { println!("hi"); }\n'},
        },
    ),
    "free text": (_object({"title": STRING, "text": STRING}), {"title": "Minutes", "text": PROSE}),
    "long enumeration": (
        {"type": "array", "items": {"enum": [f"{s} ({i})" for i in range(60) for s in STATES]}},
        [f"{STATES[i % 7]} ({i * 5 % 60})" for i in range(25)],
    ),
    "numbers": ({"type": "array", "items": NUMBER}, [i * 3.7 - 50 for i in range(40)] + [1e-7, 2.5e30]),
    "optional properties": (
        _object({f"field_{c}": INTEGER for c in "abcdefghijklmnop"}, []),
        {f"field_{c}": ord(c) for c in "acegikmo"},
    ),
    "tree": (
        {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": _object(
                    {"value": INTEGER, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}
                )
            },
        },
        {
            "value": 1,
            "children": [{"value": i, "children": [{"value": i * i, "children": []}]} for i in range(8)],
        },
    ),
    "nested": (
        _object({"a": _object({"b": _object({"c": _object({"d": {"type": "array", "items": LEAF}})})})}),
        {"a": {"b": {"c": {"d": [{"id": i, "label": f"leaf {i}", "done": i % 2 == 0} for i in range(9)]}}}},
    ),
    "union": (
        {"type": "array", "items": {"type": ["string", "integer", "boolean", "null"]}},
        ["x", 1, True, None, "déjà vu", -17, False, "日本語"] * 3,
    ),
    "pattern": (
        _object(
            {
                "date": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
                "code": {"type": "string", "pattern": "^[A-Z]{2,4}$"},
            }
        ),
        {"date": "2026-11-22", "code": "QRT"},
    ),
    "map": (
        {"type": "object", "additionalProperties": {"type": "array", "items": INTEGER}},
        {f"series {i}": list(range(i, i + 7)) for i in range(6)},
    ),
}


@functools.cache
def own() -> tuple[Case, ...]:
    """The project's schemas."""
    return tuple(Case(name, json.dumps(s), json.dumps(d, ensure_ascii=False)) for name, (s, d) in OWN.items())


@functools.cache
def real() -> tuple[Case, ...]:
    """Real schemas of up to 8 kB with a valid document of up to 3 kB; empty where the large data is absent."""
    folder = unpacked("json_schema_open.tar.xz")
    if folder is None:
        return ()
    paths = (folder / "open" / "maskbench").glob("*.json")
    cases = []
    for path in sorted(paths, key=lambda p: hashlib.sha256(p.name.encode()).hexdigest()):
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = json.dumps(content["schema"])
        valid = [json.dumps(t["data"], ensure_ascii=False) for t in content["tests"] if t["valid"]]
        valid = [document for document in valid if len(document) < 3_000]
        if valid and len(schema) < 8_000:
            cases.append(Case(path.stem, schema, max(valid, key=len)))
        if len(cases) == REAL:
            break
    return tuple(cases)
