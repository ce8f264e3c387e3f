"""Bytes as the structures that an object's BTF describes: what programs hand to user space in buffers."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from bpflisp.spec.btf import BtfKind
from simulator.maps.values import decode

if TYPE_CHECKING:
    from simulator.program import Object

_KINDS = (BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF)


def as_struct(obj: Object, name: str, data: bytes) -> Any:
    """The bytes as a struct, union or typedef of the object: fields as attributes and items.

    Raises KeyError where the object has no such type, ValueError for bytes of another size.
    """
    if obj.btf is None:
        raise KeyError(f"{obj.path} has no BTF, so nothing is known of {name!r}: compile with -g")
    type_id = next((found for kind in _KINDS if (found := obj.btf.find(name, kind)) is not None), None)
    if type_id is None:
        names = (obj.btf.type(each).name for kind in _KINDS for each in obj.btf.of_kind(kind))
        known = [each for each in names if each]
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known) or 'none'}"
        raise KeyError(f"no struct {name!r} in {obj.path}; {hint}")
    size = obj.btf.size_of(type_id)
    if len(data) < size:
        raise ValueError(f"{name} has {size} bytes, and there are {len(data)}")
    return decode(obj.btf, type_id, data[:size])
