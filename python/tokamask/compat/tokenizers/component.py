"""What all components of a pipeline share: their state is the JSON that stands in a tokenizer.json."""

from __future__ import annotations

import json
from typing import Any, ClassVar

changes = 0
"""Grows with every change of a component: pipelines built before it are built again."""


class Component:
    """A part of a tokenizer, named by its class, with the fields that ``FIELDS`` lists in file order."""

    KIND: ClassVar[type[Component]]
    FIELDS: ClassVar[tuple[str, ...]] = ()
    TYPE: ClassVar[str] = ""
    _TYPES: ClassVar[dict[str, type[Component]]]

    def __init_subclass__(cls, kind: bool = False) -> None:
        if kind:
            cls.KIND, cls._TYPES = cls, {}
        else:
            cls.TYPE = cls.__dict__.get("TYPE") or cls.__name__
            cls.KIND._TYPES[cls.TYPE] = cls

    def __setattr__(self, name: str, value: Any) -> None:
        global changes
        changes += 1
        object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Any]:
        """The component as it stands in a tokenizer.json."""
        return {"type": self.TYPE, **{field: _plain(getattr(self, field)) for field in self.FIELDS}}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Any:
        """The component of a state; UnsupportedComponentError names a type that is not known."""
        from tokamask.errors import UnsupportedComponentError

        state = dict(state)
        name = str(state.pop("type", cls.TYPE))
        found = cls.KIND._TYPES.get(name)
        if found is None:
            raise UnsupportedComponentError(f"no {cls.KIND.__name__} is called {name!r}", component=name)
        return found._load(state)

    @classmethod
    def _load(cls, state: dict[str, Any]) -> Any:
        return cls(**state)

    def __getstate__(self) -> bytes:
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":")).encode()

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(type(self).from_json(json.loads(state)).__dict__)

    def __reduce__(self) -> Any:
        return _restored, (type(self).KIND, self.__getstate__())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_fields(self._shown())})"

    def __str__(self) -> str:
        return f"{type(self).__name__}({shown_fields(self._shown(), 5)})"

    def _shown(self) -> dict[str, Any]:
        state = self.to_json()
        state.pop("type")
        return state


def _restored(kind: type[Component], state: bytes) -> Any:
    return kind.from_json(json.loads(state))


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.to_json()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def shown_fields(fields: dict[str, Any], most: int | None = None) -> str:
    """Fields as the original prints them."""
    return ", ".join(f"{name}={shown(value, most, name)}" for name, value in fields.items())


def shown(value: Any, most: int | None = None, name: str = "") -> str:
    """A value as the original prints it: of lists and tables ``most`` entries, the rest as dots."""
    if isinstance(value, Component):
        return str(value) if most else repr(value)
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, str):
        return value if name in ("prepend_scheme", "behavior") else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        if "type" in value:
            inner = {name: field for name, field in value.items() if name != "type"}
            return f"{value['type']}({shown_fields(inner, most)})"
        if len(value) == 1 and value.keys() & {"String", "Regex"}:
            ((kind, text),) = value.items()
            return f"{kind}({shown(text)})"
        if len(value) == 1 and value.keys() & {"SpecialToken", "Sequence"}:
            ((kind, inner),) = value.items()
            named = f"id={inner['id']}" if kind == "Sequence" else f"id={shown(inner['id'])}"
            return f"{kind}({named}, type_id={inner['type_id']})"
        if value.keys() == {"id", "ids", "tokens"}:
            return f"SpecialToken({shown_fields(value, most)})"
        items = [f"{shown(k)}:{shown(v, most)}" for k, v in list(value.items())[:most]]
        return "{" + ", ".join(items + ["..."] * (most is not None and len(value) > most)) + "}"
    if isinstance(value, (list, tuple)):
        cut = (
            most is not None
            and len(value) > most
            and isinstance(value, list)
            and name not in ("single", "pair")
        )
        items = [shown(item, most) for item in (value[:most] if cut else value)] + ["..."] * cut
        return (
            ("(" if isinstance(value, tuple) else "[")
            + ", ".join(items)
            + (")" if isinstance(value, tuple) else "]")
        )
    return str(value)
