"""Contexts as BTF has them: what the `ctx` parameter of a function points to.

The kernel compares the name of what a global function's parameter points to with its own structure's, and wants a
structure there: one that is only declared is a pointer to nothing that it knows. So the whole structure is written, as
clang writes that of the header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from bpflisp.spec import btf_build as btf
from bpflisp.spec import contexts
from bpflisp.spec.contexts import Field

_NUMBERS: Final = {
    "__u8": btf.U8, "__u16": btf.U16, "__u32": btf.U32, "__u64": btf.U64, "__s32": btf.S32, "__be16": btf.U16,
    "__be32": btf.U32,
}  # fmt: skip
_REGISTERS = "bpf_user_pt_regs_t"
_ARRAY = re.compile(r"(.+)\[(\d+)\]\Z")
_POINTER = re.compile(r"(?:const )?(?:struct (\w+)|void) \*\Z")


@cache
def context_type(prog_type: str, arch: str) -> btf.CType | None:
    """The context of a program type; `arch` is whose registers a kprobe has. None where it has no structure."""
    struct = contexts.context_struct(prog_type)
    if struct is None:
        return None
    return _registers(arch) if struct.name == "pt_regs" else _struct(struct)


def _registers(arch: str) -> btf.CType:
    """Registers have another structure on every machine, and one name for all of them.

    Numbered ones, `regs[0]` and so on, are an array. What lies behind the end is the kernel's, and no program's.
    """
    found = contexts.pt_regs(arch)
    inside = [field for field in found.fields if field.offset < found.size]
    numbered = [field for field in inside if field.name.endswith("]")]
    members = [_member([field]) for field in inside if field not in numbered]
    if numbered:
        name = numbered[0].name.partition("[")[0]
        members.insert(0, btf.Member(name, btf.Array(btf.U64, len(numbered)), numbered[0].offset * 8))
    return btf.Typedef(_REGISTERS, btf.Struct(found.name, found.size, members))


def _struct(struct: contexts.Struct) -> btf.Struct:
    return btf.Struct(struct.name, struct.size, [_member(group) for group in _groups(struct.fields)])


def _groups(fields: Sequence[Field]) -> list[list[Field]]:
    """The members in order of their offsets; those that share bytes, and no bits, together."""
    groups: list[list[Field]] = []
    end = 0
    for field in sorted(fields, key=lambda field: (field.offset, field.bit_offset)):
        if groups and field.offset < end and not field.bits:
            groups[-1].append(field)
        else:
            groups.append([field])
        end = max(end, field.offset + field.size)
    return groups


def _member(group: Sequence[Field]) -> btf.Member:
    """One member, or the union without a name that several are in."""
    first = group[0]
    if len(group) == 1:
        return btf.Member(first.name, _type(first), first.offset * 8 + first.bit_offset, first.bits)
    inside = [btf.Member(each.name, _type(each), (each.offset - first.offset) * 8) for each in group]
    size = max(each.offset + each.size for each in group) - first.offset
    return btf.Member("", btf.Struct("", size, inside, union=True), first.offset * 8)


def _type(field: Field) -> btf.CType:
    if field.ctype == _REGISTERS:
        return _registers("x86_64")  # the offsets of what follows it are those of x86-64, too
    array = _ARRAY.match(field.ctype)
    if array:
        return btf.Array(_NUMBERS[array[1]], int(array[2]))
    pointer = _POINTER.match(field.ctype)
    if pointer:
        return btf.Pointer(btf.Forward(pointer[1]) if pointer[1] else btf.Void())
    return _NUMBERS[field.ctype]
