"""The parts of a map's value, or of an allocated object, that the kernel manages, found in its BTF.

Source: btf_parse_fields of kernel/bpf/btf.c.
"""

from __future__ import annotations

from typing import Final

from bpflisp.spec.btf import Btf, BtfKind
from simulator.verifier.maps import MANAGED_SIZES, Field

_DEEPEST: Final = 4
_KPTR_TAGS: Final = {"kptr_untrusted": "kptr_unref", "kptr": "kptr_ref", "percpu_kptr": "kptr_percpu", "uptr": "uptr"}
_ROOTS: Final = frozenset({"bpf_list_head", "bpf_rb_root"})


def _pointer_field(btf: Btf, type_id: int, offset: int) -> Field | None:
    """A tagged pointer to a kernel object."""
    head = btf.type(btf.skip_modifiers(type_id))
    if head.kind is not BtfKind.PTR:
        return None
    tag = btf.type(head.target)
    if tag.kind is not BtfKind.TYPE_TAG or tag.name not in _KPTR_TAGS:
        return None
    return Field(_KPTR_TAGS[tag.name], offset, 8, (btf, btf.resolve(tag.target)))


def _collect(btf: Btf, type_id: int, offset: int, depth: int, found: list[Field]) -> None:
    pointer = _pointer_field(btf, type_id, offset)
    if pointer is not None:
        found.append(pointer)
        return
    resolved = btf.resolve(type_id)
    head = btf.type(resolved)
    if head.kind is BtfKind.STRUCT and head.name in MANAGED_SIZES:
        found.append(Field(head.name, offset, MANAGED_SIZES[head.name]))
    elif head.kind is BtfKind.STRUCT and depth < _DEEPEST:
        for member in btf.members(resolved):
            _collect(btf, member.type, offset + member.bit_offset // 8, depth + 1, found)
    elif head.kind is BtfKind.ARRAY and depth < _DEEPEST:
        array = btf.array(resolved)
        size = btf.size_of(array.element)
        inner: list[Field] = []
        _collect(btf, array.element, 0, depth + 1, inner)
        for number in range(array.count if inner else 0):
            at = offset + number * size
            found.extend(Field(one.kind, at + one.offset, one.size, one.target) for one in inner)
    elif head.kind is BtfKind.DATASEC:
        for variable in btf.variables(resolved):
            _collect(btf, btf.type(variable.type).target, offset + variable.offset, depth, found)


def managed_fields(btf: Btf, type_id: int) -> tuple[Field, ...]:
    """The managed fields of a type, by offset."""
    found: list[Field] = []
    _collect(btf, type_id, 0, 0, found)
    return tuple(sorted(found, key=lambda one: one.offset))
