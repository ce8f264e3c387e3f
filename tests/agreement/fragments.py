"""Pieces of plausible programs: each writes a few instructions of one kind, and sees to what they need."""

from __future__ import annotations

from collections.abc import Callable

from bpflisp.spec import contexts, helpers
from bpflisp.spec import maps as map_types
from bpflisp.spec.helpers import ArgType, Proto, RetType
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    ATOMICS,
    FRAME_POINTER,
    JUMP_CODES,
    LD,
    LOAD_ACQUIRE_IMM,
    MODE_ABS,
    MODE_ATOMIC,
    MODE_IND,
    SIZE_BITS,
    STORE_RELEASE_IMM,
    STX,
    Op,
)
from simulator.program import MapDef
from tests.agreement.writer import CONTEXT, MEMORY, OTHER, PACKET, SCALAR, Value, Writer

Fragment = Callable[[Writer], None]

PLAIN_OPS = (Op.ADD, Op.SUB, Op.MUL, Op.AND, Op.OR, Op.XOR, Op.LSH, Op.RSH, Op.ARSH, Op.DIV, Op.MOD)
ORDERS = (Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.SGT, Op.SGE, Op.SLT, Op.SLE, Op.SET)

# Helpers that need what only a fragment of their own gives, or that say something to the system's log.
NOT_BY_ITSELF = frozenset(
    {6, 12, 36, 58, 64, 65, 84, 85, 86, 93, 94, 99, 127, 131, 132, 133, 177, 181, 194, 198, 201, 202, 209}
)


def scalar(w: Writer) -> int:
    """A register with a number; a new one where there is none, or now and then."""
    have = w.holding(SCALAR)
    if have and w.chance(0.75):
        return w.random.choice(have)
    kind = w.random.random()
    if kind < 0.4:
        w.call(w.choice(7, 5, 8, 14))
        w.registers[0] = Value(SCALAR)
        return w.save(0) if w.chance(0.6) else 0
    dst = w.free()
    if kind < 0.6:
        w.constant(dst, w.number() if w.chance(0.9) else w.random.getrandbits(64))
    elif not _load_context(w, dst):
        w.constant(dst, w.number())
    return dst


def _load_context(w: Writer, dst: int) -> bool:
    """A number from the context, where the program's may be read."""
    sources = w.holding(CONTEXT)
    table = contexts.access_table(w.parts.type, w.parts.attach_type)
    if not sources or table is None:
        return False
    places = [place for place, access in table.reads.items() if access.kind == "scalar"]
    if table.spans:
        size = w.choice(1, 2, 4, 8)
        places = [(w.random.randrange(8, 64) // size * size, size)]
    if not places:
        return False
    off, size = w.random.choice(places)
    w.load(dst, w.random.choice(sources), off, size)
    w.used("context")
    return True


def context_access(w: Writer) -> None:
    """A load from the context, a store to it, or a load into its own register."""
    table = contexts.access_table(w.parts.type, w.parts.attach_type)
    sources = w.holding(CONTEXT)
    if not sources or table is None:
        return
    base = w.random.choice(sources)
    if table.writes and w.chance(0.35):
        off, size = w.random.choice(sorted(table.writes))
        w.store(base, off, size, imm=w.number()) if w.chance(0.3) else w.store(base, off, size, src=scalar(w))
        w.used("context")
    else:
        _load_context(w, w.free(but=(base,)))


def arithmetic(w: Writer) -> None:
    """A few operations on numbers, of both widths."""
    for _ in range(w.choice(1, 2, 3, 4)):
        dst, width = scalar(w), w.choice(32, 64, 64)
        if w.chance(0.12):
            _unary(w, dst, width)
            continue
        op = w.random.choice(PLAIN_OPS)
        if w.chance(0.4):
            w.alu(op, dst, src=scalar(w), width=width)
        else:
            imm = w.number()
            if op in (Op.LSH, Op.RSH, Op.ARSH):
                imm = w.random.randrange(width)
            elif op in (Op.DIV, Op.MOD):
                imm = imm or 1
            w.alu(op, dst, imm, width=width)
        w.registers[dst] = Value(SCALAR)
    w.used("arithmetic")


def _unary(w: Writer, dst: int, width: int) -> None:
    kind = w.random.random()
    src = scalar(w)
    if kind < 0.25:
        w.emit(Insn(0x87 if width == 64 else 0x84, dst))
    elif kind < 0.5:
        w.emit(Insn(w.choice(0xD4, 0xDC, 0xD7), dst, imm=w.choice(16, 32, 64)))
    elif kind < 0.75:
        w.emit(Insn(0xBF, dst, src, w.choice(8, 16, 32)) if width == 64 else Insn(0xBC, dst, src, w.choice(0, 8, 16)))
    else:
        w.emit(Insn(w.choice(0x37, 0x97, 0x34, 0x94), dst, 0, 1, w.number() or 1))
    w.registers[dst] = Value(SCALAR)


def linked(w: Writer) -> None:
    """Copies of a number, moved by constants, one of them compared: what is learned holds for all."""
    first = scalar(w)
    copy = w.free(but=(first,))
    w.move(copy, first)
    if w.chance(0.6):
        w.alu(Op.ADD, w.random.choice((first, copy)), w.choice(1, 4, 8, -1, 100), width=w.choice(64, 64, 32))
    condition(w, of=w.random.choice((first, copy)))
    w.used("linked")


def condition(w: Writer, of: int | None = None) -> None:
    """If a comparison holds, more fragments; sometimes with an else."""
    dst = scalar(w) if of is None else of
    width, op = w.choice(32, 64, 64), w.random.choice(ORDERS)
    past = w.label()
    if w.chance(0.3):
        w.jump(op, dst, past, src=scalar(w), width=width)
    else:
        w.jump(op, dst, past, imm=w.number(), width=width)
    w.used("branches")
    if w.depth > 2 or w.chance(0.2):
        w.place(past)
        return
    _two_ways(w, past)


def _two_ways(w: Writer, past: int) -> None:
    before, stack = dict(w.registers), dict(w.stack)
    w.depth += 1
    for _ in range(w.choice(1, 1, 2)):
        body_fragment(w)
    if w.chance(0.3):
        end = w.label()
        w.goto(end)
        w.place(past)
        after, w.registers = w.registers, dict(before)
        body_fragment(w)
        w.place(end)
    else:
        w.place(past)
        after = before
    w.depth -= 1
    w.joined(after)
    w.stack = {off: value for off, value in w.stack.items() if stack.get(off) == value}


def bounded(w: Writer, limit: int) -> int:
    """A register with a number from 0 to `limit`, by a mask or by a comparison."""
    register = w.save(scalar(w)) if w.chance(0.5) else scalar(w)
    if w.chance(0.5):
        w.alu(Op.AND, register, (1 << limit.bit_length() - 1) - 1 if limit else 0, width=w.choice(32, 64))
    elif w.chance(0.5):
        w.jump(Op.GT, register, w.fail, imm=limit, width=64)
    elif w.chance(0.5):
        w.alu(Op.MOD, register, limit + 1)
    else:
        w.jump(Op.SGT, register, w.fail, imm=limit)
        w.jump(Op.SLT, register, w.fail, imm=0)
    w.registers[register] = Value(SCALAR, bound=limit)
    return register


def stack(w: Writer) -> None:
    """Spills and fills of whole registers and of parts, stores of immediates, reads of what was written."""
    w.used("stack")
    off = -8 * w.random.randrange(1, 9)
    if w.stack and w.chance(0.45):
        off, value = w.random.choice(sorted(w.stack.items(), key=lambda item: item[0]))
        dst = w.free()
        if value.kind == SCALAR and w.chance(0.4):
            size = w.choice(1, 2, 4)
            w.load(dst, FRAME_POINTER, off + w.random.randrange(0, 8, size), size, signed=w.chance(0.2))
        else:
            w.load(dst, FRAME_POINTER, off, 8)
            w.registers[dst] = value
    elif w.chance(0.3):
        size = w.choice(1, 2, 4, 8)
        w.store(FRAME_POINTER, off + w.random.randrange(0, 8, size), size, imm=w.choice(0, 0, 1, -1, 77))
        if size == 8:
            w.stack[off] = Value(SCALAR)
    else:
        source = w.random.choice([*w.registers, FRAME_POINTER]) if w.registers and w.chance(0.5) else scalar(w)
        value = w.registers.get(source, Value(MEMORY, 0))
        size = 8 if value.kind != SCALAR or w.chance(0.6) else w.choice(1, 2, 4)
        w.store(FRAME_POINTER, off, size, src=source)
        w.stack.pop(off, None)
        if size == 8 and source != FRAME_POINTER:
            w.stack[off] = value


def stack_variable(w: Writer) -> None:
    """An access of the stack at an offset that is known in bounds only."""
    for at in range(8, 40, 8):
        w.store(FRAME_POINTER, -at, 8, imm=0)
        w.stack[-at] = Value(SCALAR)
    index = bounded(w, w.choice(7, 15, 24, 31))
    pointer = w.free(but=(index,))
    w.move(pointer, FRAME_POINTER)
    w.alu(Op.ADD, pointer, w.choice(-32, -32, -24, -40))
    w.alu(Op.ADD, pointer, src=index)
    size = w.choice(1, 1, 2, 4, 8)
    if w.chance(0.5):
        w.load(w.free(but=(pointer,)), pointer, 0, size)
    else:
        w.store(pointer, 0, size, src=scalar(w))
        w.stack.clear()
    w.registers.pop(pointer, None)
    w.used("stack-variable")


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
    return w.new_map(MapDef("", kind, key, w.choice(4, 8, 16, 48, 64), w.choice(1, 4, 256)))


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


def loop(w: Writer) -> None:
    """A counted loop over fragments that work on numbers and memory."""
    if w.depth > 1 or w.loops > 2:
        return
    w.loops += 1
    counter = w.free(saved=True)
    w.constant(counter, 0)
    held = {register for register, value in w.registers.items() if value.kind != SCALAR} | {counter}
    fresh = held - w.kept
    w.kept |= held
    for register in w.holding(SCALAR):
        w.registers[register] = Value(SCALAR)
    head, before = w.label(), dict(w.registers)
    w.place(head)
    w.depth += 1
    for _ in range(w.choice(1, 2)):
        w.random.choice((arithmetic, arithmetic, reach, stack, condition, reach_variable))(w)
    w.depth -= 1
    w.alu(Op.ADD, counter, w.choice(1, 1, 2))
    limit = w.choice(2, 4, 8, 20) if w.depth == 0 and w.loops == 1 else w.choice(2, 3)
    if w.chance(0.8):
        w.jump(w.random.choice((Op.LT, Op.NE, Op.SLT, Op.LE)), counter, head, imm=limit)
    else:
        w.jump(Op.LT, counter, head, src=bounded(w, limit))
    w.kept -= fresh
    w.joined(before)
    w.used("loops")


def function_call(w: Writer) -> None:
    """A call of a function of the program, with numbers or memory in its arguments."""
    if len(w.parts.functions) >= 3 or w.depth > 2:
        return
    count = w.choice(0, 1, 2, 3)
    for register in range(1, count + 1):
        if w.registers.get(register, Value(OTHER)).kind != SCALAR:
            have = [source for source in w.holding(SCALAR) if source > count]
            w.move(register, w.random.choice(have)) if have and w.chance(0.6) else w.constant(register, w.number())
    label = w.label()
    w.parts.functions.append((label, count))
    w.call_function(label)
    w.used("subprograms")


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


def tail_call(w: Writer) -> None:
    """A jump to another program."""
    sources = w.holding(CONTEXT)
    if not sources:
        return
    index = w.new_map(MapDef("", "prog_array", 4, 4, 4))
    w.move(1, w.random.choice(sources))
    w.load_map(2, index)
    w.constant(3, w.choice(0, 3, 5)) if w.chance(0.6) else w.move(3, w.random.choice(w.holding(SCALAR) or [10]))
    w.call(12)
    w.used("tail-calls")


_LEGACY = ("socket_filter", "sched_cls", "sched_act")


def legacy_packet(w: Writer) -> None:
    """The packet loads of old, that leave the program where a byte is not there."""
    if 6 not in w.holding(CONTEXT) or (w.parts.type not in _LEGACY and w.chance(0.9)):
        return
    mode = w.choice(MODE_ABS, MODE_IND)
    source = scalar(w) if mode == MODE_IND else 0
    w.emit(Insn(LD | mode | SIZE_BITS[w.choice(1, 2, 4)], 0, source, imm=w.choice(0, 12, 14, 23)))
    for register in range(1, 6):
        w.registers.pop(register, None)
    w.registers[0] = Value(SCALAR)
    w.used("legacy-packet")


def helper_call(w: Writer) -> None:
    """A call of any helper that the program may call and whose arguments can be made."""
    allowed = helpers.allowed("6.18", w.parts.type, w.parts.attach_type) - NOT_BY_ITSELF
    for _ in range(20):
        number = w.random.choice(sorted(allowed))
        proto = helpers.proto(number, w.parts.type, w.parts.attach_type)
        if all(arg.type in _ARGUMENTS for arg in proto.args) and _fits(w, proto, number):
            _call_with_arguments(w, number, proto)
            w.used("helpers")
            return


def _fits(w: Writer, proto: Proto, number: int) -> bool:
    types = [arg.type for arg in proto.args]
    if ArgType.PTR_TO_CTX in types and not w.holding(CONTEXT):
        return False
    return ArgType.CONST_MAP_PTR not in types or bool(_maps_for(number))


def _maps_for(number: int) -> list[str]:
    helper = helpers.by_id(number)
    return [kind for kind in _SIZES if helper is not None and map_types.compatible(helper.name, kind)]


# A map of each type that can be made without more: key and value size, entries.
_SIZES = {
    "array": (4, 16, 4), "hash": (8, 16, 4), "percpu_array": (4, 8, 4), "lru_hash": (4, 32, 4),
    "perf_event_array": (4, 4, 2), "stack_trace": (4, 64, 4), "cgroup_array": (4, 4, 2), "devmap": (4, 4, 4),
    "cpumap": (4, 4, 4), "sockmap": (4, 4, 4), "sockhash": (4, 4, 4), "queue": (0, 8, 4), "ringbuf": (0, 0, 4096),
    "bloom_filter": (0, 8, 4),
}  # fmt: skip


def _call_with_arguments(w: Writer, number: int, proto: Proto) -> None:
    definition = None
    index = -1
    if any(arg.type is ArgType.CONST_MAP_PTR for arg in proto.args):
        kind = w.random.choice(_maps_for(number))
        key, value, entries = _SIZES[kind]
        index = w.new_map(MapDef("", kind, key, value, entries))
        definition = w.parts.maps[index]
    spot = 64
    sizes = {at for at, arg in enumerate(proto.args) if arg.is_size}
    for at, arg in enumerate(proto.args):
        register = at + 1
        if arg.type is ArgType.CONST_MAP_PTR:
            w.load_map(register, index)
        elif arg.type is ArgType.PTR_TO_CTX:
            w.move(register, w.random.choice(w.holding(CONTEXT)))
        elif at in sizes:
            w.constant(register, w.choice(4, 8, 8, 16, 0))
        elif arg.type in (ArgType.ANYTHING, ArgType.SCALAR):
            have = [source for source in w.holding(SCALAR) if source > 5 or source == 0]
            w.move(register, w.random.choice(have)) if have and w.chance(0.4) else w.constant(register, w.number())
        else:
            size = 16
            if definition is not None and arg.type is ArgType.PTR_TO_MAP_KEY:
                size = definition.key_size or 8
            elif definition is not None and arg.type is ArgType.PTR_TO_MAP_VALUE:
                size = definition.value_size or 8
            spot += -(-size // 8) * 8
            _memory_argument(w, register, -spot, size)
        w.kept.add(register)
    w.kept -= {1, 2, 3, 4, 5}
    w.call(number)
    if proto.ret.type is RetType.PTR_TO_MAP_VALUE and definition is not None:
        w.jump(Op.EQ, 0, w.fail, imm=0)
        w.registers[0] = Value(MEMORY, definition.value_size)
    elif proto.ret.type is not RetType.INTEGER:
        w.registers.pop(0, None)


def _memory_argument(w: Writer, register: int, off: int, size: int) -> None:
    """Written bytes of the stack; sometimes a map's value or the packet, sometimes bytes that nobody wrote."""
    pointers = [source for source in (*w.holding(MEMORY), *w.holding(PACKET)) if source > 5]
    if pointers and w.chance(0.4):
        w.move(register, w.random.choice(pointers))
        return
    if w.chance(0.9):
        for at in range(0, size, 8):
            w.store(FRAME_POINTER, off + at, 8, imm=0)
            w.stack.pop(off + at, None)
    w.move(register, FRAME_POINTER)
    w.alu(Op.ADD, register, off)
    w.registers[register] = Value(OTHER)


_ARGUMENTS = frozenset(
    {
        ArgType.ANYTHING, ArgType.SCALAR, ArgType.CONST_MAP_PTR, ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO,
        ArgType.PTR_TO_CTX, ArgType.PTR_TO_MEM, ArgType.PTR_TO_MAP_KEY, ArgType.PTR_TO_MAP_VALUE,
    }
)  # fmt: skip


def may_goto(w: Writer) -> None:
    """A loop that the kernel itself ends."""
    if w.depth > 1 or w.loops > 1:
        return
    w.loops += 1
    head, out = w.label(), w.label()
    before = dict(w.registers)
    held = {register for register, value in w.registers.items() if value.kind != SCALAR} - w.kept
    w.kept |= held
    w.place(head)
    w.emit(Insn(0xE5), out)
    w.depth += 1
    w.random.choice((arithmetic, reach, stack))(w)
    w.depth -= 1
    w.goto(head)
    w.place(out)
    w.kept -= held
    w.joined(before)
    w.used("may-goto")


FRAGMENTS: dict[Fragment, int] = {
    arithmetic: 6, condition: 5, linked: 3, stack: 5, stack_variable: 2, context_access: 3, packet: 4, reach: 4,
    reach_variable: 4, lookup: 4, update: 2, atomic: 2, loop: 2, function_call: 2, ring: 2, tail_call: 1,
    legacy_packet: 1, helper_call: 4, may_goto: 1,
}  # fmt: skip
assert set(ORDERS) == set(JUMP_CODES)


def body_fragment(w: Writer) -> None:
    """Any fragment, for the inside of a condition."""
    w.random.choices(list(FRAGMENTS), list(FRAGMENTS.values()))[0](w)
