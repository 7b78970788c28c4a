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

    __str__ = __repr__

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


def shown_fields(fields: dict[str, Any]) -> str:
    """Fields as the original prints them: at most five entries of a list, the rest as dots."""
    return ", ".join(f"{name}={shown(value)}" for name, value in fields.items())


def shown(value: Any) -> str:
    """A value as the original prints it."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, str) and type(value).__name__ == "_Shown":
        return str(value)  # a part that has printed itself
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        if "type" in value:
            inner = {name: field for name, field in value.items() if name != "type"}
            return f"{value['type']}({shown_fields(inner)})"
        items = [f"{shown(k)}:{shown(v)}" for k, v in list(value.items())[:5]]
        return "{" + ", ".join(items + ["..."] * (len(value) > 5)) + "}"
    if isinstance(value, (list, tuple)):
        items = [shown(item) for item in value[:5]] + ["..."] * (len(value) > 5)
        return (
            ("(" if isinstance(value, tuple) else "[")
            + ", ".join(items)
            + (")" if isinstance(value, tuple) else "]")
        )
    return str(value)
