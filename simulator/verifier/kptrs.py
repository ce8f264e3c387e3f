"""Pointers to objects that a map's values, or allocated objects, keep: loads, stores and bpf_kptr_xchg.

Invariant: a slot says which structure it points to by the name in the program's BTF; the structure is the kernel's of
that name, or where it has none, one of those that the program allocates.
Source: check_map_kptr_access, map_kptr_match_type and process_kptr_func of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.btf import Btf
from simulator.managed import Field, managed_fields
from simulator.verifier import access as accesses
from simulator.verifier import graphs, structs
from simulator.verifier import regs as r
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import ZERO, Reg, is_null, type_name

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_CLASS, _MODE = 0x07, 0xE0
_LDX, _ST = 1, 2
_MODE_MEM: Final = 0x60

_RCU_PROTECTED: Final = frozenset({"prog_test_ref_kfunc", "cgroup", "bpf_cpumask", "task_struct", "bpf_crypto_ctx"})
"""Structures that are freed only after all RCU sections that might see them."""

_NODES: Final = frozenset({"bpf_list_node", "bpf_rb_node"})
_EXCHANGED: Final = frozenset({"kptr_ref", "kptr_percpu"})


def pointee(m: Machine, field: Field) -> tuple[Btf, int]:
    """The structure that a slot points to: the kernel's of that name, or where it has none the program's own."""
    assert field.target is not None  # only fields of other kinds have none
    btf, type_id = field.target
    assert isinstance(btf, Btf)
    head = btf.type(type_id)
    if m.kernel_btf is None:
        m.unsupported(f"a pointer in a map value to struct {head.name} without the kernel's BTF")
    found = m.kernel_btf.find(head.name, head.kind)
    if found is not None:
        return m.kernel_btf, found
    own = m.program.btf
    return (own if own is not None and own == btf else btf), type_id


def access(m: Machine, field: Field, value: int) -> None:
    """A load into or store from the register `value` (-1 for a store of a number) at a slot."""
    insn = m.code[m.idx]
    assert insn is not None  # it runs
    kind = insn.opcode & _CLASS
    if insn.opcode & _MODE != _MODE_MEM:
        m.fail("kptr in map can only be accessed using BPF_MEM instruction mode")
    if kind != _LDX and field.kind in _EXCHANGED:
        m.fail("store to referenced kptr disallowed")
    if kind != _LDX and field.kind == "uptr":
        m.fail("store to uptr disallowed")
    if kind == _LDX:
        m.frame.regs[value] = _loaded(m, field)
    elif kind == _ST:
        if insn.imm:
            m.fail(f"BPF_ST imm must be 0 when storing to kptr at off={field.offset}")
    elif is_null(m.frame.regs[value]):
        m.mark_precise(value)
    else:
        check_fits(m, field, value, m.frame.regs[value])


def _loaded(m: Machine, field: Field) -> Reg:
    if field.kind == "uptr":
        assert field.target is not None  # as in `pointee`
        user_btf, user_type = field.target
        assert isinstance(user_btf, Btf)
        return Reg(r.PTR_MEM | r.MAYBE_NULL, 0, ZERO, m.new_id(), data=(user_btf.size_of(user_type), 0))
    btf, type_id = pointee(m, field)
    return Reg(r.PTR_BTF_ID | r.MAYBE_NULL | _trust(m, field, btf, type_id), 0, ZERO, m.new_id(), data=(btf, type_id))


def _trust(m: Machine, field: Field, btf: Btf, type_id: int) -> int:
    """How far a pointer that is loaded from a slot may be trusted."""
    local = btf is not m.kernel_btf
    protected = local or btf.type(type_id).name in _RCU_PROTECTED
    if (field.kind != "kptr_percpu" and not (field.kind == "kptr_ref" and protected)) or not m.in_rcu_section():
        return r.UNTRUSTED
    flags = r.MEM_RCU
    if field.kind == "kptr_percpu":
        flags |= r.MEM_PERCPU
    elif local:
        flags |= r.MEM_ALLOC
    in_graphs = local and any(one.kind in _NODES for one in managed_fields(btf, type_id))
    return flags | (r.NON_OWN_REF if in_graphs else 0)


def check_fits(m: Machine, field: Field, register: int, reg: Reg) -> None:
    """That a register holds what may be kept in a slot."""
    btf, type_id = pointee(m, field)
    untyped, percpu = field.kind == "kptr_unref", field.kind == "kptr_percpu"
    name = ""
    if reg.type & r.BASE_MASK == r.PTR_BTF_ID:
        own, own_type = reg.data
        # an object that is not one for each CPU passes as one that is: so 6.18 has it
        permitted = r.MAYBE_NULL | r.MEM_ALLOC | (r.MEM_PERCPU if percpu else 0)
        if own is m.kernel_btf:
            permitted = r.MAYBE_NULL | r.TRUSTED | r.MEM_RCU | (r.UNTRUSTED if untyped else 0)
        if not reg.type & ~r.BASE_MASK & ~permitted:
            name = own.type(own_type).name
            accesses.check_offset_free(m, register, reg, fixed_ok=True)
            if structs.matches(m, own, own_type, reg.off, btf, type_id, not untyped):
                return
    wanted = btf.type(type_id).name
    also = f"or {type_name(r.PTR_BTF_ID | r.UNTRUSTED)}{wanted}" if untyped else ""
    m.fail(
        f"invalid kptr access, R{register} type={type_name(reg.type)}{name} "
        f"expected={type_name(r.PTR_BTF_ID)}{wanted}{' ' if also else ''}{also}"
    )


def slot(m: Machine, register: int, reg: Reg) -> Field:
    """The slot that the first argument of bpf_kptr_xchg points to."""
    if reg.type & r.BASE_MASK == r.PTR_MAP_VALUE:
        target: MapInfo = reg.data[0]
        if target.definition.btf is None:
            m.fail(f"map '{target.name}' has to have BTF in order to use bpf_kptr_xchg")
    if reg.num.mask:
        m.fail(f"R{register} doesn't have constant offset. kptr has to be at the constant offset")
    kinds = ("kptr_unref", *_EXCHANGED)
    fields = [field for field in graphs.fields_of(reg) if field.kind in kinds]
    if not fields:
        m.fail(f"R{register} has no valid kptr")
    offset = reg.off + reg.num.smin
    found = next((field for field in fields if field.offset == offset), None)
    if found is None:
        m.fail(f"off={offset} doesn't point to kptr")
    if found.kind not in _EXCHANGED:
        m.fail(f"off={offset} kptr isn't referenced kptr")
    return found


def taken(m: Machine, field: Field, flags: int) -> Reg:
    """What was in a slot: bpf_kptr_xchg gives it."""
    btf, type_id = pointee(m, field)
    if btf is not m.kernel_btf:
        flags |= r.MEM_ALLOC | (r.MEM_PERCPU if field.kind == "kptr_percpu" else 0)
    return Reg(r.PTR_BTF_ID | flags, 0, ZERO, data=(btf, type_id))
