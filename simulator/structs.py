"""The structs of an object as Python classes: `obj.types.flow_key(dport=80)` makes a value that a map takes as a key.

Invariant: a class is made of BTF alone, so that a `defstruct` and a struct of C give the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar

from bpflisp.spec.btf import Btf, BtfKind
from simulator.maps.values import Record, decode, encode, named_members

_KINDS = (BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF)


_GIVES_WAY = frozenset({"size", "fields", "replace", "from_bytes"})


class Struct(Record):
    """A value of a struct. Fields that are not given are zero; `bytes(value)` is how programs see it.

    `size` is in bytes; `fields` are the names. Raises ValueError or TypeError for a field that there is not, and for a
    value that does not fit.
    """

    __slots__ = ()

    size: ClassVar[int]
    fields: ClassVar[tuple[str, ...]]
    _btf: ClassVar[Btf]
    _type_id: ClassVar[int]

    def __init__(self, **fields: Any) -> None:
        data = encode(self._btf, self._type_id, fields, type(self).size)
        super().__init__(type(self).__name__, decode(self._btf, self._type_id, data))

    @classmethod
    def from_bytes(cls, data: bytes) -> Struct:
        """The value that these bytes are. ValueError for another number of bytes."""
        if len(data) != cls.size:
            raise ValueError(f"{cls.__name__} has {cls.size} bytes, and there are {len(data)}")
        made = cls.__new__(cls)
        Record.__init__(made, cls.__name__, decode(cls._btf, cls._type_id, data))
        return made

    def __getattribute__(self, name: str) -> Any:
        # A field comes before what the class has under its name.
        if name in _GIVES_WAY and name in Record.__iter__(self):
            return self[name]
        return super().__getattribute__(name)

    def replace(self, **fields: Any) -> Struct:
        """The same with other values for these fields."""
        return type(self)(**{**dict(self), **fields})

    def __bytes__(self) -> bytes:
        return encode(self._btf, self._type_id, self, type(self).size)


class Types(Mapping[str, type[Struct]]):
    """The structs, unions and typedefs of such of an object, by name; also as attributes."""

    def __init__(self, path: str, btf: Btf | None) -> None:
        self._path, self._btf = path, btf
        self._made: dict[str, type[Struct]] = {}

    def __getitem__(self, name: str) -> type[Struct]:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __getattr__(self, name: str) -> type[Struct]:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._named()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def _named(self) -> Iterator[tuple[str, int]]:
        """The types by name, each with the id of its struct or union."""
        if self._btf is None:
            return
        for kind in _KINDS:
            for type_id in self._btf.of_kind(kind):
                inner = self._btf.resolve(type_id)
                if self._btf.type(type_id).name and self._btf.type(inner).kind in _KINDS:
                    yield self._btf.type(type_id).name, inner

    def _make(self, name: str) -> type[Struct]:
        if self._btf is None:
            raise KeyError(f"{self._path} has no BTF, so nothing is known of {name!r}: compile with -g")
        type_id = next((found for known, found in self._named() if known == name), None)
        if type_id is None:
            near = get_close_matches(name, list(self), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self) or 'none'}"
            raise KeyError(f"no struct {name!r} in {self._path}; {hint}")
        btf = self._btf
        about = {
            "__slots__": (),
            "__doc__": f"`{name}` of {self._path}.",
            "size": btf.size_of(type_id),
            "fields": tuple(member.name for member in named_members(btf, type_id)),
            "_btf": btf,
            "_type_id": type_id,
        }
        return type(name, (Struct,), about)
