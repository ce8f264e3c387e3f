"""Open-coded iterators: objects on the stack that are made, advanced in a loop, and destroyed.

Each advance is looked at twice: it gives an element, or it is drained and never gives one again. The loop ends for the
verifier when a state with an active iterator lies within an earlier one at the same advance.
Source: process_iter_arg and process_iter_next_call of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass
from simulator.verifier import access, dynptrs, prune
from simulator.verifier import regs as r
from simulator.verifier.branches import not_null
from simulator.verifier.regs import ZERO, Reg, const_reg
from simulator.verifier.state import EMPTY, ITER_BYTE, Slot, State

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_BYTES: Final = bytes([ITER_BYTE] * 8)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an iterator lives: the frame, and the slot of its lowest address."""

    frame: int
    spi: int

    def reg(self, state: State) -> Reg:
        """The iterator's value in a state."""
        return state.frames[self.frame].stack[self.spi].reg


def _slot(m: Machine, reg: Reg, name: str, slots: int) -> int | None:
    return dynptrs.slot_of(m, reg, "iter", slots)


def make(m: Machine, register: int, reg: Reg, name: str, slots: int, idx: int, rcu: bool) -> None:
    """A new iterator; `rcu` says that it may only be used inside an RCU read-side section."""
    _check_pointer(m, register, reg)
    spi = _slot(m, reg, name, slots)
    frame = m.state.frames[reg.data]
    taken = spi is None or (
        spi != dynptrs.OUT_OF_RANGE and any(ITER_BYTE in frame.stack[spi - i].types for i in range(slots))
    )
    if taken:
        m.fail(f"expected uninitialized iter_{name} as arg #{register - 1}")
    for off in range(0, slots * 8, 8):
        access.check_access(m, register, off, 8, True, -1)
    spi = _slot(m, reg, name, slots)
    assert spi is not None  # the stores just made room for it
    identity = m.acquire(idx)
    kind = r.PTR_STACK
    if rcu:
        kind |= r.MEM_RCU if m.in_rcu_section() else r.UNTRUSTED
    for i in range(slots):
        ref = identity if i == 0 else 0
        frame.stack[spi - i] = Slot(_BYTES, Reg(kind, 0, ZERO, 0, ref, (name, "active", 0)))
        m.scratched_slots |= 1 << (spi - i)
        m.liveness.write(frame.number, 1 << (spi - i))


def _check_pointer(m: Machine, register: int, reg: Reg) -> None:
    if reg.type != r.PTR_STACK:
        m.fail(f"arg#{register - 1} expected pointer to an iterator on stack")


def use(m: Machine, register: int, reg: Reg, name: str, slots: int, function: str) -> Place:
    """An iterator that a call advances or destroys."""
    _check_pointer(m, register, reg)
    spi = _slot(m, reg, name, slots)
    frame = m.state.frames[reg.data]
    sound = spi is not None and spi != dynptrs.OUT_OF_RANGE
    for i in range(slots if sound else 0):
        assert spi is not None
        slot = frame.stack[spi - i]
        if slot.types == _BYTES and slot.reg.type & r.UNTRUSTED:
            m.fail(f"expected an RCU CS when using {function}")
        sound = sound and slot.types == _BYTES and bool(slot.reg.ref) == (i == 0) and slot.reg.data[0] == name
    if not sound:
        m.fail(f"expected an initialized iter_{name} as arg #{register - 1}")
    assert spi is not None
    for i in range(slots):
        m.scratched_slots |= 1 << (spi - i)
        m.liveness.read(frame.number, m.idx, 1 << (spi - i))
    return Place(reg.data, spi)


def destroy(m: Machine, place: Place, slots: int) -> None:
    """Gives an iterator back."""
    from simulator.verifier.helper_calls import release

    frame = m.state.frames[place.frame]
    release(m, place.reg(m.state).ref)
    for i in range(slots):
        frame.stack[place.spi - i] = EMPTY
        m.liveness.write(frame.number, 1 << (place.spi - i))


def _set(state: State, place: Place, status: str, deeper: int) -> None:
    stack = state.frames[place.frame].stack
    reg = stack[place.spi].reg
    name, _, depth = reg.data
    stack[place.spi] = Slot(_BYTES, reg.but(data=(name, status, depth + deeper)))


def advance(m: Machine, place: Place, idx: int) -> None:
    """After the call: the way on which there is an element is left for later, this one is drained."""
    state = m.state
    if place.reg(state).data[1] == "active":
        parent = state.parent
        previous = prune.find_previous(m, parent, idx) if parent is not None else None
        queued = m.push_state(idx + 1, idx)
        _set(queued, place, "active", 1)
        if previous is not None:
            prune.widen(m, previous, queued)
        regs = queued.frame.regs
        regs[0] = not_null(regs[0])
    _set(state, place, "drained", 0)
    m.frame.regs[0] = const_reg(0)


def is_active(m: Machine, state: State) -> bool:
    """Whether the iterator that r1 points to, before an advance, still gives elements."""
    reg = state.frame.regs[1]
    spi = (-(reg.off + reg.num.smin) - 1) // 8
    return bool(state.frames[reg.data].stack[spi].reg.data[1] == "active")
