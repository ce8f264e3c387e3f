"""When one state stands for another: registers, stack slots, identities and what the paths hold, compared.

Invariant: at `NOT_EXACT` numbers that nobody needed precisely are not compared; at `RANGE_WITHIN` all numbers are, and
at `EXACT` everything is. Most comparisons fail, and where one failed before, so that place is looked at first.
Source: states_equal, regsafe and stacksafe of kernel/bpf/verifier.c (states.c from 7.x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simulator.verifier import regs as r
from simulator.verifier.regs import ADD_CONST, NOTHING, Reg, scalar_reg
from simulator.verifier.scalar import UNKNOWN, within
from simulator.verifier.state import (
    ALL_SPILL,
    DYNPTR_BYTE,
    EMPTY,
    INVALID,
    IRQ_BYTE,
    ITER_BYTE,
    MISC,
    SPILL,
    ZEROED,
    Frame,
    Slot,
    State,
)  # fmt: skip

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine
    from simulator.verifier.marks import FrameMarks

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
MAX_IDS: Final = 600
UNBOUND: Final = scalar_reg(UNKNOWN)


def _members() -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = [()]
    for register in range(11):
        found += [(*lower, register) for lower in found]
    return tuple(found)


MEMBERS: Final = _members()
"""The numbers of the registers in each mask."""


class IdMap:
    """Which identity of one state stands for which of the other. Most comparisons end before they need one."""

    __slots__ = ("_next", "old_to_new", "taken")

    def __init__(self, first_free: int) -> None:
        self.old_to_new: dict[int, int] | None = None
        self._next = first_free

    def match(self, old: int, new: int) -> bool:
        """Whether the two may stand for each other; notes it where neither was seen."""
        if not old or not new:
            return old == new
        known = self.old_to_new
        if known is None:
            self.old_to_new = {old: new}
            self.taken = {new}
            return True
        before = known.get(old)
        if before is not None:
            return before == new
        if new in self.taken or len(self.taken) >= MAX_IDS:
            return False
        known[old] = new
        self.taken.add(new)
        return True

    def match_scalar(self, old: int, new: int) -> bool:
        """The same for numbers: an old one without identity asks for nothing, a new one without has one of its own."""
        if not old:
            return True
        if not new:
            self._next += 1
            new = self._next
        if not self.match(old, new):
            return False
        return not old & ADD_CONST or self.match(old & ~ADD_CONST, new & ~ADD_CONST)


class _AnyIds(IdMap):
    """For a first look: identities stand for each other wherever some map could let them."""

    __slots__ = ()

    def match(self, old: int, new: int) -> bool:
        """Whether both are there or neither is."""
        return (not old) == (not new)

    def match_scalar(self, old: int, new: int) -> bool:
        """Always: a number without identity gets one where it has to have one."""
        return True


ANY_IDS: Final = _AnyIds(0)


def _exact(old: Reg, cur: Reg, ids: IdMap) -> bool:
    return (old is cur or old.same_but_ids(cur)) and ids.match(old.id, cur.id) and ids.match(old.ref, cur.ref)


def _scalar_safe(old: Reg, cur: Reg, ids: IdMap) -> bool:
    if old.id and (old.id ^ cur.id) & ADD_CONST:
        return False
    if old.id & ADD_CONST and old.off != cur.off:
        return False
    return within(old.num, cur.num) and ids.match_scalar(old.id, cur.id)


def _packet_safe(old: Reg, cur: Reg, ids: IdMap) -> bool:
    if old.data < 0 or cur.data < 0:
        if old.data != cur.data:
            return False
    elif old.data > cur.data:
        return False
    return old.off == cur.off and ids.match(old.id, cur.id) and within(old.num, cur.num)


_RANGED: Final = frozenset({r.PTR_MAP_KEY, r.PTR_MAP_VALUE, r.PTR_MEM, r.PTR_BUF, r.PTR_TP_BUFFER})


def reg_safe(old: Reg, cur: Reg, ids: IdMap, exact: int, precise: int) -> bool:
    """Whether a path that was safe with `old` is safe with `cur`. `precise`: the old number was needed precisely."""
    if exact == EXACT:
        return _exact(old, cur, ids)
    kind = old.type
    if kind != cur.type:
        # what was not there was not used; in a loop that is not done yet, that is not known
        return kind == r.NOT_INIT and exact == NOT_EXACT
    if kind == r.NOT_INIT:
        return True
    if kind == r.SCALAR:
        if not precise and exact == NOT_EXACT:
            return True
        return _scalar_safe(old, cur, ids)
    base = kind & r.BASE_MASK
    if base in _RANGED:
        return (
            old.off == cur.off
            and old.data == cur.data
            and within(old.num, cur.num)
            and ids.match(old.id, cur.id)
            and ids.match(old.ref, cur.ref)
        )
    if kind == r.PTR_PACKET or kind == r.PTR_PACKET_META:
        return _packet_safe(old, cur, ids)
    if kind == r.PTR_ARENA:
        return True
    return _exact(old, cur, ids)


def _as_number(m: Machine, slot: Slot) -> tuple[Reg, bool] | None:
    """What a load of these stack bytes gives, as a register, where it is a number; and whether it was spilled."""
    types = slot.types
    if types[0] == SPILL and slot.reg.type == r.SCALAR:
        return slot.reg, True
    for kind in types:
        if kind != MISC and not (kind == INVALID and m.uninit_stack_ok):
            return None
    return UNBOUND, False


def _stack_safe(m: Machine, old: Frame, cur: Frame, ids: IdMap, exact: int) -> int:
    """The first slot that keeps two frames apart, -1 where none does."""
    cur_stack, precise = cur.stack, old.precise_slots
    kept = old.kept if old.kept is not None and exact == NOT_EXACT else enumerate(old.stack)
    unread = ~old.marks.read_slots if old.marks is not None and exact == NOT_EXACT else 0
    known = len(cur_stack)
    for spi, slot in kept:
        if (slot is EMPTY and exact == NOT_EXACT) or (unread and unread >> spi & 1):
            continue
        other = cur_stack[spi] if spi < known else None
        reg = slot.reg
        if slot is other and not reg.id and not reg.ref:
            continue
        if other is None:
            safe = _slot_safe(m, slot, None, ids, exact, precise >> spi & 1)
        elif reg is NOTHING is other.reg:
            safe = _plain_safe(m, slot, other, ids, exact)
        elif slot.types[7] == SPILL and slot.types == other.types:
            # the common case of `_slot_safe`, and of `reg_safe` a number that nobody needed
            if reg.type == r.SCALAR == other.reg.type and exact == NOT_EXACT and not precise >> spi & 1:
                continue
            safe = reg_safe(reg, other.reg, ids, exact, precise >> spi & 1)
        else:
            safe = _slot_safe(m, slot, other, ids, exact, precise >> spi & 1)
        if not safe:
            return spi
    return -1


def _plain_safe(m: Machine, old: Slot, cur: Slot, ids: IdMap, exact: int) -> bool:
    """`_slot_safe` of slots where no value lives, kept by what their bytes are."""
    key = (old.types, cur.types, exact)
    known = m.alike_slots.get(key)
    if known is None:
        known = m.alike_slots[key] = _slot_safe(m, old, cur, ids, exact, 0)
    return known


def differs_as_before(m: Machine, old: State, cur: State, exact: int) -> bool:
    """Whether one of the two places that last kept the checkpoint apart from a state keeps it apart from this one.

    Identities aside: most comparisons fail, and where one did before. With no identities matched yet, a failure here
    is one for good. Both states have as many frames.
    """
    hint: tuple[int, int] | None = old.hint
    first = True
    while hint is not None:
        number, which = hint
        ours, theirs = old.frames[number], cur.frames[number]
        if ours.marks is None or exact != NOT_EXACT or _is_read(m, ours.marks, which):
            if which >= 0:
                differs = _surely_unlike(ours.regs[which], theirs.regs[which], exact, ours.precise_regs >> which & 1)
            else:
                differs = _slot_still_differs(m, ours, theirs, ~which, exact)
            if differs:
                if not first:
                    old.hint, old.second_hint = hint, old.hint
                return True
        if not first:
            return False
        hint, first = old.second_hint, False
    return False


def _slot_still_differs(m: Machine, ours: Frame, theirs: Frame, spi: int, exact: int) -> bool:
    slot = ours.stack[spi]
    other = theirs.stack[spi] if spi < len(theirs.stack) else None
    if slot is other:
        return False
    precise = ours.precise_slots >> spi & 1
    if other is not None and slot.types == ALL_SPILL == other.types:
        return _surely_unlike(slot.reg, other.reg, exact, precise)
    if other is not None and slot.reg is NOTHING is other.reg:
        return not _plain_safe(m, slot, other, ANY_IDS, exact)
    return not _slot_safe(m, slot, other, ANY_IDS, exact, precise)


def _surely_unlike(old: Reg, cur: Reg, exact: int, precise: int) -> bool:
    """`not reg_safe`, whatever the identities; the same register twice is left to the whole comparison."""
    if old is cur:
        return False
    kind = old.type
    if kind != cur.type:
        return kind != r.NOT_INIT or exact == EXACT
    if kind == r.SCALAR and exact != EXACT:
        return bool(precise or exact) and not within(old.num, cur.num)
    return not reg_safe(old, cur, ANY_IDS, exact, precise)


def _is_read(m: Machine, marks: FrameMarks, which: int) -> bool:
    """Whether a register, or the slot ~`which`, is known to be read from a checkpoint on."""
    if which < 0:
        return bool(marks.read_slots >> ~which & 1)
    return not m.notes_reads or bool(marks.read_regs >> which & 1)


def _slot_safe(m: Machine, old: Slot, cur: Slot | None, ids: IdMap, exact: int, precise: int) -> bool:
    """Whether bytes of stack that were safe as `old` are safe as `cur`; None where that frame has no such slot."""
    if cur is not None and old.types == cur.types and old.types[7] == SPILL:
        # bytes above a narrow spill are alike; whether they matter or not, the value decides
        return reg_safe(old.reg, cur.reg, ids, exact, precise)
    if exact != NOT_EXACT and (cur is None or old.types != cur.types):
        return False
    byte = 0
    while byte < 8:
        kind = old.types[byte]
        if kind == INVALID or (m.uninit_stack_ok and kind == MISC):
            byte += 1
            continue
        if cur is None:
            return False
        if byte == 0:
            ours, theirs = _as_number(m, old), _as_number(m, cur)
            if ours is not None and theirs is not None:
                needed = precise if ours[1] else 0
                return reg_safe(ours[0], theirs[0], ids, exact, needed)
        if kind == MISC and cur.types[byte] == ZEROED:
            byte += 1
            continue
        if kind != cur.types[byte]:
            return False
        byte += 1
        if byte == 8 and not _same_resident(old, cur, ids, exact, precise):
            return False
    return True


def _same_resident(old: Slot, cur: Slot, ids: IdMap, exact: int, precise: int) -> bool:
    """Whether what lives in two slots with equal bytes is equal."""
    kind = old.types[7]
    if kind == SPILL:
        return reg_safe(old.reg, cur.reg, ids, exact, precise)
    if kind == DYNPTR_BYTE:
        return old.reg.data == cur.reg.data and ids.match(old.reg.ref, cur.reg.ref)
    if kind == ITER_BYTE:
        # the depth is for the detection of endless loops alone
        return (
            old.reg.type == cur.reg.type
            and old.reg.data[:2] == cur.reg.data[:2]
            and ids.match(old.reg.ref, cur.reg.ref)
        )
    if kind == IRQ_BYTE:
        return ids.match(old.reg.ref, cur.reg.ref) and old.reg.data == cur.reg.data
    return kind in (MISC, ZEROED, INVALID)


def _holds_safe(old: State, cur: State, ids: IdMap) -> bool:
    ours, theirs = old.holds, cur.holds
    if ours is theirs and not ours.refs and not ours.lock_id and not ours.irq_id:
        return True
    if (
        len(ours.refs) != len(theirs.refs)
        or ours.locks != theirs.locks
        or ours.preempt != theirs.preempt
        or ours.rcu != theirs.rcu
        or not ids.match(ours.irq_id, theirs.irq_id)
        or not ids.match(ours.lock_id, theirs.lock_id)
        or ours.lock_ptr is not theirs.lock_ptr
    ):
        return False
    return all(
        ids.match(a.id, b.id) and a.kind == b.kind and (a.kind in ("ptr", "irq") or a.ptr is b.ptr)
        for a, b in zip(ours.refs, theirs.refs, strict=True)
    )


def states_equal(m: Machine, old: State, cur: State, exact: int) -> bool:
    """Whether `cur` need not be looked at since `old` was, at this exactness."""
    if len(old.frames) != len(cur.frames) or old.sleepable != cur.sleepable:
        return False
    if old.hint is not None and differs_as_before(m, old, cur, exact):
        return False
    ids = IdMap(m.ids)
    if not _holds_safe(old, cur, ids):
        return False
    live_regs, innermost = m.live_regs, len(old.frames) - 1
    for number, (ours, theirs) in enumerate(zip(old.frames, cur.frames, strict=True)):
        if ours.callsite != theirs.callsite or ours.callback_depth > theirs.callback_depth:
            return False
        precise, our_regs, their_regs = ours.precise_regs, ours.regs, theirs.regs
        live = live_regs[old.idx if number == innermost else old.insn_of(number)]
        if m.notes_reads and exact == NOT_EXACT and ours.marks is not None:
            live = ours.marks.read_regs
        for register in MEMBERS[live]:
            a, b = our_regs[register], their_regs[register]
            if a is b and not a.id and not a.ref:
                continue
            if a.type == r.SCALAR == b.type and exact == NOT_EXACT and not precise >> register & 1:
                continue
            if not reg_safe(a, b, ids, exact, precise >> register & 1):
                old.hint, old.second_hint = (number, register), old.hint
                return False
        spi = _stack_safe(m, ours, theirs, ids, exact)
        if spi >= 0:
            old.hint, old.second_hint = (number, ~spi), old.hint
            return False
    return True


def looks_alike(m: Machine, old: State, cur: State) -> bool:
    """Whether the innermost registers are equal, identities included: the first sign of an endless loop.

    Looks first at the register that told the last two states apart.
    """
    if len(old.frames) != len(cur.frames):
        return False
    ours, theirs = old.frames[-1].regs, cur.frames[-1].regs
    at = m.unlike_register
    if ours[at].num is not theirs[at].num:
        return False
    for at in range(11):
        a, b = ours[at], theirs[at]
        if a is not b and (a.id != b.id or a.ref != b.ref or not a.same_but_ids(b)):
            m.unlike_register = at
            return False
    return True
