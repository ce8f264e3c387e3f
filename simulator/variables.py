"""The global variables of a world's objects by name: `world.variables.seen`, as a skeleton's `bss->seen`.

They lie in the maps that back `.data`, `.bss` and `.rodata`, and BTF says where. Those of `.rodata` were frozen before
the programs were verified: they are read here, and set when the object is loaded.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from bpflisp.spec.btf import Btf, BtfKind
from simulator.maps import Map, MapError
from simulator.maps.values import decode, encode

_FIRST = bytes(4)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a variable lies: a map, the id of its type in a BTF, its bytes in the map's one value."""

    map: Map
    btf: Btf
    type: int
    offset: int
    size: int


class Variables(MutableMapping[str, Any]):
    """Global variables, as items or attributes: numbers, bytes, lists and records by their types.

    What is read is a copy: assign a whole value to change it. KeyError or AttributeError for a name that no object
    has, or several places have; MapError EPERM for a constant.
    """

    __slots__ = ("_maps",)

    def __init__(self, maps: Mapping[str, Map]) -> None:
        object.__setattr__(self, "_maps", maps)

    def __getitem__(self, name: str) -> Any:
        place = self._place(name)
        data = place.map.lookup(_FIRST) or b""
        return decode(place.btf, place.type, data[place.offset : place.offset + place.size])

    def __setitem__(self, name: str, value: Any) -> None:
        place = self._place(name)
        if place.map.definition.frozen:
            raise MapError(
                errno.EPERM, f"variable {name!r} is a constant: load(..., variables={{{name!r}: ...}}) sets it"
            )
        data = bytearray(place.map.lookup(_FIRST) or b"")
        data[place.offset : place.offset + place.size] = encode(place.btf, place.type, value, place.size)
        place.map.update(_FIRST, bytes(data))

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"variable {name!r} is there as long as its object is")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._places()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<variables {', '.join(self) or 'none'}>"

    def _places(self) -> Iterator[tuple[str, _Place]]:
        for each in self._maps.values():
            btf, datasec = each.definition.btf, each.definition.btf_value
            if btf is None or not datasec or btf.type(datasec).kind is not BtfKind.DATASEC:
                continue
            for variable in btf.variables(datasec):
                declared = btf.type(variable.type)
                if declared.kind is BtfKind.VAR:
                    yield declared.name, _Place(each, btf, declared.target, variable.offset, variable.size)

    def _place(self, name: str) -> _Place:
        found = [place for known, place in self._places() if known == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise KeyError(f"{len(found)} variables are named {name!r}: go by the maps of their sections")
        near = get_close_matches(name, list(self), n=1)
        raise KeyError(
            f"no variable {name!r}; "
            + (f"did you mean {near[0]!r}?" if near else f"there is {', '.join(self) or 'none that BTF describes'}")
        )
