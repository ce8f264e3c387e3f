"""Pruning: when a path has come to where a state like its own was looked at already, it need not go on.

Invariant: a checkpoint stands for all states that are no more than it: what it proved safe is safe for them. Numbers
that nobody needed precisely are not compared. A loop is closed by a state that lies within an earlier one of the same
path; what its paths needed precisely is carried round the loop when the loop is left (`_propagate_backedges`).
Source: is_state_visited, states_equal and maybe_exit_scc of kernel/bpf/verifier.c (states.c from 7.x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass, field
from simulator.verifier import backtrack, marks
from simulator.verifier import regs as r
from simulator.verifier.backtrack import Masks
from simulator.verifier.equality import (
    EXACT,
    MEMBERS,
    NOT_EXACT,
    RANGE_WITHIN,
    UNBOUND,
    IdMap,
    differs_as_before,
    looks_alike,
    states_equal,
)  # fmt: skip
from simulator.verifier.liveness import StackLiveness
from simulator.verifier.refusal import Refused
from simulator.verifier.regs import ADD_CONST, NOTHING, Reg, scalar_reg
from simulator.verifier.state import (
    EMPTY,
    ITER_BYTE,
    SPILL,
    Slot,
    State,
    frame_names,
)  # fmt: skip

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

MAX_BACKEDGE_ROUNDS: Final = 64
_ALL_BUT_R10: Final = 0x3FF

Chain = tuple[int, ...]


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
    if not m.has_loops:
        return
    chain = _chain(m, state)
    if chain is None:
        return
    visit = m.visits.setdefault(chain, Visit())
    if visit.entry is None:
        visit.entry = state
        if m.log.level >= 2:
            m.log.write(f"SCC enter {_chain_text(chain)}\n")


def _chain_text(chain: Chain) -> str:
    sites = [abs(part) for part in chain[:-1]]
    told = sites[: sites.index(0)] if 0 in sites else sites  # a call at slot 0 looks like the end of the calls
    return "(" + ",".join(map(str, [*told, abs(chain[-1])])) + ")"


def _exit_loop(m: Machine, state: State) -> None:
    if not m.visits:
        return
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
    for number in range(masks.frame, -1, -1):
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
    calls, functions = frame_names(state.frames)
    assert isinstance(m.liveness, StackLiveness)  # else frames have marks
    query = m.liveness.query(state.idx, calls, functions) if any(frame.stack for frame in state.frames) else None
    for number, frame in enumerate(state.frames):
        regs, stack = frame.regs, frame.stack
        for register in MEMBERS[~m.live_regs[state.insn_of(number)] & _ALL_BUT_R10]:
            regs[register] = NOTHING
        if query is None:
            continue
        kept = []
        left = [EMPTY] * len(stack)
        alive = query.alive(number) & (1 << len(stack)) - 1
        while alive:
            bit = alive & -alive
            alive ^= bit
            spi = bit.bit_length() - 1
            slot = stack[spi]
            if slot is not EMPTY:
                kept.append((spi, slot))
                left[spi] = slot
        frame.stack, frame.kept = left, kept


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
    forced = m.forces[idx] or (len(cur.history) > 40 and m.ends_long_histories)
    jumps, insns = m.jumps - m.jumps_at_checkpoint, m.processed - m.processed_at_checkpoint
    add = forced or (jumps >= 2 and insns >= 8)
    states = m.explored.get(bucket(m, idx, cur))
    if states:
        clean_final(m, states, cur)
        add_or_hit = _compare(m, idx, states, cur, forced, add, jumps, insns)
        if add_or_hit is None:
            return True
        add = add_or_hit
        if m.seen_states > m.max_states:
            m.max_states = m.seen_states
    if add:
        add_checkpoint(m, idx, cur)
    return False


def _compare(
    m: Machine, idx: int, states: list[State], cur: State, forced: bool, add: bool, jumps: int, insns: int
) -> bool | None:
    """None where an equal state was found; else whether a checkpoint is to be made."""
    seen, depth = 0, len(cur.frames)
    for old in reversed(states[:]):
        m.seen_states = seen = seen + 1
        if old.idx != idx:
            continue
        hit = in_loop = False
        done = not old.branches
        if done and old.hint is not None and len(old.frames) == depth and differs_as_before(m, old, cur, NOT_EXACT):
            pass  # what differs loosely differs strictly, so it need not be known whether the loop is done
        elif not done:
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
    m.visits.setdefault(chain, Visit()).backedges.append(cur.closed_by(old, idx))
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

    ids = IdMap(0)

    def widened(before: Reg, now: Reg, precise: int) -> Reg:
        if before.type != r.SCALAR or now.type != r.SCALAR or precise or _same_number(before, now, ids):
            return now
        return UNBOUND

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


def _same_number(a: Reg, b: Reg, ids: IdMap) -> bool:
    return a.num is b.num and a.off == b.off and ids.match(a.id, b.id)
