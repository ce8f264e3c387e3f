"""What each register may hold where a block begins: a range, a map, or an address in the function's own frame.

Sound for every program, verified or not, but for one that makes up an address of its own frame out of numbers: the
ranges only leave out masks that change nothing and find addresses that are the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bpflisp.spec.alu import M32, M64, byte_order, compute
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_HELPER, PSEUDO_FUNC, PSEUDO_MAP_IDX, STACK_SIZE, Kind, Op
from simulator.contexts.narrow import PLAIN, Narrow
from simulator.engines.source.blocks import Block
from simulator.engines.source.names import LOOKUP
from simulator.engines.validity import sound
from simulator.machine import FUNCTION_BASE
from simulator.memory import ADDRESS_LIMIT


class Range(NamedTuple):
    """Numbers from `low` to `high`; also which map it is the handle of, or the frame's byte that it points to, or that
    it is so many bytes (`at`) into a value of a map (`value`), or else that many beyond 0.
    """

    low: int
    high: int
    map: int = -1
    frame: int | None = None
    value: int = -1
    at: int = 0

    @property
    def exact(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high


ANY = Range(0, M64)
ZERO = Range(0, 0)
ADDRESS = Range(0, ADDRESS_LIMIT - 1)
_THRESHOLDS = (0xFF, 0xFFFF, (1 << 31) - 1, M32, (1 << 33) - 1, (1 << 63) - 1, M64)
_WIDEN_AFTER = 3

State = tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the surroundings: what loads from the context give, as (address, size) -> (least, greatest)."""

    loads: Mapping[tuple[int, int], tuple[int, int]]
    inline_lookups: bool = True
    narrow: Narrow = PLAIN
    """The accesses to the context that are not what its bytes say."""


def number(value: int) -> Range:
    """The one number."""
    return Range(value, value)


def constant(value: Range) -> int | None:
    """The number that it is, if it is one, and no address of the frame."""
    return value.low if value.low == value.high else None


def truncated(value: Range, width: int) -> Range:
    """Its low `width` bits."""
    if width == 64 or value.high <= M32:
        return value
    return number(value.low & M32) if value.exact else Range(0, M32)


def arithmetic(op: Op, width: int, a: Range, b: Range) -> tuple[Range, bool]:
    """The range of `a op b`, both of that width, and whether Python's own result needs no mask."""
    mask = M32 if width == 32 else M64
    if a.exact and b.exact:
        return number(compute(op, width, a.low, b.low)), True
    low, high = 0, mask + 1
    match op:
        case Op.MOV | Op.XCHG:
            return b, True
        case Op.ADD:
            low, high = a.low + b.low, a.high + b.high
        case Op.SUB:
            low, high = a.low - b.high, a.high - b.low
        case Op.MUL:
            low, high = a.low * b.low, a.high * b.high
        case Op.AND:
            low, high = 0, min(a.high, b.high)
        case Op.OR | Op.XOR:
            low, high = max(a.low, b.low) if op is Op.OR else 0, (1 << max(a.high, b.high).bit_length()) - 1
        case Op.DIV:
            low, high = 0, a.high // max(1, b.low)
        case Op.MOD:
            low, high = 0, a.high if b.low == 0 else min(a.high, b.high - 1)
        case Op.RSH:
            shift = b.low & (width - 1) if b.exact else 0
            low, high = (a.low >> shift if b.exact else 0), a.high >> shift
        case Op.LSH if b.exact:
            low, high = a.low << (b.low & (width - 1)), a.high << (b.low & (width - 1))
        case Op.ARSH if a.high <= mask >> 1:
            shift = b.low & (width - 1) if b.exact else 0
            low, high = (a.low >> shift if b.exact else 0), a.high >> shift
        case _:
            pass
    return (Range(low, high), True) if low >= 0 and high <= mask else (Range(0, mask), False)


def without_negative(op: Op, width: int, b: Range) -> tuple[Op, Range]:
    """An addition of a negative number as a subtraction, which may need no mask, and the other way round."""
    if op in (Op.ADD, Op.SUB) and b.exact and b.frame is None and b.low >> (width - 1):
        return (Op.SUB if op is Op.ADD else Op.ADD), number((1 << width) - b.low)
    return op, b


def alu_result(insn: Insn, state: State) -> Range:
    """What an ALU instruction leaves in its destination."""
    row = insn.row
    a = truncated(state[insn.dst], row.width)
    b = truncated(state[insn.src], row.width) if row.reg else number(insn.imm & (M32 if row.width == 32 else M64))
    if row.op is Op.MOV:
        return b
    op, other = without_negative(row.op, row.width, b)
    if op is not row.op and a.frame is None and a.value < 0:
        return arithmetic(op, row.width, a, other)[0]
    if row.width == 64 and row.op in (Op.ADD, Op.SUB) and b.exact and b.frame is None:
        step = b.low if b.low <= M64 >> 1 else b.low - (1 << 64)
        moved = _moved(a, step if row.op is Op.ADD else -step)
        if moved is not None:
            return moved
    return arithmetic(row.op, row.width, a, b)[0]


def _moved(base: Range, step: int) -> Range | None:
    """An address of the frame or in a value, moved by a known number; None of any other, or if it may wrap."""
    low, high = base.low + step, base.high + step
    if low < 0 or high > M64:
        return None
    if base.frame is not None and abs(base.frame + step) < 1 << 29:
        return Range(low, high, -1, base.frame + step)
    if base.value >= 0:
        return Range(low, high, -1, None, base.value, base.at + step)
    return None


def load_result(size: int, signed: bool) -> Range:
    """What a load of `size` bytes gives."""
    return ANY if signed else Range(0, (1 << 8 * size) - 1)


def after(slot: int, insn: Insn, state: State, known: Known) -> State:
    """The registers after an instruction that is no jump."""
    row, changed = insn.row, list(state)
    if not sound(insn):
        return state
    match row.kind:
        case Kind.ALU:
            changed[insn.dst] = alu_result(insn, state)
        case Kind.NEG:
            value = truncated(state[insn.dst], row.width)
            exact = number(compute(Op.NEG, row.width, value.low, 0))
            changed[insn.dst] = exact if value.exact else Range(0, M32 if row.width == 32 else M64)
        case Kind.END:
            value = state[insn.dst]
            usable = value.exact and insn.imm in (16, 32, 64)
            wide = Range(0, (1 << (insn.imm if insn.imm in (16, 32, 64) else 64)) - 1)
            changed[insn.dst] = number(byte_order(row.op, insn.imm, value.low)) if usable else wide
        case Kind.LOAD | Kind.LOAD_SIGNED | Kind.LOAD_ACQUIRE:
            changed[insn.src] = reached(state[insn.src], insn.off)
            changed[insn.dst] = loaded(insn, state[insn.src], known)
        case Kind.STORE | Kind.STORE_IMM | Kind.STORE_RELEASE:
            changed[insn.dst] = reached(state[insn.dst], insn.off)
        case Kind.ATOMIC:
            changed[insn.dst] = reached(state[insn.dst], insn.off)
            if row.fetch:
                changed[0 if row.op is Op.CMPXCHG else insn.src] = Range(0, (1 << row.width) - 1)
        case Kind.LOAD_IMM64:
            changed[insn.dst] = _immediate(slot, insn)
        case Kind.LOAD_PACKET:
            changed[0] = load_result(row.size, signed=False)
        case Kind.CALL | Kind.CALL_REG:
            changed[0] = _call_result(insn, state, known)
        case _:
            pass
    return tuple(changed)


def loaded(insn: Insn, base: Range, known: Known) -> Range:
    """What a load gives: the value that the surroundings are known to have there, or any of its size."""
    signed = insn.row.kind is Kind.LOAD_SIGNED
    if base.exact and base.frame is None and not signed:
        value = known.loads.get((base.low + insn.off, insn.row.size))
        if value is not None:
            return Range(*value)
    return load_result(insn.row.size, signed)


def reached(base: Range, off: int) -> Range:
    """What a base register is known to be once an access at `off` from it went well: addresses are below 2**30."""
    if base.exact or base.frame is not None:
        return base
    low, high = max(base.low, -off), min(base.high, ADDRESS_LIMIT - 1 - off)
    return base._replace(low=low, high=high) if low <= high else base


def _immediate(slot: int, insn: Insn) -> Range:
    if insn.src == 0:
        return number(insn.imm64)
    if insn.src == PSEUDO_MAP_IDX:
        return Range(0, ADDRESS_LIMIT - 1, insn.imm)
    if insn.src == PSEUDO_FUNC:
        return number(FUNCTION_BASE + slot + 1 + insn.imm)
    return ANY


def _call_result(insn: Insn, state: State, known: Known) -> Range:
    plain = insn.row.kind is Kind.CALL and insn.src == CALL_HELPER and insn.imm == LOOKUP
    if plain and known.inline_lookups and state[1].map >= 0:
        return ADDRESS._replace(value=state[1].map)
    return ANY


def entry(first: bool, context: int | None, frame_base: int) -> State:
    """The registers where a function begins: of the program itself, r1 is the context's address, where that is
    known; else r1 and r2 may be anything."""
    zero = [ZERO] * 11
    if first:
        zero[1:3] = [ANY, ANY] if context is None else [number(context), ZERO]
        zero[10] = Range(frame_base + STACK_SIZE, frame_base + STACK_SIZE, -1, STACK_SIZE)
    else:
        zero[1:6] = [ANY] * 5
        zero[10] = Range(STACK_SIZE, ADDRESS_LIMIT - 1, -1, STACK_SIZE)
    return tuple(zero)


def join(a: State, b: State) -> State:
    """What holds whichever of the two does."""
    return tuple(x if x == y else _joined(x, y) for x, y in zip(a, b, strict=True))


def _joined(x: Range, y: Range) -> Range:
    low, high = min(x.low, y.low), max(x.high, y.high)
    value = (x.value, x.at) if (x.value, x.at) == (y.value, y.at) else (-1, 0)
    frame = x.frame if x.frame == y.frame else None
    return Range(low, high, x.map if x.map == y.map else -1, frame, *value)


def _widened(old: State, new: State) -> State:
    return tuple(
        Range(x.low if x.low <= y.low else min(1, y.low), _threshold(x.high, y.high), y.map, y.frame, y.value, y.at)
        for x, y in zip(old, new, strict=True)
    )


def _threshold(old: int, new: int) -> int:
    if new <= old:
        return old
    return next(limit for limit in _THRESHOLDS if limit >= new)


def refined(insn: Insn, state: State, taken: bool) -> State:
    """The registers on one side of a branch."""
    row, value = insn.row, state[insn.dst]
    other = state[insn.src] if row.reg else number(insn.imm & M64)
    if row.width == 32:
        other = truncated(other, 32) if row.reg else number(insn.imm & M32)
    if value.exact or value.frame is not None or not other.exact or (row.width == 32 and value.high > M32):
        return state
    if row.op in (Op.EQ, Op.NE) and taken is (row.op is Op.NE):
        low, high = value.low + (other.low == value.low), value.high - (other.low == value.high)
    else:
        low, high = _bounds(row.op, taken, other.low)
    low, high = max(value.low, low), min(value.high, high)
    if low > high:
        return state
    changed = list(state)
    changed[insn.dst] = value._replace(low=low, high=high)
    return tuple(changed)


def along(block: Block, state: State, way: int) -> State:
    """The registers on one of the ways out of a block, by its index, given those at its end."""
    if not block.insns or block.insns[-1][1].row.kind is not Kind.BRANCH or block.next[0] == block.next[1]:
        return state
    return refined(block.insns[-1][1], state, taken=way == 0)


def _bounds(op: Op, taken: bool, limit: int) -> tuple[int, int]:
    """The unsigned numbers for which `number op limit` is `taken`, where they are one range."""
    match op, taken:
        case (Op.EQ, True) | (Op.NE, False):
            return limit, limit
        case (Op.GT, True) | (Op.LE, False):
            return limit + 1, M64
        case (Op.GT, False) | (Op.LE, True):
            return 0, limit
        case (Op.GE, True) | (Op.LT, False):
            return limit, M64
        case (Op.GE, False) | (Op.LT, True):
            return 0, limit - 1
        case _:
            return 0, M64


def solve(blocks: Mapping[int, Block], start: int, first: State, known: Known) -> dict[int, State]:
    """The registers at the beginning of each block that can be reached."""
    states: dict[int, State] = {start: first}
    visits: dict[int, int] = {}
    work = [start]
    while work:
        at = work.pop()
        block, state = blocks[at], states[at]
        for slot, insn in block.insns:
            state = after(slot, insn, state, known)
        for index, following in enumerate(block.next):
            out = along(block, state, index)
            before = states.get(following)
            merged = out if before is None else join(before, out)
            if merged == before:
                continue
            visits[following] = visits.get(following, 0) + 1
            if before is not None and visits[following] > _WIDEN_AFTER:
                merged = _widened(before, merged)
            states[following] = merged
            work.append(following)
    return states
