"""Precision: which earlier values a decision rested on, found by walking a path backwards.

States are compared loosely: two unlike numbers in the same register do not keep states apart unless some decision
needed the number. When one does, the path is walked back instruction by instruction with a mask of registers and stack
slots for each frame, and every checkpoint on the way is told what it has to know precisely.

Invariant: only checkpoints carry precision marks; the state under way never does, since nothing compares with it.
Source: mark_chain_precision and backtrack_insn of kernel/bpf/verifier.c (backtrack.c from 7.x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import ALU32, ALU64, STX, Kind, Op
from simulator.verifier.regs import SCALAR
from simulator.verifier.state import SPILL, Frame, State, Step

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

ARGS_MASK: Final = 0b111110
_TAIL_CALL: Final = 12
ALWAYS: Final = -1
_ANYTHING: Final = 1 << 11
"""A bit that only ALWAYS has: something is always sought while the walk goes on."""


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
        if not self.frame:
            return not self.regs[0] and not self.slots[0]
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
    if insn.src == 2 and idx in m.unresolved:
        raise CannotTrack  # the loader left the call empty
    masks.regs[masks.frame] &= ~1
    if insn.src == 0 and insn.imm == _TAIL_CALL and later - idx != 1:
        masks.enter()


def _exit(m: Machine, later: int, masks: Masks) -> None:
    before = m.code[later - 1] if later >= 1 else None
    from_call = before is not None and before.row.kind is Kind.CALL and before.src == 1
    wants_r0 = from_call and masks.regs[masks.frame] & 1
    if later >= 0 and m.layout.calls_callback[later]:
        masks.regs[masks.frame] &= ~ARGS_MASK  # what the callback gets, the helper makes
    masks.regs[masks.frame] &= ~1
    masks.enter()
    if wants_r0:
        masks.regs[masks.frame] |= 1


def _packet_load(idx: int, later: int, masks: Masks) -> None:
    if masks.regs[masks.frame] & 1:
        raise CannotTrack
    if later != idx + 1:
        masks.enter()


_WITHOUT_LINKS = frozenset({Kind.CALL, Kind.EXIT, Kind.LOAD_IMM64, Kind.LOAD_PACKET})
_LOADS = frozenset({Kind.LOAD, Kind.LOAD_SIGNED, Kind.LOAD_ACQUIRE})
_STORES = frozenset({Kind.STORE, Kind.STORE_IMM, Kind.STORE_RELEASE})

NOTHING, MOVE, COMBINE, LOAD, STORE, COMPARE, OTHER = range(7)
"""What it is to the walk: r = s; r = r op s; r from memory; r to memory; r compared with s; all else, see `_other`."""


class Effect(NamedTuple):
    """An instruction as the walk sees it.

    `matters` the registers of which one has to be sought for it to mean anything, ALWAYS where none has to; `dst` and
    `src` the bits of its registers, 0 where it has none. Stack slots and linked registers are in the path's history:
    an instruction with those there is never passed over.
    """

    what: int
    matters: int
    dst: int
    src: int


_EFFECTS: dict[tuple[int, int, int, int, int], Effect] = {}
_MAX_EFFECTS: Final = 4096
_NO_EFFECT: Final = Effect(NOTHING, 0, 0, 0)


def effect_of(insn: Insn | None) -> Effect:
    """What an instruction means to the walk."""
    if insn is None:
        return _NO_EFFECT
    cls = insn.opcode & 7
    # the immediate tells atomics apart, the offset signed division
    key = (insn.opcode, insn.dst, insn.src, insn.imm if cls == STX else 0, insn.off if cls in (ALU32, ALU64) else 0)
    found = _EFFECTS.get(key)
    if found is None:
        if len(_EFFECTS) > _MAX_EFFECTS:
            _EFFECTS.clear()
        found = _EFFECTS[key] = _effect_of(insn)
    return found


def _effect_of(insn: Insn) -> Effect:
    row = insn.row
    kind, dst, src = row.kind, 1 << insn.dst, 1 << insn.src
    if kind is Kind.ALU:
        operand = src if row.reg and insn.src != 10 else 0
        return Effect(MOVE if row.op in _MOVES else COMBINE, dst, dst, operand)
    if kind in (Kind.NEG, Kind.END):
        return Effect(NOTHING, dst, dst, 0)  # they keep needing what they change
    if kind is Kind.LOAD_IMM64:
        return Effect(MOVE, dst, dst, 0)
    if kind in _LOADS:
        return Effect(LOAD, dst, dst, 0)
    if kind in _STORES:
        return Effect(STORE, dst, dst, 0 if kind is Kind.STORE_IMM else src)
    if kind is Kind.BRANCH:
        return Effect(COMPARE, dst | src, dst, src) if row.reg else Effect(NOTHING, 0, 0, 0)
    if kind in (Kind.JUMP, Kind.MAY_GOTO):
        return Effect(NOTHING, 0, 0, 0)
    return Effect(OTHER, ALWAYS, dst, src)


_MOVES = frozenset({Op.MOV, Op.MOVSX8, Op.MOVSX16, Op.MOVSX32})


def _other(m: Machine, idx: int, later: int, step: Step | None, masks: Masks) -> None:
    """What has to be known before an instruction that changes frames or does several things, from what after it.

    `later` is the instruction that the path executed next.
    """
    insn = m.code[idx]
    assert insn is not None
    kind = insn.row.kind
    if kind is Kind.ATOMIC:
        _atomic(m, insn, masks, step)
    elif kind is Kind.CALL:
        _call(m, idx, later, insn, masks)
    elif kind is Kind.EXIT:
        _exit(m, later, masks)
    elif kind is Kind.LOAD_PACKET:
        _packet_load(idx, later, masks)


def _step_back(m: Machine, idx: int, later: int, step: Step | None, masks: Masks) -> None:
    """What has to be known before instruction `idx`, from what has to be known after it."""
    insn = m.code[idx]
    if insn is None:
        return
    if m.log.level >= 2:
        m.log.backtrack_step(m, masks, idx, insn)
    if step is not None and step.linked:
        _follow_linked(masks, step)
    what, _, dst, src = m.effects[idx]
    regs, frame = masks.regs, masks.frame
    sought = regs[frame]
    if what == LOAD:
        if sought & dst:
            regs[frame] = sought & ~dst
            if step is not None and step.stack is not None:
                masks.slots[step.stack[0]] |= 1 << step.stack[1]
    elif what == STORE:
        if sought & dst:
            raise CannotTrack  # a number used as an address: pointers were subtracted
        if step is not None and step.stack is not None:
            owner, spi = step.stack
            if masks.slots[owner] >> spi & 1:
                masks.slots[owner] &= ~(1 << spi)
                regs[frame] = sought | src
    elif what == MOVE:
        if sought & dst:
            regs[frame] = sought & ~dst | src
    elif what == COMBINE:
        if sought & dst:
            regs[frame] = sought | src
    elif what == COMPARE:
        if sought & (dst | src):
            if step is None or not step.src_is_stack:
                sought |= src
            if step is None or not step.dst_is_stack:
                sought |= dst
            regs[frame] = sought
    elif what == OTHER:
        _other(m, idx, later, step, masks)
    if step is not None and step.linked and insn.row.kind not in _WITHOUT_LINKS:
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
        wanted = masks.regs[number]
        if wanted:
            masks.regs[number] = fresh = scalars_among(frame, wanted & ~frame.precise_regs)
            frame.precise_regs |= fresh
            changed = changed or bool(fresh)
        wanted = masks.slots[number]
        if wanted:
            masks.slots[number] = fresh = spilled_scalars_among(frame, wanted & ~frame.precise_slots)
            frame.precise_slots |= fresh
            changed = changed or bool(fresh)
        if m.log.level >= 2:
            m.log.backtrack_parent(m, state, number, masks)
    return changed


def scalars_among(frame: Frame, wanted: int) -> int:
    """Of a mask of registers those that hold numbers."""
    found, regs = 0, frame.regs
    while wanted:
        bit = wanted & -wanted
        if regs[bit.bit_length() - 1].type == SCALAR:
            found |= bit
        wanted ^= bit
    return found


def spilled_scalars_among(frame: Frame, wanted: int) -> int:
    """Of a mask of stack slots those that hold spilled numbers."""
    found, stack = 0, frame.stack
    wanted &= (1 << len(stack)) - 1
    while wanted:
        bit = wanted & -wanted
        slot = stack[bit.bit_length() - 1]
        if slot.types[7] == SPILL and slot.reg.type == SCALAR:
            found |= bit
        wanted ^= bit
    return found


def _passed_over(m: Machine, idx: int, sought: int) -> int:
    """The last instruction up to `idx` that matters to what is sought, or in whose place every history says more.

    Kept, since paths share their instructions: `m.passed` has it by place and by what is sought, in the low 11 bits.
    """
    matters, jump_point, wanted = m.matters, m.layout.jump_point, sought | _ANYTHING
    at = idx
    while at and not jump_point[at] and not matters[at] & wanted:
        at -= 1
    m.passed[idx << 11 | sought] = at
    return at


def _walk_state(m: Machine, state: State, masks: Masks, last: int, later: int, skip_first: bool) -> bool:
    """Walks back through what one state executed; True where nothing is sought any more."""
    history, first = state.history, state.first
    left, idx = len(history), last
    regs, slots, frame = masks.regs, masks.slots, masks.frame
    passes, passed = m.log.level < 2, m.passed
    matters = m.matters if passes else m.always
    step: Step | None
    while True:
        if left:
            step = history[left - 1]
            if step.idx != idx:
                step = None
        else:
            step = None
        if skip_first:
            skip_first = False
        else:
            sought = matters[idx] & (regs[frame] | _ANYTHING)
            if not sought and step is not None:
                # its registers are not sought, but it wrote a slot that is, or it linked registers
                place = step.stack
                sought = 1 if step.linked else 0 if place is None else slots[place[0]] >> place[1] & 1
            if sought:
                _step_back(m, idx, later, step, masks)
                frame = masks.frame
                if not regs[frame] and not slots[frame] and (not frame or masks.empty()):
                    return True
        later = idx
        if idx == first and (left == 0 or (left == 1 and step is not None)):
            return False
        if step is not None:
            idx = step.prev
            left -= 1
        else:
            idx -= 1
        if idx < 0:
            raise CannotTrack
        # Down to where the history says more, instructions follow each other: those that do not matter are passed over.
        stop = history[left - 1].idx if left else first
        if idx > stop and passes:
            at = passed.get(idx << 11 | regs[frame])
            if at is None:
                at = _passed_over(m, idx, regs[frame])
            if at < stop:
                at = stop
            if at < idx:
                idx = at
                later = at + 1


def _at_entry(state: State, masks: Masks) -> None:
    """The walk came to the entry of a global subprogram: its arguments are all that may still be sought."""
    frame = state.frames[0]
    frame.precise_regs |= scalars_among(frame, masks.regs[0])


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
