"""Pruning and precision as kernels before 6.4 have them: measured on 5.10 and 6.1.

They differ from `prune` and `backtrack` in what a state stands for: identities are compared for pointers alone, the
number that a decision rests on is followed within one function only, and no loop is left by an equal state of its own.
Source: is_state_visited, states_equal and __mark_chain_precision of kernel/bpf/verifier.c of 5.10.262 and 6.1.192.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind, Op
from simulator.verifier import equality, marks, prune
from simulator.verifier import regs as r
from simulator.verifier.backtrack import CannotTrack, mark_all_precise
from simulator.verifier.regs import NOT_INIT, SCALAR, Reg
from simulator.verifier.scalar import within
from simulator.verifier.state import INVALID, MISC, SPILL, ZEROED, Frame, Slot, State, is_spilled_scalar

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_MOVES: Final = frozenset({Op.MOV, Op.MOVSX8, Op.MOVSX16, Op.MOVSX32})
_SYNC_CALLBACKS: Final = frozenset({164, 170, 180, 181, 209})
_ARGUMENTS: Final = 0x3E

Ids = dict[int, int]


def is_visited(m: Machine, idx: int) -> bool:
    """`prune.is_visited` of these kernels."""
    cur = m.state
    jumps, insns = m.jumps - m.jumps_at_checkpoint, m.processed - m.processed_at_checkpoint
    add = m.test_state_freq or (jumps >= 2 and insns >= 8)
    states = m.explored.get(prune.bucket(m, idx, cur))
    if states:
        prune.clean_final(m, states, cur)
        found = _compare(m, idx, states, cur, add, jumps, insns)
        if found is None:
            return True
        add = found
        m.max_states = max(m.max_states, m.seen_states)
    if add:
        prune.add_checkpoint(m, idx, cur)
    return False


def _compare(m: Machine, idx: int, states: list[State], cur: State, add: bool, jumps: int, insns: int) -> bool | None:
    """None where an equal state was found; else whether a checkpoint is to be made."""
    m.seen_states = 0
    for old in list(reversed(states)):
        m.seen_states += 1
        if old.idx != idx:
            continue
        if old.branches:
            _refuse_endless(m, idx, old, cur)
            if jumps < 20 and insns < 100:
                add = False
        elif states_equal(m, old, cur):
            old.hits += 1
            marks.propagate(old, cur)
            if m.layout.jump_point[idx]:
                m.remember()
            _propagate_precision(m, old, cur)
            return None
        if add:
            old.misses += 1
        if old.misses > old.hits * 3 + 3:
            states.remove(old)
    return add


def _refuse_endless(m: Machine, idx: int, old: State, cur: State) -> None:
    if old.frame.in_async_callback and old.frame.async_entry != cur.frame.async_entry:
        return
    if equality.looks_alike(m, old, cur) and states_equal(m, old, cur):
        m.fail_at_line(f"infinite loop detected at insn {idx}")


# ---- comparison ------------------------------------------------------------------------------------------------------


def states_equal(m: Machine, old: State, cur: State) -> bool:
    """Whether `cur` need not be looked at since `old` was."""
    if len(old.frames) != len(cur.frames):
        return False
    if (old.holds.lock_id, old.holds.locks) != (cur.holds.lock_id, cur.holds.locks):
        return False
    if [ref[:3] for ref in old.holds.refs] != [ref[:3] for ref in cur.holds.refs]:
        return False
    return all(_frames_equal(m, ours, theirs) for ours, theirs in zip(old.frames, cur.frames, strict=True))


def _frames_equal(m: Machine, old: Frame, cur: Frame) -> bool:
    if old.callsite != cur.callsite:
        return False
    ids: Ids = {}
    noted = old.marks
    assert noted is not None
    for register in range(10):
        if noted.read_regs >> register & 1 and not _safe(
            old.regs[register], cur.regs[register], ids, old.precise_regs >> register & 1
        ):
            return False
    for spi, slot in enumerate(old.stack):
        if noted.read_slots >> spi & 1:
            other = cur.stack[spi] if spi < len(cur.stack) else None
            if not _slot_safe(m, slot, other, ids, old.precise_slots >> spi & 1):
                return False
    return True


def _same(old: Reg, cur: Reg) -> bool:
    """Equal to the last bit, identities too."""
    return old is cur or (old.id == cur.id and old.ref == cur.ref and old.same_but_ids(cur))


def _match(ids: Ids, old: int, cur: int) -> bool:
    return ids.setdefault(old, cur) == cur


def _safe(old: Reg, cur: Reg, ids: Ids, precise: int) -> bool:
    if _same(old, cur) or old.type == NOT_INIT:
        return True
    if cur.type == NOT_INIT:
        return False
    base = old.type & r.BASE_MASK
    if base == SCALAR:
        return cur.type == SCALAR and (not precise or within(old.num, cur.num))
    if base in (r.PTR_MAP_VALUE, r.PTR_MAP_KEY):
        if old.type != cur.type or old.off != cur.off or old.data != cur.data:
            return False
        if old.type & r.MAYBE_NULL:
            return _match(ids, old.id, cur.id)
        return within(old.num, cur.num)
    if base in (r.PTR_PACKET, r.PTR_PACKET_META):
        return _packet_safe(old, cur, ids)
    return False


def _packet_safe(old: Reg, cur: Reg, ids: Ids) -> bool:
    if old.type != cur.type or old.off != cur.off:
        return False
    if (old.data < 0 or cur.data < 0) and old.data != cur.data:
        return False
    if old.data > cur.data or (old.id and not _match(ids, old.id, cur.id)):
        return False
    return within(old.num, cur.num)


def _slot_safe(m: Machine, old: Slot, cur: Slot | None, ids: Ids, precise: int) -> bool:
    for byte, kind in enumerate(old.types):
        if kind == INVALID or (kind == MISC and m.uninit_stack_ok):
            continue
        if cur is None:
            return False
        there = cur.types[byte]
        if kind == MISC and there == ZEROED:
            continue
        if kind != there:
            return False
        if byte == 7 and kind == SPILL and not _safe(old.reg, cur.reg, ids, precise):
            return False
    return True


# ---- precision -------------------------------------------------------------------------------------------------------


def _propagate_precision(m: Machine, old: State, cur: State) -> None:
    for number in range(len(old.frames) - 1, -1, -1):
        frame = old.frames[number]
        noted = frame.marks
        assert noted is not None
        for register in range(10):
            if (frame.precise_regs & noted.read_regs) >> register & 1 and frame.regs[register].type == SCALAR:
                mark(m, cur, number, 1 << register, 0)
        for spi, slot in enumerate(frame.stack):
            if (frame.precise_slots & noted.read_slots) >> spi & 1 and is_spilled_scalar(slot):
                mark(m, cur, number, 0, 1 << spi)


def mark(m: Machine, state: State, frame: int, regs: int, slots: int) -> None:
    """Marks registers or slots of one frame, and what they came from, precise in the checkpoints of a path."""
    walk = _Walk(m, frame, regs, slots)
    if not walk.fits(state):
        return
    at: State | None = state
    last, skip_first = state.idx, True
    while at is not None:
        if last < 0:
            walk.at_entry(at)
            return
        try:
            if walk.back(at, last, skip_first):
                return
        except CannotTrack:
            mark_all_precise(m, at)
            return
        skip_first = False
        at = at.parent
        if at is None or not walk.mark_checkpoint(at):
            return
        last = at.last


def mark_register(m: Machine, state: State, register: int) -> None:
    """`mark` for one register of the innermost frame."""
    mark(m, state, len(state.frames) - 1, 1 << register, 0)


class _Walk:
    """What is sought, in one frame, while a path is walked back."""

    def __init__(self, m: Machine, frame: int, regs: int, slots: int) -> None:
        self.m = m
        self.frame = frame
        self.regs = regs
        self.slots = slots

    def fits(self, state: State) -> bool:
        """Whether there is a number at all where one is sought."""
        frame = state.frames[self.frame]
        if self.slots:
            spi = self.slots.bit_length() - 1
            return spi < len(frame.stack) and is_spilled_scalar(frame.stack[spi])
        return frame.regs[self.regs.bit_length() - 1].type == SCALAR

    def at_entry(self, state: State) -> None:
        """The walk came to the entry of a global function: its arguments are all that may be sought."""
        frame = state.frames[0]
        for register in range(1, 6):
            if self.regs >> register & 1 and frame.regs[register].type == SCALAR:
                frame.precise_regs |= 1 << register

    def back(self, state: State, last: int, skip_first: bool) -> bool:
        """Walks through what one state executed; True where nothing is sought any more."""
        history = state.history
        left, idx = len(history), last
        while True:
            if not skip_first:
                self._step(idx)
                if not self.regs and not self.slots:
                    return True
            skip_first = False
            if idx == state.first and (left == 0 or (left == 1 and history[0].idx == idx)):
                return False
            if left and history[left - 1].idx == idx:
                idx = history[left - 1].prev
                left -= 1
            else:
                idx -= 1
            if idx < 0:
                raise CannotTrack

    def mark_checkpoint(self, state: State) -> bool:
        """Tells a checkpoint what it has to know; whether the walk goes on."""
        frame = state.frames[self.frame]
        for register in range(10):
            if self.regs >> register & 1 and frame.regs[register].type != SCALAR:
                self.regs &= ~(1 << register)
        for spi in range(self.slots.bit_length()):
            if not self.slots >> spi & 1:
                continue
            if spi >= len(frame.stack):
                mark_all_precise(self.m, state)
                return False
            if not is_spilled_scalar(frame.stack[spi]):
                self.slots &= ~(1 << spi)
        fresh = self.regs & ~frame.precise_regs or self.slots & ~frame.precise_slots
        frame.precise_regs |= self.regs
        frame.precise_slots |= self.slots
        return bool(fresh)

    def _step(self, idx: int) -> None:
        insn = self.m.code[idx]
        if insn is None:
            return
        kind = insn.row.kind
        if kind is Kind.ALU or kind is Kind.NEG or kind is Kind.END:
            self._alu(insn)
        elif kind in (Kind.LOAD, Kind.LOAD_SIGNED):
            self._load(insn.dst, insn.src, insn.off)
        elif kind is Kind.ATOMIC and insn.row.fetch:
            self._load(0 if insn.row.op is Op.CMPXCHG else insn.src, insn.dst, insn.off)
        elif kind in (Kind.STORE, Kind.STORE_IMM, Kind.ATOMIC):
            self._store(insn)
        elif kind is Kind.CALL:
            self._call(insn)
        elif kind is Kind.EXIT:
            raise CannotTrack
        elif kind is Kind.BRANCH:
            if insn.row.reg and self.regs & (1 << insn.dst | 1 << insn.src):
                self.regs |= 1 << insn.dst | 1 << insn.src
        elif kind is Kind.LOAD_IMM64:
            self.regs &= ~(1 << insn.dst)
        elif kind is Kind.LOAD_PACKET and self.regs & 1:
            raise CannotTrack

    def _alu(self, insn: Insn) -> None:
        bit = 1 << insn.dst
        if not self.regs & bit or insn.row.kind is not Kind.ALU:
            return
        if insn.row.op in _MOVES:
            self.regs &= ~bit
        if insn.row.reg:
            self.regs |= 1 << insn.src

    def _load(self, loaded: int, base: int, off: int) -> None:
        if not self.regs >> loaded & 1:
            return
        self.regs &= ~(1 << loaded)
        if base == 10:
            self.slots |= 1 << ((-off - 1) // 8)

    def _store(self, insn: Insn) -> None:
        if self.regs >> insn.dst & 1:
            raise CannotTrack
        if insn.dst != 10:
            return
        bit = 1 << ((-insn.off - 1) // 8)
        if not self.slots & bit:
            return
        self.slots &= ~bit
        if insn.row.kind is not Kind.STORE_IMM:
            self.regs |= 1 << insn.src

    def _call(self, insn: Insn) -> None:
        if insn.src == 1 or (insn.src == 0 and insn.imm in _SYNC_CALLBACKS) or (insn.src == 2 and not insn.imm):
            raise CannotTrack
        self.regs &= ~1
        if self.regs & _ARGUMENTS:
            self.m.fail(f"BUG regs {self.regs:x}")


# ---- precise zeros ---------------------------------------------------------------------------------------------------


def tainting(m: Machine, idx: int, insn: Insn, step: Callable[[], int]) -> Callable[[], int]:
    """The step of an instruction on kernels where a zero that is read from the stack is precise from the start.

    The state under way says so in its own `precise_regs` and `precise_slots`, until the next checkpoint: a copy of such
    a number is precise, and what is added to it is sought back at once.
    """
    kind = insn.row.kind
    if kind is Kind.ALU:
        return _tainting_alu(m, insn, step)
    if kind in (Kind.LOAD, Kind.LOAD_SIGNED):
        return _tainting_load(m, insn, step)
    if kind is Kind.STORE:
        return _tainting_store(m, insn, step)
    forgets = 0
    if kind in (Kind.NEG, Kind.END, Kind.LOAD_IMM64):
        forgets = 1 << insn.dst
    elif kind is Kind.ATOMIC and insn.row.fetch:
        forgets = 1 << (0 if insn.row.op is Op.CMPXCHG else insn.src)
    elif kind in (Kind.CALL, Kind.LOAD_PACKET):
        forgets = 0x3F
    if not forgets:
        return step

    def forgetting() -> int:
        m.frame.precise_regs &= ~forgets
        return step()

    return forgetting


def _tainting_alu(m: Machine, insn: Insn, step: Callable[[], int]) -> Callable[[], int]:
    dst, src, by_register = insn.dst, insn.src, insn.row.reg
    moves = insn.row.op in _MOVES
    keeps_if_unknown = insn.row.op in (Op.ADD, Op.SUB, Op.AND)
    divides = insn.row.op in (Op.DIV, Op.MOD, Op.SDIV, Op.SMOD)

    def alu() -> int:
        frame = m.frame
        bits = frame.precise_regs
        if moves:
            taint = bits >> src & 1 if by_register else 0
            frame.precise_regs = bits & ~(1 << dst) | taint << dst
        elif bits >> dst & 1:
            known = not by_register or frame.regs[src].num.is_const
            if by_register and frame.regs[src].type == SCALAR == frame.regs[dst].type:
                m.mark_precise(src)
            if divides or not (known or keeps_if_unknown):
                frame.precise_regs &= ~(1 << dst)
        return step()

    return alu


def _tainting_load(m: Machine, insn: Insn, step: Callable[[], int]) -> Callable[[], int]:
    dst, src, off, size = insn.dst, insn.src, insn.off, insn.row.size

    def load() -> int:
        frame = m.frame
        base = frame.regs[src]
        taint = 0
        if base.type == r.PTR_STACK and base.num.is_const:
            taint = _taint_read(m.state.frames[base.data], base.off + base.num.smin + off, size)
        then = step()
        frame.precise_regs = frame.precise_regs & ~(1 << dst) | taint << dst
        return then

    return load


def _taint_read(frame: Frame, off: int, size: int) -> int:
    """1 where a load gives a precise number: zeros that were stored as such, or a spilled number that is."""
    low = -off - 1
    spi = low // 8
    if not 0 <= spi < len(frame.stack):
        return 0
    types = frame.stack[spi].types
    if types[7] == SPILL:
        return frame.precise_slots >> spi & 1 if off % 8 == 0 and types[8 - size :] == bytes([SPILL] * size) else 0
    return int(all(low - i >= 0 and types[(low - i) % 8] == ZEROED for i in range(size)))


def _tainting_store(m: Machine, insn: Insn, step: Callable[[], int]) -> Callable[[], int]:
    dst, src, off = insn.dst, insn.src, insn.off

    def store() -> int:
        base = m.frame.regs[dst]
        taint = m.frame.precise_regs >> src & 1
        then = step()
        if base.type == r.PTR_STACK and base.num.is_const:
            spi = (-(base.off + base.num.smin + off) - 1) // 8
            frame = m.state.frames[base.data]
            frame.precise_slots = frame.precise_slots & ~(1 << spi) | taint << spi
        return then

    return store
