"""Pieces of plausible programs that reach packets, maps and records, within the bounds that they test."""

from __future__ import annotations

from bpflisp.spec import contexts
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    ATOMICS,
    FRAME_POINTER,
    LOAD_ACQUIRE_IMM,
    MODE_ATOMIC,
    SIZE_BITS,
    STORE_RELEASE_IMM,
    STX,
    Op,
)
from simulator.program import MapDef
from tests.agreement.fragments_numbers import arithmetic, bounded, scalar
from tests.agreement.writer import CONTEXT, MEMORY, OTHER, PACKET, SCALAR, Value, Writer


def packet(w: Writer) -> None:
    """Finds the packet, tests that bytes exist, and has a register that reaches them."""
    table = contexts.access_table(w.parts.type, w.parts.attach_type)
    sources = w.holding(CONTEXT)
    if table is None or not sources:
        return
    ends = {access.kind: place for place, access in table.reads.items()}
    if "pkt" not in ends or "pkt_end" not in ends:
        return
    base = w.random.choice(sources)
    start = w.free(but=(base,), saved=w.chance(0.7))
    w.load(start, base, *ends["pkt"])
    w.registers[start] = Value(OTHER)
    end = w.free(but=(base, start))
    w.load(end, base, *ends["pkt_end"])
    w.registers[end] = Value(OTHER)
    size = w.choice(1, 4, 8, 14, 20, 34, 54, 64)
    if w.chance(0.3):
        _advance(w, start)
    probe = w.free(but=(base, start, end))
    w.move(probe, start)
    w.alu(Op.ADD, probe, size)
    _past_end(w, probe, end)
    w.registers.pop(probe, None)
    w.registers[start] = Value(PACKET, size)
    w.used("packet")
    reach(w)


def _advance(w: Writer, pointer: int) -> None:
    """A variable part added to a packet pointer."""
    w.kept.add(pointer)
    index = bounded(w, w.choice(7, 63, 255, 1500, 0x7FFF))
    w.kept.discard(pointer)
    w.alu(Op.ADD, pointer, src=index)
    w.used("packet-variable")


def _past_end(w: Writer, probe: int, end: int) -> None:
    """Leaves where `probe` is past the end, in one of the ways that it is written."""
    kind = w.random.randrange(6)
    if kind < 3:
        w.jump(Op.GT, probe, w.fail, src=end)
    elif kind == 3:
        w.jump(Op.LT, end, w.fail, src=probe)
    elif kind == 4:
        w.jump(Op.GE, probe, w.fail, src=end)
    else:
        good = w.label()
        w.jump(w.random.choice((Op.LE, Op.LT)), probe, good, src=end)
        w.goto(w.fail)
        w.place(good)


def reach(w: Writer) -> None:
    """Loads and stores through what points to memory."""
    pointers = [*w.holding(MEMORY), *w.holding(PACKET)]
    if not pointers:
        return
    pointer = w.random.choice(pointers)
    for _ in range(w.choice(1, 1, 2, 3)):
        value = w.registers.get(pointer)
        if value is None or value.size <= 0:
            return
        size = w.random.choice([size for size in (1, 2, 4, 8) if size <= value.size])
        off = w.random.randrange(value.size - size + 1)
        if w.chance(0.6):
            off -= off % size
        if w.chance(0.65):
            w.load(w.free(but=(pointer,)), pointer, off, size, signed=w.chance(0.1))
        elif w.chance(0.3):
            w.store(pointer, off, size, imm=w.number())
        else:
            w.store(pointer, off, size, src=scalar(w))


def reach_variable(w: Writer) -> None:
    """An access of memory at an offset that is known in bounds only."""
    pointers = [register for register in w.holding(MEMORY) if w.registers[register].size > 1]
    if not pointers:
        return
    source = w.random.choice(pointers)
    w.kept.add(source)
    available = w.registers[source].size
    size = w.random.choice([size for size in (1, 2, 4, 8) if size <= available])
    index = bounded(w, available - size)
    pointer = w.free(but=(source, index))
    w.move(pointer, source)
    w.alu(Op.ADD, pointer, src=index)
    w.load(w.free(but=(pointer,)), pointer, 0, size) if w.chance(0.6) else w.store(pointer, 0, size, src=scalar(w))
    w.registers.pop(pointer, None)
    w.kept.discard(source)
    w.used("variable-offset")


def some_map(w: Writer) -> int:
    """A map with keys and values."""
    kind = w.random.choice(("array", "hash", "percpu_array", "lru_hash", "percpu_hash", "array"))
    key = 4 if "array" in kind else w.choice(4, 8, 16)
    size, entries = w.choice(4, 8, 16, 48, 64), w.choice(1, 4, 256)
    if w.parts.repeatable:
        # Few, to be quick; of an LRU map so many that it never has to choose which to give up.
        entries = 256 if kind == "lru_hash" else min(entries, 8)
    return w.new_map(MapDef("", kind, key, size, entries))


def key_on_stack(w: Writer, register: int, size: int) -> None:
    """`register` points to a key that was written to the stack."""
    off = -8 * w.random.randrange(1, 5) - (size - 8 if size > 8 else 0)
    for at in range(0, size, 4):
        if w.chance(0.3) and w.holding(SCALAR):
            w.store(FRAME_POINTER, off + at, 4, src=w.random.choice(w.holding(SCALAR)))
        else:
            w.store(FRAME_POINTER, off + at, 4, imm=w.choice(0, 0, 1, 3, 500))
    for slot in range(off // 8 * 8, off + size, 8):
        w.stack.pop(slot, None)
    w.move(register, FRAME_POINTER)
    w.alu(Op.ADD, register, off)
    w.registers[register] = Value(OTHER)


def lookup(w: Writer) -> None:
    """A value of a map: looked up, tested, reached; or a global's, whose address is known."""
    if w.chance(0.2):
        _global(w)
        return
    index = some_map(w)
    definition = w.parts.maps[index]
    key_on_stack(w, 2, definition.key_size)
    w.load_map(1, index)
    w.call(1)
    w.registers[0] = Value(OTHER)
    if w.chance(0.7):
        w.jump(Op.EQ, 0, w.fail, imm=0)
        w.registers[0] = Value(MEMORY, definition.value_size)
        kept = w.save(0) if w.chance(0.5) else 0
        w.registers[kept] = Value(MEMORY, definition.value_size)
        (reach if w.chance(0.6) else reach_variable)(w)
    else:
        copy = w.save(0)
        past = w.label()
        w.jump(Op.NE, copy, past, imm=0)
        w.goto(w.fail)
        w.place(past)
        w.registers[copy] = Value(MEMORY, definition.value_size)
        w.registers.pop(0, None)
        reach(w)
    w.used("maps")


def _global(w: Writer) -> None:
    size = w.choice(8, 16, 64)
    if w.chance(0.4):
        contents = bytes(w.random.randrange(256) for _ in range(size))
        index = w.new_map(MapDef("", "array", 4, size, 1, flags=0x80, init=contents, frozen=True))
    else:
        index = w.new_map(MapDef("", "array", 4, size, 1))
    dst = w.free()
    w.load_map_value(dst, index, w.choice(0, 0, 4, size - 4))
    (reach if w.chance(0.6) else reach_variable)(w)
    w.used("globals")


def update(w: Writer) -> None:
    """An element of a map set or deleted."""
    index = some_map(w)
    definition = w.parts.maps[index]
    at = 40 + definition.value_size
    if w.chance(0.7):
        for off in range(0, definition.value_size, 4):
            w.store(FRAME_POINTER, off - at, 4, imm=off)
        w.stack = {off: value for off, value in w.stack.items() if off > -40}
        key_on_stack(w, 2, definition.key_size)
        w.move(3, FRAME_POINTER)
        w.alu(Op.ADD, 3, -at)
        w.constant(4, w.choice(0, 0, 1, 2))
        w.load_map(1, index)
        w.call(2)
    else:
        key_on_stack(w, 2, definition.key_size)
        w.load_map(1, index)
        w.call(3)
    w.used("maps")


def atomic(w: Writer) -> None:
    """An atomic operation on the stack or on a map's value."""
    size = w.choice(4, 8)
    pointers = [register for register in w.holding(MEMORY) if w.registers[register].size >= size]
    if pointers and w.chance(0.6):
        base, off = w.random.choice(pointers), 0
    else:
        base, off = FRAME_POINTER, -8 * w.random.randrange(1, 5)
        w.store(base, off, 8, imm=w.choice(0, 5))
        w.stack[off] = Value(SCALAR)
    w.kept.add(base)
    source = scalar(w)
    w.kept.discard(base)
    imm = w.random.choice([*ATOMICS, LOAD_ACQUIRE_IMM, STORE_RELEASE_IMM])
    opcode = STX | MODE_ATOMIC | SIZE_BITS[size]
    if imm == 0xF1 and 0 not in w.holding(SCALAR):
        w.constant(0, 3)
    if imm == LOAD_ACQUIRE_IMM:
        w.emit(Insn(opcode, source, base, off, imm))
    else:
        w.emit(Insn(opcode, base, source, off, imm))
    w.registers[source] = Value(SCALAR)
    if imm == 0xF1:
        w.registers[0] = Value(SCALAR)
    w.used("atomics")


def ring(w: Writer) -> None:
    """A record of a ring buffer: reserved, tested, written, and submitted or thrown away."""
    size = w.choice(8, 16, 64)
    index = w.new_map(MapDef("", "ringbuf", 0, 0, 4096))
    w.load_map(1, index)
    w.constant(2, size)
    w.constant(3, 0)
    w.call(131)
    w.jump(Op.EQ, 0, w.fail, imm=0)
    w.registers[0] = Value(MEMORY, size)
    record = w.save(0)
    w.registers.pop(0, None)
    w.registers[record] = Value(MEMORY, size)
    w.kept.add(record)
    reach(w)
    if w.chance(0.4):
        arithmetic(w)
    w.kept.discard(record)
    w.move(1, record)
    w.constant(2, w.choice(0, 0, 1, 2))
    w.call(w.choice(132, 133))
    w.registers.pop(record, None)
    w.used("ringbuf")


def map_in_map(w: Writer) -> None:
    """A value of a map that is itself looked up in a map."""
    inner = MapDef("inner", w.random.choice(("array", "hash")), 4, 8, 2)
    kind = w.random.choice(("array_of_maps", "hash_of_maps"))
    outer = w.new_map(MapDef("", kind, 4, 4, 2, inner=inner))
    for index in (outer, None):
        key_on_stack(w, 2, 4)
        if index is None:
            w.move(1, 0)
        else:
            w.load_map(1, index)
        w.call(1)
        w.registers[0] = Value(OTHER)
        w.jump(Op.EQ, 0, w.fail, imm=0)
    w.registers[0] = Value(MEMORY, 8)
    reach(w)
    w.used("map-in-map")
