"""Kernel structures by BTF: what an access at an offset reaches, and whether two types match.

Source: btf_struct_walk, btf_struct_access and btf_struct_ids_match of kernel/bpf/btf.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass
from bpflisp.spec.btf import Btf, BtfKind, BtfMember, BtfType
from simulator.verifier import regs as r

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_COMPOSITE: Final = frozenset({BtfKind.STRUCT, BtfKind.UNION})
_NUMBERS: Final = frozenset({BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64})
_POINTER_TAGS: Final = {"user": r.MEM_USER, "percpu": r.MEM_PERCPU, "rcu": r.MEM_RCU}
DEEPEST: Final = 64
"""More levels of nesting than C has; BTF that goes deeper is not followed."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What lies at an offset: "number", "pointer" (to `target`, with flags), "untrusted" (a pointer to no structure)
    or "struct" (that begins there, its id in `target`). `field` is the member's name.
    """

    kind: str
    target: int = 0
    flags: int = 0
    field: str = ""


def shown(named: BtfType | BtfMember) -> str:
    """A name as the log prints it."""
    return named.name or "(anon)"


def resolve(btf: Btf, type_id: int) -> tuple[int, BtfType | None]:
    """A type without its modifiers and typedefs; None for void."""
    found = btf.resolve(type_id) if type_id else 0
    return found, btf.type(found) if found else None


@dataclass(slots=True)
class _Place:
    """A member as the walk looks at it: an element of it where it is an array."""

    start: int
    size: int
    end: int
    type_id: int
    head: BtfType | None


def _place(btf: Btf, member: BtfMember, off: int) -> _Place | None:
    """Where in a member an offset falls; None where the member has no room."""
    start = member.bit_offset // 8
    type_id, head = resolve(btf, member.type)
    size = btf.size_of(member.type)
    end = start + size
    if off >= end:
        return None
    for _ in range(DEEPEST):
        if head is None or head.kind is not BtfKind.ARRAY:
            break
        element = btf.array(type_id).element
        type_id, head = resolve(btf, element)
        size = btf.size_of(element)
    if size and end - start != size:
        start += (off - start) // size * size
    return _Place(start, size, end, type_id, head)


def _pointer(btf: Btf, type_id: int) -> tuple[int, int, BtfType | None]:
    """What a pointer points to, without modifiers: (flags of its tag, id, type)."""
    flags = 0
    at = btf.type(type_id).target
    for _ in range(DEEPEST):
        head = btf.type(at) if at else None
        if head is None or head.kind not in _MODIFIERS:
            return flags, at, head
        if head.kind is BtfKind.TYPE_TAG:
            flags |= _POINTER_TAGS.get(head.name, 0)
        at = head.target
    return flags, 0, None


_MODIFIERS: Final = frozenset({BtfKind.TYPEDEF, BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT, BtfKind.TYPE_TAG})


def _flexible(m: Machine, btf: Btf, type_id: int, head: BtfType, off: int, size: int) -> tuple[int, int] | None:
    """An access behind a structure's end, into the array without length that ends it: (element type, offset there)."""
    members = btf.members(type_id)
    if members:
        last = members[-1]
        array_id, array = resolve(btf, last.type)
        if array is not None and array.kind is BtfKind.ARRAY and btf.array(array_id).count == 0:
            start = last.bit_offset // 8
            element, element_head = resolve(btf, btf.array(array_id).element)
            if off >= start and element_head is not None:
                if element_head.kind is BtfKind.INT:
                    return None
                if element_head.kind in _COMPOSITE and btf.size_of(element):
                    return element, (off - start) % btf.size_of(element)
    m.fail(f"access beyond struct {shown(head)} at off {off} size {size}")


def walk(m: Machine, btf: Btf, type_id: int, off: int, size: int, flags: int = 0, flexible: bool = True) -> Reached:
    """What `size` bytes at `off` of a structure are. Refuses in the kernel's words what cuts a member."""
    for _ in range(DEEPEST):
        type_id, head = resolve(btf, type_id)
        if head is None or head.kind not in _COMPOSITE:
            m.fail(f"Type '{'' if head is None else head.name}' is not a struct")
        members = btf.members(type_id)
        if head.kind is BtfKind.UNION and len(members) != 1:
            flags |= r.UNTRUSTED
        if off + size > btf.size_of(type_id):
            if not flexible:
                m.fail(f"access beyond struct {shown(head)} at off {off} size {size}")
            deeper = _flexible(m, btf, type_id, head, off, size)
            if deeper is None:
                return Reached("number")
            type_id, off = deeper
            continue
        found = _in_members(m, btf, head, members, off, size, flags)
        if isinstance(found, Reached):
            return found
        type_id, off = found
    m.unsupported("a structure nested this deeply")


def _in_members(
    m: Machine, btf: Btf, head: BtfType, members: tuple[BtfMember, ...], off: int, size: int, flags: int
) -> Reached | tuple[int, int]:
    """One level of the walk: what was reached, or the structure to go on in and the offset there."""
    for member in members:
        start = member.bit_offset // 8
        if off + size <= start:
            break
        if member.bits:
            end = (member.bit_offset + member.bits + 7) // 8
            if off <= start and end <= off + size:
                return Reached("number")
            continue
        if off < start:
            break
        place = _place(btf, member, off)
        if place is None:
            continue
        kind = None if place.head is None else place.head.kind
        if kind in _COMPOSITE:
            if off == place.start:
                return Reached("struct", place.type_id, flags)
            return place.type_id, off - place.start
        if kind is BtfKind.PTR:
            return _reach_pointer(m, btf, head, member, place, off, size, flags)
        if off + size > place.end and not flags & r.UNTRUSTED:
            m.fail(
                f"access beyond the end of member {shown(member)} (mend:{place.end}) in struct {shown(head)} "
                f"with off {off} size {size}"
            )
        return Reached("number")
    m.fail(f"struct {shown(head)} doesn't have field at offset {off}")


def _reach_pointer(
    m: Machine, btf: Btf, head: BtfType, member: BtfMember, place: _Place, off: int, size: int, flags: int
) -> Reached:
    if size != 8 or off != place.start:
        m.fail(
            f"cannot access ptr member {shown(member)} with moff {place.start} in struct {shown(head)} "
            f"with off {off} size {size}"
        )
    tags, target, pointee = _pointer(btf, place.type_id)
    if pointee is not None and pointee.kind in _COMPOSITE:
        return Reached("pointer", target, flags | tags, member.name)
    return Reached("untrusted")


def access(m: Machine, btf: Btf, type_id: int, off: int, size: int, allocated: bool) -> Reached:
    """What an access reaches, through the structures that begin where it begins."""
    flags = 0
    for _ in range(DEEPEST):
        found = walk(m, btf, type_id, off, size, flags, flexible=not allocated)
        if found.kind != "struct":
            return found
        type_id, off, flags = found.target, 0, found.flags
    m.unsupported("a structure nested this deeply")


def only_numbers(btf: Btf, type_id: int, depth: int = 0) -> bool:
    """Whether a structure holds numbers alone, four levels deep."""
    head = btf.type(type_id)
    if head.kind not in _COMPOSITE or depth > 3:
        return False
    for member in btf.members(type_id):
        inner, inner_head = resolve(btf, member.type)
        if inner_head is not None and inner_head.kind in _COMPOSITE:
            if not only_numbers(btf, inner, depth + 1):
                return False
            continue
        if inner_head is not None and inner_head.kind is BtfKind.ARRAY:
            _, inner_head = resolve(btf, btf.array(inner).element)
        if inner_head is None or inner_head.kind not in _NUMBERS:
            return False
    return True


def matches(m: Machine, btf: Btf, type_id: int, off: int, wanted_btf: Btf, wanted: int, strict: bool) -> bool:
    """Whether a pointer at `off` into one type points to the wanted one, or to a part of it that is."""
    if off == 0 and btf is wanted_btf and type_id == wanted:
        return True
    if strict:
        return False
    from simulator.verifier.refusal import Refused

    for _ in range(DEEPEST):
        try:
            found = walk(m, btf, type_id, off, 1)
        except Refused:
            return False
        if found.kind != "struct":
            return False
        type_id, off = found.target, 0
        if btf is wanted_btf and type_id == wanted:
            return True
    return False


def is_listed(btf: Btf, type_id: int, field: str, target: int, suffix: str) -> bool:
    """Whether the kernel lists a field as safe to follow, in a structure of this name with a suffix."""
    name = btf.type(type_id).name + suffix
    listed = btf.find(name, BtfKind.STRUCT)
    if listed is None:
        return False
    for member in btf.members(listed):
        if member.name == field:
            head_id, head = resolve(btf, member.type)
            return head is not None and head.kind is BtfKind.PTR and _pointer(btf, head_id)[1] == target
    return False
