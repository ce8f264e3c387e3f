"""Pieces of plausible programs that call kernel functions: sections, iterators, dynptrs, typed pointers, exceptions."""

from __future__ import annotations

from bpflisp.spec import kfuncs
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import FRAME_POINTER, Op
from simulator.program import MapDef
from tests.agreement.fragments_memory import lookup, reach
from tests.agreement.fragments_numbers import arithmetic, condition, scalar, stack
from tests.agreement.writer import CONTEXT, MEMORY, OTHER, SCALAR, Callee, Value, Writer


def may_call(w: Writer, *names: str) -> bool:
    """Whether the program may call all of these kernel functions; now and then it is not asked."""
    allowed = kfuncs.allowed(w.parts.type, w.parts.attach_type)
    return allowed is None or w.chance(0.02) or all(name in allowed for name in names)


def at_stack(w: Writer, register: int, off: int, size: int) -> None:
    """`register` points to a part of the stack that is another's from now on."""
    w.move(register, FRAME_POINTER)
    w.alu(Op.ADD, register, off)
    w.registers[register] = Value(OTHER)
    for slot in range(off // 8 * 8, off + size, 8):
        w.stack.pop(slot, None)


def inside(w: Writer) -> None:
    """Something small, inside of a section."""
    for _ in range(w.choice(0, 1, 1, 2)):
        w.random.choice((arithmetic, arithmetic, stack, reach, condition) if w.depth < 2 else (arithmetic, reach))(w)


_SECTIONS = (("bpf_rcu_read_lock", "bpf_rcu_read_unlock"), ("bpf_preempt_disable", "bpf_preempt_enable"))


def section(w: Writer, preempt: bool = False) -> None:
    """An RCU read-side section, or one that is not preempted, perhaps with another inside."""
    opens, closes = _SECTIONS[1] if preempt and w.chance(0.9) else w.random.choice(_SECTIONS)
    if not may_call(w, opens) or w.depth > 2:
        return
    w.call_kernel(opens)
    w.registers.pop(0, None)
    w.depth += 1
    section(w, preempt=True) if w.chance(0.25) else inside(w)
    w.depth -= 1
    if w.chance(0.93):
        w.call_kernel(closes)
        w.registers.pop(0, None)
    w.used("sections")


def interrupts(w: Writer) -> None:
    """A section with interrupts off, whose flags live on the stack."""
    if not may_call(w, "bpf_local_irq_save"):
        return
    off = -8 * w.choice(9, 10, 11)
    at_stack(w, 1, off, 8)
    w.call_kernel("bpf_local_irq_save")
    w.registers.pop(0, None)
    w.depth += 1
    interrupts(w) if w.depth < 3 and w.chance(0.2) else inside(w)
    w.depth -= 1
    if w.chance(0.93):
        at_stack(w, 1, off if w.chance(0.95) else off - 8, 8)
        w.call_kernel("bpf_local_irq_restore")
        w.registers.pop(0, None)
    w.used("irq")


def iterator(w: Writer) -> None:
    """A loop over numbers that an iterator on the stack gives."""
    if not may_call(w, "bpf_iter_num_new") or w.depth > 1 or w.loops > 2:
        return
    w.loops += 1
    off = -8 * w.choice(12, 13)
    at_stack(w, 1, off, 8)
    w.constant(2, w.choice(0, 0, 1, -3))
    w.constant(3, w.choice(0, 3, 10, 1000000))
    w.call_kernel("bpf_iter_num_new")
    w.registers.pop(0, None)
    head, out = w.label(), w.label()
    held = {register for register, value in w.registers.items() if value.kind != SCALAR} - w.kept
    w.kept |= held
    before = dict(w.registers)
    w.place(head)
    at_stack(w, 1, off, 8)
    w.call_kernel("bpf_iter_num_next")
    w.jump(Op.EQ, 0, out, imm=0) if w.chance(0.95) else None
    w.load(w.free(but=(0,)), 0, 0, w.choice(4, 4, 4, 2, 8))
    w.registers[0] = Value(MEMORY, 4)
    w.depth += 1
    for _ in range(w.choice(0, 1, 2)):
        w.random.choice((arithmetic, stack, reach, condition, lookup))(w)
    w.depth -= 1
    w.goto(head)
    w.place(out)
    w.kept -= held
    w.registers = {number: value for number, value in before.items() if number > 5}
    w.stack.clear()
    at_stack(w, 1, off, 8)
    if w.chance(0.95):
        w.call_kernel("bpf_iter_num_destroy")
        w.registers.pop(0, None)
    w.used("iterators")


def tasks(w: Writer) -> None:
    """A loop over tasks, whose fields are read."""
    if not may_call(w, "bpf_iter_task_new") or w.depth > 0 or w.loops > 1:
        return
    w.loops += 1
    off = -8 * 16
    guarded = w.chance(0.85)
    if guarded:
        w.call_kernel("bpf_rcu_read_lock")
    at_stack(w, 1, off, 24)
    w.constant(2, 0)
    w.constant(3, w.choice(0, 1, 2, 7))
    w.call_kernel("bpf_iter_task_new")
    head, out = w.label(), w.label()
    w.registers = {number: value for number, value in w.registers.items() if number > 5}
    w.place(head)
    at_stack(w, 1, off, 24)
    w.call_kernel("bpf_iter_task_next")
    w.jump(Op.EQ, 0, out, imm=0)
    field(w, 0)
    w.goto(head)
    w.place(out)
    w.stack.clear()
    at_stack(w, 1, off, 24)
    w.call_kernel("bpf_iter_task_destroy")
    if guarded and w.chance(0.95):
        w.call_kernel("bpf_rcu_read_unlock")
    w.registers.pop(0, None)
    w.used("iterators")


def field(w: Writer, pointer: int) -> None:
    """A load through a typed pointer, and perhaps through what that gives."""
    for _ in range(w.choice(1, 1, 2, 3)):
        dst = w.free(but=(pointer,), saved=w.chance(0.5))
        w.load(dst, pointer, w.random.randrange(0, 3000) // 8 * 8, w.choice(8, 8, 8, 4))
        w.registers[dst] = Value(OTHER)
        if w.chance(0.4):
            w.jump(Op.EQ, dst, w.fail, imm=0)
        pointer = dst
    if w.chance(0.08):
        w.store(pointer, 8 * w.random.randrange(40), 8, imm=0)
    w.registers.pop(pointer, None)
    w.used("typed-pointers")


def task(w: Writer) -> None:
    """The task under way, or one that is found by its number and given back."""
    if w.chance(0.5):
        w.call(158)  # bpf_get_current_task_btf
        w.registers[0] = Value(OTHER)
        kept = w.save(0)
        field(w, kept)
        w.registers.pop(kept, None)
        return
    if not may_call(w, "bpf_task_from_pid"):
        return
    w.constant(1, w.choice(1, 1, 7))
    w.call_kernel("bpf_task_from_pid")
    past = w.label()
    if w.chance(0.95):
        w.jump(Op.EQ, 0, past, imm=0)
    found = w.save(0)
    w.registers[found] = Value(OTHER)
    w.kept.add(found)
    if w.chance(0.5):
        field(w, found)
    w.kept.discard(found)
    w.move(1, found)
    if w.chance(0.93):
        w.call_kernel("bpf_task_release")
    w.registers = {6: Value(CONTEXT)} if 6 in w.kept else {}
    w.place(past)
    w.used("references")


def dynptr(w: Writer) -> None:
    """A dynptr of a record, of a map's value or of a packet: made, read, written, sliced, and given back."""
    off = -8 * w.choice(15, 17)
    kind = w.random.choice(("record", "record", "value", "packet"))
    if kind == "record":
        index = w.new_map(MapDef("", "ringbuf", 0, 0, 4096))
        w.load_map(1, index)
        w.constant(2, w.choice(8, 16, 64))
        w.constant(3, 0)
        at_stack(w, 4, off, 16)
        w.call(198)
    elif kind == "value":
        index = w.new_map(MapDef("", "array", 4, 64, 1))
        w.load_map_value(1, index, 0)
        w.constant(2, w.choice(8, 32, 64, 65))
        w.constant(3, 0)
        at_stack(w, 4, off, 16)
        w.call(197)
    elif not _packet_dynptr(w, off):
        return
    for _ in range(w.choice(0, 1, 1, 2)):
        w.random.choice((_dynptr_data, _dynptr_copy, _dynptr_slice))(w, off)
    if w.chance(0.05):
        w.store(FRAME_POINTER, off + w.choice(0, 8), 8, imm=0)
    if kind == "record" and w.chance(0.92):
        at_stack(w, 1, off, 16)
        w.constant(2, 0)
        w.call(w.choice(199, 200))
        w.registers.pop(0, None)
    w.used("dynptrs")


def _packet_dynptr(w: Writer, off: int) -> bool:
    name = "bpf_dynptr_from_xdp" if w.parts.type == "xdp" else "bpf_dynptr_from_skb"
    sources = w.holding(CONTEXT)
    if not sources or not may_call(w, name):
        return False
    w.move(1, w.random.choice(sources))
    w.constant(2, 0)
    at_stack(w, 3, off, 16)
    w.call_kernel(name)
    w.registers[0] = Value(SCALAR)
    return True


def _dynptr_data(w: Writer, off: int) -> None:
    at_stack(w, 1, off, 16)
    w.constant(2, w.choice(0, 0, 8))
    size = w.choice(4, 8, 16)
    w.constant(3, size)
    w.call(203)
    w.registers[0] = Value(OTHER)
    if w.chance(0.9):
        w.jump(Op.EQ, 0, w.fail if w.chance(0.1) else _past(w), imm=0)
    w.registers[0] = Value(MEMORY, size)
    reach(w)
    _meet(w)


def _past(w: Writer) -> int:
    label = w.label()
    w.pasts.append(label)
    return label


def _meet(w: Writer) -> None:
    """Where the ways past a test for null meet: little is known there."""
    if not w.pasts:
        return
    w.registers = {number: value for number, value in w.registers.items() if value.kind == CONTEXT}
    w.stack.clear()
    while w.pasts:
        w.place(w.pasts.pop())


def _dynptr_copy(w: Writer, off: int) -> None:
    """bpf_dynptr_read or bpf_dynptr_write of some stack."""
    for at in (0, 8):
        w.store(FRAME_POINTER, -160 + at, 8, imm=0)
    if w.chance(0.5):
        w.move(1, FRAME_POINTER)
        w.alu(Op.ADD, 1, -160)
        w.constant(2, w.choice(4, 8, 16))
        at_stack(w, 3, off, 16)
        w.constant(4, 0)
        w.constant(5, 0)
        w.call(201)
        return
    at_stack(w, 1, off, 16)
    w.constant(2, 0)
    w.move(3, FRAME_POINTER)
    w.alu(Op.ADD, 3, -160)
    w.constant(4, w.choice(4, 8, 16, 17))
    w.constant(5, 0)
    w.call(202)


def _dynptr_slice(w: Writer, off: int) -> None:
    name = w.random.choice(("bpf_dynptr_slice", "bpf_dynptr_slice", "bpf_dynptr_slice_rdwr"))
    at_stack(w, 1, off, 16)
    w.constant(2, 0)
    at_stack(w, 3, -176, 16)
    if w.chance(0.3):
        w.constant(3, 0)
    w.constant(4, w.choice(8, 16, 14))
    w.call_kernel(name)
    if w.chance(0.9):
        w.jump(Op.EQ, 0, _past(w), imm=0)
    w.registers[0] = Value(MEMORY, 8)
    reach(w)
    _meet(w)


def throw(w: Writer) -> None:
    """An exception, on one way."""
    if not may_call(w, "bpf_throw") or w.depth > 2:
        return
    past = w.label()
    w.jump(Op.NE, scalar(w), past, imm=w.number())
    w.constant(1, w.choice(0, 0, 1, 7))
    w.call_kernel("bpf_throw")
    w.place(past)
    w.registers = {number: value for number, value in w.registers.items() if number > 5}
    w.used("exceptions")


def global_call(w: Writer) -> None:
    """A call of a global function, which is verified by itself."""
    if len(w.parts.functions) >= 3 or w.depth > 2:
        return
    count = w.choice(0, 1, 2, 3)
    for register in range(1, count + 1):
        w.constant(register, w.number()) if w.chance(0.95) else w.move(register, FRAME_POINTER)
        w.kept.add(register)
    w.kept -= {1, 2, 3}
    label = w.label()
    given = {register: Value(SCALAR) for register in range(1, count + 1)}
    w.parts.functions.append(Callee(label, given, is_global=True))
    w.parts.typed = True
    w.call_function(label)
    w.used("global-functions")


def arena(w: Writer) -> None:
    """Pages of an arena, reached after their address is cast."""
    if not may_call(w, "bpf_arena_alloc_pages") or (w.parts.type != "syscall" and w.chance(0.9)):
        return
    index = w.new_map(MapDef("", "arena", 0, 0, 10, flags=1 << 10))
    w.load_map(1, index)
    w.constant(2, 0)
    w.constant(3, w.choice(1, 2))
    w.constant(4, -1)
    w.constant(5, 0)
    w.call_kernel("bpf_arena_alloc_pages")
    dst = w.free(but=(0,), saved=True)
    w.emit(Insn(0xBF, dst, 0, 1, w.choice(1, 1, 1, 1 << 16)))
    if w.chance(0.5):
        w.alu(Op.ADD, dst, src=scalar(w))
    if w.chance(0.5):
        w.store(dst, w.choice(0, 8, 4096), w.choice(1, 4, 8), imm=5)
    w.load(w.free(but=(dst,)), dst, w.choice(0, 8, -8), w.choice(1, 2, 4, 8))
    w.registers.pop(dst, None)
    w.registers.pop(0, None)
    w.used("arenas")


_NOT_BY_THEMSELVES = ("bpf_wq_", "bpf_task_work_", "bpf_throw", "__bpf_trap")


def any_call(w: Writer) -> None:
    """A call of any kernel function that the program may call, with arguments that are of about the right kind."""
    allowed = sorted(kfuncs.allowed(w.parts.type, w.parts.attach_type) or ())
    names = [name for name in allowed if not name.startswith(_NOT_BY_THEMSELVES)]
    found = kfuncs.by_name(w.random.choice(names)) if names else None
    if found is None or found.args is None or len(found.args) > 5:
        return
    spot = 200
    for register, arg in enumerate(found.args, 1):
        if not arg.type.endswith("*"):
            w.constant(register, w.choice(0, 0, 1, 4, 8, 8, 16, -1))
        elif w.holding(CONTEXT) and any(word in arg.type for word in ("sk_buff", "xdp", "_md", "_kern")):
            w.move(register, w.random.choice(w.holding(CONTEXT)))
        else:
            spot += 24
            _pointer_argument(w, register, -spot, arg)
        w.kept.add(register)
    w.kept -= {1, 2, 3, 4, 5}
    w.call_kernel(found.name)
    if not (found.ret or "").endswith("*"):
        w.registers[0] = Value(SCALAR)
    elif w.chance(0.5):
        w.jump(Op.EQ, 0, w.fail, imm=0)
        w.load(w.free(but=(0,)), 0, w.choice(0, 0, 8), w.choice(4, 8))
    w.used("kernel-functions")


def _pointer_argument(w: Writer, register: int, off: int, arg: kfuncs.KfuncArg) -> None:
    if "map" in arg.name and w.chance(0.8):
        w.load_map(register, w.new_map(MapDef("", "array", 4, 8, 1)))
    elif w.chance(0.12):
        w.constant(register, 0)
    elif "task" in arg.type and w.chance(0.7) and register == 1:
        w.call(158)
        w.move(1, 0)
    elif w.holding(MEMORY) and w.chance(0.2):
        w.move(register, w.random.choice(w.holding(MEMORY)))
    else:
        if w.chance(0.8):
            for at in (0, 8, 16):
                w.store(FRAME_POINTER, off + at, 8, imm=0)
        at_stack(w, register, off, 24)
