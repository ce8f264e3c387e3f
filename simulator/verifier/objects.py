"""Objects of the kernel that live in map values and on the stack: locks, timers, dynptrs, iterators, kptrs.

Source: process_spin_lock, process_timer_func, process_dynptr_func and their kin in kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpflisp.spec.helpers import Arg
from simulator.managed import Field
from simulator.verifier import dynptrs, graphs, iterators, kptrs, locks
from simulator.verifier import regs as r
from simulator.verifier.branches import drop_ref
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import ZERO, Reg, scalar_reg, type_name
from simulator.verifier.scalar import UNKNOWN
from simulator.verifier.state import DYNPTR_BYTE, Frame, State

if TYPE_CHECKING:
    from simulator.verifier.calls import Setup
    from simulator.verifier.helper_args import Call
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
        if m.ways.dynptrs_are_watched and spi < len(frame.stack) and frame.stack[spi].types[0] == DYNPTR_BYTE:
            dynptrs.destroy(m, frame, spi)

    def spin_lock(self, m: Machine, register: int, reg: Reg, takes: bool) -> None:
        """bpf_spin_lock and bpf_spin_unlock of the lock that a register points to."""
        if graphs.in_tree_callback(m):
            m.fail("can't spin_{lock,unlock} in rbtree cb")
        locks.change(m, register, reg, locks.SPIN, takes)

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

    def kptr_argument(self, m: Machine, register: int, reg: Reg) -> tuple[tuple[MapInfo, int] | None, Field]:
        """The map, if it is in one, and the slot that bpf_kptr_xchg changes."""
        in_map = reg.type & r.BASE_MASK == r.PTR_MAP_VALUE
        return (reg.data[0], reg.data[1]) if in_map else None, kptrs.slot(m, register, reg)

    def give_kptr(self, m: Machine, identity: int) -> None:
        """A reference moves into a map value: what it pointed to may no longer be used."""
        if not drop_ref(m, m.state, identity):
            return
        percpu = r.MEM_ALLOC | r.MEM_PERCPU
        protected = m.in_rcu_section()

        def change(reg: Reg) -> Reg:
            if reg.ref != identity:
                return reg
            if protected and reg.type & percpu == percpu:
                return reg.but(ref=0, type=reg.type & ~r.MEM_ALLOC | r.MEM_RCU)
            return scalar_reg(UNKNOWN)

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
