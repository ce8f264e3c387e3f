"""Pieces of plausible programs with objects that the kernel manages: locks, timers, work, objects, lists, trees."""

from __future__ import annotations

from bpflisp.spec.isa import Op
from tests.agreement import types
from tests.agreement.fragments_kernel import at_stack, inside, may_call
from tests.agreement.fragments_memory import key_on_stack
from tests.agreement.fragments_numbers import arithmetic
from tests.agreement.writer import CONTEXT, OTHER, Callee, Value, Writer

_TRACING = frozenset({"tracing", "kprobe", "tracepoint", "raw_tracepoint", "perf_event", "socket_filter"})


def _may_hold(w: Writer) -> bool:
    """Whether maps of such a program may have locks, timers and lists; now and then it is not asked."""
    return w.parts.type not in _TRACING or w.chance(0.03)


def _looked_up(w: Writer, value: str, kind: str = "hash") -> int:
    """A register that points to a value with managed fields."""
    w.parts.typed = True
    index = w.new_map(types.typed_map(w.random.choice((kind, "hash", "array")), value))
    key_on_stack(w, 2, 4)
    w.load_map(1, index)
    w.call(1)
    w.registers[0] = Value(OTHER)
    if w.chance(0.97):
        w.jump(Op.EQ, 0, w.fail, imm=0)
    kept = w.save(0)
    w.registers[kept] = Value(OTHER)
    w.kept.add(kept)
    w.indexes[kept] = index
    return kept


def _done(w: Writer, register: int) -> None:
    w.kept.discard(register)
    w.registers.pop(register, None)


def _address(w: Writer, register: int, base: int, off: int) -> None:
    w.move(register, base)
    if off:
        w.alu(Op.ADD, register, off)
    w.registers[register] = Value(OTHER)


def _touch(w: Writer, base: int, *places: int) -> None:
    """A load or store of one of the numbers there; now and then of what is managed."""
    off = w.random.choice(places) if w.chance(0.95) else 8 * w.random.randrange(6)
    if w.chance(0.5):
        w.load(w.free(but=(base,)), base, off, 8)
    else:
        w.store(base, off, 8, imm=w.number())


def spin_lock(w: Writer) -> None:
    """A lock in a map's value, taken and given back."""
    if w.depth > 1 or not _may_hold(w):
        return
    value = _looked_up(w, "spin")
    _address(w, 1, value, 0 if w.chance(0.97) else 8)
    w.call(93)
    for _ in range(w.choice(0, 1, 2)):
        _touch(w, value, 8) if w.chance(0.95) else inside(w)
    if w.chance(0.93):
        _address(w, 1, value, 0)
        w.call(94)
    _done(w, value)
    w.used("locks")


def resilient_lock(w: Writer) -> None:
    """A lock that may not be had, with or without interrupts off, perhaps two of them."""
    irq = w.chance(0.4)
    suffixes = ("_irqsave", "_irqrestore") if irq else ("", "")
    if not may_call(w, "bpf_res_spin_lock") or w.depth > 1:
        return
    value = _looked_up(w, "resilient")
    off = -8 * w.choice(18, 19)
    past = w.label()
    _address(w, 1, value, 8)
    if irq:
        at_stack(w, 2, off, 8)
    w.call_kernel(f"bpf_res_spin_lock{suffixes[0]}")
    if w.chance(0.93):
        w.jump(Op.NE, 0, past, imm=0)
    w.depth += 1
    if w.chance(0.08):
        resilient_lock(w)
    else:
        _touch(w, value, 0)
    w.depth -= 1
    _address(w, 1, value, 8)
    if irq:
        at_stack(w, 2, off, 8)
    if w.chance(0.93):
        w.call_kernel(f"bpf_res_spin_unlock{suffixes[1] if w.chance(0.95) else ''}")
    _done(w, value)
    _forget(w)
    w.place(past)
    w.used("resilient-locks")


def _forget(w: Writer) -> None:
    """Where ways meet that did different things, the context alone is known."""
    w.registers = {number: value for number, value in w.registers.items() if value.kind == CONTEXT and number > 5}
    w.stack.clear()


def timer(w: Writer) -> None:
    """A timer in a map's value: initialised, given a function, started."""
    if len(w.parts.functions) >= 3 or w.depth > 1 or not _may_hold(w):
        return
    value = _looked_up(w, "timer")
    for step in w.random.choice(((0, 1, 2), (0, 1), (1, 2), (0, 2), (3,))):
        _address(w, 1, value, 8 if w.chance(0.97) else 0)
        if step == 0:
            w.load_map(2, w.indexes[value])
            w.constant(3, w.choice(0, 1, 7))
            w.call(169)
        elif step == 1:
            w.load_function(2, _later(w))
            w.call(170)
        elif step == 2:
            w.constant(2, 1000)
            w.constant(3, 0)
            w.call(171)
        else:
            w.call(172)
    _done(w, value)
    w.used("timers")


def _later(w: Writer) -> int:
    """A function that is called later, with a map, a key and a value."""
    label = w.label()
    given = {1: Value(OTHER), 2: Value(OTHER), 3: Value(OTHER)}
    w.parts.functions.append(Callee(label, given, callback=True, later=True))
    return label


def work(w: Writer) -> None:
    """Work that is left for later."""
    if not may_call(w, "bpf_wq_init") or len(w.parts.functions) >= 3 or w.depth > 1 or not _may_hold(w):
        return
    value = _looked_up(w, "queue")
    for step in w.random.choice(((0, 1, 2), (0, 1), (1, 2), (0, 2))):
        _address(w, 1, value, 0 if w.chance(0.97) else 8)
        if step == 0:
            w.load_map(2, w.indexes[value])
            w.constant(3, 0)
            w.call_kernel("bpf_wq_init")
        elif step == 1:
            w.load_function(2, _later(w))
            w.constant(3, 0)
            w.constant(4, 0)
            w.call_kernel("bpf_wq_set_callback_impl")
        else:
            w.constant(2, 0)
            w.call_kernel("bpf_wq_start")
    w.registers.pop(0, None)
    _done(w, value)
    w.used("work-queues")


def _new(w: Writer, name: str) -> int:
    """A register that owns a new object; what fails to be had leaves the program."""
    w.parts.typed = True
    known = types.types().ids
    w.constant(1, known[name] if w.chance(0.98) else known["key"])
    w.constant(2, 0)
    w.call_kernel("bpf_obj_new_impl")
    if w.chance(0.97):
        w.jump(Op.EQ, 0, w.fail, imm=0)
    kept = w.save(0)
    w.registers[kept] = Value(OTHER)
    w.kept.add(kept)
    return kept


def _drop(w: Writer, register: int) -> None:
    w.move(1, register)
    w.constant(2, 0)
    w.call_kernel("bpf_obj_drop_impl")


_NUMBERS = {"plain_one": (0, 8), "list_one": (0, 32), "tree_one": (0, 40), "counted_one": (0, 72)}


def allocated(w: Writer) -> None:
    """An object that the program allocates: read and written, then given back, or not."""
    if not may_call(w, "bpf_obj_new_impl") or w.depth > 0:
        return
    name = w.random.choice(list(types.OBJECTS))
    one = _new(w, name)
    for _ in range(w.choice(0, 1, 2)):
        _touch(w, one, *_NUMBERS[name])
    if w.chance(0.3):
        arithmetic(w)
    second = _counted(w, one) if name == "counted_one" and w.chance(0.5) else -1
    if w.chance(0.95):
        _drop(w, one)
    if w.chance(0.1):
        _touch(w, one, *_NUMBERS[name])
    if second >= 0:
        _drop(w, second)
        _done(w, second)
    _done(w, one)
    w.registers.pop(0, None)
    w.used("objects")


def _counted(w: Writer, one: int) -> int:
    w.move(1, one)
    w.constant(2, 0)
    w.call_kernel("bpf_refcount_acquire_impl")
    second = w.save(0)
    w.registers[second] = Value(OTHER)
    w.kept.add(second)
    return second


def kept(w: Writer) -> None:
    """An object exchanged for what a map's value keeps, or what it keeps looked at."""
    if not may_call(w, "bpf_obj_new_impl") or w.depth > 0:
        return
    value = _looked_up(w, "kept")
    past = w.label()
    if w.chance(0.35):
        dst = w.free(but=(value,), saved=True)
        w.load(dst, value, w.choice(0, 0, 8, 16), 8)
        w.registers[dst] = Value(OTHER)
        if w.chance(0.9):
            w.jump(Op.EQ, dst, past, imm=0)
        _touch(w, dst, 0, 8)
    else:
        one = _new(w, w.random.choice(("plain_one",) * 14 + ("list_one",)))
        _address(w, 1, value, 0 if w.chance(0.94) else w.choice(8, 16, 4))
        w.move(2, one)
        w.call(194)
        w.registers[0] = Value(OTHER)
        if w.chance(0.95):
            w.jump(Op.EQ, 0, past, imm=0)
        _drop(w, 0) if w.chance(0.95) else None
        _done(w, one)
    _done(w, value)
    _forget(w)
    w.place(past)
    w.used("kptrs")


def listed(w: Writer) -> None:
    """An object put into a list or a tree under its lock, or taken out of one."""
    if not may_call(w, "bpf_rbtree_add_impl") or w.depth > 0 or len(w.parts.functions) >= 3 or not _may_hold(w):
        return
    counted = w.chance(0.4)
    name = "counted_one" if counted else w.random.choice(("list_one", "tree_one"))
    in_list = name == "list_one" or (counted and w.chance(0.5))
    one = _new(w, name) if w.chance(0.6) else -1
    value = _looked_up(w, "counted" if counted else "roots")
    _address(w, 1, value, 0)
    if w.chance(0.96):
        w.call(93)
    node = types.NODES[name][0 if in_list else -1]
    if one >= 0:
        _put(w, value, one, node, in_list)
        if w.chance(0.4):
            _touch(w, one, *_NUMBERS[name])
        _unlock(w, value)
        if w.chance(0.1):
            _touch(w, one, *_NUMBERS[name])
        _done(w, one)
    else:
        _take(w, value, node, in_list)
    _done(w, value)
    _forget(w)
    w.used("lists-and-trees")


def _unlock(w: Writer, value: int) -> None:
    if w.chance(0.96):
        _address(w, 1, value, 0)
        w.call(94)


def _put(w: Writer, value: int, one: int, node: int, in_list: bool) -> None:
    _address(w, 1, value, 8 if in_list else 24)
    _address(w, 2, one, node if w.chance(0.96) else 0)
    if in_list:
        w.constant(3, 0)
        w.constant(4, 0)
        w.call_kernel(w.random.choice(("bpf_list_push_front_impl", "bpf_list_push_back_impl")))
        return
    label = w.label()
    w.parts.functions.append(Callee(label, {1: Value(OTHER), 2: Value(OTHER)}, callback=True))
    w.load_function(3, label)
    w.constant(4, 0)
    w.constant(5, 0)
    w.call_kernel("bpf_rbtree_add_impl")


_TREE_LOOKS = ("bpf_rbtree_first", "bpf_rbtree_root")
_LIST_LOOKS = ("bpf_list_pop_front", "bpf_list_pop_back", "bpf_list_front", "bpf_list_back")


def _take(w: Writer, value: int, node: int, in_list: bool) -> None:
    """What is first is looked at; out of a tree it is taken; then it is given back."""
    past, name = w.label(), w.random.choice(_LIST_LOOKS if in_list else _TREE_LOOKS)
    _address(w, 1, value, 8 if in_list else 24)
    w.call_kernel(name)
    found = w.save(0)
    w.registers[found] = Value(OTHER)
    w.kept.add(found)
    owned = "pop" in name
    if owned and w.chance(0.95):
        _unlock(w, value)
    none = w.label()
    w.jump(Op.EQ, found, past if owned else none, imm=0)
    if not in_list and w.chance(0.7):
        _address(w, 1, value, 24)
        w.move(2, found)
        remove = w.chance(0.7)
        w.call_kernel("bpf_rbtree_remove" if remove else w.random.choice(("bpf_rbtree_left", "bpf_rbtree_right")))
        w.move(found, 0)
        owned = remove
        if not remove:
            w.jump(Op.EQ, found, none, imm=0)
    if not owned:
        w.load(w.free(but=(found, value)), found, -node, 8)
        w.place(none)
        _unlock(w, value)
    else:
        if not in_list:
            _unlock(w, value)
            w.jump(Op.EQ, found, past, imm=0)
        w.alu(Op.SUB, found, node)
        if w.chance(0.95):
            _drop(w, found)
        over = w.label()
        w.goto(over)
        w.place(none)
        _unlock(w, value)
        w.place(over)
    w.place(past)
    _done(w, found)
