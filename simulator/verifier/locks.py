"""Locks that a program takes: bpf_spin_lock, of which one can be held at a time, and bpf_res_spin_lock, of which many.

Invariant: a lock is named by the allocation that it lies in (a map, or the BTF of the program's objects) and by the
identity of the pointer that it was taken through. The last lock taken is the first given back.
Source: process_spin_lock, acquire_lock_state and release_lock_state of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from simulator.verifier import graphs
from simulator.verifier import regs as r
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import Reg
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import LOCK_KINDS, Holds, Ref, State

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

SPIN, RESILIENT, RESILIENT_IRQ = "lock", "res_lock", "res_lock_irq"
_NAMES: Final = {SPIN: "bpf_spin", RESILIENT: "bpf_res_spin", RESILIENT_IRQ: "bpf_res_spin"}


def change(m: Machine, register: int, reg: Reg, kind: str, takes: bool) -> None:
    """Takes, or gives back, the lock that a register points to."""
    name = _NAMES[kind]
    _check_place(m, register, reg, name)
    allocation = graphs.allocation(reg)
    if takes:
        _take(m, kind, reg.id, allocation)
    else:
        _give(m, kind, reg.id, allocation, name)


def _check_place(m: Machine, register: int, reg: Reg, name: str) -> None:
    """That the register points to a lock."""
    if reg.num.mask:
        m.fail(f"R{register} doesn't have constant offset. {name}_lock has to be at the constant offset")
    owner = "local 'kptr'"
    if reg.type & r.BASE_MASK == r.PTR_MAP_VALUE:
        target: MapInfo = reg.data[0]
        owner = f"map '{target.name}'"
        if target.definition.btf is None or not target.definition.btf_value:
            m.fail(f"{owner} has to have BTF in order to use {name}_lock")
    field = next((field for field in graphs.fields_of(reg) if field.kind == f"{name}_lock"), None)
    if field is None:
        m.fail(f"{owner} has no valid {name}_lock")
    offset = reg.off + reg.num.smin
    if field.offset != offset:
        m.fail(f"off {offset} doesn't point to 'struct {name}_lock' that is at {field.offset}")


def _take(m: Machine, kind: str, identity: int, allocation: object) -> None:
    old = m.state.holds
    if kind != SPIN and any(
        ref.kind in (RESILIENT, RESILIENT_IRQ) and ref.id == identity and ref.ptr is allocation for ref in old.refs
    ):
        m.fail("Acquiring the same lock again, AA deadlock detected")
    refs = (*old.refs, Ref(kind, identity, m.idx, allocation))
    m.state.holds = replace(old, refs=refs, locks=old.locks + 1, lock_id=identity, lock_ptr=allocation)


def _give(m: Machine, kind: str, identity: int, allocation: object, name: str) -> None:
    old = m.state.holds
    if not old.locks:
        m.fail(f"{name}_unlock without taking a lock")
    held = [ref for ref in old.refs if ref.kind == kind and ref.id == identity and ref.ptr is allocation]
    if not held:
        m.fail(f"{name}_unlock of different lock")
    if old.lock_id != identity or old.lock_ptr is not allocation:
        m.fail(f"{name}_unlock cannot be out of order")
    m.state.holds = _without(old, held[0])
    _forget_non_owning(m.state)


def _without(old: Holds, gone: Ref) -> Holds:
    """What is held after a lock was given back; the lock that was taken before it is the last again."""
    at = old.refs.index(gone)
    before = next((ref for ref in reversed(old.refs[:at]) if ref.kind in LOCK_KINDS), None)
    identity, allocation = (before.id, before.ptr) if before is not None else (0, None)
    refs = (*old.refs[:at], *old.refs[at + 1 :])
    return replace(old, refs=refs, locks=old.locks - 1, lock_id=identity, lock_ptr=allocation)


def _forget_non_owning(state: State) -> None:
    """What was looked at under the lock may have been given back by others."""

    def change(reg: Reg) -> Reg:
        return UNKNOWN_REG if reg.type & r.NON_OWN_REF else reg

    state.replace_regs(change)
