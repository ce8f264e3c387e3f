"""Dataclasses that cost little to define: a method of theirs is written when it is first called.

A compilation loads nearly two hundred of them and makes instances of a third; writing all their methods took half of
the time until the first form was read. `dataclass` has the standard one's meaning for what is used here (`frozen`,
`slots`, `eq`, `kw_only`, default factories, `__post_init__`), and `dataclasses.replace` and `fields` work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, field, replace
from inspect import get_annotations
from types import SimpleNamespace
from typing import Any, TypeVar, dataclass_transform, overload

__all__ = ["dataclass", "field", "replace"]

T = TypeVar("T", bound=type)


@overload
def dataclass(cls: T, /) -> T: ...


@overload
def dataclass(
    *, frozen: bool = False, slots: bool = False, eq: bool = True, kw_only: bool = False
) -> Callable[[T], T]: ...


@dataclass_transform(field_specifiers=(field,))
def dataclass(cls: Any = None, /, **options: bool) -> Any:
    """The class with the methods of a dataclass, as the standard decorator of that name gives them."""
    if cls is None:
        return lambda given: _made(given, **options)
    return _made(cls)


def _made(given: type, frozen: bool = False, slots: bool = False, eq: bool = True, kw_only: bool = False) -> Any:
    own = given.__dict__
    fields = _fields_of(given, kw_only)
    cls: Any = _with_slots(given, fields) if slots else given
    cls.__dataclass_fields__ = fields
    cls.__dataclass_params__ = SimpleNamespace(frozen=frozen)  # What a standard dataclass asks of its bases.
    cls.__match_args__ = tuple(each.name for each in fields.values() if each.init and not each.kw_only)  # type: ignore[misc]  # The name is special to mypy whatever holds it.
    if "__init__" not in own:
        _later(cls, "__init__", _init_source, frozen)
    if "__repr__" not in own:
        cls.__repr__ = _repr
    if eq:
        if "__eq__" not in own:
            _later(cls, "__eq__", _eq_source, frozen)
        if "__hash__" not in own:
            cls.__hash__ = None
            if frozen:
                _later(cls, "__hash__", _hash_source, frozen)
    if frozen:
        cls.__setattr__, cls.__delattr__ = _refuse_set, _refuse_delete
        cls.__getstate__, cls.__setstate__ = _state, _restore
    return cls


def _fields_of(cls: type, kw_only: bool) -> dict[str, Field[Any]]:
    """The inherited fields, then the annotated names of the class; what a `field(...)` says stands there no more."""
    found: dict[str, Field[Any]] = {}
    for base in cls.__mro__[-1:0:-1]:
        found |= base.__dict__.get("__dataclass_fields__", {})
    for name, kind in get_annotations(cls).items():
        if str(kind).startswith(_NO_FIELDS):
            raise TypeError(f"{cls.__qualname__}.{name}: {kind} has no meaning in a lean dataclass")
        given = cls.__dict__.get(name, MISSING)
        each: Any = given if isinstance(given, Field) else field(default=given)
        if each is given and each.default is not MISSING:
            setattr(cls, name, each.default)
        elif each is given:
            delattr(cls, name)
        if each.default.__class__.__hash__ is None:
            raise ValueError(f"{cls.__qualname__}.{name}: a default of its own for each instance is made by a factory")
        each.name, each.type, each._field_type = name, kind, _FIELD
        each.kw_only = kw_only if each.kw_only is MISSING else each.kw_only
        found[name] = each
    return found


_FIELD: Any = vars(dataclasses)["_FIELD"]
"""What marks a field as such for `dataclasses.fields` and `replace`."""

_NO_FIELDS = ("ClassVar", "typing.ClassVar", "InitVar", "dataclasses.InitVar", "KW_ONLY", "dataclasses.KW_ONLY")


def _with_slots(cls: type, names: Iterable[str]) -> type:
    """The class made anew: slots must be there from its beginning."""
    inherited = {name for base in cls.__mro__[1:-1] for name in base.__dict__.get("__slots__", ())}
    body = {name: value for name, value in cls.__dict__.items() if name not in names}
    body["__slots__"] = tuple(name for name in names if name not in inherited)
    body.pop("__dict__", None)
    body.pop("__weakref__", None)
    made: type = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    return made


_Source = Callable[[Sequence["Field[Any]"], bool], str]


def _later(cls: type, name: str, source: _Source, frozen: bool) -> None:
    """Give a class a method that writes itself, by `source`, when it is first called."""

    def first(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _write(cls, name, source, frozen)(self, *args, **kwargs)

    first.__name__, first.__qualname__ = name, f"{cls.__qualname__}.{name}"
    setattr(cls, name, first)


def _write(cls: type, name: str, source: _Source, frozen: bool) -> Any:
    fields = dataclasses.fields(cls)
    names: dict[str, Any] = {"_missing": MISSING, "_set": object.__setattr__}
    for each in fields:
        names[f"_default_{each.name}"] = each.default
        names[f"_make_{each.name}"] = each.default_factory
    text = source(fields, frozen)
    if name == "__init__" and hasattr(cls, "__post_init__"):
        text += "\n self.__post_init__()"
    exec(text, names)
    method = names[name]
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    setattr(cls, name, method)
    return method


def _init_source(fields: Sequence[Field[Any]], frozen: bool) -> str:
    params = [_parameter(each) for each in fields if each.init and not each.kw_only]
    named = [_parameter(each) for each in fields if each.init and each.kw_only]
    head = ", ".join(["self", *params, *(["*", *named] if named else [])])
    lines = [_assignment(each, frozen) for each in fields]
    return "\n ".join([f"def __init__({head}):", *lines, "pass"])


def _parameter(each: Field[Any]) -> str:
    if each.default is not MISSING:
        return f"{each.name}=_default_{each.name}"
    return f"{each.name}=_missing" if each.default_factory is not MISSING else each.name


def _assignment(each: Field[Any], frozen: bool) -> str:
    value = each.name
    if each.default_factory is not MISSING:
        value = f"_make_{value}() if {value} is _missing else {value}" if each.init else f"_make_{value}()"
    elif not each.init:
        if each.default is MISSING:
            return "pass"
        value = f"_default_{value}"
    return f"_set(self, '{each.name}', {value})" if frozen else f"self.{each.name} = {value}"


def _compared(fields: Sequence[Field[Any]], of: str) -> str:
    return "(" + "".join(f"{of}.{each.name}, " for each in fields if each.compare) + ")"


def _eq_source(fields: Sequence[Field[Any]], _: bool) -> str:
    mine, others = _compared(fields, "self"), _compared(fields, "other")
    return (
        f"def __eq__(self, other):\n return {mine} == {others} if other.__class__ is self.__class__ else NotImplemented"
    )


def _hash_source(fields: Sequence[Field[Any]], _: bool) -> str:
    hashed = [each for each in fields if (each.compare if each.hash is None else each.hash)]
    parts = "".join(f"self.{each.name}, " for each in hashed)
    return f"def __hash__(self):\n return hash(({parts}))"


def _repr(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in dataclasses.fields(self) if each.repr)
    return f"{type(self).__qualname__}({shown})"


def _refuse_set(_: Any, name: str, __: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
