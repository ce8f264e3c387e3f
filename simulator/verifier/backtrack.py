"""Precision: which earlier values a decision rested on, found by walking a path backwards.

States are compared loosely: two unlike numbers in the same register do not keep states apart unless some decision
needed the number. When one does, the path is walked back instruction by instruction with a mask of registers and stack
slots for each frame, and every checkpoint on the way is told what it has to know precisely.

Invariant: only checkpoints carry precision marks; the state under way never does, since nothing compares with it.
Source: mark_chain_precision and backtrack_insn of kernel/bpf/verifier.c (backtrack.c from 7.x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind, Op
from simulator.verifier.regs import SCALAR
from simulator.verifier.state import SPILL, State, Step

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

ARGS_MASK: Final = 0b111110
_TAIL_CALL: Final = 12
ALWAYS: Final = -1


class CannotTrack(Exception):  # noqa: N818  control flow of this module
    """The walk met what it cannot follow; everything on the path is then marked precise."""


class Masks:
    """Registers and stack slots that are sought, a bit mask each for every frame."""

    __slots__ = ("frame", "regs", "slots")

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.regs = [0] * 9
        self.slots = [0] * 9

    def empty(self) -> bool:
        """Whether nothing is sought any more."""
        return not any(self.regs[: self.frame + 1]) and not any(self.slots[: self.frame + 1])

    def enter(self) -> None:
        """The walk goes from a caller's later instruction into the callee's end."""
        self.frame += 1

    def leave(self) -> None:
        """The walk goes from a callee's first instruction to its caller's call."""
        self.frame -= 1


def _follow_linked(masks: Masks, step: Step | None) -> None:
    """A branch narrows all registers of one identity together: who needs one needs them all."""
    if step is None or not step.linked:
        return
    for frame, is_reg, number in step.linked:
        if (masks.regs if is_reg else masks.slots)[frame] >> number & 1:
            break
    else:
        return
    for frame, is_reg, number in step.linked:
        if is_reg:
            masks.regs[frame] |= 1 << number
        else:
            masks.slots[frame] |= 1 << number


def _alu(insn: Insn, masks: Masks) -> None:
    frame = masks.frame
    regs = masks.regs
    bit = 1 << insn.dst
    if not regs[frame] & bit:
        return
    row = insn.row
    if row.kind is not Kind.ALU:
        return  # NEG and END keep needing what they change
    if row.op in _MOVES:
        regs[frame] &= ~bit
    if row.reg and insn.src != 10:
        regs[frame] |= 1 << insn.src


_MOVES = frozenset({Op.MOV, Op.MOVSX8, Op.MOVSX16, Op.MOVSX32})


def _load(masks: Masks, register: int, step: Step | None) -> None:
    bit = 1 << register
    if not masks.regs[masks.frame] & bit:
        return
    masks.regs[masks.frame] &= ~bit
    if step is not None and step.stack is not None:
        frame, spi = step.stack
        masks.slots[frame] |= 1 << spi


def _store(insn: Insn, masks: Masks, step: Step | None) -> None:
    if masks.regs[masks.frame] >> insn.dst & 1:
        raise CannotTrack  # a number used as an address: pointers were subtracted
    if step is None or step.stack is None:
        return
    frame, spi = step.stack
    if not masks.slots[frame] >> spi & 1:
        return
    masks.slots[frame] &= ~(1 << spi)
    if insn.row.kind is not Kind.STORE_IMM:
        masks.regs[masks.frame] |= 1 << insn.src


def _atomic(m: Machine, insn: Insn, masks: Masks, step: Step | None) -> None:
    if insn.row.fetch and not m.fetches_are_stores:
        _load(masks, 0 if insn.row.op is Op.CMPXCHG else insn.src, step)
    else:
        _store(insn, masks, step)


def _subprogram_call(m: Machine, idx: int, insn: Insn, masks: Masks) -> None:
    if m.subprog_at(idx + insn.imm + 1).is_global:
        masks.regs[masks.frame] &= ~1
        return
    arguments = masks.regs[masks.frame] & ARGS_MASK
    masks.regs[masks.frame] &= ~ARGS_MASK
    masks.leave()
    masks.regs[masks.frame] |= arguments


def _call(m: Machine, idx: int, later: int, insn: Insn, masks: Masks) -> None:
    if insn.src == 1:
        _subprogram_call(m, idx, insn, masks)
        return
    if m.calls_callback_sync(idx) and idx != later - 1:
        # out of a callback into the call that runs it; r1-r5 of the callback are not arguments of that call
        masks.regs[masks.frame] &= ~ARGS_MASK
        masks.leave()
        return
    if insn.src == 2 and insn.imm == 0:
        raise CannotTrack
    masks.regs[masks.frame] &= ~1
    if insn.src == 0 and insn.imm == _TAIL_CALL and later - idx != 1:
        masks.enter()


def _exit(m: Machine, later: int, masks: Masks) -> None:
    before = m.code[later - 1] if later >= 1 else None
    from_call = before is not None and before.row.kind is Kind.CALL and before.src == 1
    wants_r0 = from_call and masks.regs[masks.frame] & 1
    masks.regs[masks.frame] &= ~1
    masks.enter()
    if wants_r0:
        masks.regs[masks.frame] |= 1


def _branch(insn: Insn, masks: Masks, step: Step | None) -> None:
    if not insn.row.reg:
        return
    both = 1 << insn.dst | 1 << insn.src
    if not masks.regs[masks.frame] & both:
        return
    if step is None or not step.src_is_stack:
        masks.regs[masks.frame] |= 1 << insn.src
    if step is None or not step.dst_is_stack:
        masks.regs[masks.frame] |= 1 << insn.dst


def _packet_load(idx: int, later: int, masks: Masks) -> None:
    if masks.regs[masks.frame] & 1:
        raise CannotTrack
    if later != idx + 1:
        masks.enter()


_WITHOUT_LINKS = frozenset({Kind.CALL, Kind.EXIT, Kind.LOAD_IMM64, Kind.LOAD_PACKET})


def registers_sought(insn: Insn | None) -> int:
    """The registers that have to be sought for an instruction to matter to the walk; all of them where it always does.

    Stack slots and linked registers are in the path's history: an instruction with those there is never passed over.
    """
    if insn is None:
        return 0
    kind = insn.row.kind
    if kind in (Kind.ALU, Kind.NEG, Kind.END, Kind.LOAD, Kind.LOAD_SIGNED, Kind.LOAD_ACQUIRE, Kind.LOAD_IMM64):
        return 1 << insn.dst
    if kind in (Kind.STORE, Kind.STORE_IMM, Kind.STORE_RELEASE):
        return 1 << insn.dst
    if kind is Kind.BRANCH:
        return 1 << insn.dst | 1 << insn.src if insn.row.reg else 0
    if kind in (Kind.JUMP, Kind.MAY_GOTO):
        return 0
    return ALWAYS


def _step_back(m: Machine, idx: int, later: int, step: Step | None, masks: Masks) -> None:
    """What has to be known before instruction `idx`, from what has to be known after it.

    `later` is the instruction that the path executed next.
    """
    insn = m.code[idx]
    if insn is None:
        return
    if m.log.level >= 2:
        m.log.backtrack_step(m, masks, idx, insn)
    _follow_linked(masks, step)
    kind = insn.row.kind
    if kind is Kind.ALU or kind is Kind.NEG or kind is Kind.END:
        _alu(insn, masks)
    elif kind in (Kind.LOAD, Kind.LOAD_SIGNED, Kind.LOAD_ACQUIRE):
        _load(masks, insn.dst, step)
    elif kind in (Kind.STORE, Kind.STORE_IMM, Kind.STORE_RELEASE):
        _store(insn, masks, step)
    elif kind is Kind.ATOMIC:
        _atomic(m, insn, masks, step)
    elif kind is Kind.BRANCH:
        _branch(insn, masks, step)
    elif kind is Kind.CALL:
        _call(m, idx, later, insn, masks)
    elif kind is Kind.EXIT:
        _exit(m, later, masks)
    elif kind is Kind.LOAD_IMM64:
        masks.regs[masks.frame] &= ~(1 << insn.dst)
    elif kind is Kind.LOAD_PACKET:
        _packet_load(idx, later, masks)
    if kind not in _WITHOUT_LINKS:
        _follow_linked(masks, step)


def mark_all_precise(m: Machine, state: State) -> None:
    """Marks every number of every checkpoint of the path; what remains where the walk cannot follow."""
    if m.log.level >= 2:
        m.log.write(f"mark_precise: frame{len(state.frames) - 1}: falling back to forcing all scalars precise\n")
    above = state.parent
    while above is not None:
        for number, frame in enumerate(above.frames):
            for register in range(10):
                if frame.regs[register].type == SCALAR and not frame.precise_regs >> register & 1:
                    frame.precise_regs |= 1 << register
                    if m.log.level >= 2:
                        m.log.write(f"force_precise: frame{number}: forcing r{register} to be precise\n")
            for spi, slot in enumerate(frame.stack):
                if slot.types[7] == SPILL and slot.reg.type == SCALAR and not frame.precise_slots >> spi & 1:
                    frame.precise_slots |= 1 << spi
                    if m.log.level >= 2:
                        m.log.write(f"force_precise: frame{number}: forcing fp{-(spi + 1) * 8} to be precise\n")
        above = above.parent


def _mark_checkpoint(m: Machine, state: State, masks: Masks) -> bool:
    """Tells a checkpoint what it has to know; drops from the masks what it knows already. Whether anything was new."""
    changed = False
    for number in range(masks.frame, -1, -1):
        frame = state.frames[number]
        wanted, keep = masks.regs[number], 0
        register = 0
        while wanted >> register:
            if wanted >> register & 1 and frame.regs[register].type == SCALAR:
                keep |= 1 << register
            register += 1
        fresh = keep & ~frame.precise_regs
        frame.precise_regs |= fresh
        masks.regs[number] = fresh
        wanted, keep = masks.slots[number], 0
        spi = 0
        while wanted >> spi:
            if wanted >> spi & 1 and spi < len(frame.stack):
                slot = frame.stack[spi]
                if slot.types[7] == SPILL and slot.reg.type == SCALAR:
                    keep |= 1 << spi
            spi += 1
        fresh_slots = keep & ~frame.precise_slots
        frame.precise_slots |= fresh_slots
        masks.slots[number] = fresh_slots
        changed = changed or bool(fresh or fresh_slots)
        if m.log.level >= 2:
            m.log.backtrack_parent(m, state, number, masks)
    return changed


def _walk_state(m: Machine, state: State, masks: Masks, last: int, later: int, skip_first: bool) -> bool:
    """Walks back through what one state executed; True where nothing is sought any more."""
    history = state.history
    left = len(history)
    idx = last
    first = state.first
    regs, matters, quiet = masks.regs, m.sought_at, m.log.level < 2
    while True:
        if skip_first:
            skip_first = False
        else:
            step = history[left - 1] if left and history[left - 1].idx == idx else None
            needed = matters[idx]
            untouched = quiet and needed >= 0 and not regs[masks.frame] & needed
            if not untouched or (step is not None and (step.linked or step.stack)):
                _step_back(m, idx, later, step, masks)
                if masks.empty():
                    return True
        later = idx
        if idx == first and (left == 0 or (left == 1 and history[0].idx == idx)):
            return False
        if left and history[left - 1].idx == idx:
            idx = history[left - 1].prev
            left -= 1
        else:
            idx -= 1
        if idx < 0:
            raise CannotTrack


def _at_entry(state: State, masks: Masks) -> None:
    """The walk came to the entry of a global subprogram: its arguments are all that may still be sought."""
    frame = state.frames[0]
    register = 0
    while masks.regs[0] >> register:
        if masks.regs[0] >> register & 1 and frame.regs[register].type == SCALAR:
            frame.precise_regs |= 1 << register
        register += 1


def mark_precise(m: Machine, state: State, masks: Masks) -> bool:
    """Marks what `masks` seeks, and what it came from, precise in all checkpoints of the path that ends in `state`.

    Returns whether any checkpoint learned something.
    """
    if masks.empty():
        return False
    changed = False
    start, last, later, skip_first = state, state.idx, -1, True
    while True:
        if m.log.level >= 2:
            m.log.write(
                f"mark_precise: frame{masks.frame}: last_idx {last} first_idx {state.first} subseq_idx {later} \n"
            )
        if last < 0:
            _at_entry(state, masks)
            return changed
        try:
            if _walk_state(m, state, masks, last, later, skip_first):
                return changed
        except CannotTrack:
            mark_all_precise(m, start)
            return True
        skip_first = False
        later = state.first
        if state.parent is None:
            break
        # The parent's own instructions end where the state that was walked begins.
        state = state.parent
        changed = _mark_checkpoint(m, state, masks) or changed
        if masks.empty():
            return changed
        last = state.last
    mark_all_precise(m, start)
    return True


def mark_register(m: Machine, state: State, register: int) -> bool:
    """`mark_precise` for one register of the innermost frame."""
    masks = Masks(len(state.frames) - 1)
    masks.regs[masks.frame] = 1 << register
    return mark_precise(m, state, masks)
