"""Dynptrs: handles of memory of run-time length that live in two stack slots.

The slot at the lower address is the first; both hold the kind, an identity that slices of the memory refer to, and for
ring-buffer records the reference that has to be given back. Source: process_dynptr_func and its kin of
kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simulator.verifier import access
from simulator.verifier import regs as r
from simulator.verifier.regs import NOTHING, ZERO, Reg
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import DYNPTR_BYTE, EMPTY, Frame, Slot

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

SLOTS: Final = 2
_BYTES: Final = bytes([DYNPTR_BYTE] * 8)
_COUNTED: Final = frozenset({"ringbuf"})
OUT_OF_RANGE: Final = -1


def slot_of(m: Machine, reg: Reg, what: str = "dynptr", slots: int = SLOTS) -> int | None:
    """The slot of the object's lowest address; OUT_OF_RANGE below the known stack; None after a line in the log."""
    if reg.num.mask:
        m.log_line(f"{what} has to be at a constant offset")
        return None
    off = reg.off + reg.num.smin
    spi = (-off - 1) // 8 if off < 0 else -((off + 1) // 8)  # rounded as C does: above the stack is slot 0 still
    if off % 8 or spi + 1 < slots:
        m.log_line(f"cannot pass in {what} at an offset={off}")
        return None
    return spi if spi < len(m.state.frames[reg.data].stack) else OUT_OF_RANGE


def _known(m: Machine, reg: Reg) -> Reg | None:
    """The initialised dynptr that a register points to, or is; None where there is none."""
    if reg.type == r.PTR_DYNPTR:
        return reg
    spi = slot_of(m, reg)
    if spi is None or spi == OUT_OF_RANGE:
        return None
    stack = m.state.frames[reg.data].stack
    first = stack[spi]
    if first.types != _BYTES or not first.reg.data[1] or stack[spi - 1].types != _BYTES:
        return None
    made: Reg = first.reg
    return made


def check(m: Machine, register: int, reg: Reg, kind: str, readonly: bool) -> Reg:
    """A dynptr that a call uses; `kind` is the only one that it takes, "" where it takes any."""
    number = register - 1 if m.ways.dynptrs_are_watched else register
    _check_pointer(m, register, reg)
    if reg.type == r.PTR_DYNPTR and not readonly:
        m.fail("cannot pass pointer to const bpf_dynptr, the helper mutates it")
    found = _known(m, reg)
    if found is None:
        m.fail(f"Expected an initialized dynptr as arg #{number}")
    if kind and found.data[0] != kind:
        m.fail(f"Expected a dynptr of type {kind} as arg #{number}")
    if reg.type == r.PTR_STACK:
        spi = slot_of(m, reg)
        assert spi is not None  # it was found above
        m.scratched_slots |= 1 << spi | 1 << (spi - 1)
        m.liveness.read(reg.data, m.idx, 1 << spi | 1 << (spi - 1))
    return found


def _check_pointer(m: Machine, register: int, reg: Reg) -> None:
    if reg.type not in (r.PTR_STACK, r.PTR_DYNPTR):
        m.fail(f"arg#{register - 1} expected pointer to stack or const struct bpf_dynptr")


def make(m: Machine, register: int, reg: Reg, kind: str, idx: int, clone_of: int = 0) -> None:
    """A dynptr that a call initialises in two stack slots; `clone_of` is the reference that it shares, 0 for none."""
    _check_pointer(m, register, reg)
    if not m.ways.dynptrs_are_watched:
        _refuse_overlap(m, reg)
    if reg.type == r.PTR_DYNPTR or slot_of(m, reg) is None:
        m.fail("Dynptr has to be an uninitialized dynptr")
    for off in range(0, 16, 8):
        access.check_access(m, register, off, 8, True, -1)
    spi = slot_of(m, reg)
    assert spi is not None  # the stores just made room for it
    frame = m.state.frames[reg.data]
    if m.ways.dynptrs_are_watched:
        destroy(m, frame, spi)
        destroy(m, frame, spi - 1)
    identity = m.new_id()
    ref = (clone_of or m.acquire(idx)) if kind in _COUNTED else 0
    for at, first in ((spi, True), (spi - 1, False)):
        frame.stack[at] = Slot(_BYTES, Reg(r.PTR_DYNPTR, 0, ZERO, identity, ref, (kind, first)))
    m.liveness.write(frame.number, 1 << spi | 1 << (spi - 1))


def _refuse_overlap(m: Machine, reg: Reg) -> None:
    """Kernels that do not watch stores refuse a new dynptr over any byte of an old one."""
    stack = m.state.frames[reg.data].stack
    spi = (-reg.off - 1) // 8
    if 1 <= spi < len(stack) and DYNPTR_BYTE in stack[spi].types + stack[spi - 1].types:
        m.fail("Dynptr has to be an uninitialized dynptr")


def _clear(m: Machine, frame: Frame, spi: int) -> None:
    frame.stack[spi] = frame.stack[spi - 1] = EMPTY
    m.scratched_slots |= 1 << spi | 1 << (spi - 1)
    m.liveness.write(frame.number, 1 << spi | 1 << (spi - 1))


def destroy(m: Machine, frame: Frame, spi: int) -> None:
    """A store over a dynptr destroys it, and with it the slices of its memory."""
    if frame.stack[spi].types[0] != DYNPTR_BYTE:
        return
    if not frame.stack[spi].reg.data[1]:
        spi += 1
    gone = frame.stack[spi].reg
    if gone.data[0] in _COUNTED:
        m.fail("cannot overwrite referenced dynptr")
    _clear(m, frame, spi)

    def change(reg: Reg) -> Reg:
        is_slice = reg.type & ~r.MAYBE_NULL == r.PTR_MEM and reg.data[1] == gone.id
        return UNKNOWN_REG if is_slice else reg

    m.state.replace_regs(change)


def check_release(m: Machine, register: int, reg: Reg) -> None:
    """That a call that gives a dynptr back is given one that holds a reference."""
    if reg.type != r.PTR_STACK:
        m.fail("cannot release unowned const bpf_dynptr")
    spi = slot_of(m, reg)
    if spi is None or spi == OUT_OF_RANGE or not m.state.frames[reg.data].stack[spi].reg.ref:
        m.fail(f"arg {register} is an unacquired reference")


def release(m: Machine, reg: Reg) -> None:
    """Gives a dynptr back: it, its clones and their slices are gone."""
    from simulator.verifier.helper_calls import release as release_reference

    spi = slot_of(m, reg)
    assert spi is not None  # `check_release` found it
    frame = m.state.frames[reg.data]
    gone = frame.stack[spi].reg
    if gone.data[0] not in _COUNTED:
        _clear(m, frame, spi)
        return
    release_reference(m, gone.ref)
    for at in range(1, len(frame.stack)):
        slot = frame.stack[at]
        if slot.reg is not NOTHING and slot.reg.ref == gone.ref and slot.types[0] == DYNPTR_BYTE and slot.reg.data[1]:
            _clear(m, frame, at)
