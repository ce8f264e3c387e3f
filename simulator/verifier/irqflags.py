"""Sections with interrupts off: the saved flags live in a stack slot until they are restored, the last saved first.

Source: process_irq_flag, mark_stack_slot_irq_flag and release_irq_state of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from simulator.verifier import access, dynptrs
from simulator.verifier import regs as r
from simulator.verifier.regs import ZERO, Reg
from simulator.verifier.state import EMPTY, IRQ_BYTE, Frame, Ref, Slot

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_BYTES: Final = bytes([IRQ_BYTE] * 8)
NATIVE, LOCK = "native", "lock"
"""Which functions saved the flags: those of their own, or those of a lock. They do not mix."""


def save(m: Machine, register: int, reg: Reg, kind: str, idx: int) -> None:
    """The flags are saved in the slot that a register points to, and interrupts are off."""
    _check_pointer(m, register, reg)
    spi = dynptrs.slot_of(m, reg, "irq_flag", 1)
    frame = m.state.frames[reg.data]
    if spi is None or (spi != dynptrs.OUT_OF_RANGE and IRQ_BYTE in frame.stack[spi].types):
        m.fail(f"expected uninitialized irq flag as arg#{register - 1}")
    access.check_access(m, register, 0, 8, True, -1)
    spi = dynptrs.slot_of(m, reg, "irq_flag", 1)
    assert spi is not None  # the store just made room for it
    identity = m.new_id()
    old = m.state.holds
    m.state.holds = replace(old, refs=(*old.refs, Ref("irq", identity, idx)), irq_id=identity)
    frame.stack[spi] = Slot(_BYTES, Reg(r.PTR_STACK, 0, ZERO, 0, identity, (kind,)))
    _written(m, frame, spi)


def restore(m: Machine, register: int, reg: Reg, kind: str) -> None:
    """The flags are restored from a slot, which is empty then."""
    _check_pointer(m, register, reg)
    spi = dynptrs.slot_of(m, reg, "irq_flag", 1)
    frame = m.state.frames[reg.data]
    if spi is None or spi == dynptrs.OUT_OF_RANGE or frame.stack[spi].types != _BYTES:
        m.fail(f"expected an initialized irq flag as arg#{register - 1}")
    saved: Reg = frame.stack[spi].reg
    m.scratched_slots |= 1 << spi
    m.liveness.read(frame.number, m.idx, 1 << spi)
    if saved.data[0] != kind:
        m.fail(f"irq flag acquired by {saved.data[0]} kfuncs cannot be restored with {kind} kfuncs")
    _release(m, saved.ref)
    frame.stack[spi] = EMPTY
    _written(m, frame, spi)


def _check_pointer(m: Machine, register: int, reg: Reg) -> None:
    if reg.type != r.PTR_STACK:
        m.fail(f"arg#{register - 1} doesn't point to an irq flag on stack")


def _written(m: Machine, frame: Frame, spi: int) -> None:
    m.scratched_slots |= 1 << spi
    m.liveness.write(frame.number, 1 << spi)


def _release(m: Machine, identity: int) -> None:
    old = m.state.holds
    if identity != old.irq_id:
        taken = next((ref.insn for ref in old.refs if ref.id == old.irq_id), 0)
        m.fail(f"cannot restore irq state out of order, expected id={old.irq_id} acquired at insn_idx={taken}")
    at = next(at for at, ref in enumerate(old.refs) if ref.kind == "irq" and ref.id == identity)
    before = [ref.id for ref in old.refs[:at] if ref.kind == "irq"]
    m.state.holds = replace(old, refs=(*old.refs[:at], *old.refs[at + 1 :]), irq_id=before[-1] if before else 0)
