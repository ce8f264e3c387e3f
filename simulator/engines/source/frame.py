"""Which stack slots can be local variables, and which registers are read after an instruction.

A slot can be a variable where nothing but loads and stores of exactly it can see its bytes: no access overlaps it at
another place or size, and no address of the frame that could reach it leaves the function's own loads and stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bpflisp.spec import helpers as spec
from bpflisp.spec.helpers import ArgType
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_HELPER, STACK_SIZE, Kind, Op
from simulator.engines.source.blocks import Block
from simulator.engines.source.ranges import Known, Range, State, after
from simulator.engines.validity import sound
from simulator.helpers.registry import arity_of
from simulator.program import MapDef

PURE = frozenset({Kind.ALU, Kind.NEG, Kind.END, Kind.LOAD_IMM64})
"""What only computes: not written where nobody reads the result."""

_LOADS = frozenset({Kind.LOAD, Kind.LOAD_SIGNED, Kind.LOAD_ACQUIRE})
_STORES = frozenset({Kind.STORE, Kind.STORE_IMM, Kind.STORE_RELEASE})


ONE_OPERAND = frozenset({Op.MOV, Op.MOVSX8, Op.MOVSX16, Op.MOVSX32})


def uses_of(insn: Insn) -> set[int]:
    """The registers that an instruction reads."""
    row = insn.row
    if not sound(insn):
        return set()
    match row.kind:
        case Kind.ALU:
            second = {insn.src} if row.reg else set()
            return second if row.op in ONE_OPERAND else {insn.dst} | second
        case Kind.NEG | Kind.END | Kind.STORE_IMM | Kind.CALL_REG:
            return {insn.dst} | (set(range(1, 6)) if row.kind is Kind.CALL_REG else set())
        case Kind.BRANCH:
            return {insn.dst} | ({insn.src} if row.reg else set())
        case Kind.LOAD | Kind.LOAD_SIGNED | Kind.LOAD_ACQUIRE:
            return {insn.src}
        case Kind.STORE | Kind.STORE_RELEASE:
            return {insn.dst, insn.src}
        case Kind.ATOMIC:
            return {insn.dst, insn.src} | ({0} if row.op is Op.CMPXCHG else set())
        case Kind.LOAD_PACKET:
            return {insn.src} if row.reg else set()
        case Kind.CALL:
            return set(range(1, 6)) if insn.src != CALL_HELPER else set(range(1, 1 + arity_of(insn.imm)))
        case Kind.EXIT:
            return {0}
        case _:
            return set()


def defines(insn: Insn) -> int | None:
    """The register that an instruction writes, None for none."""
    match insn.row.kind:
        case Kind.ALU | Kind.NEG | Kind.END | Kind.LOAD | Kind.LOAD_SIGNED | Kind.LOAD_ACQUIRE | Kind.LOAD_IMM64:
            return insn.dst
        case Kind.CALL | Kind.CALL_REG | Kind.LOAD_PACKET:
            return 0
        case Kind.ATOMIC if insn.row.fetch:
            return 0 if insn.row.op is Op.CMPXCHG else insn.src
        case _:
            return None


def written_out(value: Range) -> bool:
    """Whether the text of this value names no register: it is a number, a map, or an address of the frame."""
    return value.exact or value.map >= 0 or value.frame is not None


def live_registers(
    blocks: Mapping[int, Block], states: Mapping[int, State], known: Known
) -> dict[int, list[frozenset[int]]]:
    """For each block, the registers that are read later, after each of its instructions; last, before the first."""
    steps = {at: list(_steps(blocks[at], states[at], known)) for at in states}
    into: dict[int, frozenset[int]] = dict.fromkeys(states, frozenset())
    changed = True
    order = sorted(states, reverse=True)
    while changed:
        changed = False
        for at in order:
            live = _live_out(blocks[at], into)
            for defined, used, pure in reversed(steps[at]):
                live = _before(live, defined, used, pure)
            if live != into[at]:
                into[at], changed = live, True
    result = {}
    for at in states:
        live, after_each = _live_out(blocks[at], into), []
        for defined, used, pure in reversed(steps[at]):
            after_each.append(live)
            live = _before(live, defined, used, pure)
        result[at] = [*reversed(after_each), live]
    return result


def live_along(block: Block, states: Sequence[State], at_end: frozenset[int]) -> list[frozenset[int]]:
    """The same for one block on one way to it, on which more values may be known: after each instruction."""
    live, after_each = at_end, []
    for index in range(len(block.insns) - 1, -1, -1):
        after_each.append(live)
        insn = block.insns[index][1]
        used = frozenset(register for register in uses_of(insn) if not written_out(states[index][register]))
        live = _before(live, defines(insn), used, insn.row.kind in PURE)
    return after_each[::-1]


def _before(live: frozenset[int], defined: int | None, used: frozenset[int], pure: bool) -> frozenset[int]:
    """What is read after what comes before an instruction. One that only computes what nobody reads is not written,
    and so reads nothing."""
    if pure and defined not in live:
        return live
    return (live - {defined}) | used


def _live_out(block: Block, into: Mapping[int, frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*(into.get(following, frozenset()) for following in block.next))


def _steps(block: Block, state: State, known: Known) -> Iterator[tuple[int | None, frozenset[int], bool]]:
    for slot, insn in block.insns:
        used = frozenset(register for register in uses_of(insn) if not written_out(state[register]))
        yield defines(insn), used, insn.row.kind in PURE
        state = after(slot, insn, state, known)


_TAKES_TEXT = frozenset({Kind.ALU, Kind.LOAD, Kind.LOAD_SIGNED, Kind.STORE, Kind.BRANCH, Kind.EXIT, Kind.CALL})
_READ_TWICE = frozenset({Op.DIV, Op.MOD})


def deferrable(block: Block, states: Sequence[State], live: Sequence[frozenset[int]]) -> set[int]:
    """The arithmetic of a block that can be written where its result is used: used once, in this block, before
    anything that it reads has changed. Also loads, where the next instruction is what uses them and touches no memory
    that can fault, so that a line has one access. Indices of instructions."""
    found, insns = set[int](), block.insns
    # What the text that stands for a register reads: that of a deferred operand reads what its own operands do, or the
    # register itself, where it became a line after all (it was long, or took a load in).
    behind: dict[int, set[int]] = {}
    for index, (_, insn) in enumerate(insns):
        used = {register for register in uses_of(insn) if not written_out(states[index][register])}
        reads = set[int]().union(*(behind.get(register, {register}) for register in used))
        if _may_wait(insns, states, live, index) and _used_once(insns, states, live, index, insn.dst, reads):
            found.add(index)
            behind[insn.dst] = reads | {insn.dst}
        elif (defined := defines(insn)) is not None:
            behind.pop(defined, None)
    return found


def _may_wait(
    insns: Sequence[tuple[int, Insn]], states: Sequence[State], live: Sequence[frozenset[int]], index: int
) -> bool:
    """Whether it is arithmetic, or a load that may go into the next line, with a result that is used."""
    insn = insns[index][1]
    if insn.dst not in live[index] or written_out(states[index + 1][insn.dst]):
        return False
    return insn.row.kind is Kind.ALU or (insn.row.kind is Kind.LOAD and _stays_put(insns, states, index))


def _stays_put(insns: Sequence[tuple[int, Insn]], states: Sequence[State], index: int) -> bool:
    """Whether the instruction after this load is one into whose line the load can go."""
    if index + 1 >= len(insns):
        return False
    loaded, following = insns[index][1], insns[index + 1][1]
    if loaded.dst not in uses_of(following) or written_out(states[index + 1][loaded.dst]):
        return False
    if following.row.kind is Kind.STORE and following.dst != loaded.dst:
        base = states[index + 1][following.dst].frame
        return base is not None and 0 <= base + following.off <= STACK_SIZE - following.row.size
    return following.row.kind in (Kind.ALU, Kind.BRANCH)


def _used_once(
    insns: Sequence[tuple[int, Insn]],
    states: Sequence[State],
    live: Sequence[frozenset[int]],
    index: int,
    register: int,
    reads: set[int],
) -> bool:
    for later in range(index + 1, len(insns)):
        insn = insns[later][1]
        defined = defines(insn)
        if register in uses_of(insn) and not written_out(states[later][register]):
            if insn.row.kind is Kind.ALU and written_out(states[later + 1][insn.dst]):
                return False  # Its result is known, so its line does not name its operands.
            twice = (insn.src == insn.dst and insn.row.reg) or insn.row.op in _READ_TWICE
            return insn.row.kind in _TAKES_TEXT and not twice and (defined == register or register not in live[later])
        if defined == register or defined in reads:
            return False
    return False


@dataclass(slots=True)
class Frame:
    """What a function does with its stack. `variables` are the places, as (offset, size), that are variables."""

    accesses: set[tuple[int, int]] = field(default_factory=set)
    escaped: list[tuple[int, int]] = field(default_factory=list)
    variables: frozenset[tuple[int, int]] = frozenset()
    reads_before: bool = True
    """Whether it may read bytes that it has not written."""

    @property
    def memory(self) -> bool:
        """Whether the frame's bytes are needed at all."""
        return bool(self.escaped) or bool(self.accesses - self.variables)


_ALL = (0, STACK_SIZE)


def frame_of(
    blocks: Mapping[int, Block],
    states: Mapping[int, State],
    live: Mapping[int, list[frozenset[int]]],
    known: Known,
    maps: tuple[MapDef, ...],
) -> Frame:
    """What the function does with its stack."""
    frame = Frame()
    for at, state in states.items():
        for slot, insn in blocks[at].insns:
            _look(frame, insn, state, maps)
            state = after(slot, insn, state, known)
        for following in blocks[at].next:
            entered, wanted = states[following], live[following][-1]
            for register, value in enumerate(state):
                if value.frame is not None and entered[register].frame != value.frame and register in wanted:
                    frame.escaped.append(_ALL)
    frame.variables = frozenset(place for place in frame.accesses if _alone(place, frame))
    frame.reads_before = frame.memory and _reads_before(blocks, states, known, maps, frame.variables)
    return frame


_WHOLE = (1 << STACK_SIZE) - 1
"""A bit for each byte of the frame."""


def _reads_before(
    blocks: Mapping[int, Block],
    states: Mapping[int, State],
    known: Known,
    maps: tuple[MapDef, ...],
    variables: frozenset[tuple[int, int]],
) -> bool:
    """Whether the function, or what it calls, may read a byte of the frame that was not written before.

    Sound: what is written where a block begins is what is written at the end of each block before it.
    """
    start = next(iter(states))
    written, work = {**dict.fromkeys(states, _WHOLE), start: 0}, list(states)

    def through(at: int) -> Iterator[tuple[int, int]]:
        """What each instruction of a block reads, and what is written before it; at last nothing, and the end's."""
        here, state = written[at], states[at]
        for slot, insn in blocks[at].insns:
            read, more = _bytes_of(insn, state, maps, variables)
            yield read, here
            here |= more
            state = after(slot, insn, state, known)
        yield 0, here

    while work:
        at = work.pop()
        *_, (_, here) = through(at)
        for following in blocks[at].next:
            if written[following] & ~here:
                written[following] &= here
                work.append(following)
    return any(read & ~here for at in states for read, here in through(at))


def _bytes_of(
    insn: Insn, state: State, maps: tuple[MapDef, ...], variables: frozenset[tuple[int, int]]
) -> tuple[int, int]:
    """The bytes of the frame that an instruction may read, and those that it surely writes, as bits."""
    look = Frame()
    _look(look, insn, state, maps)
    kind, read, wrote = insn.row.kind, 0, 0
    for start, end in look.escaped:
        read |= _bits(start, end)
    for start, size in look.accesses - variables:
        if kind in _STORES:
            wrote |= _bits(start, start + size)
        else:
            read |= _bits(start, start + size)
    return read, wrote


def _bits(start: int, end: int) -> int:
    low, high = max(0, start), min(STACK_SIZE, end)
    return (1 << high) - (1 << low) if low < high else 0


def _alone(place: tuple[int, int], frame: Frame) -> bool:
    low, high = place[0], place[0] + place[1]
    if low < 0 or high > STACK_SIZE or any(low < end and start < high for start, end in frame.escaped):
        return False
    return not any(other != place and low < other[0] + other[1] and other[0] < high for other in frame.accesses)


def _look(frame: Frame, insn: Insn, state: State, maps: tuple[MapDef, ...]) -> None:
    kind = insn.row.kind
    if not sound(insn):
        return
    if kind in _LOADS or kind in _STORES:
        base = state[insn.src if kind in _LOADS else insn.dst].frame
        if base is not None:
            frame.accesses.add((base + insn.off, insn.row.size))
        if kind in _STORES and insn.row.reg and state[insn.src].frame is not None:
            frame.escaped.append(_ALL)
    elif kind is Kind.ATOMIC:
        base = state[insn.dst].frame
        if base is not None:
            frame.escaped.append((base + insn.off, base + insn.off + insn.row.size))
        if state[insn.src].frame is not None:
            frame.escaped.append(_ALL)
    elif kind is Kind.ALU and insn.row.op is not Op.MOV:
        involved = [state[insn.dst]] + ([state[insn.src]] if insn.row.reg else [])
        from simulator.engines.source.ranges import alu_result

        if any(value.frame is not None for value in involved) and alu_result(insn, state).frame is None:
            frame.escaped.append(_ALL)
    elif kind is Kind.ALU and insn.row.width == 32 and insn.row.reg and state[insn.src].frame is not None:
        frame.escaped.append(_ALL)
    elif kind is Kind.CALL or kind is Kind.CALL_REG:
        _look_at_call(frame, insn, state, maps)


def _look_at_call(frame: Frame, insn: Insn, state: State, maps: tuple[MapDef, ...]) -> None:
    given = [register for register in uses_of(insn) if state[register].frame is not None]
    plain = insn.row.kind is Kind.CALL and insn.src == CALL_HELPER
    for register in given:
        size = _bytes_taken(insn.imm, register, state, maps) if plain else None
        start = state[register].frame
        assert start is not None
        frame.escaped.append(_ALL if size is None else (start, start + size))


def _bytes_taken(helper: int, register: int, state: State, maps: tuple[MapDef, ...]) -> int | None:
    """How many bytes from an argument on a helper may touch; None where that is not known."""
    found = spec.by_id(helper)
    if found is None or not found.protos:
        return None
    args = found.protos[0].args
    if any(proto.args != args for proto in found.protos) or register > len(args):
        return None
    kind = args[register - 1].type
    index = state[1].map
    if kind in (ArgType.PTR_TO_MAP_KEY, ArgType.PTR_TO_MAP_VALUE) and 0 <= index < len(maps):
        return maps[index].key_size if kind is ArgType.PTR_TO_MAP_KEY else maps[index].value_size
    if kind is ArgType.PTR_TO_MEM and register < len(args) and args[register].is_size:
        size = state[register + 1]
        return size.low & 0xFFFFFFFF if size.exact else None
    return None
