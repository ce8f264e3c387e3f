"""Pieces of plausible programs that work on numbers, the context and the stack, and what decides and repeats."""

from __future__ import annotations

from bpflisp.spec import contexts
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    FRAME_POINTER,
    Op,
)
from tests.agreement.writer import CONTEXT, MEMORY, OTHER, SCALAR, Value, Writer

PLAIN_OPS = (Op.ADD, Op.SUB, Op.MUL, Op.AND, Op.OR, Op.XOR, Op.LSH, Op.RSH, Op.ARSH, Op.DIV, Op.MOD)


ORDERS = (Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.SGT, Op.SGE, Op.SLT, Op.SLE, Op.SET)


def scalar(w: Writer) -> int:
    """A register with a number; a new one where there is none, or now and then."""
    have = w.holding(SCALAR)
    if have and w.chance(0.75):
        return w.random.choice(have)
    kind = w.random.random()
    if kind < 0.4:
        w.call(8 if w.parts.repeatable else w.choice(7, 5, 8, 14))
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
    if w.parts.repeatable:
        # A part of a field that does not begin it: of fields that are shorter in the kernel, such as pkt_type, it
        # is what the field's first part is, and we do not follow that.
        places = [(off, size) for off, size in places if off % 4 == 0]
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
        w.parts.inside(w)
    if w.chance(0.3):
        end = w.label()
        w.goto(end)
        w.place(past)
        after, w.registers = w.registers, dict(before)
        w.parts.inside(w)
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


def loop(w: Writer) -> None:
    """A counted loop over fragments that work on numbers and memory."""
    if w.depth > 1 or w.loops > 2:
        return
    w.loops += 1
    counter = w.free(saved=True)
    w.constant(counter, 0)
    if w.parts.repeatable:
        w.registers[counter] = Value(OTHER)
    held = {register for register, value in w.registers.items() if value.kind != SCALAR} | {counter}
    fresh = held - w.kept
    w.kept |= held
    for register in w.holding(SCALAR):
        w.registers[register] = Value(SCALAR)
    head, before = w.label(), dict(w.registers)
    w.place(head)
    w.depth += 1
    for _ in range(w.choice(1, 2)):
        w.random.choice((arithmetic, arithmetic, stack, condition, w.parts.inside_loop))(w)
    w.depth -= 1
    w.alu(Op.ADD, counter, w.choice(1, 1, 2))
    limit = w.choice(2, 4, 8, 20) if w.depth == 0 and w.loops == 1 else w.choice(2, 3)
    if w.parts.repeatable:
        # Every one of many cases runs it, and a verifier that goes round a million times is asked for nothing.
        w.jump(Op.LT, counter, head, imm=w.choice(2, 3, 4))
    elif w.chance(0.8):
        w.jump(w.random.choice((Op.LT, Op.NE, Op.SLT, Op.LE)), counter, head, imm=limit)
    else:
        w.jump(Op.LT, counter, head, src=bounded(w, limit))
    w.kept -= fresh
    w.joined(before)
    w.used("loops")


def may_goto(w: Writer) -> None:
    """A loop that the kernel itself ends."""
    if w.depth > 1 or w.loops > 1:
        return
    w.loops += 1
    head, out = w.label(), w.label()
    before = dict(w.registers)
    held = {register for register, value in w.registers.items() if value.kind != SCALAR} - w.kept
    counter = w.free(saved=True) if w.parts.repeatable else -1
    if counter >= 0:
        # The kernel lets it go round for a quarter of a second: this one ends by itself before.
        w.constant(counter, 0)
        w.registers[counter] = Value(OTHER)
        held |= {counter} - w.kept
        before = dict(w.registers)
    w.kept |= held
    w.place(head)
    w.emit(Insn(0xE5), out)
    w.depth += 1
    w.random.choice((arithmetic, w.parts.inside_loop, stack))(w)
    w.depth -= 1
    if counter >= 0:
        w.alu(Op.ADD, counter, 1)
        w.jump(Op.LT, counter, head, imm=w.choice(1, 3, 20))
    else:
        w.goto(head)
    w.place(out)
    w.kept -= held
    w.joined(before)
    w.used("may-goto")
