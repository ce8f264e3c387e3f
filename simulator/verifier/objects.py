"""Objects of the kernel that live in map values and on the stack: locks, timers, dynptrs, iterators, kptrs.

Source: process_spin_lock, process_timer_func, process_dynptr_func and their kin in kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpflisp.spec.helpers import Arg
from simulator.verifier import dynptrs, graphs, iterators, kptrs
from simulator.verifier import regs as r
from simulator.verifier.branches import drop_ref
from simulator.verifier.maps import Field, MapInfo
from simulator.verifier.regs import ZERO, Reg, scalar_reg, type_name
from simulator.verifier.scalar import UNKNOWN
from simulator.verifier.state import DYNPTR_BYTE, Frame, Holds, Ref, State

if TYPE_CHECKING:
    from simulator.verifier.calls import Setup
    from simulator.verifier.helper_calls import Call
    from simulator.verifier.machine import Machine

_DYNPTR_KINDS = {"DYNPTR_TYPE_LOCAL": "local", "DYNPTR_TYPE_RINGBUF": "ringbuf"}
_KPTRS = frozenset({"kptr_unref", "kptr_ref", "kptr_percpu", "uptr"})


class Objects:
    """The rules for such objects; no state of its own."""

    def check_field_access(self, m: Machine, reg: Reg, field: Field, off: int, size: int, direct: bool) -> None:
        """That a load or store does not touch what only helpers may touch."""
        if field.kind not in _KPTRS:
            m.fail(f"{field.kind} cannot be accessed directly by load/store")
        if not direct:
            m.fail(f"{'uptr' if field.kind == 'uptr' else 'kptr'} cannot be accessed indirectly by helper")
        if reg.num.mask:
            m.fail("kptr access cannot have variable offset")
        if field.offset != off + reg.num.smin:
            m.fail(f"kptr access misaligned expected={field.offset} off={off + reg.num.smin}")
        if size != 8:
            m.fail("kptr access size must be BPF_DW")

    def kptr_access(self, m: Machine, register: int, reg: Reg, off: int, value: int) -> bool:
        """A load or store of a pointer kept in a map value; False where there is none."""
        target: MapInfo = reg.data[0]
        field = target.field_at(off + reg.num.smin, *_KPTRS) if target.fields else None
        if field is None:
            return False
        kptrs.access(m, field, value)
        return True

    def destroy_dynptr(self, m: Machine, frame: Frame, spi: int) -> None:
        """A store over a dynptr destroys it."""
        if spi < len(frame.stack) and frame.stack[spi].types[0] == DYNPTR_BYTE:
            dynptrs.destroy(m, frame, spi)

    def spin_lock(self, m: Machine, register: int, reg: Reg, takes: bool) -> None:
        """bpf_spin_lock and bpf_spin_unlock of the lock that a register points to."""
        if reg.num.mask:
            m.fail(f"R{register} doesn't have constant offset. bpf_spin_lock has to be at the constant offset")
        if reg.type != r.PTR_MAP_VALUE:
            self._lock_of_object(m, reg, takes)
            return
        target: MapInfo = reg.data[0]
        if target.definition.btf is None or not target.definition.btf_value:
            m.fail(f"map '{target.name}' has to have BTF in order to use bpf_spin_lock")
        field = target.field_of("bpf_spin_lock")
        if field is None:
            m.fail(f"map '{target.name}' has no valid bpf_spin_lock")
        offset = reg.off + reg.num.smin
        if field.offset != offset:
            m.fail(f"off {offset} doesn't point to 'struct bpf_spin_lock' that is at {field.offset}")
        if takes:
            self._take_lock(m, reg.id, target)
        else:
            self._give_lock(m, reg.id, target)

    def _lock_of_object(self, m: Machine, reg: Reg, takes: bool) -> None:
        field = graphs.lock_field(m, reg)
        offset = reg.off + reg.num.smin
        if field.offset != offset:
            m.fail(f"off {offset} doesn't point to 'struct bpf_spin_lock' that is at {field.offset}")
        if takes:
            self._take_lock(m, reg.id, graphs.allocation(reg))
        else:
            self._give_lock(m, reg.id, graphs.allocation(reg))

    def _take_lock(self, m: Machine, identity: int, target: object) -> None:
        old = m.state.holds
        if any(ref.kind == "lock" for ref in old.refs):
            m.fail("Locking two bpf_spin_locks are not allowed")
        refs = (*old.refs, Ref("lock", identity, m.idx, target))
        m.state.holds = Holds(refs, old.locks + 1, old.preempt, old.rcu, old.irq_id, identity, target)

    def _give_lock(self, m: Machine, identity: int, target: object) -> None:
        old = m.state.holds
        if not old.locks:
            m.fail("bpf_spin_unlock without taking a lock")
        held = [ref for ref in old.refs if ref.kind == "lock" and ref.id == identity and ref.ptr is target]
        if not held:
            m.fail("bpf_spin_unlock of different lock")
        refs = tuple(ref for ref in old.refs if ref is not held[0])
        last = next((ref for ref in reversed(refs) if ref.kind == "lock"), None)
        lock_id, lock_ptr = (last.id, last.ptr) if last is not None else (0, None)
        m.state.holds = Holds(refs, old.locks - 1, old.preempt, old.rcu, old.irq_id, lock_id, lock_ptr)
        self._forget_non_owning(m.state)

    def _forget_non_owning(self, state: State) -> None:
        def change(reg: Reg) -> Reg:
            return scalar_reg(UNKNOWN) if reg.type & r.NON_OWN_REF else reg

        state.replace_regs(change)

    def timer(self, m: Machine, register: int, reg: Reg, known: tuple[MapInfo, int] | None) -> tuple[MapInfo, int]:
        """The timer that a register points to; its map."""
        if reg.num.mask:
            m.fail(f"R{register} doesn't have constant offset. bpf_timer has to be at the constant offset")
        target: MapInfo = reg.data[0]
        if target.definition.btf is None or not target.definition.btf_value:
            m.fail(f"map '{target.name}' has to have BTF in order to use bpf_timer")
        field = target.field_of("bpf_timer")
        if field is None:
            m.fail(f"map '{target.name}' has no valid bpf_timer")
        if field.offset != reg.off + reg.num.smin:
            m.fail(f"off {reg.off + reg.num.smin} doesn't point to 'struct bpf_timer' that is at {field.offset}")
        return (target, reg.data[1])

    def check_dynptr_release(self, m: Machine, register: int, reg: Reg) -> None:
        """bpf_ringbuf_submit_dynptr and its kin."""
        dynptrs.check_release(m, register, reg)

    def release_dynptr(self, m: Machine, reg: Reg) -> None:
        """A dynptr is given back."""
        dynptrs.release(m, reg)

    def dynptr_argument(self, m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
        """A dynptr that a helper makes or uses."""
        kind = next((name for flag, name in _DYNPTR_KINDS.items() if flag in arg.flags), "")
        if "MEM_UNINIT" in arg.flags:
            dynptrs.make(m, register, reg, kind, idx)
        else:
            found = dynptrs.check(m, register, reg, kind, "MEM_RDONLY" in arg.flags)
            made.dynptr = found

    def special(self, m: Machine, made: Call) -> None:
        """bpf_dynptr_data, bpf_dynptr_write and bpf_dynptr_from_mem."""
        if made.name == "bpf_dynptr_from_mem":
            kind = m.frame.regs[1].type
            if kind != r.PTR_MAP_VALUE:
                m.fail(f"Unsupported reg type {type_name(kind)} for bpf_dynptr_from_mem data")
            return
        assert made.dynptr is not None  # its argument was checked
        if made.name == "bpf_dynptr_data":
            made.dynptr_id, made.ref = made.dynptr.id, made.dynptr.ref
        elif made.dynptr.data[0] in ("skb", "skb_meta"):
            m.forget_packet()

    def kptr_argument(self, m: Machine, register: int, reg: Reg) -> tuple[tuple[MapInfo, int], Field]:
        """The map, and the slot in it, that bpf_kptr_xchg changes."""
        if reg.type & r.BASE_MASK != r.PTR_MAP_VALUE:
            m.unsupported("a kernel pointer in an allocated object")
        return (reg.data[0], reg.data[1]), kptrs.slot(m, register, reg)

    def give_kptr(self, m: Machine, identity: int) -> None:
        """A reference moves into a map value: what it pointed to may no longer be used."""
        if not drop_ref(m.state, identity):
            return

        def change(reg: Reg) -> Reg:
            return scalar_reg(UNKNOWN) if reg.ref == identity else reg

        m.state.replace_regs(change)

    def drain_callback(self, m: Machine) -> Setup:
        """The callback of bpf_user_ringbuf_drain: it is given a dynptr that it may not change."""

        def setup(_: Machine, caller: Frame, callee: Frame) -> None:
            callee.regs[1] = Reg(r.PTR_DYNPTR, 0, ZERO, m.new_id(), data=("local", True))
            callee.regs[2] = caller.regs[3]
            callee.in_callback = True

        return setup

    def iterator_is_active(self, m: Machine, state: State) -> bool:
        """Whether the iterator that the next instruction advances still gives elements."""
        return iterators.is_active(m, state)
