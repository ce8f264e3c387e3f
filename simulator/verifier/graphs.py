"""Objects that a program allocates, and the lists that hold them.

Invariant: an object is owned (it holds a reference), or it is in a list and may be looked at until the lock is given
back. Red-black trees and counts of references are not modelled: they are refused by name.
Source: the KF_ARG_PTR_TO_LIST_* and bpf_obj_* parts of check_kfunc_args and check_kfunc_call of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bpflisp.spec.btf import Btf, BtfKind
from simulator.verifier import regs as r
from simulator.verifier import structs
from simulator.verifier.branches import drop_ref
from simulator.verifier.maps import Field, MapInfo
from simulator.verifier.records import managed_fields
from simulator.verifier.regs import ZERO, Reg

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

ALLOCATED: Final = r.PTR_BTF_ID | r.MEM_ALLOC
_NOT_MODELLED: Final = frozenset({"bpf_res_spin_lock", "bpf_refcount"})
_SHOWN: Final = {"kptr_unref": "kptr", "kptr_ref": "kptr", "kptr_percpu": "percpu_kptr"}


@dataclass(frozen=True, slots=True)
class Root:
    """A list's head: what its objects are, and where in them their node lies."""

    btf: Btf
    object: int
    node: int


def made(m: Machine, constant: int | None) -> Reg:
    """What bpf_obj_new gives, before it is known not to be null."""
    wanted = constant or 0
    if wanted >> 32:
        m.fail("local type ID argument must be in range [0, U32_MAX]")
    btf = m.program.btf
    if btf is None:
        m.fail("bpf_obj_new/bpf_percpu_obj_new requires prog BTF")
    if not 0 < wanted < len(btf) or btf.type(wanted).kind is not BtfKind.STRUCT:
        m.fail("bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct")
    fields = managed_fields(btf, wanted)
    if any(field.kind in _NOT_MODELLED for field in fields):
        m.unsupported("allocated objects with a count of references")
    return Reg(ALLOCATED, 0, ZERO, data=(btf, wanted))


def check_dropped(m: Machine, index: int, reg: Reg) -> None:
    """The argument of bpf_obj_drop."""
    if reg.type != ALLOCATED:
        m.fail(f"arg#{index} expected pointer to allocated object")
    if not reg.ref:
        m.fail("allocated object must be referenced")


def check_direct(m: Machine, reg: Reg, off: int, size: int) -> None:
    """That a load or store of an object does not touch what the kernel manages."""
    btf, type_id = reg.data
    for field in managed_fields(btf, type_id):
        if off < field.offset + field.size and field.offset < off + size:
            m.fail(f"direct access to {_SHOWN.get(field.kind, field.kind)} is disallowed")


def _constant_offset(m: Machine, register: int, reg: Reg, what: str) -> int:
    if reg.num.mask:
        m.fail(f"R{register} doesn't have constant offset. {what} has to be at the constant offset")
    return reg.off + reg.num.smin


def head(m: Machine, index: int, reg: Reg) -> Root:
    """The list that an argument points to; its lock has to be held."""
    if reg.type not in (r.PTR_MAP_VALUE, ALLOCATED):
        m.fail(f"arg#{index} expected pointer to map value or allocated object")
    if reg.type == ALLOCATED and not reg.ref:
        m.fail("allocated object must be referenced")
    offset = _constant_offset(m, index + 1, reg, "bpf_list_head")
    fields = _fields(reg)
    if not any(field.kind == "bpf_list_head" and field.offset == offset for field in fields):
        m.fail(f"bpf_list_head not found at offset={offset}")
    _check_locked(m, fields, reg, "bpf_list_head")
    btf, type_id = _type(reg)
    return _root(m, btf, type_id, offset)


def _fields(reg: Reg) -> tuple[Field, ...]:
    """The managed fields of what a register points to: a map's value or an object."""
    if reg.type & r.BASE_MASK == r.PTR_MAP_VALUE:
        target: MapInfo = reg.data[0]
        return target.fields
    return managed_fields(*reg.data)


def _type(reg: Reg) -> tuple[Btf, int]:
    if reg.type & r.BASE_MASK != r.PTR_MAP_VALUE:
        btf, type_id = reg.data
        return btf, type_id
    target: MapInfo = reg.data[0]
    assert target.definition.btf is not None  # a field was found in it
    return target.definition.btf, target.definition.btf_value


def allocation(reg: Reg) -> object:
    """What tells the locks of one map, or of the program's objects, from all others."""
    return reg.data[0]


def lock_field(m: Machine, reg: Reg) -> Field:
    """The lock inside an object that bpf_spin_lock is given."""
    found = next((field for field in _fields(reg) if field.kind == "bpf_spin_lock"), None)
    if found is None:
        m.fail("local 'kptr' has no valid bpf_spin_lock")
    return found


def _check_locked(m: Machine, fields: tuple[Field, ...], reg: Reg, what: str) -> None:
    holds = m.state.holds
    lock = next((field for field in fields if field.kind == "bpf_spin_lock"), None)
    if lock is None:
        m.unsupported("a list without a lock of its kind")
    must = f"bpf_spin_lock at off={lock.offset} must be held for {what}"
    if not holds.locks:
        m.fail(must)
    if holds.lock_ptr is not allocation(reg) or holds.lock_id != reg.id:
        m.fail("held lock and object are not in the same allocation", must)


def _root(m: Machine, btf: Btf, type_id: int, offset: int) -> Root:
    """What the tag "contains:STRUCT:MEMBER" of a list's head says."""
    text = _contains(btf, type_id, offset)
    name, _, member = text.partition(":")
    program = m.program.btf
    found = program.find(name, BtfKind.STRUCT) if program is not None and name else None
    if program is None or found is None:
        m.unsupported("a list whose objects are not told by its tag")
    place = next((one.bit_offset // 8 for one in program.members(found) if one.name == member), None)
    if place is None:
        m.unsupported("a list whose objects have no such node")
    return Root(program, found, place)


def _contains(btf: Btf, type_id: int, offset: int) -> str:
    """The tag of the member or variable at an offset, "" for none that is found."""
    at = btf.resolve(type_id)
    kind = btf.type(at).kind
    if kind is BtfKind.DATASEC:
        for variable in btf.variables(at):
            if variable.offset == offset:
                return _tag(btf, variable.type, -1)
            if variable.offset <= offset < variable.offset + variable.size:
                return _contains(btf, btf.type(variable.type).target, offset - variable.offset)
        return ""
    if kind is BtfKind.ARRAY:
        element = btf.array(at).element
        return _contains(btf, element, offset % (btf.size_of(element) or 1))
    if kind is not BtfKind.STRUCT:
        return ""
    for number, member in enumerate(btf.members(at)):
        start = member.bit_offset // 8
        found = _tag(btf, at, number) if start == offset else ""
        if found:
            return found
        if start <= offset < start + btf.size_of(member.type):
            return _contains(btf, member.type, offset - start)
    return ""


def _tag(btf: Btf, type_id: int, component: int) -> str:
    tags = [tag for tag, at in btf.tags(type_id) if at == component and tag.startswith("contains:")]
    return tags[0].removeprefix("contains:") if tags else ""


def check_node(m: Machine, index: int, reg: Reg, root: Root) -> None:
    """The node of an object that is put into a list."""
    if reg.type != ALLOCATED:
        m.fail(f"arg#{index} expected pointer to allocated object")
    if not reg.ref:
        m.fail("allocated object must be referenced")
    offset = _constant_offset(m, index + 1, reg, "bpf_list_node")
    btf, type_id = reg.data
    fields = managed_fields(btf, type_id)
    if not any(field.kind == "bpf_list_node" and field.offset == offset for field in fields):
        m.fail(f"bpf_list_node not found at offset={offset}")
    wanted = root.btf.type(root.object).name
    if not structs.matches(m, btf, type_id, 0, root.btf, root.object, True):
        m.fail(
            f"operation on bpf_list_head expects arg#1 bpf_list_node at offset={root.node} in struct {wanted}, "
            f"but arg is at offset={offset} in struct {btf.type(type_id).name}"
        )
    if offset != root.node:
        m.fail(f"arg#1 offset={offset}, but expected bpf_list_node at offset={root.node} in struct {wanted}")


def put(m: Machine, identity: int) -> None:
    """An object is in a list now: what points to it owns it no longer."""

    def change(reg: Reg) -> Reg:
        return reg.but(type=reg.type | r.NON_OWN_REF, ref=0) if reg.ref == identity else reg

    m.state.replace_regs(change)
    drop_ref(m.state, identity)


def popped(root: Root) -> Reg:
    """What bpf_list_pop_front and bpf_list_pop_back give, before it is known not to be null."""
    return Reg(ALLOCATED, root.node, ZERO, data=(root.btf, root.object))
