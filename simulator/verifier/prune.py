"""Pruning: when a path has come to where a state like its own was looked at already, it need not go on.

Invariant: a checkpoint stands for all states that are no more than it: what it proved safe is safe for them. Numbers
that nobody needed precisely are not compared. A loop is closed by a state that lies within an earlier one of the same
path; what its paths needed precisely is carried round the loop when the loop is left (`_propagate_backedges`).
Source: is_state_visited, states_equal and maybe_exit_scc of kernel/bpf/verifier.c (states.c from 7.x).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from simulator.verifier import backtrack, marks
from simulator.verifier import regs as r
from simulator.verifier.backtrack import Masks
from simulator.verifier.liveness import StackLiveness
from simulator.verifier.refusal import Refused
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
MAX_BACKEDGE_ROUNDS: Final = 64
_UNBOUND: Final = scalar_reg(UNKNOWN)

MEMBERS: Final = tuple(tuple(bit for bit in range(11) if mask >> bit & 1) for mask in range(1 << 11))
"""The numbers of the registers in each mask."""
_ALL_BUT_R10: Final = 0x3FF

Chain = tuple[int, ...]


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
    return _UNBOUND, False


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
        if other is not None and reg is NOTHING is other.reg:
            if _plain_safe(m, slot, other, ids, exact):
                continue
            return spi
        if not _slot_safe(m, slot, other, ids, exact, precise >> spi & 1):
            return spi
    return -1


def _plain_safe(m: Machine, old: Slot, cur: Slot, ids: IdMap, exact: int) -> bool:
    """`_slot_safe` of slots where no value lives, kept by what their bytes are."""
    key = (old.types, cur.types, exact)
    known = m.alike_slots.get(key)
    if known is None:
        known = m.alike_slots[key] = _slot_safe(m, old, cur, ids, exact, 0)
    return known


def _differs_as_before(m: Machine, old: State, cur: State, exact: int) -> bool:
    """Whether one of the two places that last kept the checkpoint apart from a state keeps it apart from this one."""
    first, second = old.hint, old.second_hint
    assert first is not None
    if _still_differs(m, old, cur, first, exact):
        return True
    if second is None or not _still_differs(m, old, cur, second, exact):
        return False
    old.hint, old.second_hint = second, first
    return True


def _still_differs(m: Machine, old: State, cur: State, hint: tuple[int, int], exact: int) -> bool:
    """Whether what kept the checkpoint apart from a state before keeps it apart from this one, identities aside.

    Most comparisons fail, and where one did before. With no identities matched yet, a failure here is one for good.
    """
    number, which = hint
    ours, theirs = old.frames[number], cur.frames[number]
    if ours.marks is not None and exact == NOT_EXACT and not _is_read(m, ours.marks, which):
        return False
    if which >= 0:
        return _surely_unlike(ours.regs[which], theirs.regs[which], exact, ours.precise_regs >> which & 1)
    spi = ~which
    slot = ours.stack[spi]
    other = theirs.stack[spi] if spi < len(theirs.stack) else None
    if slot is other:
        return False
    precise = ours.precise_slots >> spi & 1
    if other is not None and slot.types == ALL_SPILL == other.types:
        return _surely_unlike(slot.reg, other.reg, exact, precise)
    return not _slot_safe(m, slot, other, IdMap(0), exact, precise)


def _surely_unlike(old: Reg, cur: Reg, exact: int, precise: int) -> bool:
    """`not reg_safe` with no identity matched yet; the same register twice is left to the whole comparison."""
    if old is cur:
        return False
    if old.type != cur.type:
        return old.type != r.NOT_INIT or exact == EXACT
    if old.type == r.SCALAR and exact != EXACT:
        return bool(precise or exact) and not within(old.num, cur.num)
    return not reg_safe(old, cur, IdMap(0), exact, precise)


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
    if old.hint is not None and _differs_as_before(m, old, cur, exact):
        return False
    ids = IdMap(m.ids)
    if not _holds_safe(old, cur, ids):
        return False
    live_regs = m.live_regs
    for number, (ours, theirs) in enumerate(zip(old.frames, cur.frames, strict=True)):
        if ours.callsite != theirs.callsite or ours.callback_depth > theirs.callback_depth:
            return False
        precise, our_regs, their_regs = ours.precise_regs, ours.regs, theirs.regs
        live = live_regs[old.insn_of(number)]
        if m.notes_reads and exact == NOT_EXACT and ours.marks is not None:
            live = ours.marks.read_regs
        for register in MEMBERS[live]:
            a, b = our_regs[register], their_regs[register]
            if a is b and not a.id and not a.ref:
                continue
            if not reg_safe(a, b, ids, exact, precise >> register & 1):
                old.hint, old.second_hint = (number, register), old.hint
                return False
        spi = _stack_safe(m, ours, theirs, ids, exact)
        if spi >= 0:
            old.hint, old.second_hint = (number, ~spi), old.hint
            return False
    return True


@dataclass(slots=True)
class Visit:
    """One way into a loop: the calls that led to it, the checkpoint that entered it, and the states that closed it."""

    entry: State | None = None
    backedges: list[State] = field(default_factory=list)


def _chain(m: Machine, state: State) -> Chain | None:
    """The calls that lead to the outermost loop that a state is in, and the loop; None where it is in none.

    Kept with the state: a checkpoint's place never changes.
    """
    if state.chain == ():
        state.chain = _chain_of(m, state)
    return state.chain


def _chain_of(m: Machine, state: State) -> Chain | None:
    calls: list[int] = []
    for number in range(len(state.frames)):
        at = state.insn_of(number)
        if m.loop_of[at]:
            return (*calls, -m.loop_of[at])
        calls.append(at)
    return None


def _enter_loop(m: Machine, state: State) -> None:
    chain = _chain(m, state)
    if chain is None:
        return
    visit = m.visits.setdefault(chain, Visit())
    if visit.entry is None:
        visit.entry = state
        if m.log.level >= 2:
            m.log.write(f"SCC enter {_chain_text(chain)}\n")


def _chain_text(chain: Chain) -> str:
    return "(" + ",".join(str(abs(part)) for part in chain) + ")"


def _exit_loop(m: Machine, state: State) -> None:
    chain = _chain(m, state)
    if chain is None:
        return
    visit = m.visits.get(chain)
    if visit is None or visit.entry is not state:
        return
    if m.log.level >= 2:
        m.log.write(f"SCC exit {_chain_text(chain)}\n")
    visit.entry = None
    m.backedges -= len(visit.backedges)
    _propagate_backedges(m, visit)


def _incomplete(m: Machine, state: State) -> bool:
    """Whether what the paths from a state needed is not known yet, since it is in a loop that was not left."""
    if not m.ways.loops_by_component:
        entry = _loop_entry(state)
        return entry is not None and bool(entry.branches)
    if not m.backedges:
        return False
    chain = _chain(m, state)
    visit = None if chain is None else m.visits.get(chain)
    return visit is not None and bool(visit.backedges)


def _propagate_backedges(m: Machine, visit: Visit) -> None:
    for _ in range(MAX_BACKEDGE_ROUNDS):
        changed = False
        for state in reversed(visit.backedges):
            assert state.equal is not None
            changed = propagate_precision(m, state.equal, state) or changed
        if not changed:
            break
    else:
        for state in visit.backedges:
            backtrack.mark_all_precise(m, state)
    visit.backedges.clear()


def finish_path(m: Machine, state: State | None) -> None:
    """A path ended well: its checkpoints have one way less to go, and those with none left are final."""
    while state is not None:
        state.branches -= 1
        if not state.branches and state.parent is not None and state.loop_entry is not None:
            _put_in_loop(state.parent, state.loop_entry)
        if state.branches:
            return
        _exit_loop(m, state)
        if state.freed:
            _let_go(m, state)
        state = state.parent


def _drop(m: Machine, state: State) -> None:
    """A checkpoint that never helps is not compared any more; it is held while paths from it are under way."""
    state.freed = True
    _let_go(m, state)


def _let_go(m: Machine, state: State) -> None:
    if not state.branches and not _incomplete(m, state):
        state.freed = False
        m.held_states -= 1


def propagate_precision(m: Machine, old: State, cur: State) -> bool:
    """What an equal state needed precisely, the path that ends in `cur` needs too."""
    masks = Masks(len(cur.frames) - 1)
    for number in range(len(old.frames) - 1, -1, -1):
        frame = old.frames[number]
        wanted, wanted_slots = frame.precise_regs, frame.precise_slots
        if frame.marks is not None:
            wanted_slots &= frame.marks.read_slots
            wanted &= frame.marks.read_regs if m.notes_reads else ~0
        if wanted:
            masks.regs[number] = backtrack.scalars_among(frame, wanted & 0x3FF)
        if wanted_slots:
            masks.slots[number] = backtrack.spilled_scalars_among(frame, wanted_slots)
        if m.log.level >= 2:
            m.log.propagating(number, masks)
    return backtrack.mark_precise(m, cur, masks)


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


def _iterators_differ(old: State, cur: State) -> bool:
    for ours, theirs in zip(old.frames, cur.frames, strict=True):
        for spi, slot in enumerate(ours.stack):
            if slot.types[0] != ITER_BYTE or slot.reg.data[1] != "active":
                continue
            if theirs.stack[spi].reg.data[2] != slot.reg.data[2]:
                return True
    return False


def _clean(m: Machine, state: State) -> None:
    """Forgets what a final checkpoint's paths never read, so that it stands for more states."""
    state.cleaned = True
    if state.frames[0].marks is not None:
        _clean_unread(m, state)
        return
    calls = [frame.callsite for frame in state.frames[1:]]
    functions = [frame.subprog for frame in state.frames]
    assert isinstance(m.liveness, StackLiveness)  # else frames have marks
    query = m.liveness.query(state.idx, calls, functions) if any(frame.stack for frame in state.frames) else None
    for number, frame in enumerate(state.frames):
        regs, stack = frame.regs, frame.stack
        for register in MEMBERS[~m.live_regs[state.insn_of(number)] & _ALL_BUT_R10]:
            regs[register] = NOTHING
        if query is None:
            continue
        alive = query.alive(number)
        kept = []
        for spi, slot in enumerate(stack):
            if slot is EMPTY:
                continue
            if alive >> spi & 1:
                kept.append((spi, slot))
            else:
                stack[spi] = EMPTY
        frame.kept = kept


def _clean_unread(m: Machine, state: State) -> None:
    """The same on kernels that note what is read."""
    for number, frame in enumerate(state.frames):
        assert frame.marks is not None
        live = frame.marks.read_regs if m.notes_reads else m.live_regs[state.insn_of(number)]
        for register in range(10):
            if not live >> register & 1:
                frame.regs[register] = NOTHING
        for spi in range(len(frame.stack)):
            if not frame.marks.read_slots >> spi & 1:
                frame.stack[spi] = EMPTY


def _loop_entry(state: State) -> State | None:
    """The outermost checkpoint known to enter a loop that a state lies in, where loops are found by states."""
    entry = state.loop_entry
    while entry is not None and entry.loop_entry is not None and entry is not entry.loop_entry:
        entry = entry.loop_entry
    at: State | None = state
    while at is not None and at.loop_entry is not entry:
        at.loop_entry, at = entry, at.loop_entry
    return entry


def _put_in_loop(cur: State, header: State) -> None:
    """A state lies in the loop that `header` enters, where that is still being walked."""
    mine, theirs = _loop_entry(cur) or cur, _loop_entry(header) or header
    if theirs.branches and theirs.depth <= mine.depth:
        cur.loop_entry = header


def clean_final(m: Machine, states: list[State], cur: State) -> None:
    """Cleans those checkpoints here whose paths were all walked."""
    idx = cur.idx
    for state in states:
        if state.cleaned or state.branches or state.idx != idx or not _same_calls(state, cur):
            continue
        if not _incomplete(m, state):
            _clean(m, state)


def _same_calls(a: State, b: State) -> bool:
    if len(a.frames) != len(b.frames):
        return False
    return len(a.frames) == 1 or all(x.callsite == y.callsite for x, y in zip(a.frames, b.frames, strict=True))


def clear_singular_ids(state: State) -> None:
    """A number's identity that no other has says nothing."""
    counts: dict[int, int] = {}
    regs = [reg for frame in state.frames for reg in frame.regs if reg.id and reg.type == r.SCALAR]
    regs += [
        slot.reg
        for frame in state.frames
        for slot in frame.stack
        if slot.types[7] == SPILL and slot.reg.id and slot.reg.type == r.SCALAR
    ]
    if not regs:
        return
    for reg in regs:
        identity = reg.id & ~ADD_CONST
        counts[identity] = counts.get(identity, 0) + 1

    def change(reg: Reg) -> Reg:
        if reg.type == r.SCALAR and reg.id and counts[reg.id & ~ADD_CONST] == 1:
            return scalar_reg(reg.num)
        return reg

    state.replace_regs(change)


def _endless(m: Machine, idx: int, old: State, cur: State) -> Refused:
    if m.log.on:
        m.log.source_line(m, idx, "; ")
        m.log.write(f"infinite loop detected at insn {idx}\n")
        m.log.write("cur state:")
        m.log.state(m, cur, len(cur.frames) - 1, True)
        m.log.write("old state:")
        m.log.state(m, old, len(cur.frames) - 1, True)
    return Refused(f"infinite loop detected at insn {idx}", insn=idx)


def _loop_hit(m: Machine, idx: int, old: State, cur: State) -> bool | None:
    """At an open checkpoint of this path: True, the loop converges; False, go on; None, it may be an endless loop."""
    if old.frame.in_async_callback and old.frame.async_entry != cur.frame.async_entry:
        return False
    if m.iter_next[idx]:
        return states_equal(m, old, cur, RANGE_WITHIN) and m.objects.iterator_is_active(m, cur)
    if m.may_goto[idx] and old.may_goto_depth != cur.may_goto_depth and states_equal(m, old, cur, RANGE_WITHIN):
        return True
    if m.layout.calls_callback[idx]:
        return states_equal(m, old, cur, RANGE_WITHIN)
    return None


def _is_endless(m: Machine, old: State, cur: State) -> bool:
    return (
        looks_alike(m, old, cur)
        and states_equal(m, old, cur, EXACT)
        and not _iterators_differ(old, cur)
        and old.may_goto_depth == cur.may_goto_depth
        and old.callback_unroll == cur.callback_unroll
    )


def bucket(m: Machine, idx: int, state: State) -> int:
    """Where the kernel keeps checkpoints like this one: by instruction and call site, in a table so long as it.

    Which states share a bucket decides which are counted and which hold back new checkpoints, so it is repeated here.
    """
    return ((idx ^ state.frames[-1].callsite) & 0xFFFFFFFF) % len(m.code)


def is_visited(m: Machine, idx: int) -> bool:
    """Whether the current state need not be looked at further; makes it a checkpoint where that may help others."""
    cur = m.state
    forced = m.forces[idx] or (m.ends_long_histories and len(cur.history) > 40)
    jumps, insns = m.jumps - m.jumps_at_checkpoint, m.processed - m.processed_at_checkpoint
    add = forced or (jumps >= 2 and insns >= 8)
    states = m.explored.get(bucket(m, idx, cur))
    if states:
        clean_final(m, states, cur)
        add_or_hit = _compare(m, idx, states, cur, forced, add, jumps, insns)
        if add_or_hit is None:
            return True
        add = add_or_hit
        m.max_states = max(m.max_states, m.seen_states)
    if add:
        add_checkpoint(m, idx, cur)
    return False


def _compare(
    m: Machine, idx: int, states: list[State], cur: State, forced: bool, add: bool, jumps: int, insns: int
) -> bool | None:
    """None where an equal state was found; else whether a checkpoint is to be made."""
    seen = 0
    for old in reversed(states[:]):
        m.seen_states = seen = seen + 1
        if old.idx != idx:
            continue
        hit = in_loop = False
        if not old.branches and old.hint is not None and _same_depth_differs(m, old, cur):
            pass  # what differs loosely differs strictly, so it need not be known whether the loop is done
        elif old.branches:
            verdict = _loop_hit(m, idx, old, cur)
            if verdict:
                # a call that runs a callback again is no way round the loop that it stands in
                hit, in_loop = True, not m.layout.calls_callback[idx]
                if not m.ways.loops_by_component and (m.iter_next[idx] or m.may_goto[idx]):
                    _put_in_loop(cur, old)
            else:
                if verdict is None and _is_endless(m, old, cur):
                    raise _endless(m, idx, old, cur)
                if not forced and jumps < 20 and insns < 100:
                    add = False
        else:
            in_loop = _incomplete(m, old)
            hit = states_equal(m, old, cur, RANGE_WITHIN if in_loop else NOT_EXACT)
            if hit and in_loop and not m.ways.loops_by_component:
                _put_in_loop(cur, _loop_entry(old) or old)
        if hit:
            old.hits += 1
            _join(m, idx, old, cur, in_loop)
            return None
        if add:
            old.misses += 1
        if old.misses > 3 * (old.hits + 1) and _is_spent(m, idx, old):
            states.remove(old)
            _drop(m, old)
    return add


def _same_depth_differs(m: Machine, old: State, cur: State) -> bool:
    return len(old.frames) == len(cur.frames) and _differs_as_before(m, old, cur, NOT_EXACT)


def _is_spent(m: Machine, idx: int, old: State) -> bool:
    """Whether a checkpoint was compared in vain so often that it is given up; an open one in a loop is given longer."""
    limit = 64 if m.layout.force_checkpoint[idx] and old.branches else 3
    return old.misses > limit * (old.hits + 1)


def _join(m: Machine, idx: int, old: State, cur: State, in_loop: bool) -> None:
    """The path ends in an equal state; what that one needed, this path's checkpoints need."""
    if old.frames[0].marks is not None:
        marks.propagate(old, cur)
    if m.layout.jump_point[idx]:
        m.remember()
    propagate_precision(m, old, cur)
    if not in_loop or not m.ways.loops_by_component:
        return
    chain = _chain(m, old)
    if chain is None:
        return  # a callback outside of any loop: the call that runs it is no loop of its own
    if m.log.level >= 2:
        m.log.write(f"SCC backedge {_chain_text(chain)}\n")
    closing = cur.copy()
    closing.equal = old
    closing.idx = idx
    m.visits.setdefault(chain, Visit()).backedges.append(closing)
    m.backedges += 1
    m.note_states()


def add_checkpoint(m: Machine, idx: int, cur: State) -> None:
    """Keeps a copy of the current state, for others to be compared with."""
    m.total_states += 1
    m.jumps_at_checkpoint = m.jumps
    m.processed_at_checkpoint = m.processed
    if m.clears_singular_ids:
        clear_singular_ids(cur)
    if not m.ways.zeros_are_imprecise:
        for frame in cur.frames:
            frame.precise_regs = frame.precise_slots = 0
    new = cur.copy()
    new.idx = idx
    new.history = cur.history
    if m.ways.loops_by_component:
        _enter_loop(m, new)
    cur.parent = new
    cur.first = idx
    cur.depth = new.depth + 1
    cur.history = []
    if new.frames[0].marks is not None:
        marks.checkpoint(cur)
    m.explored.setdefault(bucket(m, idx, cur), []).append(new)
    m.held_states += 1
    m.note_states()


def find_previous(m: Machine, cur: State, idx: int) -> State | None:
    """The last open checkpoint at `idx` of this path, whose calls are the same."""
    for state in reversed(m.explored.get(bucket(m, idx, cur), ())):
        if state.idx == idx and state.branches and _same_calls(state, cur) and state.depth < cur.depth:
            return state
    return None


def widen(m: Machine, old: State, cur: State) -> None:
    """Forgets numbers that changed since an earlier round of a loop and were not needed precisely, so that it ends."""

    def widened(before: Reg, now: Reg, precise: int) -> Reg:
        if before.type != r.SCALAR or now.type != r.SCALAR or precise or _same_number(before, now):
            return now
        return _UNBOUND

    for ours, theirs in zip(old.frames, cur.frames, strict=False):
        for register in range(11):
            precise = ours.precise_regs >> register & 1
            theirs.regs[register] = widened(ours.regs[register], theirs.regs[register], precise)
        for spi in range(min(len(ours.stack), len(theirs.stack))):
            a, b = ours.stack[spi], theirs.stack[spi]
            if a.types[7] == SPILL and b.types[7] == SPILL:
                new = widened(a.reg, b.reg, ours.precise_slots >> spi & 1)
                if new is not b.reg:
                    theirs.stack[spi] = Slot(b.types, new)


def _same_number(a: Reg, b: Reg) -> bool:
    return a.num is b.num and a.off == b.off
